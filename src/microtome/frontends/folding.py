"""Options that belong together, as one object: what several commands take is written down once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from microtome.paths import at_home

Command = Callable[..., None]


def folded(command: Command) -> Command:
    """A command whose parameters of a dataclass's type are that dataclass's fields as options.

    A ``~`` in front of a path is the home folder: commands see no other path, so that what is
    looked for is what is written.

    Args:
        command: a function. Each parameter that is annotated with a dataclass is made from the
            options that its fields describe; the others stay as they are.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Place:
    ...     layer: int = 0
    >>> @folded
    ... def show(name: str, place: Place) -> None:
    ...     print(name, place)
    >>> show(name="z", layer=3)
    z Place(layer=3)
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: hints[name]
        for name in inspect.signature(command).parameters
        if is_dataclass(hints[name])
    }

    def unfolded(**options: Any) -> None:
        options = {name: _meant(value) for name, value in options.items()}
        given = {
            name: kind(**{one.name: options.pop(one.name) for one in fields(kind)})
            for name, kind in groups.items()
        }
        command(**options, **given)

    signature = inspect.Signature(list(_parameters(command, groups, hints)))
    unfolded.__signature__ = signature  # type: ignore[attr-defined]
    unfolded.__annotations__ = {n: one.annotation for n, one in signature.parameters.items()}
    unfolded.__name__, unfolded.__doc__ = command.__name__, command.__doc__
    return unfolded


def _meant(value: Any) -> Any:
    return at_home(value) if isinstance(value, Path) else value


def _parameters(
    command: Command, groups: dict[str, Any], hints: dict[str, Any]
) -> Iterator[inspect.Parameter]:
    for name, one in inspect.signature(command).parameters.items():
        if name in groups:
            yield from _options(groups[name])
        else:
            yield one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])


def _options(kind: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        default = inspect.Parameter.empty if one.default is MISSING else one.default
        if one.default_factory is not MISSING:
            default = one.default_factory()
        yield inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[one.name],
        )
