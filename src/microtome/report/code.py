"""Code that repeats a sweep, or one of its cells, from the record of it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import indent
from typing import Any

from microtome.edits import Edit, Source, edit
from microtome.edits.values import Values
from microtome.errors import listing
from microtome.prompts.prompts import spelled
from microtome.results.effects import Effects
from microtome.sheets import dump

TAB = "    "
WIDTH = 88
PLAIN = (str, int, float, bool, Values)


def rerun(effects: Effects, cell: Mapping[str, Any]) -> str:
    """Python that runs one cell by itself.

    Args:
        effects: the sweep's.
        cell: its coordinates, ``prompt`` among them.

    Raises:
        EditError: an edit has no text that parses back (a function made on the spot).
    """
    record = effects.provenance
    spec = record["spec"]
    made = cell_edits(effects, cell)
    edits = ", ".join(map(_edit, made))
    reference = ""
    if any(e.source is Source.REFERENCE for e in made) and len(spec["prompts"]) > 1:
        others = spec["reference"] or spec["prompts"]
        reference = f", reference={_prompts(others)}"
    return "\n".join(
        [
            *_opening(record),
            f"prompt = {_prompt(spec['prompts'][cell['prompt']])}",
            f"run = model.run(prompt, edits=[{edits}]{reference})",
            "print(run.top(10))",
            "print(run.receipts)",
        ]
    )


def cell_edits(effects: Effects, cell: Mapping[str, Any]) -> list[Edit]:
    """The edits of one cell, without stars.

    Raises:
        EditError: one has no text that parses back.
    """
    spec = effects.provenance["spec"]
    # On its axis an array stands as a text; the record has its numbers.
    varied = {
        name: values[list(effects.data[name].values).index(cell[name])]
        for name, values in spec["over"].items()
    }
    stars = {name: int(cell[name]) for name in effects.dims if name not in ("prompt", *varied)}
    return [_with(edit(text), varied).at(**stars) for text in spec["edits"]]


def again_in_python(effects: Effects) -> str:
    """Python that repeats the sweep.

    Raises:
        EditError: an edit has no text that parses back.
    """
    record = effects.provenance
    spec = record["spec"]
    edits = [_edit(edit(text)) for text in spec["edits"]]
    arguments = [
        f"metrics=[{', '.join(map(_quoted, spec['metrics']))}]",
        *([f"over={spec['over']!r}"] if spec["over"] else []),
        *([f"reference={_prompts(spec['reference'])}"] if spec["reference"] else []),
        *([f"engine={_quoted(engine)}"] if (engine := _engine(record)) else []),
        *(
            f"{name}={_argument(value)}"
            for name, value in _settings(record).items()
            if name not in (WINDOW, AUDIT)
        ),
        *([f"audit={record[AUDIT]['asked']}"] if record.get(AUDIT) else []),
    ]
    window = record.get("stream", {}).get(WINDOW)
    given = "prompts" if window is None else f"mt.Stream(prompts, {window})"
    return "\n".join(
        [
            *_opening(record),
            f"prompts = {_prompts(spec['prompts'])}",
            "effects = mt.sweep(",
            "    model,",
            f"    {given},",
            f"    {edits[0] if len(edits) == 1 else '[' + ', '.join(edits) + ']'},",
            *(indent(f"{argument},", TAB) for argument in arguments),
            ")",
        ]
    )


def again_in_shell(effects: Effects) -> str | None:
    """A command that repeats the sweep; None where the command line cannot say it."""
    record = effects.provenance
    spec = record["spec"]
    if not _is_sayable(record):
        return None
    prompts = spec["prompts"]
    before, given = "", ""
    if len(prompts) == 1 and _FLAGGED.issuperset(prompts[0]) and "text" in prompts[0]:
        flags = {
            "text": "--prompt" if prompts[0]["text"].startswith("-") else "-p",
            **{name: f"--{name}" for name in ("target", "contrast", "donor")},
        }
        given = " ".join(
            _flag(flags[name] + ("-id" if isinstance(value, int) else ""), str(value))
            for name, value in prompts[0].items()
        )
    else:
        before, given = _file("prompts.jsonl", prompts), "--prompts prompts.jsonl"
    if spec["reference"]:
        before += _file("reference.jsonl", spec["reference"])
        given += " --reference reference.jsonl"
    loaded = _loaded(record)
    words = [
        before + "microtome sweep",
        shlex.quote(loaded.pop("name")),
        *(_flag(f"--{name}", value) for name, value in loaded.items()),
        given,
        *(f"-e {shlex.quote(text)}" for text in spec["edits"]),
        *(_flag("--over", _values(name, values)) for name, values in spec["over"].items()),
        *(f"-m {shlex.quote(name)}" for name in spec["metrics"]),
        *([f"--engine {engine}"] if (engine := _engine(record)) else []),
        *(_flag(f"--{name}", str(value)) for name, value in _settings(record).items()),
        "-o out",
    ]  # fmt: skip
    return " ".join(words)


def again_in_yaml(effects: Effects) -> str | None:
    """A file for ``microtome sweep --config``; None where it cannot say how to load the model.

    Raises:
        EditError: an edit has no text that parses back.
    """
    record = effects.provenance
    spec = record["spec"]
    if not _is_sayable(record):
        return None
    fields = {
        "model": _loaded(record),
        "prompts": [spelled(prompt) for prompt in spec["prompts"]],
        "edits": [str(edit(text)) for text in spec["edits"]],
        "metrics": spec["metrics"],
        **({"over": spec["over"]} if spec["over"] else {}),
        **({"reference": [*map(spelled, spec["reference"])]} if spec["reference"] else {}),
        **({"engine": engine} if (engine := _engine(record)) else {}),
        **_settings(record),
    }
    return "# microtome sweep --config experiment.yaml -o out\n" + dump(fields).rstrip("\n")


WINDOW = "window"
"""The setting of a sweep that read its prompts a window at a time."""

AUDIT = "audit"
"""Of an approximate map: how many cells are exact."""

_FLAGGED = frozenset(("text", "target", "contrast", "donor"))
"""A prompt's fields that are options of the command line."""


