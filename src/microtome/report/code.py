"""Code that repeats a sweep, or one of its cells, from the record of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import indent
from typing import Any

from microtome.edits import Edit, Source, edit
from microtome.errors import EditError, listing
from microtome.prompts.prompts import spelled
from microtome.report import spelling
from microtome.results.effects import Effects
from microtome.sheets import dump


def rerun(effects: Effects, cell: Mapping[str, Any]) -> str:
    """Python that runs one cell by itself.

    Args:
        effects: the sweep's.
        cell: its coordinates, ``prompt`` among them.

    Raises:
        EditError: an edit has no text that parses back (a function made on the spot).
    """
    return run_in_python(effects.provenance, cell_edits(effects, cell), cell["prompt"])


def run_in_python(record: Mapping[str, Any], edits: Sequence[Edit], prompt: int = 0) -> str:
    """Python that runs one prompt of a record with edits.

    Args:
        record: of a sweep, or of a question that is not answered yet (`verbs.record.asked`).
        edits: made together, without stars.
        prompt: which of its prompts.
    """
    spec = record["spec"]
    reference = ""
    if any(e.source is Source.REFERENCE for e in edits) and len(spec["prompts"]) > 1:
        others = spec["reference"] or spec["prompts"]
        reference = f", reference={spelling.prompts(others)}"
    return "\n".join(
        [
            *spelling.opening(record),
            f"prompt = {spelling.prompt(spec['prompts'][prompt])}",
            f"run = model.run(prompt, edits=[{', '.join(map(spelling.edit, edits))}]{reference})",
            "print(run.top(10))",
            "print(run.receipts)",
        ]
    )


def cell_edits(effects: Effects, cell: Mapping[str, Any]) -> list[Edit]:
    """The edits of one cell, without stars.

    Raises:
        EditError: one has no text that parses back; or the map is one of `trace_facts`.
    """
    spec = effects.provenance["spec"]
    _check(spec)
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
    return sweep_in_python(effects.provenance)


def again_in_shell(effects: Effects) -> str | None:
    """A command that repeats the sweep; None where the command line cannot say it."""
    return sweep_in_shell(effects.provenance)


def again_in_yaml(effects: Effects) -> str | None:
    """A file for ``microtome sweep --config``; None where it cannot say how to load the model.

    Raises:
        EditError: an edit has no text that parses back.
    """
    return sweep_in_yaml(effects.provenance)


def sweep_in_python(record: Mapping[str, Any]) -> str:
    """The same, from a sweep's record alone, or from that of a question that was not run."""
    spec = record["spec"]
    _check(spec)
    edits = [spelling.edit(edit(text)) for text in spec["edits"]]
    arguments = [
        f"metrics=[{', '.join(map(spelling.quoted, spec['metrics']))}]",
        *([f"over={spec['over']!r}"] if spec["over"] else []),
        *([f"reference={spelling.prompts(spec['reference'])}"] if spec["reference"] else []),
        *([f"engine={spelling.quoted(engine)}"] if (engine := _engine(record)) else []),
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
            *spelling.opening(record),
            f"prompts = {spelling.prompts(spec['prompts'])}",
            "effects = mt.sweep(",
            "    model,",
            f"    {given},",
            f"    {edits[0] if len(edits) == 1 else '[' + ', '.join(edits) + ']'},",
            *(indent(f"{argument},", spelling.TAB) for argument in arguments),
            ")",
        ]
    )


def _check(spec: Mapping[str, Any]) -> None:
    """Raise `EditError` for a map of runs that no sweep, and no call of `run`, has."""
    if "corruption" in spec or WINDOW in spec:
        raise EditError(
            f"{listing(spec['edits'])}: this map is of corrupted runs, or of edits in windows of "
            "layers, which no sweep repeats: trace_facts made it, and does."
        )


def sweep_in_shell(record: Mapping[str, Any]) -> str | None:
    """The same, from a record."""
    spec = record["spec"]
    _check(spec)
    if not spelling.is_sayable(record):
        return None
    prompts = spec["prompts"]
    before = ""
    given = spelling.options(prompts[0]) if len(prompts) == 1 else None
    if given is None:
        before, given = spelling.file("prompts.jsonl", prompts), "--prompts prompts.jsonl"
    if spec["reference"]:
        before += spelling.file("reference.jsonl", spec["reference"])
        given += " --reference reference.jsonl"
    words = [
        before + "microtome sweep",
        spelling.loading(record),
        given,
        *(f"-e {shlex.quote(text)}" for text in spec["edits"]),
        *(spelling.flag("--over", _values(name, values)) for name, values in spec["over"].items()),
        *(f"-m {shlex.quote(name)}" for name in spec["metrics"]),
        *([f"--engine {engine}"] if (engine := _engine(record)) else []),
        *(spelling.flag(f"--{name}", str(value)) for name, value in _settings(record).items()),
        "-o out",
    ]
    return " ".join(words)


def sweep_in_yaml(record: Mapping[str, Any]) -> str | None:
    """The same, from a record."""
    spec = record["spec"]
    _check(spec)
    if not spelling.is_sayable(record):
        return None
    fields = {
        "model": spelling.loaded(record),
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


def _argument(value: int | str) -> str:
    return spelling.quoted(value) if isinstance(value, str) else str(value)


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


def _values(name: str, values: Sequence[Any]) -> str:
    """``factor=0.1,10``; words go without quotes where nothing else could be made of them."""
    bare = [isinstance(value, str) and re.fullmatch(r"[a-z]\w*", value) for value in values]
    shown = values if all(bare) else map(repr, values)
    return f"{name}={','.join(map(str, shown))}"


def _with(one: Edit, values: Mapping[str, Any]) -> Edit:
    own = {f.name for f in one.parameters()}
    return replace(one, **{name: value for name, value in values.items() if name in own})
