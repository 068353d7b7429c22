"""Weights and tokenizers from files: the embedded model, a local directory, a hub id."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from microtome.amounts import many
from microtome.errors import LoadError, did_you_mean, listing
from microtome.language.sites import Dimensions
from microtome.model.anatomy import Anatomy, family_of
from microtome.model.checkpoint import Place, check_complete, check_fits, look
from microtome.model.families.family import Family
from microtome.model.gguf_header import SUFFIX
from microtome.model.loaded import Loaded, Origin
from microtome.model.smollm2 import SMOLLM2

NANO = "nano"
"""Name of the embedded model."""

SHORT = (NANO, SMOLLM2)
"""Names of models that come in packages."""

ADAPTER = "adapter_config.json"
"""The file that makes a directory peft's."""

UNRECORDED = ("token", "proxies", "cache_dir", "offload_folder", "adapter_kwargs", "config")
"""Options of which no record is kept: secrets, places on this machine, what the model has."""

_WRONG_FILE = (
    *(OSError, ValueError, RuntimeError, TypeError, ImportError),
    *(SafetensorError, StrictDataclassError, LookupError, AttributeError),
)
"""What Hugging Face raises for files that are missing, cut short or of another kind.

And for packages that it would need to spread a model, or to unpack its weights; and for words of a
configuration that it looks up (an activation function, a type).
"""


def read(
    name: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | Mapping[str, str | torch.dtype] | None,
    revision: str | None,
    where: str | None = None,
    **hf: Any,
) -> Loaded:
    """What lies in a directory or under a hub id, not proved yet; see `microtome.load`.

    The directory is ``where``, if its name is another: that of a file it was made of.
    """
    if where is None:
        where = str(nano_directory()) if name == NANO else name
    if device is not None and "device_map" in hf:
        raise LoadError(
            "device= puts all weights in one place and device_map= spreads them: give one."
        )
    if dtype is not None and hf.get("torch_dtype") is not None:
        raise LoadError("torch_dtype= is the old name of dtype=: give one.")
    target, kind = device_at_hand(device), dtype_of(dtype)
    source = source_of(where, revision, hf)
    config = _check_there(where, source)
    row = family_of(config, f"{where} holds")
    row = row.fits(row, config)
    place = Place(where, source)
    whole = _check_weights(name, place, row, config, hf)
    options = {
        "use_safetensors": True,
        **hf,
        **source,
        "dtype": kind,
        # What does not fit is in the report, and there it has a name.
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    try:
        module, report = row.auto.from_pretrained(where, **options)
        own = tokenizer
        if own is None:
            own = AutoTokenizer.from_pretrained(where, **source)
    except _WRONG_FILE as error:
        why = _first_line(error).rstrip(".")
        raise LoadError(f"Cannot load {name!r}: {why}. {_advice(where)}") from error
    check_complete(name, module, report, whole, _advice(where))
    if "device_map" not in hf and getattr(module, "quantization_method", None) is None:
        module = module.to(target)
    module.eval()
    anatomy = Anatomy.of(module)
    check_tokenizer(name, own, anatomy.dims.d_vocab)
    asked = {"dtype": dtype, "device": device, "revision": revision, "tokenizer": tokenizer, **hf}
    origin = Origin("from files", plain_options(asked))
    return Loaded(module, own, anatomy, name, place.commit() or commit(module) or revision, origin)


def nano_directory() -> Path:
    """Where the embedded model lies."""
    return Path(str(files("microtome.model") / NANO))


def source_of(where: str, revision: str | None, hf: dict[str, Any]) -> dict[str, Any]:
    """From where configuration, weights and tokenizer are all read: one answer for the three.

    A hub that does not answer at once is not asked again: Hugging Face's own retries would take
    half a minute for every file that is not in the cache.
    """
    names = ("cache_dir", "force_download", "local_files_only", "subfolder", "token")
    source = {name: hf[name] for name in names if name in hf}
    source |= {"revision": revision, "trust_remote_code": bool(hf.get("trust_remote_code"))}
    if not Path(where).is_dir() and not source.get("local_files_only"):
        source["local_files_only"] = not _hub_answers(where, revision, hf.get("token"))
    return source


def _hub_answers(where: str, revision: str | None, token: str | bool | None) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(where, "config.json", revision=revision), token=token)
    except HfHubHTTPError:
        return True  # If only that there is no such model.
    # No network, no such name, offline mode, a name that none can have: each has its own error.
    except Exception:
        return False
    return True


def _check_there(where: str, source: dict[str, Any]) -> PretrainedConfig:
    """The configuration, found before any weights are read."""
    folder = Path(where) / source.get("subfolder", "")
    if (folder / ADAPTER).is_file():
        raise LoadError(
            f"The directory {where} holds an adapter ({ADAPTER}), which is not a model by itself. "
            "Load it with peft, and give the model: load(PeftModel.from_pretrained(…), "
            "tokenizer=…); or merge it, model.merge_and_unload().save_pretrained(folder)."
        )
    if Path(where).is_dir() and not (folder / "config.json").is_file():
        raise LoadError(f"The directory {where} has no config.json. {_advice(str(folder))}")
    try:
        config = AutoConfig.from_pretrained(where, **source)
    # TypeError is what some versions make of JSON that is no object, AttributeError of a type that
    # torch does not have.
    except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        if Path(where).is_dir():
            raise LoadError(f"Cannot read {where}/config.json: {_first_line(error)}") from error
        raise LoadError(
            f"{where!r} is neither a directory here, nor in the Hugging Face cache, nor to be had "
            f"from the hub now ({_first_line(error).rstrip('.')}). "
            f"Wanted first: config.json of {where}. {_advice(where)}"
            f"{did_you_mean(where, SHORT, 0.6)}"
        ) from error
    return config


