"""Weight files, looked at before anything is built of them: their names, and their headers.

Transformers reads what an index names, pickles and files of other folders too, builds whatever a
configuration asks for, and passes over weights that it has no place for. Here each of these is an
error, and the first two before any weight is read. Links are followed: the hub's own cache is made
of them, and what they lead to is parsed as safetensors or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from microtome.amounts import many
from microtome.errors import LoadError, listing
from microtome.language.sites import Dimensions
from microtome.model.families.family import Family
from microtome.textfiles import shown

SUFFIX = ".safetensors"

WHOLE = ("I", "U", "BOOL")
"""How the names of types begin that are whole numbers, or truth values."""

PACKED = 32
"""How many times as many numbers a model may have as its files: packed ones hold several in one."""

MOST = 5
"""How many names a message has."""


@dataclass(frozen=True)
class Checkpoint:
    """What weight files say of themselves.

    Attributes:
        names: of all weights.
        elements: how many numbers they are; None where not all files are here yet.
        whole: those that are whole numbers or truth values, with their type, as safetensors has it.
    """

    names: tuple[str, ...]
    elements: int | None
    whole: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where the files of a model are: a directory, or a hub id with how to ask for it.

    Attributes:
        where: the directory or the hub id.
        source: what transformers is told of it: cache, revision, subfolder…
    """

    where: str
    source: Mapping[str, Any]

    def find(self, name: str, *, here: bool = False) -> Path | None:
        """The path of a file; None where there is none. From the hub, unless it is to be here."""
        if Path(self.where).is_dir():
            path = Path(self.where) / self.source.get("subfolder", "") / name
            return path if path.is_file() else None
        source = {**self.source, "local_files_only": True} if here else self.source
        known = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
        asked = {key: source[key] for key in known if key in source}
        try:
            found = cached_file(self.where, name, **asked)
        except OSError:  # It is not there, or not to be had: loading will say why.
            return None
        return None if found is None else Path(found)

    def commit(self) -> str | None:
        """The hub's commit that the files are of, which its cache has as a folder's name."""
        path = None if Path(self.where).is_dir() else self.find("config.json", here=True)
        found = None if path is None else re.search(r"snapshots/([0-9a-f]{40})/", path.as_posix())
        return None if found is None else found[1]


def look(
    name: str, place: Place, config: PretrainedConfig, variant: str | None = None
) -> Checkpoint | None:
    """What a model's weight files say of themselves; None where there are none in safetensors.

    Raises:
        LoadError: an index cannot be read, or it names what is no safetensors file of this model:
            a pickle, a file elsewhere, one that is missing; or a file is damaged.
    """
    single, index = _names(config, variant)
    whole = None if single is None else place.find(single)
    if whole is not None:
        return _headers(name, [whole])
    path = None if index is None else place.find(index)
    if path is None:
        return None
    weight_map = _weight_map(name, path)
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        _check_shard(name, path.name, shard)
    found = [place.find(shard, here=True) for shard in shards]
    if Path(place.where).is_dir():
        gone = [shard for shard, there in zip(shards, found, strict=True) if there is None]
        if gone:
            raise LoadError(
                f"Cannot load {name!r}: {path.name} names {_few(gone)}, and there is no such file. "
                "Copy all files of the model, or write it again with save_pretrained."
            )
    here = [there for there in found if there is not None]
    if len(here) < len(shards):
        return Checkpoint(tuple(weight_map), None)
    return _headers(name, here)


def _names(config: PretrainedConfig, variant: str | None) -> tuple[str | None, str | None]:
    """The names of one file of weights and of an index, of which transformers would take one."""
    named = getattr(config, "transformers_weights", None)
    if named is not None:
        return (None, named) if str(named).endswith(".index.json") else (named, None)
    return _of_variant(SAFE_WEIGHTS_NAME, variant), _of_variant(SAFE_WEIGHTS_INDEX_NAME, variant)


