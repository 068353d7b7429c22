"""How to run a study again: in Python, in a shell, from a YAML file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from microtome.report import Snippet
from microtome.sheets import dump, flow
from microtome.studies.parameters import Parameters
from microtome.texts import Texts

OPTIONS = ("prompt", "target", "contrast", "donor", "prompts")
"""Parameters that have an option of their own; any other goes through ``--set``."""


def snippets(
    study: str, parameters: Parameters, texts: Texts, model: Mapping[str, Any]
) -> tuple[Snippet, ...]:
    """Three ways to the same result; one where the model was given in memory, and has no name.

    ``model`` is what the provenance has of it.
    """
    given = {"model": parameters.model, **parameters.differences()}
    if parameters.prompts is not None:
        given["prompts"] = parameters.plain()["prompts"]
    if parameters.lang != "en":
        given["lang"] = parameters.lang
    if model["loaded"] != "from files":
        del given["model"]
        return (Snippet(texts("again.python"), in_memory(study, given, model)),)
    made = [
        Snippet(texts("again.python"), in_python(study, given)),
        Snippet(texts("again.yaml"), in_yaml(study, given)),
    ]
    if not isinstance(given.get("prompts"), list):
        made.insert(1, Snippet(texts("again.shell"), in_shell(study, given)))
    return tuple(made)


def in_python(study: str, given: dict[str, Any]) -> str:
    """A call of `microtome.studies.run`."""
    return f"import microtome as mt\n\n{_call(study, [f'{n}={v!r}' for n, v in given.items()])}"


def _call(study: str, given: list[str]) -> str:
    arguments = [json.dumps(study), *given, f'out="results/{study}"']
    line = f"mt.studies.run({', '.join(arguments)})"
    if len(line) > 88:
        line = "mt.studies.run(\n" + "".join(f"    {one},\n" for one in arguments) + ")"
    return line


def in_memory(study: str, given: dict[str, Any], model: Mapping[str, Any]) -> str:
    """The same call with the model object, which whoever runs it has to have."""
    call = _call(study, ["model=model", *(f"{name}={value!r}" for name, value in given.items())])
    lines = [
        "import microtome as mt",
        "",
        f"# hf: the model that was given in memory ({model['architecture']}, {model['dtype']}), "
        "which has no files of its own;",
        "# tokenizer: its tokenizer.",
        "model = mt.load(hf, tokenizer=tokenizer)",
        f'assert model.weight_hash == "{model["weight_hash"]}"',
        call,
    ]
    return "\n".join(lines)


def in_shell(study: str, given: dict[str, Any]) -> str:
    """A command."""
    words = ["microtome", "study", "run", study]
    for name, value in given.items():
        if name in ("model", "lang", *OPTIONS):
            text = str(value)
            # An option in one word where its value looks like one.
            words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
        else:
            words += ["--set", f"{name}={flow(value)}"]
    return " ".join(map(shlex.quote, [*words, "-o", f"results/{study}"]))


def in_yaml(study: str, given: dict[str, Any]) -> str:
    """A file for ``microtome study run --config``."""
    return dump({"study": study, **given}).rstrip()
