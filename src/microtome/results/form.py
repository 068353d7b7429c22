"""The saved form of a result: a zarr store, version 2, as files by their names.

Format 2 writes every chunk, under names that every file system takes; beside it lies a list of all
files with their checksums (`checksums`). Format 1 had neither, and is still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numcodecs
import numpy as np
import xarray as xr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from microtome.errors import EffectsError
from microtome.results import codecs, first_form
from microtome.results.names import file_name

FORMAT = 2
"""Version of the saved form; a file with a larger one was written by a newer microtome."""

ATTRIBUTES = ".zattrs"
PER_FILE = 1 << 26
"""Bytes of an array that are written as one chunk; larger ones are cut as zarr likes it."""

Files = Mapping[str, bytes]
"""A store's files by their names relative to it, with slashes."""


def encode(data: xr.Dataset) -> dict[str, bytes]:
    """A labelled result as the files of a store.

    Raises:
        EffectsError: a value in it has no saved form.
    """
    names = {name: file_name(name) for name in map(str, [*data.variables, *data.dims])}
    form = {
        "format": FORMAT,
        "variables": list(map(str, data.data_vars)),
        "coords": list(map(str, data.coords)),  # "coordinates" is a word of xarray's own
        "names": {file: name for name, file in names.items() if file != name},
    }
    plain = data.drop_encoding().rename({n: f for n, f in names.items() if n != f})
    held: dict[str, Buffer] = {}
    store = MemoryStore(held)
    try:
        plain.assign_attrs(form).to_zarr(
            store, mode="w", zarr_format=2, write_empty_chunks=True, encoding=_encoding(plain)
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise EffectsError(f"The result has a value that cannot be saved: {error}") from error
    return {name: held.pop(name).to_bytes() for name in sorted(held)}


def decode(files: Files) -> xr.Dataset:
    """The labelled result in the files of a store.

    Raises:
        EffectsError: they are no result, a newer microtome wrote them, or they are damaged.
    """
    form = attributes(files)
    if not is_form(form):
        raise EffectsError("it is a zarr store, but not one that microtome wrote")
    check_format(form)
    first = form["format"] == 1
    codecs.check(files, complete=not first)
    buffer = default_buffer_prototype().buffer
    store = MemoryStore({name: buffer.from_bytes(data) for name, data in files.items()})
    try:
        opened = xr.open_zarr(store, zarr_format=2, consolidated=False, chunks=None).load()
    except Exception as error:  # whatever a decoder raises on what is damaged
        raise EffectsError(f"it is damaged ({type(error).__name__}: {error})") from error
    opened = _with_plain_texts(opened)
    if first:
        first_form.check(opened, files)
    return _named(opened)


def storable(coordinates: Mapping[str, Sequence[object]]) -> None:
    """Raise unless the values of a result's axes have a saved form; to be asked before any is run.

    Raises:
        EffectsError: an integer beyond 64 bits, a text that is no Unicode, something else.

    >>> storable({"layer": range(12), "factor": [0.1, 10]})
    """
    for name, values in coordinates.items():
        if isinstance(values, range) and all(
            abs(end) < 1 << 62 for end in (values.start, values.stop)
        ):
            continue
        for value in values:
            reason = _unstorable(value)
            if reason:
                raise EffectsError(
                    f"{name}={value!r} could not be saved with the result: {reason}."
                )


def _unstorable(value: object) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "it has half a character (a lone surrogate)"
        return ""
    if isinstance(value, int | np.integer):
        fits = -(1 << 63) <= int(value) < 1 << 63
        return "" if fits else "it is an integer beyond 64 bits; give a smaller one"
    if isinstance(value, float | np.floating | np.bool_):
        return ""
    return f"it is a {type(value).__name__}; axes hold numbers and texts"


def attributes(files: Files) -> dict[str, object]:
    """The attributes of a store; none where it is something else."""
    try:
        found = json.loads(files.get(ATTRIBUTES, b""))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_form(form: Mapping[str, object]) -> TypeGuard[Mapping[str, int]]:
    """Whether these are the attributes of a result."""
    return type(form.get("format")) is int and "provenance" in form


def check_format(form: Mapping[str, int]) -> None:
    """Raise where a newer microtome wrote it.

    Raises:
        EffectsError: its format is larger than `FORMAT`.
    """
    if form["format"] > FORMAT:
        raise EffectsError(
            f"it has format {form['format']}, and this microtome reads up to {FORMAT}: "
            "a newer microtome wrote it; upgrade to open it"
        )


def _with_plain_texts(data: xr.Dataset) -> xr.Dataset:
    """Texts as they are in a result that was not saved: numpy's own kind of them does less."""
    texts = {name: one for name, one in data.variables.items() if one.dtype.kind == "T"}
    return data.assign({name: one.astype(object) for name, one in texts.items()})


def _named(data: xr.Dataset) -> xr.Dataset:
    """Variables under their own names, in their order."""
    try:
        old = data.attrs.pop("format") == 1
        names: list[str] = data.attrs.pop("variables")
        other = data.attrs.pop("names", {})
        renamed = {_name_in_format_1(name): name for name in names} if old else other
        order: list[str] = data.attrs.pop("coords", [])
        named = data.rename({f: n for f, n in renamed.items() if f != n})
        order += sorted(set(map(str, named.coords)).difference(order))
        coordinates = {name: named.coords[name].variable for name in order}
        return named.drop_vars(order)[names].assign_coords(coordinates)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise EffectsError(f"a variable is missing ({error})") from error


def _name_in_format_1(variable: str) -> str:
    return variable.replace("%", "%25").replace("/", "%2F")


def _encoding(data: xr.Dataset) -> dict[str, dict[str, object]]:
    """The same codec whatever zarr's default is, and few files."""
    compressor = numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
    encoding: dict[str, dict[str, object]] = {}
    for name, variable in data.variables.items():
        own: dict[str, object] = {"compressors": (compressor,)}
        if 0 < variable.nbytes <= PER_FILE and variable.shape:
            own["chunks"] = variable.shape
        encoding[str(name)] = own
    return encoding
