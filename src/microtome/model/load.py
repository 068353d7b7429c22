"""Loading: the embedded model, a local directory, a hub id, or a model that is already there."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from microtome.errors import ArchitectureError, LoadError, listing
from microtome.model.anatomy import FAMILIES, Anatomy
from microtome.model.model import Model
from microtome.model.probe import probe

NANO = "nano"
"""Name of the embedded model."""


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
    where = str(nano_directory()) if name == NANO else name
    _check_there(where, revision, hf)
    options = {"revision": revision, "use_safetensors": True, "trust_remote_code": False, **hf}
    try:
        module = AutoModelForCausalLM.from_pretrained(where, dtype=_dtype(dtype), **options)
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(
                where, revision=revision, trust_remote_code=options["trust_remote_code"]
            )
    except (OSError, ValueError) as error:
        raise LoadError(f"Cannot load {name!r}: {_first_line(error)} {_advice(where)}") from error
    if len(tokenizer) <= 1:
        raise LoadError(f"The tokenizer of {name!r} is empty: {_advice(where)}")
    if "device_map" not in options:
        module = module.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return _probed(module.eval(), tokenizer, name, _commit(module) or revision)


def nano_directory() -> Path:
    """Where the embedded model lies."""
    return Path(str(files("microtome.model") / NANO))


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
    if module.training:
        raise LoadError(
            "The model is in training mode, where dropout makes every pass different: "
            "call model.eval() first."
        )
    name = module.config.name_or_path or type(module).__name__
    return _probed(module, tokenizer, name, _commit(module))


def _probed(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, revision: str | None
) -> Model:
    anatomy = Anatomy.of(module)
    probe(module, anatomy)
    return Model(hf=module, tokenizer=tokenizer, anatomy=anatomy, name=name, revision=revision)


def _check_there(where: str, revision: str | None, hf: dict[str, Any]) -> None:
    """Find the configuration, and refuse an unknown architecture before any weights are read."""
    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        raise LoadError(f"The directory {where} has no config.json. {_advice(where)}")
    remote = bool(hf.get("trust_remote_code", False))
    try:
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=remote)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        if Path(where).is_dir():
            raise LoadError(f"Cannot read {where}/config.json: {_first_line(error)}") from error
        raise LoadError(
            f"{where!r} is neither a directory here, nor in the Hugging Face cache, nor to be had "
            f"from the hub now. Wanted first: config.json of {where}. {_advice(where)}"
        ) from error
    if config.model_type not in FAMILIES:
        raise ArchitectureError(
            f"{where} holds a {config.model_type!r} model, which is not in microtome's table of "
            f"families; there are: {listing(FAMILIES)}. To add it, write a row in "
            "microtome/model/anatomy.py: the probe checks it when the model is loaded."
        )


def _dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    if isinstance(dtype, str) and dtype != "auto":
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise LoadError(f"{dtype!r} is no floating-point type; try 'float32' or 'bfloat16'.")
        return found
    return dtype or "auto"


def _advice(where: str) -> str:
    if Path(where).is_dir():
        return (
            "A model's directory holds config.json, model.safetensors and the tokenizer's files, "
            "as save_pretrained writes them (weights in other formats are not read)."
        )
    return (
        "On a machine with a network, download it once with:  "
        f"hf download {where} --include '*.json' '*.safetensors' '*.txt'"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _commit(module: PreTrainedModel) -> str | None:
    return getattr(module.config, "_commit_hash", None)