def _check_weights(
    name: str, place: Place, row: Family, config: PretrainedConfig, hf: Mapping[str, Any]
) -> Mapping[str, str]:
    """Refuse weight files that are none, or not this configuration's, before anything is built.

    Returns:
        Which of the weights are whole numbers, and of which type.
    """
    if not hf.get("use_safetensors", True) or hf.get("gguf_file"):
        return {}
    dims = _dimensions(name, row, config)
    found = look(name, place, config, hf.get("variant"))
    if found is None:
        return {}
    check_fits(name, found, row, config, dims)
    return found.whole


def _dimensions(name: str, row: Family, config: PretrainedConfig) -> Dimensions:
    try:
        return row.dimensions(config)
    # Numbers that are texts, are missing, or are zero where something is divided by them.
    except (ArithmeticError, TypeError, AttributeError) as error:
        raise LoadError(
            f"Cannot load {name!r}: its config.json makes no model: {_first_line(error)}."
        ) from error


def plain_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `load` was told, as a record keeps it: without secrets and places on this machine."""
    return {
        option: _plain(value)
        for option, value in asked.items()
        if value is not None and option not in UNRECORDED
    }


def _plain(value: Any) -> Any:
    match value:
        case str() | bool() | int() | float() | None:
            return value
        case torch.dtype():
            return str(value).removeprefix("torch.")
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case torch.device():
            return str(value)
    return _plain(value.to_dict()) if hasattr(value, "to_dict") else type(value).__name__


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> None:
    """Raise `LoadError` unless a tokenizer can be a model's.

    Tokens that were added to it and not to the model (a padding token, Gemma 3's image token) are
    no harm as long as no prompt has them, which `Loaded.encode` sees to.
    """
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        raise LoadError(
            f"tokenizer= is a tokenizer of transformers, not a {type(tokenizer).__name__}: give "
            "AutoTokenizer.from_pretrained(…), or of a processor its own, processor.tokenizer."
        )
    if len(tokenizer) <= 1:
        raise LoadError(
            f"The tokenizer of {name!r} is empty: put its files beside the weights, or give one: "
            "load(…, tokenizer=…)."
        )
    beyond = len(tokenizer) - d_vocab
    if beyond > sum(token >= d_vocab for token in tokenizer.added_tokens_decoder):
        raise LoadError(
            f"The tokenizer has {many(len(tokenizer), 'token')}, and {name!r} knows {d_vocab}: it "
            "is another model's. Give the model's own."
        )


def device_at_hand(device: str | torch.device | None) -> torch.device:
    """The device asked for, proved to be there before any weights are read."""
    here = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = here if device is None else device  # 0 is the first card
    try:
        return torch.empty(0, device=wanted).device
    except (RuntimeError, AssertionError) as error:  # The latter from a torch built without it.
        cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise LoadError(
            f"There is no device {str(wanted)!r} here ({_first_line(error)}); there are: "
            f"{listing(['cpu', *cards])}."
        ) from error


def dtype_of(dtype: object) -> str | torch.dtype | dict[str, Any]:
    """The type asked for; ``"auto"`` is the checkpoint's own; of a mapping, that of each part."""
    if dtype is None or dtype == "auto":
        return "auto"
    if isinstance(dtype, Mapping):
        return {part: _floating(own) for part, own in dtype.items()}
    return _floating(dtype)


def _floating(dtype: object) -> torch.dtype:
    found = dtype
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise LoadError(f"{dtype!r} is no floating-point type; try 'float32' or 'bfloat16'.")
    return found


def _advice(where: str) -> str:
    if Path(where).is_dir():
        packed = sorted(path for path in Path(where).iterdir() if path.suffix.lower() == SUFFIX)
        if packed:
            others = f" (there are {many(len(packed), 'such file')})" if len(packed) > 1 else ""
            return f"To load a GGUF file, give the file{others}: load({str(packed[0])!r})."
        return (
            "A model's directory holds config.json, model.safetensors and the tokenizer's files, "
            "as save_pretrained writes them (weights in other formats are not read)."
        )
    return (
        "On a machine with a network, download it once with:  "
        f"hf download {where} --include '*.json' '*.safetensors' '*.txt'"
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    looked_up = isinstance(error, LookupError | AttributeError)  # of which the text is a name alone
    return f"{type(error).__name__}: {line}" if looked_up else line


def commit(module: PreTrainedModel) -> str | None:
    """The hub's commit that a model is of, where one is known."""
    return getattr(module.config, "_commit_hash", None)
