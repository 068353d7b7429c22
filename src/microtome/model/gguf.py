"""GGUF files: looked at, unpacked by transformers, and kept unpacked in the user's cache.

Transformers reads a file's configuration, tokenizer and weights with the `gguf` package, passes
over what it has no place for, and takes half a minute for a small model. So what it leaves out is
an error here, and what it makes, a directory as save_pretrained writes it, is kept by the file's
content and by the versions that made it. From there it is loaded as any other directory is.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from microtome.amounts import many
from microtome.errors import LoadError, listing
from microtome.model.anatomy import family_of
from microtome.model.cache import made_once
from microtome.model.checkpoint import Checkpoint, check_complete, check_fits
from microtome.model.families.family import Family
from microtome.model.gguf_header import Header, Stored, read_header

NEEDED = ("gguf", "accelerate")
"""The packages that transformers reads such files with, besides what microtome needs anyway."""

FORM = 1
"""Of what is kept: raised when the same file would be unpacked into something else."""

UNPACKED = torch.float32
"""The type that `gguf` unpacks into."""

_WRONG_FILE = (
    *(OSError, ValueError, RuntimeError, TypeError, LookupError, ArithmeticError),
    *(AttributeError, ImportError, AssertionError, StrictDataclassError),
)
"""What transformers and `gguf` raise for files that are damaged or of a kind that they lack."""


@dataclass(frozen=True)
class Unpacked:
    """A GGUF file whose header bears looking at, and what it is.

    Attributes:
        path: the file, its whole path.
        sha256: of its content, in hexadecimal.
        types: how its numbers are packed, that of most numbers first: ``("Q4_1", "F32")``.
        header: what it says of itself.
    """

    path: Path
    sha256: str
    types: tuple[str, ...]
    header: Header


def look(path: Path) -> Unpacked:
    """A file, its header held to its bytes; nothing is unpacked.

    Raises:
        LoadError: a package is missing; it is no GGUF file, damaged, one part of several, or no
            language model; or its numbers are packed in a way that is not known.
    """
    header = read_header(path)
    _check_packages(path)
    _check_kind(path, header)
    types = _check_tensors(path, header)
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return Unpacked(path.absolute(), sha256, types, header)


def folder_of(file: Unpacked, own_tokenizer: bool) -> Path | None:
    """The directory of a file's model in the cache, unpacked now unless it was before.

    Args:
        file: what `look` gave.
        own_tokenizer: whether the file's tokenizer is wanted with it.

    Returns:
        None where nothing can be kept; a warning says why.

    Raises:
        LoadError: transformers cannot read it, or has no place for all of its weights.
        ArchitectureError: microtome has no row for its architecture.
    """
    size = UNPACKED.itemsize * _elements(file.header)
    # Twice the header: the tokenizer's files say in JSON what it says in bytes.
    write = partial(_write, file, own_tokenizer)
    return made_once(_key(file, own_tokenizer), size + 2 * file.header.data, write)


def in_memory(file: Unpacked, dtype: torch.dtype, attention: str | None) -> PreTrainedModel:
    """The model of a file, without keeping anything on disk.

    Raises:
        LoadError, ArchitectureError: as `folder_of` does.
    """
    config = _configuration(file)
    made = _unpack(file, config)
    # A module of its own: transformers holds the other one for packed, and casts no such model.
    auto = _row(file, config).auto
    plain: PreTrainedModel = auto.from_config(config, dtype=dtype, attn_implementation=attention)
    plain.load_state_dict(made.state_dict())
    return plain.eval()


def tokenizer_of(file: Unpacked) -> PreTrainedTokenizerBase:
    """The tokenizer of a file.

    Raises:
        LoadError: transformers cannot read it.
    """
    try:
        return AutoTokenizer.from_pretrained(**_place(file))
    except _WRONG_FILE as error:
        raise LoadError(
            f"Cannot read the tokenizer in {file.path.name}: {_told(error)}. Give one: "
            "load(…, tokenizer=…)."
        ) from error


# ------------------------------------------------------------------------------- before unpacking


def _check_packages(path: Path) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LoadError(
            f"To load {path.name}, transformers needs {listing(missing)}, not installed here: "
            f"pip install {' '.join(missing)}"
        )


def _check_kind(path: Path, header: Header) -> None:
    values, name = header.values, path.name
    parts = values.get("split.count", 1)
    if parts != 1:
        raise LoadError(
            f"{name} is one of {parts} parts of a model (part "
            f"{values.get('split.no', '?')}, from "
            "0), which transformers does not put together: join them with llama.cpp's "
            "'llama-gguf-split --merge', and give the whole."
        )
    kind = values.get("general.type", "model")
    if kind != "model":
        raise LoadError(f"{name} holds a {kind!r}, which is not a language model by itself.")
    if not header.architecture or not header.tensors:
        lacks = "weights" if header.architecture else "general.architecture"
        raise LoadError(f"{name} has no {lacks}: it is no model's file, or was damaged.")
    scaling = values.get(f"{header.architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise LoadError(
            f"{name} asks for rotary embeddings scaled by {scaling!r}, which transformers leaves "
            "out when it reads GGUF: the model would compute something else. Load its "
            "safetensors."
        )


def _check_tensors(path: Path, header: Header) -> tuple[str, ...]:
    """Names of how numbers are packed, most first; every tensor is held to the bytes there are."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    names: Counter[str] = Counter()
    for tensor in header.tensors:
        try:
            kind = GGMLQuantizationType(tensor.kind)
            block, width = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError) as error:
            version = importlib.metadata.version("gguf")
            raise LoadError(
                f"{path.name} has {tensor.name[:80]!r} packed in a way of number {tensor.kind}, "
                f"which gguf {version} does not know: a later one may (pip install -U gguf)."
            ) from error
        names[kind.name] += tensor.elements
        end = header.data + tensor.start + tensor.elements // block * width
        if not tensor.shape or tensor.shape[0] % block or end > header.size:
            what = f"{tensor.name[:80]!r} of shape {list(tensor.shape)}"
            raise LoadError(
                f"Cannot load {path.name}: its header puts {what} at bytes up to {end:,}, and the "
                f"file has {header.size:,}: it was cut short or damaged; get it again."
            )
    return tuple(name for name, _ in names.most_common())