def _argument(value: int | str) -> str:
    return _quoted(value) if isinstance(value, str) else str(value)


def _engine(record: Mapping[str, Any]) -> str:
    """What computed the cells; empty where that is not known, or is said by the method."""
    if "engine" not in record or record.get("method", "exact") != "exact":
        return ""
    return str(record["engine"]["name"])


def _settings(record: Mapping[str, Any]) -> dict[str, int | str]:
    """The seed, and what else was set and might move a number."""
    found: dict[str, int | str] = {"seed": record["seed"]}
    if record.get("verify", 4) != 4:
        found["verify"] = record["verify"]
    if record.get("memory") is not None:
        found["memory"] = record["memory"]
    if record.get("screen"):
        found["screen"] = record["screen"]["dtype"]
        found["refine"] = record["screen"]["refined"]
    if record.get("stream"):
        found[WINDOW] = record["stream"][WINDOW]
    if record.get(AUDIT):
        found["method"] = record["method"]
        found[AUDIT] = record[AUDIT]["asked"]
        if refine := _refine(record[AUDIT]):
            found["refine"] = refine
    return found


def _refine(audit: Mapping[str, Any]) -> int | str:
    """How more cells are asked for; 0 where none were."""
    if audit.get("below") is not None:
        return f"below {audit['below']!r}"
    return int(audit.get("refine", 0))


def _file(name: str, prompts: Sequence[Mapping[str, Any]]) -> str:
    """Shell that writes prompts to a file."""
    lines = "\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)
    return f"cat > {name} <<'END'\n{lines}\nEND\n"


def _values(name: str, values: Sequence[Any]) -> str:
    """``factor=0.1,10``; words go without quotes where nothing else could be made of them."""
    bare = [isinstance(value, str) and re.fullmatch(r"[a-z]\w*", value) for value in values]
    shown = values if all(bare) else map(repr, values)
    return f"{name}={','.join(map(str, shown))}"


def _flag(flag: str, value: str) -> str:
    """An option with its value, in one word where the value looks like an option."""
    joint = "=" if value.startswith("-") else " "
    return f"{flag}{joint}{shlex.quote(value)}"


SAYABLE = ("dtype", "device", "revision", "attn_implementation")
"""Options of `load` that the command line and a file have words for."""


def _opening(record: Mapping[str, Any]) -> list[str]:
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
        given = _loaded(record)
        if "attention" in given:
            given["attn_implementation"] = given.pop("attention")
        named = [f"{name}={_quoted(value)}" for name, value in given.items()]
        more = _more(record)
        named += [f"{name}={value}" for name, value in more.items()]
        if "tokenizer" in more:
            lines.append("# tokenizer: the one that was given in the place of the model's own.")
        lines += [f"# {line}" for line in source_of(model)]
        lines.append(f"model = mt.load({', '.join(named).removeprefix('name=')})")
    if "loaded" in model:  # An older record's hash is the one at the time of its first sweep.
        lines.append(f"assert model.weight_hash == {_quoted(model['weight_hash'])}")
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


def _loaded(record: Mapping[str, Any]) -> dict[str, str]:
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


def _is_sayable(record: Mapping[str, Any]) -> bool:
    """Whether the command line and a file can say how the model was loaded."""
    plain = not _in_memory(record) and not record["model"].get("additions")
    return plain and not _more(record)


def _prompts(prompts: Sequence[Mapping[str, Any]]) -> str:
    if len(prompts) == 1:
        return f"[{_prompt(prompts[0])}]"
    return "[\n" + "".join(indent(f"{_prompt(p)},\n", TAB) for p in prompts) + "]"


def _prompt(fields: Mapping[str, Any]) -> str:
    named = [
        f"{name}={_roles(value) if name in ('roles', 'meta') else _plain(value)}"
        for name, value in fields.items()
        if name != "text"
    ]
    arguments = [_quoted(fields["text"]), *named] if "text" in fields else named
    line = f"mt.Prompt({', '.join(arguments)})"
    if len(line) <= WIDTH:
        return line
    return "mt.Prompt(\n" + "".join(f"{TAB}{argument},\n" for argument in arguments) + ")"


def _plain(value: object) -> str:
    """A text in double quotes; numbers and lists as Python writes them."""
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return f"[{', '.join(map(_plain, value))}]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _roles(roles: Mapping[str, Any]) -> str:
    # JSON has made lists of the pairs.
    return repr(
        {n: tuple(place) if isinstance(place, list) else place for n, place in roles.items()}
    )


def _edit(one: Edit) -> str:
    values = {f: getattr(one, f.name) for f in one.parameters()}
    if not all(isinstance(value, PLAIN) for value in values.values()):
        return f"mt.edit({_quoted(str(one))})"
    changed = [f"{f.name}={_literal(value)}" for f, value in values.items() if value != f.default]
    return f"mt.{one.name}({', '.join([_quoted(str(one.address)), *changed])})"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return str(value) if isinstance(value, Values) else repr(value)


def _quoted(text: str) -> str:
    """A text in double quotes; JSON's escapes are Python's too."""
    return json.dumps(text, ensure_ascii=False)


def _with(one: Edit, values: Mapping[str, Any]) -> Edit:
    own = {f.name for f in one.parameters()}
    return replace(one, **{name: value for name, value in values.items() if name in own})
