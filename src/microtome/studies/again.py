"""How to run a study again: in Python, in a shell, from a YAML file."""

from __future__ import annotations

import json
import shlex
from typing import Any

from microtome.report import Snippet
from microtome.sheets import dump, flow
from microtome.studies.parameters import Parameters
from microtome.texts import Texts

OPTIONS = ("prompt", "target", "contrast", "donor", "prompts")
"""Parameters that have an option of their own; any other goes through ``--set``."""


def snippets(study: str, parameters: Parameters, texts: Texts) -> tuple[Snippet, ...]:
    """Three ways to the same result."""
    given = {"model": parameters.model, **parameters.differences()}
    if parameters.prompts is not None:
        given["prompts"] = parameters.plain()["prompts"]
    if parameters.lang != "en":
        given["lang"] = parameters.lang
    made = [
        Snippet(texts("again.python"), in_python(study, given)),
        Snippet(texts("again.yaml"), in_yaml(study, given)),
    ]
    if not isinstance(given.get("prompts"), list):
        made.insert(1, Snippet(texts("again.shell"), in_shell(study, given)))
    return tuple(made)


def in_python(study: str, given: dict[str, Any]) -> str:
    """A call of `microtome.studies.run`."""
    arguments = [json.dumps(study), *(f"{name}={value!r}" for name, value in given.items())]
    arguments.append(f'out="results/{study}"')
    line = f"mt.studies.run({', '.join(arguments)})"
    if len(line) > 88:
        line = "mt.studies.run(\n" + "".join(f"    {one},\n" for one in arguments) + ")"
    return f"import microtome as mt\n\n{line}"


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