def _key(file: Unpacked, own_tokenizer: bool) -> str:
    """A folder's name: the file's content, and all that decides what is made of it."""
    makers = ("transformers", "tokenizers", "gguf")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in makers]
    told = "\n".join([file.sha256, f"form {FORM}", f"tokenizer {own_tokenizer}", *versions])
    return f"gguf-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


# -------------------------------------------------------------------------------------- unpacking


def _write(file: Unpacked, own_tokenizer: bool, folder: Path) -> None:
    """Write a file's model into an empty folder, as save_pretrained would."""
    config = _configuration(file)
    tokenizer = tokenizer_of(file) if own_tokenizer else None
    module = _unpack(file, config)
    config.architectures, config.dtype = [type(module).__name__], UNPACKED
    save_model(module, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _place(file: Unpacked) -> dict[str, str]:
    return {
        "pretrained_model_name_or_path": str(file.path.parent),
        # Whole, or transformers would take a file of the same name in the working directory.
        "gguf_file": str(file.path),
    }


def _configuration(file: Unpacked) -> PretrainedConfig:
    """A file's configuration, of an architecture in the table, and that of the file's tensors."""
    try:
        config = AutoConfig.from_pretrained(**_place(file))
    except _WRONG_FILE as error:
        raise _unreadable(file, error) from error
    row = _row(file, config)
    try:
        dims = row.dimensions(config)
    except _WRONG_FILE as error:
        raise _unreadable(file, error) from error
    check_fits(file.path.name, _as_checkpoint(file.header, row), row, config, dims)
    return config


def _unpack(file: Unpacked, config: PretrainedConfig) -> PreTrainedModel:
    """A file's model, every weight in it where it belongs."""
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": UNPACKED}
    auto = _row(file, config).auto
    try:
        module, report = auto.from_pretrained(**_place(file), config=config, **options)
    except _WRONG_FILE as error:
        raise _unreadable(file, error) from error
    check_complete(file.path.name, module, report, {}, "Load its safetensors.")
    _check_nothing_left(file, module)
    return module


def _row(file: Unpacked, config: PretrainedConfig) -> Family:
    try:
        row = family_of(config, f"{file.path.name} holds")
        return row.fits(row, config)
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise _unreadable(file, error) from error


def _as_checkpoint(header: Header, row: Family) -> Checkpoint:
    """The file's tensors as weight files name them, as far as their layers go."""
    names = (tensor.name for tensor in header.tensors)
    blocks = tuple(name.replace("blk.", f"{row.blocks}.", 1) for name in names)
    return Checkpoint(blocks, _elements(header))


def _check_nothing_left(file: Unpacked, module: nn.Module) -> None:
    """Refuse a file with more numbers than its model: transformers says nothing of them."""
    taken = sum(weight.numel() for weight in module.parameters())
    left = _elements(file.header) - taken
    if left:
        suspects = _of_no_layer(file.header.tensors)
        raise LoadError(
            f"{file.path.name} has {many(_elements(file.header), 'number')}, and the "
            f"{type(module).__name__} that transformers makes of it {taken:,}: some tensors have "
            f"no place in it, and it would compute something else. Of no layer are: "
            f"{listing(suspects)}. Load its safetensors."
        )


def _of_no_layer(tensors: tuple[Stored, ...]) -> list[str]:
    return [tensor.name for tensor in tensors if not tensor.name.startswith("blk.")][:8]


def _elements(header: Header) -> int:
    return sum(tensor.elements for tensor in header.tensors)


def _unreadable(file: Unpacked, error: Exception) -> LoadError:
    version = importlib.metadata.version("transformers")
    packed = f"packed as {listing(file.types)}"
    return LoadError(
        f"Transformers {version} cannot read {file.path.name}, of architecture "
        f"{file.header.architecture!r}, {packed}: {_told(error)}. Load its safetensors, or a file "
        "of another packing."
    )


def _told(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
