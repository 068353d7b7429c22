"""Functions that pass for a library's: one of somebody's own would have a model run whole."""

from __future__ import annotations

from types import FunctionType


def theirs(function: FunctionType, package: str = "transformers") -> FunctionType:
    """The same as if it were written in a package."""
    home = {**function.__globals__, "__name__": package}
    made = FunctionType(
        function.__code__, home, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
