"""What decides a result's numbers, as JSON: whether two are the same, and how they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from microtome.errors import EffectsError

Identity = Mapping[str, object]
"""Everything that decides the numbers, in JSON's own types."""

MARK = "microtome"
"""Key of a file by which it is known to be one of ours."""

_SHOWN = 3
_LONGEST = 60
_NOTHING = object()


@dataclass(frozen=True)
class Undertaken:
    """What a sweep is asked, as it lies beside its units.

    Attributes:
        question: everything that decides its numbers.
        units: how many there are of it.
    """

    question: Identity
    units: int

    @classmethod
    def read(cls, data: bytes) -> Undertaken:
        """What was written.

        Raises:
            EffectsError: it is damaged.
        """
        body = unsealed(data)
        if body is not None:
            question, units = body.get("question"), body.get("units")
            if isinstance(question, dict) and isinstance(units, int):
                return cls(question, units)
        raise EffectsError("it is damaged")

    @property
    def fields(self) -> Identity:
        """The question, and how many units it has, to be compared with another's."""
        return {**self.question, "number of units": self.units}

    def written(self) -> bytes:
        """What `read` reads."""
        return sealed({"question": self.question, "units": self.units})


def sealed(body: Identity) -> bytes:
    """A JSON file that carries its own checksum."""
    return canonical({MARK: body, "sha256": digest(body)})


def unsealed(data: bytes) -> Identity | None:
    """What is in a file that `sealed` made; none where it is damaged, if only by a blank."""
    try:
        whole = json.loads(data)
        body = whole[MARK]
        sound = isinstance(body, dict) and data == sealed(body)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return body if sound else None


def canonical(value: object) -> bytes:
    """The one way to write a value as JSON: keys in order, no space, ASCII.

    Raises:
        EffectsError: it is not JSON.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise EffectsError(f"What is asked cannot be written as JSON: {error}.") from error
    return text.encode()


def digest(value: object) -> str:
    """The SHA-256 of a value's canonical JSON, in hexadecimal digits.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def difference(there: Identity, asked: Identity) -> str:
    """The first fields in which two questions differ.

    >>> difference({"seed": 0, "edits": ["zero L1.z"]}, {"seed": 1, "edits": ["zero L2.z"]})
    "edits.0 is 'zero L1.z' there and 'zero L2.z' here; seed is 0 there and 1 here"
    """
    found = list(_differences("", there, asked))
    more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _differences(at: str, there: object, asked: object) -> Iterator[str]:
    ours, theirs = _parts(there), _parts(asked)
    if ours is None or theirs is None:
        if canonical(_plain(there)) != canonical(_plain(asked)):
            yield f"{at} is {_shown(there)} there and {_shown(asked)} here"
        return
    for key in sorted(ours.keys() | theirs.keys()):
        inner = f"{at}.{key}" if at else key
        yield from _differences(inner, ours.get(key, _NOTHING), theirs.get(key, _NOTHING))


def _parts(value: object) -> dict[str, object] | None:
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, list | tuple):
        return {str(number): one for number, one in enumerate(value)}
    return None


def _plain(value: object) -> object:
    return "nothing at all" if value is _NOTHING else [value]


def _shown(value: object) -> str:
    if value is _NOTHING:
        return "not given"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
