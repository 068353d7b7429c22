"""What a zarr array may be made of here, checked before zarr decodes any of it.

Metadata chooses the code that decodes a chunk, and some of that code runs whatever it is given.
Only what microtome writes is let through: numbers and texts, compressed with Blosc (or Zstandard,
which early versions of zarr 3 took), in chunks that hold exactly what they declare.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from microtome.amounts import many
from microtome.errors import EffectsError

COMPRESSORS = (None, "blosc", "zstd")
TEXT = "vlen-utf8"
NUMBER = re.compile(r"[<>|](?:[fiu][1248]|b1)|[<>]U(\d{1,9})")
OBJECT = "|O"
_MAY_EXPAND = 256
"""No chunk of texts expands further: the limit of LZ4, and texts declare no size."""
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class ArrayForm:
    """What the metadata of one array declares.

    Attributes:
        name: of the array.
        shape: of the array.
        chunks: of each chunk; those at the edges are as large.
        itemsize: bytes of one number; none where they are texts of any length.
        compressor: its name.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int | None
    compressor: str | None

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each dimension."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    def check(self, name: str, chunk: bytes) -> None:
        """Raise unless a chunk holds exactly what is declared.

        Raises:
            EffectsError: it holds less or more, or it is cut short.
        """
        held = _held(self.compressor, chunk)
        count = math.prod(self.chunks)
        if held is None:
            raise EffectsError(f"{name} is damaged: it is no whole chunk of {self.compressor}.")
        if self.itemsize is not None and held != count * self.itemsize:
            raise EffectsError(
                f"{name} holds {many(held, 'byte')}, and {count * self.itemsize:,} are declared."
            )
        if self.itemsize is None and held > _MAY_EXPAND * (len(chunk) + 1):
            raise EffectsError(
                f"{name} says that it holds {many(held, 'byte')} of text, more than "
                f"{len(chunk):,} can."
            )


def check(files: Mapping[str, bytes], complete: bool) -> None:
    """Raise unless a store is made of what microtome writes, and of nothing else.

    Args:
        files: the store, by names relative to it.
        complete: whether every chunk has to be there; else a missing one is a chunk of NaN.

    Raises:
        EffectsError: another codec or type, a chunk that holds more or less than it declares, one
            outside the array, one that is missing.
    """
    arrays = {}
    for name, data in files.items():
        if name.endswith("/.zarray"):
            arrays[name.removesuffix("/.zarray")] = array_form(name, data)
    found = dict.fromkeys(arrays, 0)
    for name, data in files.items():
        folder, _, chunk = name.rpartition("/")
        if chunk.startswith("."):
            continue
        if folder not in arrays or not _inside(chunk, arrays[folder].grid):
            raise EffectsError(f"{name} belongs to no array of the store.")
        arrays[folder].check(name, data)
        found[folder] += 1
    for folder, array in arrays.items():
        wanted = math.prod(array.grid)
        if complete and found[folder] != wanted:
            raise EffectsError(
                f"{folder} has {many(found[folder], 'chunk')}, and {wanted} are declared: one "
                "is missing."
            )


def array_form(name: str, data: bytes) -> ArrayForm:
    """What an array's metadata declares.

    Raises:
        EffectsError: it cannot be read, or it names what microtome does not write.
    """
    try:
        meta = json.loads(data)
        compressor = None if meta["compressor"] is None else meta["compressor"]["id"]
        filters = [one["id"] for one in meta["filters"] or ()]
        dtype, order = meta["dtype"], meta["order"]
        shape, chunks = (tuple(map(int, meta[key])) for key in ("shape", "chunks"))
        separator = meta.get("dimension_separator", ".")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EffectsError(f"{name} cannot be read as the metadata of an array.") from error
    text = dtype == OBJECT
    number = None if text or not isinstance(dtype, str) else NUMBER.fullmatch(dtype)
    if not text and number is None:
        raise EffectsError(f"{name} declares the type {dtype!r}, which microtome does not write.")
    if compressor not in COMPRESSORS or filters != [TEXT] * text:
        others = [one for one in (compressor, *filters) if one not in (*COMPRESSORS, TEXT)]
        raise EffectsError(
            f"{name} asks for the codec {others or [compressor, *filters]}, which microtome does "
            "not write: it is not run."
        )
    if (order, separator) != ("C", ".") or not _fits(shape, chunks):
        raise EffectsError(f"{name} declares a layout that microtome does not write.")
    size = None if number is None else _itemsize(dtype, number)
    return ArrayForm(name, shape, chunks, size, compressor)


def _fits(shape: tuple[int, ...], chunks: tuple[int, ...]) -> bool:
    return len(shape) == len(chunks) and min(shape, default=0) >= 0 and min(chunks, default=1) > 0


def _itemsize(dtype: str, number: re.Match[str]) -> int:
    return int(dtype[2:]) if number[1] is None else 4 * int(number[1])


def _inside(chunk: str, grid: tuple[int, ...]) -> bool:
    if not re.fullmatch(r"(0|[1-9]\d{0,17})(\.(0|[1-9]\d{0,17}))*", chunk):
        return False
    at = tuple(map(int, chunk.split(".")))
    if not grid:
        return at == (0,)
    return len(at) == len(grid) and all(one < size for one, size in zip(at, grid, strict=True))


def _held(compressor: str | None, chunk: bytes) -> int | None:
    """How many bytes a chunk says that it expands to; none where it is no whole chunk."""
    if compressor is None:
        return len(chunk)
    if compressor == "blosc":
        whole = len(chunk) >= 16 and int.from_bytes(chunk[12:16], "little") == len(chunk)
        return int.from_bytes(chunk[4:8], "little") if whole else None
    return _held_by_zstd(chunk)


def _held_by_zstd(chunk: bytes) -> int | None:
    """The size in a frame's header (RFC 8878, 3.1.1.1); none where it does not say."""
    if len(chunk) < 18 or not chunk.startswith(_ZSTD):
        return None
    flags = chunk[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if not width:
        return None
    return int.from_bytes(chunk[start : start + width], "little") + (256 if width == 2 else 0)
