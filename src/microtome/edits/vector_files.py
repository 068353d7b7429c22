"""Files of steering vectors: safetensors, and GGUF in the layout of llama.cpp's control vectors.

The layout, as llama.cpp reads it and repeng writes it: ``general.architecture`` is
``controlvector``; ``controlvector.model_hint`` names the architecture, and
``controlvector.layer_count`` says how many directions there are; each is a float32 tensor
``direction.N``, N from 1, that is added to the output of block N, blocks counted from 0.

Our own files say besides how a vector was made, under a checksum of that and of all numbers: one
digit of another value is another vector. Those of llama.cpp, and of an older microtome, have none.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from microtome.errors import MicrotomeError, listing

Direction = np.ndarray[Any, np.dtype[np.float64]]
About = Mapping[str, str | int | float]

SAFETENSORS, GGUF = ".safetensors", ".gguf"
NAME = re.compile(r"direction\.(\d+)")
FORMAT = "microtome.steering"
"""The name in a file's metadata of how it was made."""

CHECKSUM = "sha256"
"""Of the record, the name of the checksum of all the rest."""
LIKE = 0.9
"""How like `FORMAT` a name is that was it, before a byte of it was lost."""

ARCHITECTURE = "controlvector"
TYPES = ("F32", "F16", "F64")
"""Of a GGUF file's tensors, those that are numbers as they are."""


def encoded(suffix: str, directions: Mapping[int, Direction], site: str, about: About) -> bytes:
    """A file's content.

    Raises:
        MicrotomeError: the ending is none of the two, or the layout has no place for something.
    """
    with np.errstate(over="ignore"):  # what is too large is refused below
        tensors = {f"direction.{n}": one.astype(np.float32) for n, one in directions.items()}
    for name, one in tensors.items():
        if not np.isfinite(one).all():
            raise MicrotomeError(f"{name} has numbers that float32 cannot hold: scale it down.")
    told = {"site": site, "about": dict(about)}
    told[CHECKSUM] = _checksum(tensors, told)
    record = json.dumps(told, ensure_ascii=False)
    match suffix:
        case ".safetensors":
            return save(tensors, metadata={FORMAT: record})
        case ".gguf":
            return _gguf(tensors, site, about, record)
        case _:
            raise MicrotomeError(
                f"A steering vector is kept as {SAFETENSORS} or {GGUF}, not as {suffix!r}."
            )


def _gguf(
    tensors: Mapping[str, np.ndarray[Any, Any]], site: str, about: About, record: str
) -> bytes:
    if site != "resid_post" or "direction.0" in tensors:
        what = f"a vector of {site}" if site != "resid_post" else "a direction of layer 0"
        raise MicrotomeError(
            f"llama.cpp's control vectors have no place for {what}: they are added to the output "
            f"of blocks, from block 1 on. Save it as {SAFETENSORS}, or leave that layer out "
            "(vector.only(…))."
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "vector.gguf"
        writer = _package().GGUFWriter(place, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", str(about.get("model_type", "")))
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(tensors))
        writer.add_string(FORMAT, record)
        for name, one in tensors.items():
            writer.add_tensor(name, one)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return place.read_bytes()


def decoded(path: Path) -> tuple[dict[int, Direction], str, dict[str, str | int | float]]:
    """Directions, site and how it was made, out of a file.

    Raises:
        MicrotomeError: it cannot be read, or is no steering vector.
    """
    try:
        match path.suffix:
            case ".safetensors":
                tensors, record = _of_safetensors(path)
            case ".gguf":
                tensors, record = _of_gguf(path)
            case _:
                raise MicrotomeError(
                    f"{path} is no steering vector: those are {SAFETENSORS} or {GGUF} files."
                )
    except (OSError, SafetensorError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, MicrotomeError):
            raise
        raise MicrotomeError(f"{path} cannot be read as a steering vector: {error}") from error
    found = {name: NAME.fullmatch(name) for name in tensors}
    strange = [name for name, match in found.items() if match is None]
    if strange or not tensors:
        raise MicrotomeError(
            f"{path} is no steering vector: its tensors would be direction.N, and it has "
            f"{listing(strange[:5]) or 'none'}."
        )
    directions = {
        int(match[1]): tensors[name].astype(np.float64).ravel()
        for name, match in found.items()
        if match is not None
    }
    told = _told(path, record)
    wanted = told.pop(CHECKSUM, None)
    if wanted is not None and wanted != _checksum(tensors, told):
        raise _damaged(path, "its checksum differs")
    return directions, told.get("site", "resid_post"), told.get("about", {})


def _told(path: Path, record: str) -> dict[str, Any]:
    """What a file's record says."""
    try:
        told = json.loads(record or "{}")
    except ValueError as error:
        raise MicrotomeError(f"{path} has a record that cannot be read: {error}.") from error
    if (
        not isinstance(told, dict)
        or not isinstance(told.get("site", ""), str)
        or not isinstance(told.get("about", {}), dict)
    ):
        raise MicrotomeError(f"{path} has a record that says no site: {record[:80]}.")
    return told


def _checksum(tensors: Mapping[str, np.ndarray[Any, Any]], told: Mapping[str, Any]) -> str:
    """The SHA-256 of how a vector was made and of its numbers in float32, in hexadecimal digits."""
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(tensors):
        numbers = np.ascontiguousarray(tensors[name], dtype="<f4")
        found.update(f"{name} {list(numbers.shape)}".encode())
        found.update(numbers.tobytes())
    return found.hexdigest()


def _damaged(path: Path, why: str) -> MicrotomeError:
    return MicrotomeError(
        f"{path} is damaged: {why}. Take a copy that is whole, or make the vector again."
    )


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Raise where the record is under a name that is nearly its own: how it was made is lost."""
    names = [*names]
    near = difflib.get_close_matches(FORMAT, names, n=1, cutoff=LIKE)
    if near and FORMAT not in names:
        raise _damaged(path, f"it has {near[0]!r} in the place of {FORMAT!r}")


def _of_safetensors(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
        metadata, names = file.metadata() or {}, list(file.keys())
        _check_names(path, metadata)
        tensors = {name: file.get_tensor(name).double().numpy() for name in names}
        return tensors, metadata.get(FORMAT, "")


def _of_gguf(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    reader = _package().GGUFReader(path)
    kind = reader.fields["general.architecture"].contents()
    if kind != ARCHITECTURE:
        raise MicrotomeError(f"{path} is no control vector but a {kind!r} model: load(…) takes it.")
    for one in reader.tensors:
        if one.tensor_type.name not in TYPES:
            raise MicrotomeError(
                f"{path}: {one.name} is of the type {one.tensor_type.name}, which is packed; a "
                f"control vector's are {listing(TYPES)}, and llama.cpp reads {TYPES[0]} alone."
            )
    tensors = {one.name: np.array(one.data, dtype=np.float64) for one in reader.tensors}
    _check_names(path, reader.fields)
    record = reader.fields.get(FORMAT)
    return tensors, "" if record is None else str(record.contents())


def _package() -> Any:
    """The package that reads and writes GGUF, which the rest of microtome does without."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise MicrotomeError(
            "Vectors in GGUF files need the package gguf: pip install gguf; or save them as "
            f"{SAFETENSORS}."
        ) from error
