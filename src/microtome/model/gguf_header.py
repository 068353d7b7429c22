"""The header of a GGUF file, looked at before anything is made of it.

A file says how many texts, numbers and tensors it has, and where its tensors lie. Here each of
these is held to the bytes that are there, so that none makes a reader run on or run out of memory.
Arrays (the vocabulary, merges) are counted and passed over; single values are kept.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from microtome.amounts import many
from microtome.errors import LoadError

MAGIC = b"GGUF"
SUFFIX = ".gguf"
VERSIONS = (2, 3)

Value = int | float | bool | str

SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""The format's number of a type of values → how `struct` reads one."""

TEXT, ARRAY = 8, 9

MOST_VALUES, MOST_TENSORS, MOST_IN_ARRAYS, MOST_AXES = 2**14, 2**17, 2**23, 4
"""Far more than any model has, and little enough for a reader that makes an object of each."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        name: as the format's writers name it: ``blk.0.attn_q.weight``.
        shape: the number of elements along each axis, the fastest first.
        kind: the format's number of how its numbers are packed.
        start: where its bytes begin, counted from the first of all tensors.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        values: single values by key, ``general.architecture`` among them.
        tensors: in the order of the file.
        data: where the bytes of the tensors begin.
        size: how many bytes the file has.
    """

    values: Mapping[str, Value]
    tensors: tuple[Stored, ...]
    data: int
    size: int

    @property
    def architecture(self) -> str:
        """The format's name of the model's architecture."""
        return str(self.values.get("general.architecture", ""))


def is_gguf(path: Path) -> bool:
    """Whether a file says that it is a GGUF file, by its name or its first bytes."""
    if not path.is_file():
        return False
    if path.suffix.lower() == SUFFIX:
        return True
    try:
        with path.open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except OSError:  # Whoever opens it next will say why.
        return False


def read_header(path: Path) -> Header:
    """The header of a file.

    Raises:
        LoadError: it is no GGUF file, or says what its bytes do not bear out.
    """
    try:
        with path.open("rb") as opened, _mapped(opened.fileno()) as data:
            return _Cursor(data, path).header()
    except OSError as error:
        if isinstance(error, LoadError):
            raise
        raise LoadError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    except ValueError as error:  # mmap's, of a file without a byte
        raise LoadError(f"{str(path)!r} is empty, and no GGUF file.") from error


def _mapped(number: int) -> mmap.mmap:
    return mmap.mmap(number, 0, access=mmap.ACCESS_READ)


class _Cursor:
    """Reads on from where it is, and never beyond the end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path, self._at = data, path, 0
        self._in_arrays = 0

    def header(self) -> Header:
        if self._take(len(MAGIC)) != MAGIC:
            raise self._wrong(
                "it begins with other bytes than GGUF, so it is no GGUF file or was damaged"
            )
        version = self._number("<I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            why = "big-endian" if swapped else f"version {version}"
            raise self._wrong(f"it is of {why}; what is read is little-endian, of version 2 or 3")
        tensors, values = self._number("<Q"), self._number("<Q")
        self._at_most(tensors, MOST_TENSORS, "tensors")
        self._at_most(values, MOST_VALUES, "values")
        found: dict[str, Value] = {}
        for _ in range(values):
            key, value = self._text(), self._value(self._number("<I"))
            if value is not None:
                found[key] = value
        stored = tuple(self._tensor() for _ in range(tensors))
        step = found.get("general.alignment", 32)
        if not isinstance(step, int) or step < 1 or step & (step - 1):
            raise self._wrong(f"its general.alignment is {step!r}, and no power of two")
        return Header(found, stored, -(-self._at // step) * step, len(self._data))

    def _value(self, kind: int) -> Value | None:
        """A single value; None of an array, which is passed over."""
        if kind == ARRAY:
            self._array(self._number("<I"), self._number("<Q"))
            return None
        if kind == TEXT:
            return self._text()
        return self._scalar(self._form(kind))

    def _array(self, kind: int, length: int) -> None:
        self._in_arrays += length
        self._at_most(self._in_arrays, MOST_IN_ARRAYS, "values in arrays")
        if kind == TEXT:
            for _ in range(length):
                self._skip(self._number("<Q"))
        else:
            self._skip(length * struct.calcsize(self._form(kind)))

    def _tensor(self) -> Stored:
        name, axes = self._text(), self._number("<I")
        self._at_most(axes, MOST_AXES, f"axes in {name[:80]!r}")
        shape = tuple(self._number("<Q") for _ in range(axes))
        if not all(shape):
            raise self._wrong(f"its tensor {name[:80]!r} has the shape {list(shape)}")
        return Stored(name, shape, self._number("<I"), self._number("<Q"))

    def _form(self, kind: int) -> str:
        if kind not in SCALARS:
            raise self._wrong(f"it has a value of a type of number {kind}, which is not known")
        return SCALARS[kind]

    def _text(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8", "replace")

    def _number(self, form: Literal["<I", "<Q"]) -> int:
        return int(self._scalar(form))

    def _scalar(self, form: str) -> int | float | bool:
        value: int | float | bool
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return value

    def _take(self, length: int) -> bytes:
        start = self._at
        self._skip(length)
        return self._data[start : self._at]

    def _skip(self, length: int) -> None:
        if length > len(self._data) - self._at:
            raise self._wrong(
                f"its header asks for {many(length, 'byte')} at byte {self._at:,}, and the file "
                f"has {len(self._data):,}: it was cut short or damaged; get it again"
            )
        self._at += length

    def _at_most(self, found: int, most: int, what: str) -> None:
        if found > most:
            raise self._wrong(f"it claims {found:,} {what}, and no model has more than {most:,}")

    def _wrong(self, why: str) -> LoadError:
        return LoadError(f"Cannot load {str(self._path)!r}: {why}.")
