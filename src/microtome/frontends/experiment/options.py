"""The command line's options as the fields of an experiment."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from microtome.errors import ExperimentError, glimpse
from microtome.frontends.experiment.experiment import Experiment
from microtome.sheets import value_of

LACKING = {"model": "a model", "edits": "an edit"}
"""Fields that nothing can be asked without, and what each is called."""


def asked(config: Path | None, options: Mapping[str, Any]) -> Experiment:
    """The experiment of a file and of options, which go before the file's fields.

    Args:
        config: the file, where there is one.
        options: fields; what is None or empty was not given.

    Raises:
        ExperimentError: the experiment is not whole, or a field of it is wrong.
    """
    given = {name: value for name, value in options.items() if value not in (None, [], {})}
    if config is not None:
        return Experiment.read(config, **given)
    lacking = [what for field, what in LACKING.items() if field not in given]
    if lacking:
        raise ExperimentError(
            f"Give {' and '.join(lacking)}, nano -e 'zero L*.z.h*', or a file with --config."
        )
    return Experiment(**given)


def checkpoint(name: str | None, *how: str | None) -> dict[str, Any] | None:
    """The field ``model``, from a name and, in this order, dtype, revision, device, attention.

    Raises:
        ExperimentError: it is said how to load the model, but not which.
    """
    names = ("dtype", "revision", "device", "attention")
    given = {field: value for field, value in zip(names, how, strict=True) if value is not None}
    if name is None and given:
        raise ExperimentError(
            f"--{next(iter(given))} needs the model's name beside it: a file's field 'model' is "
            "replaced as a whole."
        )
    return None if name is None else {"name": name, **given}


def values_of(over: Iterable[str]) -> dict[str, list[Any]]:
    """The values of ``--over NAME=VALUE,VALUE``, by name: numbers, lists of them, and words.

    Raises:
        ExperimentError: a text is not of that form, or a name is given twice.

    >>> values_of(["factor=0.1,0.6,10", "how=add,replace"])
    {'factor': [0.1, 0.6, 10], 'how': ['add', 'replace']}
    """
    found: dict[str, list[Any]] = {}
    for text in over:
        name, equals, values = text.partition("=")
        if not equals or not name.isidentifier() or not values.strip():
            raise ExperimentError(f"--over takes NAME=VALUE,VALUE,…, not {glimpse(text)}.")
        if name in found:
            raise ExperimentError(f"--over {name}=… is given twice: put all its values in one.")
        found[name] = _values(values)
    return found


def named_of(given: Iterable[str], option: str, such_as: str) -> dict[str, Any]:
    """The values of an option that takes ``NAME=VALUE``, each as YAML reads it.

    Raises:
        ExperimentError: a text is not of that form.

    >>> named_of(["enable_thinking=false", "tools=[]"], "--chat-option", "enable_thinking=false")
    {'enable_thinking': False, 'tools': []}
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ExperimentError(
                f"{option} takes NAME=VALUE, such as {such_as}, not {glimpse(text)}."
            )
        found[name] = value_of(value, f"{option} {name}")
    return found


def _values(text: str) -> list[Any]:
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return [_value(part.strip()) for part in text.split(",")]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
