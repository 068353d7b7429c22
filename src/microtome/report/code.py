"""Code that repeats a sweep, or one of its cells, from the record of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import indent
from typing import Any

from microtome.edits import Edit, Source, edit
from microtome.edits.values import Values
from microtome.effects import Effects

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
    varied = {name: cell[name] for name in spec["over"]}
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
        *([f"engine={_quoted(record['engine']['name'])}"] if "engine" in record else []),
        f"seed={record['seed']}",
    ]
    return "\n".join(
        [
            *_opening(record),
            f"prompts = {_prompts(spec['prompts'])}",
            "effects = mt.sweep(",
            "    model,",
            "    prompts,",
            f"    {edits[0] if len(edits) == 1 else '[' + ', '.join(edits) + ']'},",
            *(indent(f"{argument},", TAB) for argument in arguments),
            ")",
        ]
    )


def again_in_shell(effects: Effects) -> str | None:
    """A command that repeats the sweep; None where the command line cannot say it."""
    record = effects.provenance
    spec = record["spec"]
    if spec["over"] or spec["reference"] or _in_memory(record):
        return None
    prompts = spec["prompts"]
    before, given = "", ""
    if len(prompts) == 1 and "roles" not in prompts[0]:
        flags = {"text": "-p", "target": "--target", "contrast": "--contrast", "donor": "--donor"}
        given = " ".join(_flag(flags[name], value) for name, value in prompts[0].items())
    else:
        lines = "\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)
        before = f"cat > prompts.jsonl <<'END'\n{lines}\nEND\n"
        given = "--prompts prompts.jsonl"
    edits = " ".join(f"-e {shlex.quote(text)}" for text in spec["edits"])
    metrics = " ".join(f"-m {shlex.quote(name)}" for name in spec["metrics"])
    model = shlex.quote(record["model"]["name"])
    engine = f" --engine {record['engine']['name']}" if "engine" in record else ""
    options = f"{metrics}{engine} --seed {record['seed']}"
    return f"{before}microtome sweep {model} {given} {edits} {options} -o out"


def _flag(flag: str, value: str) -> str:
    """An option with its value, in one word where the value looks like an option."""
    joint = "=" if value.startswith("-") and flag.startswith("--") else " "
    return f"{flag}{joint}{shlex.quote(value)}"


def _opening(record: Mapping[str, Any]) -> list[str]:
    model = record["model"]
    if _in_memory(record):
        load = "mt.load(hf, tokenizer=tokenizer)  # hf: the model that was in memory"
    else:
        given = [_quoted(model["name"]), f"dtype={_quoted(model['dtype'])}"]
        if model.get("revision"):
            given.append(f"revision={_quoted(model['revision'])}")
        if model.get("attention") not in (None, "None", "sdpa"):
            given.append(f"attn_implementation={_quoted(model['attention'])}")
        load = f"mt.load({', '.join(given)})"
    return ["import microtome as mt", "", f"model = {load}"]


def _in_memory(record: Mapping[str, Any]) -> bool:
    """Whether the model was given as a module without a name, for which its class stands."""
    return bool(record["model"]["name"] == record["model"]["architecture"])


def _prompts(prompts: Sequence[Mapping[str, Any]]) -> str:
    if len(prompts) == 1:
        return f"[{_prompt(prompts[0])}]"
    return "[\n" + "".join(indent(f"{_prompt(p)},\n", TAB) for p in prompts) + "]"


def _prompt(fields: Mapping[str, Any]) -> str:
    named = [
        f"{name}={_roles(value) if name == 'roles' else _quoted(value)}"
        for name, value in fields.items()
        if name != "text"
    ]
    arguments = [_quoted(fields["text"]), *named]
    line = f"mt.Prompt({', '.join(arguments)})"
    if len(line) <= WIDTH:
        return line
    return "mt.Prompt(\n" + "".join(f"{TAB}{argument},\n" for argument in arguments) + ")"


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
