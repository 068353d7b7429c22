"""A block as one file: a zarr group in a zip archive that ends with the checksum of all before it.

Any program that reads zip and zarr can read it. The checksum is the archive's comment, and the last
thing that is written: a file that was cut, or in which a byte is wrong, is known by it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import TypedDict, cast

import numcodecs
import numpy as np
import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from microtome.engines.block import Array, Block
from microtome.errors import EffectsError
from microtome.language.regions import Column
from microtome.results import codecs
from microtome.results.checksums import checksum
from microtome.results.names import file_name


class Record(TypedDict):
    """What a file says besides the arrays; ``metrics`` are the names in each group of a block."""

    question: str
    unit: int
    metrics: dict[str, list[str]]
    noise: dict[str, float]
    verification: dict[str, object] | None
    work: dict[str, float]
    notes: list[str]


_COLUMNS = ("cells", "prompts", "changed", "norm")
_BY_METRIC = ("values", "inside", "clean", "clean_inside")
_RECORD = "record.json"
_DIGITS = 64


def pack(block: Block, question: str) -> bytes:
    """A block as a file.

    Args:
        block: what a unit gave.
        question: the digest of the question that it answers.

    Raises:
        EffectsError: a value in it has no saved form.
    """
    record: Record = {
        "question": question,
        "unit": block.unit,
        "metrics": {group: list(getattr(block, group)) for group in _BY_METRIC},
        "noise": block.noise,
        "verification": block.verification,
        "work": block.work,
        "notes": block.notes,
    }
    try:
        text = json.dumps(record)
    except (TypeError, ValueError) as error:
        raise EffectsError(f"Unit {block.unit} cannot be saved: {error}.") from error
    files = {_RECORD: text.encode(), **_encoded(dict(_arrays(block)))}
    return archived(files)


def unpack(data: bytes, question: str | None = None) -> Block:
    """The block in a file.

    Args:
        data: the file.
        question: the digest of the question that it has to answer, where that is known.

    Raises:
        EffectsError: the file is damaged, not one that `pack` wrote, or answers another question.
    """
    record = record_of(data)
    if question not in (None, record["question"]):
        raise EffectsError("it is of another sweep")
    try:
        files = unarchived(data)
        files.pop(_RECORD)
        codecs.check(files, complete=True)
        arrays = _decoded(files)
        groups = {
            group: {name: arrays[_file(group, name)] for name in record["metrics"][group]}
            for group in _BY_METRIC
        }
        return Block(
            unit=record["unit"],
            cells=arrays["cells"].astype(np.int64, copy=False),
            prompts=arrays["prompts"].astype(np.int64, copy=False),
            changed=arrays["changed"],
            norm=arrays["norm"],
            values=groups["values"],
            inside=groups["inside"],
            clean=groups["clean"],
            clean_inside=groups["clean_inside"],
            noise=record["noise"],
            verification=record["verification"],
            work=record["work"],
            notes=record["notes"],
        )
    except EffectsError:
        raise
    except Exception as error:  # whatever a decoder raises on what is damaged
        raise EffectsError(f"it is damaged ({type(error).__name__}: {error})") from error


def record_of(data: bytes) -> Record:
    """What a file says of its block without the arrays; its checksum is proved.

    Raises:
        EffectsError: the file is damaged, or not one that `pack` wrote.
    """
    check(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = json.loads(archive.read(_RECORD))
        record = {key: found[key] for key in Record.__annotations__}
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise EffectsError(f"it is no unit of a sweep ({error})") from error
    return cast(Record, record)


def _arrays(block: Block) -> Iterator[tuple[str, Array | Column]]:
    for name in _COLUMNS:
        yield name, getattr(block, name)
    for group in _BY_METRIC:
        for metric, values in getattr(block, group).items():
            yield _file(group, metric), values


def _file(group: str, metric: str) -> str:
    return f"{group}={file_name(metric)}"


def _encoded(arrays: Mapping[str, Array | Column]) -> dict[str, bytes]:
    held: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(held), zarr_format=2)
    compressor = numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
    for name, values in arrays.items():
        group.create_array(
            name, data=values, compressors=compressor, config={"write_empty_chunks": True}
        )
    return {name: held.pop(name).to_bytes() for name in sorted(held)}


def _decoded(files: Mapping[str, bytes]) -> dict[str, Array]:
    buffer = default_buffer_prototype().buffer
    held = {name: buffer.from_bytes(data) for name, data in files.items()}
    group = zarr.open_group(MemoryStore(held, read_only=True), mode="r", zarr_format=2)
    return {name: np.asarray(array[...]) for name, array in group.arrays()}


def archived(files: Mapping[str, bytes]) -> bytes:
    """An archive whose comment is the checksum of all before it; the same files give the same."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.comment = b"0" * _DIGITS
    body = out.getvalue()[:-_DIGITS]
    return body + checksum(body).encode()


def unarchived(data: bytes) -> dict[str, bytes]:
    """The files of an archive, whose checksum was proved (`check`)."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check(data: bytes) -> None:
    """Raise unless an archive is as it was written.

    Raises:
        EffectsError: it is cut, or a byte is wrong.
    """
    body, comment = data[:-_DIGITS], data[-_DIGITS:]
    if checksum(body).encode() != comment:
        raise EffectsError("it is damaged: its checksum differs")
