"""What executes the package's annotations in the tests: beartype, on everything with a shape.

Only signatures (and dataclasses) that mention a jaxtyping array are checked: that is where an
annotation is a claim about numbers. An edit's ``address: Address`` takes a text as well, which is
a conversion at the edge and not a mistake.
"""

from __future__ import annotations

from typing import Any

from beartype import BeartypeConf, beartype

ARRAYS = ("Float[", "Int[", "Bool[", "Shaped[", "jaxtyping.")
CONF = BeartypeConf(is_pep484_tower=True)  # an int counts as a float, as for mypy

checked: list[str] = []
"""The qualified names of what is checked: a test holds that shapes are really executed."""


def check(target: Any) -> Any:
    annotations = getattr(target, "__annotations__", {})
    if not any(kind in str(a) for a in annotations.values() for kind in ARRAYS):
        return target
    made = beartype(conf=CONF)(target)
    checked.append(f"{target.__module__}.{target.__qualname__}")
    return made
