"""Whether a model is the published one that its name says: read from its files, and unchanged."""

from __future__ import annotations

from pathlib import Path

from microtome.errors import MicrotomeError
from microtome.model.identity import settings
from microtome.model.loaded import Loaded
from microtome.model.named import read

HARMLESS = {
    "dtype", "device", "device_map", "max_memory", "revision", "attn_implementation",
    "local_files_only", "force_download", "use_safetensors", "low_cpu_mem_usage",
}  # fmt: skip
"""Options of `load` that leave a model the one of its files."""


def is_published(model: Loaded) -> bool:
    """Whether a model is what the hub's files of its name hold, and not merely called so.

    A directory or a file is not, whatever its name, and nor is what somebody has put something on.
    A model that was loaded by its name, with options that do not change what it computes, is, as
    long as its weights stay as they were. Any other, one given in memory above all, is compared
    with the files, if the local cache has them: weights, buffers, configuration and tokenizer. If
    it has not, nobody knows, so it is not.
    """
    if Path(model.name).exists() or _packed(model) or model.additions:
        return False
    return _as_read(model) or _equals_files(model)


def _as_read(model: Loaded) -> bool:
    origin = model.origin
    if origin.loaded != "from files" or not set(origin.asked) <= HARMLESS:
        return False
    return model.is_as_loaded


def _equals_files(model: Loaded) -> bool:
    try:
        files = read(
            model.name,
            tokenizer=None,
            device=model.device,
            dtype=model.dtype,
            revision=model.revision,
            local_files_only=True,
        )
    except MicrotomeError:  # They are not here, or of a kind that is not known: no proof.
        return False
    return (
        settings(files.hf) == settings(model.hf)
        and files.tokenizer_hash == model.tokenizer_hash
        and files.weight_hash == model.weight_hash
        and files.buffer_hash == model.buffer_hash
    )


def _packed(model: Loaded) -> bool:
    return getattr(model.hf, "quantization_method", None) is not None
