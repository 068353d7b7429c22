"""Proofs that are kept: what the probe proved once it need not prove at every load.

A proof is of one model (weights, buffers, configuration, types, device), of the code that it runs
and of the code that proved it, as they are in memory; of versions, and of how torch is set. It is
kept in the user's cache for models that are large enough to be worth it, that microtome read
itself, and that nobody has put anything on. Whatever differs is proved again. Some hundred are
kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from microtome.model import cache
from microtome.model.code import code_of, modules_in, modules_of
from microtome.model.loaded import Loaded
from microtome.model.modes import modes
from microtome.passes.probe import probe

WORTH = 20_000_000
"""Numbers that a model has at the least: a smaller one is proved faster than it is looked up."""

MOST = 256
"""Proofs that are kept: of more, those go that nobody has looked up for longest."""

NAMED = "proof-"

PROVERS = ("microtome.language", "microtome.model", "microtome.passes")

PACKAGES = ("torch", "transformers", "numpy")


def prove(model: Loaded) -> None:
    """Check a model against its row in the table of families, unless that was done before.

    Raises:
        LoadError, ProbeError: as `probe` does.
    """
    mark = _mark(model)
    if mark is not None and _is_kept(mark):
        return
    probe(model.hf, model.anatomy)
    if mark is not None:
        # Without it the next load takes as long as this one did.
        with contextlib.suppress(OSError):
            _keep(mark)


def _mark(model: Loaded) -> Path | None:
    """Where the proof of a model is kept; None where none is."""
    root, hf = cache.directory(), model.hf
    if root is None or model.origin.loaded != "from files" or model.additions:
        return None
    foreign = model.origin.asked.get("trust_remote_code") or hasattr(hf, "hf_device_map")
    packed = getattr(hf, "quantization_method", None) is not None
    if foreign or packed or sum(weight.numel() for weight in hf.parameters()) < WORTH:
        return None
    attention = str(hf.config._attn_implementation)
    named = [kind().get(attention) for kind in (AttentionInterface, AttentionMaskInterface)]
    code = [model.anatomy, *named, *modules_of(map(type, hf.modules())), *modules_in(PROVERS)]
    device = torch.cuda.get_device_name(hf.device) if hf.device.type == "cuda" else hf.device.type
    told = {
        "weights": model.hashes,
        "config": hf.config.to_dict(),
        "attention": attention,
        "dtypes": [str(kind) for kind in model.dtypes],
        "device": device,
        "modes": modes(),
        "machine": [platform.machine(), platform.python_version()],
        "versions": [importlib.metadata.version(name) for name in PACKAGES],
        "code": code_of(code),
    }
    text = json.dumps(told, sort_keys=True, default=str)
    return root / f"{NAMED}{hashlib.sha256(text.encode()).hexdigest()}"


def _is_kept(mark: Path) -> bool:
    """Whether a proof is there, whole: its content is its own name."""
    try:
        if mark.read_text(encoding="ascii") != mark.name:
            return False
    except (OSError, ValueError):
        return False
    with contextlib.suppress(OSError):  # a cache that may only be read is one too
        os.utime(mark)
    return True


def _keep(mark: Path) -> None:
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = mark.with_name(f"{mark.name}.{os.getpid()}")
    making.write_text(mark.name, encoding="ascii")
    making.replace(mark)
    _remove_oldest(mark.parent)


def _remove_oldest(root: Path) -> None:
    """Keep `MOST` proofs, and of what killed processes left no more; others may do so meanwhile."""
    used: list[tuple[int, Path]] = []
    for one in root.glob(f"{NAMED}*"):
        with contextlib.suppress(FileNotFoundError):
            used.append((one.stat().st_mtime_ns, one))
    for _, one in sorted(used)[:-MOST]:
        one.unlink(missing_ok=True)
