"""How models, prompts and edits are spelled in Python and in a shell, from a record of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

from microtome.edits import Edit
from microtome.edits.values import Values
from microtome.errors import listing

TAB = "    "
WIDTH = 88
PLAIN = (str, int, float, bool, Values)
ANSWERED = ("target", "contrast", "donor")
"""A prompt's fields besides its text that are options of the command line."""


def flag(name: str, value: str) -> str:
    """An option with its value, in one word where the value looks like an option."""
    joint = "=" if value.startswith("-") else " "
    return f"{name}{joint}{shlex.quote(value)}"


SAYABLE = ("dtype", "device", "revision", "attn_implementation")
"""Options of `load` that the command line and a file have words for."""


def opening(record: Mapping[str, Any]) -> list[str]:
    """Lines of Python that load the model of a record."""
    model = record["model"]
    lines = ["import microtome as mt", ""]
    if _in_memory(record):
        kind = f"{model['architecture']}, {model['dtype']}"
        kind += f", on {model['device']}" if "device" in model else ""
        lines += [
            f"# hf: the model that was given in memory ({kind}), which has no files of its own;",
            "# tokenizer: its tokenizer.",
            "model = mt.load(hf, tokenizer=tokenizer)",
        ]
    else:
        given = loaded(record)
        if "attention" in given:
            given["attn_implementation"] = given.pop("attention")
        named = [f"{name}={quoted(value)}" for name, value in given.items()]
        more = _more(record)
        named += [f"{name}={value}" for name, value in more.items()]
        if "tokenizer" in more:
            lines.append("# tokenizer: the one that was given in the place of the model's own.")
        lines += [f"# {line}" for line in source_of(model)]
        lines.append(f"model = mt.load({', '.join(named).removeprefix('name=')})")
    if "loaded" in model:  # An older record's hash is the one at the time of its first sweep.
        lines.append(f"assert model.weight_hash == {quoted(model['weight_hash'])}")
    if model.get("additions"):
        lines += [
            "# What was on the model besides, which no text brings back; put it there first:",
            f"assert [str(one) for one in model.additions] == {model['additions']!r}",
        ]
    if model.get("adapters"):
        lines.append(f"# Its adapters were set so: {listing(model['adapters']['states'])}")
    return lines


def source_of(model: Mapping[str, Any]) -> list[str]:
    """Which packed file a model's record names, in words; nothing where it names none."""
    source = model.get("source")
    if source is None:
        return []
    package = f" of the package {source['package']}" if source["package"] else ""
    packed = ", ".join(source["types"])
    return [f"unpacked from {source['file']} ({packed}){package},", f"sha256 {source['sha256']}"]


def loaded(record: Mapping[str, Any]) -> dict[str, str]:
    """The model's name and how it was loaded, as the command line and a file say it."""
    model = record["model"]
    asked = model.get("asked", {})
    found = {"name": model["name"]}
    if len(model.get("dtypes", [])) < 2 and not model.get("quantization"):
        found["dtype"] = model["dtype"]
    elif "dtype" in asked:
        found["dtype"] = asked["dtype"]
    if "device" in model and not model.get("device_map"):
        found["device"] = model["device"]
    if model.get("revision"):
        found["revision"] = model["revision"]
    if model.get("attention") not in (None, "None", "sdpa"):
        found["attention"] = model["attention"]
    return found


def _more(record: Mapping[str, Any]) -> dict[str, str]:
    """What else `load` was told, which moves numbers or places, as Python."""
    asked = record["model"].get("asked", {})
    more = {name: value for name, value in asked.items() if name not in SAYABLE}
    return {name: name if name == "tokenizer" else repr(value) for name, value in more.items()}


def _in_memory(record: Mapping[str, Any]) -> bool:
    """Whether the model was given as a module: what it is called is not where it lies.

    Of an older record, whether its class stands for a name that it has not.
    """
    model = record["model"]
    if "loaded" in model:
        return bool(model["loaded"] != "from files")
    return bool(model["name"] == model["architecture"])


def is_sayable(record: Mapping[str, Any]) -> bool:
    """Whether the command line and a file can say how the model was loaded."""
    plain = not _in_memory(record) and not record["model"].get("additions")
    return plain and not _more(record)


def prompts(several: Sequence[Mapping[str, Any]]) -> str:
    """Prompts from their fields, as a list in Python."""
    if len(several) == 1:
        return f"[{prompt(several[0])}]"
    return "[\n" + "".join(indent(f"{prompt(one)},\n", TAB) for one in several) + "]"


def prompt(fields: Mapping[str, Any]) -> str:
    """A prompt from its fields, in Python."""
    named = [
        f"{name}={_roles(value) if name in ('roles', 'meta') else _plain(value)}"
        for name, value in fields.items()
        if name != "text"
    ]
    arguments = [quoted(fields["text"]), *named] if "text" in fields else named
    line = f"mt.Prompt({', '.join(arguments)})"
    if len(line) <= WIDTH:
        return line
    return "mt.Prompt(\n" + "".join(f"{TAB}{argument},\n" for argument in arguments) + ")"


def _plain(value: object) -> str:
    """A text in double quotes; numbers and lists as Python writes them."""
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return f"[{', '.join(map(_plain, value))}]"
    return quoted(value) if isinstance(value, str) else repr(value)


def _roles(roles: Mapping[str, Any]) -> str:
    # JSON has made lists of the pairs.
    return repr(
        {n: tuple(place) if isinstance(place, list) else place for n, place in roles.items()}
    )


def edit(one: Edit) -> str:
    """An edit in Python: by its own name where its parameters can be written out."""
    values = {f: getattr(one, f.name) for f in one.parameters()}
    if not all(isinstance(value, PLAIN) for value in values.values()):
        return f"mt.edit({quoted(str(one))})"
    changed = [f"{f.name}={_literal(value)}" for f, value in values.items() if value != f.default]
    return f"mt.{one.name}({', '.join([quoted(str(one.address)), *changed])})"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    return str(value) if isinstance(value, Values) else repr(value)


def quoted(text: str) -> str:
    """A text in double quotes; JSON's escapes are Python's too."""
    return json.dumps(text, ensure_ascii=False)


def loading(record: Mapping[str, Any], taken: Sequence[str] | None = None) -> str:
    """The model on the command line: its name, and the options that say how it is loaded.

    Args:
        record: the record.
        taken: the options that the command takes; all, unless given.
    """
    given = loaded(record)
    words = [shlex.quote(given.pop("name"))]
    words += [
        flag(f"--{name}", value) for name, value in given.items() if taken is None or name in taken
    ]
    return " ".join(words)


def options(fields: Mapping[str, Any], taken: Sequence[str] = ANSWERED) -> str | None:
    """A prompt as options of the command line; None where it has fields that are no options.

    Args:
        fields: of the prompt.
        taken: those that the command takes besides the text; others say nothing to it.

    >>> options({"text": "It is", "target": " a", "donor": "-ism"})
    "-p 'It is' --target ' a' --donor=-ism"
    """
    if not {"text", *ANSWERED}.issuperset(fields) or "text" not in fields:
        return None
    name = "--prompt" if fields["text"].startswith("-") else "-p"
    more = {
        f"--{name}-id" if isinstance(value, int) else f"--{name}": str(value)
        for name, value in fields.items()
        if name in taken
    }
    return " ".join(
        [flag(name, fields["text"]), *(flag(option, value) for option, value in more.items())]
    )


def file(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Shell that writes a file, a line of JSON for each row."""
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"cat > {name} <<'END'\n{lines}\nEND\n"