def _of_variant(name: str, variant: str | None) -> str:
    """``model.fp16.safetensors``, as transformers names it."""
    if variant is None:
        return name
    stem, _, end = name.rpartition(".")
    return f"{stem}.{variant}.{end}"


def _weight_map(name: str, path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise LoadError(
            f"Cannot load {name!r}: {path.name} is no index of weights ({type(error).__name__}: "
            f"{error}). It maps names to files under 'weight_map', as save_pretrained writes it."
        ) from error
    texts = isinstance(found, dict) and all(isinstance(shard, str) for shard in found.values())
    if not texts or not found:
        raise LoadError(
            f"Cannot load {name!r}: 'weight_map' in {path.name} does not map names to files."
        )
    return dict(found)


def _check_shard(name: str, index: str, shard: str) -> None:
    """Refuse what is no safetensors file in the model's own directory."""
    parts = {*PurePosixPath(shard).parts, *PureWindowsPath(shard).parts}
    rooted = PurePosixPath(shard).is_absolute() or bool(PureWindowsPath(shard).anchor)
    if rooted or ".." in parts or "\0" in shard:
        why = "which is outside the model's directory"
    elif not shard.endswith(SUFFIX):
        why = "which is no safetensors file, and other formats can run code"
    else:
        return
    raise LoadError(
        f"Cannot load {name!r}: {index} names {shard!r}, {why}. Nothing was read. Convert the "
        "weights where you trust them: load them there, and save_pretrained(folder)."
    )


def _headers(name: str, paths: list[Path]) -> Checkpoint:
    where, whole, elements = [], {}, 0
    for path in paths:
        try:
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  (it is no mapping)
                    where.append((key, path.name))
                    part = opened.get_slice(key)
                    elements += prod(part.get_shape())
                    if part.get_dtype().startswith(WHOLE):
                        whole[key] = part.get_dtype()
        except (SafetensorError, OSError) as error:
            _refuse_place(name, path)
            raise LoadError(
                f"Cannot load {name!r}: {path.name} cannot be read as safetensors ({error}). It is "
                "damaged or cut short, or of another format: get it again."
            ) from error
    _check_once(name, where)
    return Checkpoint(tuple(key for key, _ in where), elements, whole)


def _check_once(name: str, where: list[tuple[str, str]]) -> None:
    """Refuse a weight that is in two files: which of them counts, nothing says."""
    files = dict(where)
    for key, file in where:
        if file != files[key]:
            raise LoadError(
                f"Cannot load {name!r}: {key} is in {file} and in {files[key]}, which are of two "
                "models, or written at two times. Get all files of the model again."
            )


def _refuse_place(name: str, path: Path) -> None:
    """Raise where it is the name of a folder that safetensors cannot read, and not the file."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise LoadError(
            f"Cannot load '{shown(name)}': a folder on its path has a name that is not UTF-8, and "
            "weights in safetensors are read by names that are. Rename it, or give the model's "
            "directory relative to one inside of it."
        ) from None


# ------------------------------------------------------------------------- the configuration's word


def check_fits(
    name: str, checkpoint: Checkpoint, family: Family, config: PretrainedConfig, dims: Dimensions
) -> None:
    """Refuse a configuration whose model is not that of the weights, before it is built.

    Raises:
        LoadError: it has more or fewer layers, or many times as many numbers.
    """
    numbered = dict(_numbered(family, checkpoint.names))
    layers = max(numbered.values(), default=-1) + 1
    if numbered and layers > dims.n_layers:
        extra = sorted(key for key, layer in numbered.items() if layer >= dims.n_layers)
        raise LoadError(
            f"Cannot load {name!r}: config.json asks for {many(dims.n_layers, 'layer')}, and the "
            f"weights are of {layers}: there would be no place for {_few(extra)}. {_ADVICE}"
        )
    if numbered and layers < dims.n_layers:
        raise LoadError(
            f"Cannot load {name!r}: config.json asks for {many(dims.n_layers, 'layer')}, and the "
            f"weights are of {layers}: the others' are missing. {_ADVICE}"
        )
    wanted, elements = _least(config, dims), checkpoint.elements
    if elements is not None and wanted > PACKED * max(elements, 1):
        raise LoadError(
            f"Cannot load {name!r}: a model of its config.json has at least "
            f"{many(wanted, 'number')}, and its weight files hold {elements:,}. {_ADVICE}"
        )


_ADVICE = "Take config.json and weights from the same model; to cut a model, save it cut."


def _numbered(family: Family, names: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The weights of blocks, with their layers."""
    blocks = family.blocks.rpartition(".")[2]
    pattern = re.compile(rf"(?:^|\.){re.escape(blocks)}\.(\d{{1,9}})\.")
    for name in names:
        found = pattern.search(name)
        if found:
            yield name, int(found[1])


def _least(config: PretrainedConfig, dims: Dimensions) -> int:
    """How many numbers the matrices of such a model have, at the least."""
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    attention = 2 * dims.n_heads * dims.d_head
    mlp = 2 * dims.d_mlp * (experts or 1)
    rows = dims.d_vocab + (dims.n_positions or 0)
    return int(dims.d_model * (rows + dims.n_layers * (attention + mlp)))


# ------------------------------------------------------------------------------- after it was built


def check_complete(
    name: str,
    module: nn.Module,
    report: Mapping[str, Any],
    whole: Mapping[str, str],
    advice: str,
) -> None:
    """Refuse weights of which some are made up, or left over though they belong to the model.

    And those that are whole numbers in the files: packed ones, without the word how.

    Hugging Face puts random ones for what is missing. What is left over is no harm where no part of
    the model would compute with it: old checkpoints hold attention masks and rotary frequencies,
    others a pooler.

    Raises:
        LoadError: weights are missing, of another shape, or without their place.
    """
    wrong = [f"{key} is missing" for key in sorted(report["missing_keys"])]
    wrong += [
        f"{key} is {list(found)}, not {list(wanted)}"
        for key, found, wanted in sorted(report["mismatched_keys"])
    ]
    if getattr(module, "quantization_method", None) is None:
        wrong += [
            f"{key} has no place in the model"
            for key in sorted(report["unexpected_keys"])
            if _belongs(key, module)
        ]
        wrong += [
            f"{key} is of whole numbers ({kind}), and config.json has no quantization_config"
            for key, kind in sorted(whole.items())
            if _is_parameter(key, module)
        ]
    if wrong:
        raise LoadError(
            f"Cannot load {name!r}: its weights are not those of its config.json: {_few(wrong)}. "
            f"{advice}"
        )


def _belongs(key: str, module: nn.Module) -> bool:
    """Whether a weight is of a part of the model that computes with weights of its own.

    Weights of further layers are not: `check_fits` has seen to it that the files have as many as
    their configuration, so they were left out on request (``num_hidden_layers=2``).
    """
    return any(_owner(name, module) for name in _whole_names(key, module))


def _whole_names(key: str, module: nn.Module) -> list[str]:
    """What a weight may be called in the model: files of the base model leave its name out."""
    return [key, f"{getattr(module, 'base_model_prefix', '')}.{key}"]


def _is_parameter(key: str, module: nn.Module) -> bool:
    known = dict(module.named_parameters(remove_duplicate=False))
    return any(name in known for name in _whole_names(key, module))


def _owner(name: str, module: nn.Module) -> bool:
    """Whether one of the modules on a name's path has weights of its own, and nothing inside.

    Or the name is of a module that a block of the model would have: another kind of block's.
    """
    path = name.split(".")
    for length in range(1, len(path)):
        try:
            part = module.get_submodule(".".join(path[:length]))
        except AttributeError:
            in_block = any(one.isdecimal() for one in path[: length - 1])
            return in_block and path[-1] in ("weight", "bias")
        if not any(True for _ in part.children()) and any(True for _ in part.parameters()):
            return True
    return False


def _few(texts: list[str]) -> str:
    more = f" … and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return listing(texts[:MOST]) + more
