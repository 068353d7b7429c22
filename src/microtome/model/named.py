"""What lies under a name: the embedded model, a package's, a GGUF file, a directory, a hub id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from microtome.errors import LoadError, did_you_mean, listing
from microtome.model import files, gguf
from microtome.model.anatomy import Anatomy
from microtome.model.checkpoint import Place
from microtome.model.gguf_header import SUFFIX, is_gguf
from microtome.model.loaded import GgufSource, Loaded, Origin
from microtome.model.smollm2 import SMOLLM2, installed


def read(
    name: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | Mapping[str, str | torch.dtype] | None,
    revision: str | None,
    **hf: Any,
) -> Loaded:
    """What lies under a name, not proved yet; see `microtome.load`.

    Raises:
        LoadError, ArchitectureError: it is not there, or cannot be loaded.
    """
    path, package = _gguf_file(name, revision, hf)
    if path is None:
        return files.read(
            name, tokenizer=tokenizer, device=device, dtype=dtype, revision=revision, **hf
        )
    file = gguf.look(path)
    folder = gguf.folder_of(file, own_tokenizer=tokenizer is None)
    options = {key: value for key, value in hf.items() if key not in _OF_THE_FILE}
    if folder is None:
        loaded = _without_cache(name, file, tokenizer, device, dtype, options)
    else:
        loaded = files.read(
            name,
            tokenizer=tokenizer,
            device=device,
            dtype=dtype,
            revision=None,
            where=str(folder),
            **options,
        )
    loaded.hf.config.name_or_path = name
    asked = {"dtype": dtype, "device": device, "revision": revision, "tokenizer": tokenizer, **hf}
    return replace(
        loaded,
        revision=_commit(name, revision, hf),
        origin=Origin(
            "from files",
            files.plain_options(asked),
            GgufSource(path.name, file.sha256, file.types, package),
        ),
    )


_OF_THE_FILE = (
    "gguf_file",
    "subfolder",
    "cache_dir",
    "force_download",
    "local_files_only",
    "token",
)
"""Options that say where the file is, and nothing of the directory that is made of it."""


def _gguf_file(
    name: str, revision: str | None, hf: dict[str, Any]
) -> tuple[Path | None, str | None]:
    """The GGUF file that a name means, and the package that it is from; None of other models."""
    within = hf.get("gguf_file")
    if name == SMOLLM2:
        return installed()
    if is_gguf(Path(name)):
        return Path(name), None
    if within is None:
        _refuse_missing(name)
        return None, None
    found = Place(name, files.source_of(name, revision, hf)).find(str(within))
    if found is None:
        raise LoadError(f"There is no file {within!r} in {name!r}, or it is not to be had now.")
    return found, None


def _refuse_missing(name: str) -> None:
    """Raise where a name can only be that of a file or a directory here, and there is none."""
    path = Path(name)
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        others = [other.name for other in path.parent.glob(f"*{SUFFIX}")]
        raise LoadError(
            f"There is no file {str(path)!r}; of this kind {str(path.parent)!r} has "
            f"{listing(sorted(others)) or 'none'}.{did_you_mean(path.name, others)}"
        )
    if _is_place(name) and not path.exists():
        beside = [other.name for other in path.parent.glob("*/")]
        raise LoadError(
            f"There is no directory {name!r}, nor a file. A model is a directory with config.json, "
            "as save_pretrained writes it, a GGUF file, 'nano', 'smollm2', or a hub id, such as "
            f"'openai-community/gpt2'.{did_you_mean(path.name, beside)}"
        )


def _is_place(name: str) -> bool:
    """Whether a name can only be a place on this machine, since no hub id looks like it."""
    return name.startswith((".", "~")) or Path(name).is_absolute() or name.count("/") > 1


def _commit(name: str, revision: str | None, hf: dict[str, Any]) -> str | None:
    """The hub's commit of a file there; None of one here."""
    if "gguf_file" not in hf or Path(name).is_dir():
        return None
    return Place(name, {"revision": revision}).commit() or revision


def _without_cache(
    name: str,
    file: gguf.Unpacked,
    tokenizer: PreTrainedTokenizerBase | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | Mapping[str, str | torch.dtype] | None,
    options: dict[str, Any],
) -> Loaded:
    """A model that is kept nowhere but in memory, in the same state as from the cache."""
    attention = options.pop("attn_implementation", None)
    if options:
        raise LoadError(
            f"Without a cache to unpack {file.path.name} into, {listing(options)} cannot be had."
        )
    target, kind = files.device_at_hand(device), files.dtype_of(dtype)
    if isinstance(kind, dict):
        raise LoadError(
            f"Without a cache to unpack {file.path.name} into, dtype= is one type, not {dtype!r}."
        )
    module = gguf.in_memory(
        file, kind if isinstance(kind, torch.dtype) else gguf.UNPACKED, attention
    )
    own = gguf.tokenizer_of(file) if tokenizer is None else tokenizer
    anatomy = Anatomy.of(module)
    files.check_tokenizer(name, own, anatomy.dims.d_vocab)
    return Loaded(module.to(target), own, anatomy, name)
