"""What is needed to repeat a result: model, tokenizer, versions, modes, and the question itself."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any

import torch

from microtome.errors import SweepError, VerificationError
from microtome.model.additions import adapters
from microtome.model.files import plain_options
from microtome.model.identity import changed_names, tokenizer_settings
from microtome.model.loaded import Loaded
from microtome.model.modes import modes
from microtome.model.standing import Standing
from microtome.model.watching import watchers

PACKAGES = ("microtome", "torch", "transformers", "numpy")


def of_model(model: Loaded, hashes: tuple[str, str] | None = None) -> dict[str, Any]:
    """The model: where it came from, hashes of the weights that ran, types, device, tokenizer.

    ``name`` is what it was loaded as. Of a model that was given in memory it is what its
    configuration says, which need not be true: `loaded` and `weight_hash` tell. The ``hashes`` are
    those of now, unless they are known, as within `held`.
    """
    hf = model.hf
    weights, buffers = model.hashes if hashes is None else hashes
    packed = getattr(hf.config, "quantization_config", None)
    spread = getattr(hf, "hf_device_map", None) or {}
    source = model.origin.source
    return {
        "name": model.name,
        "loaded": model.origin.loaded,
        "asked": dict(model.origin.asked),
        "revision": model.revision,
        "weight_hash": weights,
        "buffer_hash": buffers,
        "architecture": type(hf).__name__,
        "dtype": _type(model.dtype),
        "dtypes": [_type(kind) for kind in model.dtypes],
        "attention": str(getattr(hf.config, "_attn_implementation", None)),
        "quantization": None if packed is None else plain_options({"how": packed})["how"],
        "device": str(model.device),
        "device_map": {name: str(place) for name, place in spread.items()},
        "tokenizer": of_tokenizer(model),
        **({} if source is None else {"source": {**asdict(source), "types": [*source.types]}}),
        **_beside_weights(model),
    }


def _beside_weights(model: Loaded) -> dict[str, Any]:
    """What somebody has added, hooks that are vouched for among it, and how adapters are set."""
    found = {
        "additions": [str(one) for one in model.additions],
        "watching": [*watchers(model.hf)],
        "adapters": adapters(model.hf),
    }
    return {name: value for name, value in found.items() if value}


def of_tokenizer(model: Loaded) -> dict[str, Any]:
    """The tokenizer: its class, its size, a hash of all that makes tokens, its special tokens."""
    return {
        "class": type(model.tokenizer).__name__,
        "size": len(model.tokenizer),
        "hash": model.tokenizer_hash,
        "settings": tokenizer_settings(model.tokenizer),
    }


def of_machine() -> dict[str, Any]:
    """Versions of what computed, how torch was set, and when."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "modes": modes(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def held(model: Loaded, discard: Callable[[], None] = lambda: None) -> Iterator[tuple[str, str]]:
    """Within this block a model stays as it is, or what was computed has no model.

    Yields the hashes of its weights and of its buffers.

    Args:
        model: the model.
        discard: removes what was kept within the block, which would be taken for the model's.

    Raises:
        SweepError: at its end, its weights, hooks, adapters or settings are others than at its
            beginning.
    """
    sign = model.weights_sign
    before, standing = model.hashes_of(sign), Standing.of(model.hf)
    try:
        yield before
    except VerificationError as error:  # of one model and another, the two paths disagree
        _check_same(model, before, sign, standing, discard, error)
        raise
    except BaseException:  # cancelled, perhaps: what is kept is gone on with
        if model.hashes != before or standing.difference(Standing.of(model.hf)):
            discard()
        raise
    _check_same(model, before, sign, standing, discard)


def _check_same(
    model: Loaded,
    before: tuple[str, str],
    sign: Hashable,
    standing: Standing,
    discard: Callable[[], None],
    cause: VerificationError | None = None,
) -> None:
    after = model.hashes
    if after != before:
        discard()
        which = changed_names(sign, model.weights_sign)
        raise SweepError(
            f"The weights of {model.name!r} changed while it was running ({which}): sha256 "
            f"{before[0][:12]}… at the beginning, {after[0][:12]}… at the end, so that some cells "
            "are of one model and some of another. Nothing of it is kept. Train or change a copy: "
            "load(copy.deepcopy(model.hf), tokenizer=model.tokenizer)."
        ) from cause
    another = standing.difference(Standing.of(model.hf))
    if another:
        discard()
        raise SweepError(
            f"{model.name!r} changed while it was running ({another}), so that some cells are of "
            "one model and some of another. Nothing of it is kept. Leave it as it is until this "
            "is over, or change a copy: load(copy.deepcopy(model.hf), tokenizer=model.tokenizer)."
        ) from cause


def _type(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


@cache
def _versions() -> dict[str, str]:
    """Looked up once: it takes milliseconds, and they stay."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "not installed"
