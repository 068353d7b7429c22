"""Loading: the embedded model, a local directory, a hub id, or a model that is already there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.errors import LoadError, listing
from microtome.model.anatomy import Anatomy
from microtome.model.files import NANO, check_tokenizer, commit, read
from microtome.model.loaded import Loaded
from microtome.passes.probe import probe
from microtome.verbs.model import Model


def load(
    name_or_path_or_model: str | Path | PreTrainedModel = NANO,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    **hf: Any,
) -> Model:
    """A model, ready for edits.

    Args:
        name_or_path_or_model: ``"nano"``, the embedded model; a local directory; a hub id such as
            ``"gpt2-large"``, through the ordinary Hugging Face cache; or a model in memory, which
            is used as it is, and needs its tokenizer.
        tokenizer: in the place of the one that lies with the weights.
        device: where to put the weights; a GPU if there is one, unless told otherwise.
        dtype: ``"float32"``, ``"float64"``, ``"bfloat16"``…; the checkpoint's own by default.
        revision: branch, tag or commit of a hub id.
        **hf: passed on to Hugging Face's ``from_pretrained``, such as
            ``attn_implementation="eager"``. Weights come from safetensors, and code from the
            checkpoint is not run, unless ``use_safetensors`` or ``trust_remote_code`` say so.

    Raises:
        LoadError: the model or its tokenizer is not there, or cannot be loaded.
        ArchitectureError: its architecture is not in the table of families.
        ProbeError: it does not compute what its family's row says.

    >>> load("nano").anatomy.family.model_type
    'gpt2'
    """
    if isinstance(name_or_path_or_model, PreTrainedModel):
        changes = {"device": device, "dtype": dtype, "revision": revision, **hf}
        return _adopt(name_or_path_or_model, tokenizer, changes)
    name = str(name_or_path_or_model)
    found = read(name, tokenizer=tokenizer, device=device, dtype=dtype, revision=revision, **hf)
    return _proved(found)


def _adopt(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, changes: dict[str, Any]
) -> Model:
    given = [name for name, value in changes.items() if value is not None]
    if given:
        raise LoadError(
            f"A model in memory is used as it is: {listing(given)} cannot be changed here."
        )
    if tokenizer is None:
        raise LoadError("A model in memory needs its tokenizer: load(model, tokenizer=…).")
    if any(part.training for part in module.modules()):
        raise LoadError(
            "The model, or a part of it, is in training mode, where dropout makes every pass "
            "different: call model.eval() first."
        )
    name = module.config.name_or_path or type(module).__name__
    anatomy = Anatomy.of(module)
    check_tokenizer(name, tokenizer, anatomy.dims.d_vocab)
    return _proved(Loaded(module, tokenizer, anatomy, name, commit(module)))


def _proved(loaded: Loaded) -> Model:
    """A model that computes what its family's row says."""
    probe(loaded.hf, loaded.anatomy)
    return Model(loaded.hf, loaded.tokenizer, loaded.anatomy, loaded.name, loaded.revision)
