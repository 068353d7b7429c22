"""What is given in the place of a model: the module inside a wrapper, or why there is none.

A wrapper is taken off where the module inside is what runs, so that its hooks are seen: LoRA and
its like change the module's own layers, and so does `torch.nn.DataParallel` no more than copy it.
Where something else would run than what was given, that is an error which says what to give.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.errors import LoadError
from microtome.model.additions import put_on
from microtome.model.gguf_header import is_gguf
from microtome.model.modules import named_modules

ASK = (
    "Give a name, a directory, or a Hugging Face model in memory: "
    "load(AutoModelForCausalLM.from_pretrained(…), tokenizer=…)."
)

TORCHS_PACKED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
"""Where torch has the layers that it quantises itself."""

MIXING = ("peft.tuners.lily.",)
"""Where peft has layers that do not take each position by itself."""

Parts = Sequence[tuple[str, nn.Module]]
"""Modules by their paths."""

WEIGHED = "peft.tuners.xlora."
"""Where peft has adapters that its wrapper weighs by a pass of its own."""

OTHERS = {
    "transformer_lens": "TransformerLens computes with weights that it has changed",
    "nnsight": "nnsight wraps the model that it loads",
    "sae_lens": "sae-lens wraps the model that it loads",
    "sentence_transformers": "sentence-transformers has models without a head",
    "deepspeed": "DeepSpeed may have parted the weights",
    "vllm": "vLLM has modules of its own",
    "gguf": "these are packed weights without a model",
}
"""Other libraries whose objects hold a model, and why none is taken from them."""


@runtime_checkable
class Pipe(Protocol):
    """A pipeline of transformers, as far as is needed: to import its class would take long."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None


def module_of(given: object) -> PreTrainedModel:
    """The Hugging Face module that runs when this is called.

    Raises:
        LoadError: there is none, or running it by itself would not be what was given.
    """
    module = given
    while not isinstance(module, PreTrainedModel):
        inner = _inside(module)
        if inner is None:
            raise LoadError(_why_not(module))
        _refuse_hooked(module, inner)
        module = inner
    refuse_unseen(module)
    refuse_empty(module)
    return module


def refuse_unseen(module: PreTrainedModel) -> None:
    """Raise where a model would run past hooks, has masks that nobody can see, or rounds by batch.

    Raises:
        LoadError: it is compiled in place, or a part of it is; its weights are cut up between
            processes; it puts autocast on for itself; its attention is flexible; torch has
            quantised layers of it; or an adapter mixes positions.
    """
    parts = named_modules(module)
    _refuse_compiled(module, parts)
    refuse_cut_up(parts)
    _refuse_casting(module, parts)
    _refuse_attention(module)
    refuse_packed(module, parts)
    _refuse_mixing(parts)


def refuse_empty(module: PreTrainedModel) -> None:
    """Raise where weights are on no device, and nothing is there to fetch them.

    Raises:
        LoadError: so it is.
    """
    kept = [path for path, part in module.named_modules() if "_hf_hook" in vars(part)]
    for name, weight in module.named_parameters():
        if weight.is_meta and not any(name.startswith(f"{path}.") or not path for path in kept):
            raise LoadError(
                f"This {_name(module)} has no weights: {name} is on the meta device, which holds "
                "shapes alone. Load the weights, from_pretrained(…), or fill them "
                "(hf.to_empty(device=…), hf.load_state_dict(…)), and give the model then."
            )


def refuse_packed(module: PreTrainedModel, parts: Parts) -> None:
    """Raise for layers that torch itself has quantised.

    In 8 bits they round what they are given by the range of the whole batch, so a cell's numbers
    would depend on those beside it; and no hash sees their weights.

    Args:
        module: the model.
        parts: all its modules, by their paths.

    Raises:
        LoadError: there are some.
    """
    packed: list[str] = []
    for path, _ in _of_kinds(parts, TORCHS_PACKED):
        if not (packed and path.startswith(f"{packed[-1]}.")):
            packed.append(path)
    if packed:
        kind = type(module.get_submodule(packed[0]))
        more = f" and {len(packed) - 1} more are layers" if len(packed) > 1 else " is a layer"
        raise LoadError(
            f"{packed[0]}{more} that torch has quantised ({kind.__module__}.{kind.__qualname__}): "
            "they may round what they are given by the range of the whole batch, so a cell would "
            "depend on those beside it. Give the model before quantize_dynamic, or with weights "
            "packed by bitsandbytes, torchao or GGUF (docs/big-models.md)."
        )


def refuse_cut_up(parts: Parts) -> None:
    """Raise for weights that torch has spread over processes: they mix with no plain tensors.

    Args:
        parts: all its modules, by their paths.

    Raises:
        LoadError: there are some.
    """
    for path, part in parts:
        for name, weight in part._parameters.items():
            if type(weight).__module__.startswith("torch.distributed."):
                raise LoadError(
                    f"{name} of {path or 'the model'} is a {_name(weight)}: torch.distributed "
                    "(tensor parallelism, fully_shard) has cut this model up between processes, "
                    "and a cell takes the whole of it. Load it in one process, with device_map= "
                    "if it needs several devices (docs/big-models.md)."
                )


def tokenizer_of(given: object) -> PreTrainedTokenizerBase | None:
    """The tokenizer that comes with what is given, where one does."""
    return given.tokenizer if isinstance(given, Pipe) and _is_of_transformers(given) else None


def _inside(given: Any) -> object:
    """What a wrapper holds and calls; None of what is no such wrapper.

    Raises:
        LoadError: it does more than call it.
    """
    if _is_compiled(given):
        compiled: object = given._orig_mod
        return compiled
    if isinstance(given, DataParallel | DistributedDataParallel):
        parallel: object = given.module
        return parallel
    if isinstance(given, Pipe) and _is_of_transformers(given):
        return given.model
    if _library(given) == "peft":
        _refuse_beside(given)
        return _adapted(given)
    return None


def _adapted(given: Any) -> object:
    """The model that peft's wrapper calls, of either kind, or one of its tuners."""
    if hasattr(given, "get_base_model"):
        adapted: object = given.get_base_model()
        return adapted
    # Its attributes are those of the model inside, which has a base model of its own.
    tuner = given._modules.get("base_model", given)
    return tuner._modules.get("model")


def _refuse_beside(given: Any) -> None:
    """Raise for adapters that do something outside of the model's own layers."""
    adapter = getattr(given, "active_peft_config", None)
    if getattr(adapter, "is_prompt_learning", False):
        raise LoadError(
            f"This {_name(given)} (peft) puts learned vectors before the prompt, which the "
            "model inside does not know of, so positions would not be the text's. Adapters of "
            "the model's own layers can be loaded: LoRA, IA3 and their like."
        )
    configs = getattr(given, "peft_config", None)
    every = configs.values() if isinstance(configs, Mapping) else ()
    if any(getattr(one, "alora_invocation_tokens", None) for one in every):
        raise LoadError(
            f"This {_name(given)} (peft) has an activated LoRA, which begins at some words of the "
            "prompt: the wrapper finds them, and the model inside does not know of it. Adapters "
            "that act at every position can be loaded: LoRA, IA3 and their like."
        )
    if any(type(one).__module__.startswith(WEIGHED) for one in every):
        raise LoadError(
            f"This {_name(given)} (peft) has X-LoRA, whose adapters the wrapper weighs token by "
            "token, by a pass of its own before each: the model inside has them all in full. Load "
            "one adapter alone, PeftModel.from_pretrained(model, …): LoRA, IA3 and their like."
        )


def _refuse_hooked(wrapper: Any, inner: object) -> None:
    """Raise for hooks on a wrapper that is taken off: they would not run any more."""
    if not isinstance(wrapper, nn.Module):
        return
    parts = [wrapper, *(one for one in wrapper.children() if one is not inner)]
    own = [what for part in parts for _, what in put_on(part)]
    if own:
        raise LoadError(
            f"The {_name(wrapper)} around the model has {own[0]}, which would not run, as "
            "the model inside is what is taken. Put it on that one."
        )


def _why_not(given: object) -> str:
    if given is None:
        return f"None is no model. {ASK}"
    if isinstance(given, type):
        return f"{given.__name__} is a class, not a model of it. {ASK}"
    if isinstance(given, PreTrainedTokenizerBase):
        return f"{_name(given)} is a tokenizer. {ASK}"
    if isinstance(given, Mapping):
        return (
            f"This {_name(given)} of {len(given)} entries has weights at the most, and no modules "
            "to run: put them into a model, hf = AutoModelForCausalLM.from_config(config), "
            "hf.load_state_dict(…), hf.eval(), and load(hf, tokenizer=…)."
        )
    why = OTHERS.get(_library(given))
    if why is not None:
        return f"{_name(given)} is no Hugging Face model: {why}. {ASK}"
    if isinstance(given, nn.Module):
        return (
            f"{_name(given)} is a torch module, and no model of transformers, whose table of "
            f"families says where its parts are. {ASK}"
        )
    what = "a tensor" if isinstance(given, Tensor) else f"of class {_name(given)}"
    return f"What was given is {what}, and no model. {ASK}"


def refuse_file(name: str) -> None:
    """Raise `LoadError` where a name is that of a file that is no model by itself, or none's."""
    path = Path(name)
    try:
        if not name:
            raise ValueError("it is empty")
        is_file = bool(stat.S_ISREG(path.stat().st_mode))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # Too long, or with characters that no path has.
        why = error.strerror if isinstance(error, OSError) else error
        raise LoadError(f"{name[:40]!r} names no model: {why}. {ASK}") from error
    if is_file and not is_gguf(path):
        raise LoadError(
            f"{path} is a file: give the directory that it lies in, with config.json and the "
            f"tokenizer's files, as save_pretrained writes it: load({str(path.parent)!r}). "
            "By itself a GGUF file can be loaded, which this is not."
        )


def _refuse_compiled(module: PreTrainedModel, parts: Parts) -> None:
    """Compiled code was made without our hooks, and would run without them."""
    for path, part in parts:
        own = vars(part)
        forward = getattr(own.get("forward"), "_torchdynamo_orig_callable", None)
        if part._compiled_call_impl is not None or forward or _is_compiled(part):
            what = f"its part {path}" if path else "it"
            raise LoadError(
                f"This {_name(module)} was compiled in place ({what}: torch.compile), and compiled "
                "code runs without hooks. Give the model as it was before, or load it again; "
                "what torch.compile(model) returns can be given, and runs uncompiled."
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise LoadError(
                f"{path} of this {_name(module)} is TorchScript ({_name(part)}, torch.jit): "
                "compiled code, which runs without hooks. Give the model as it was before."
            )


def _refuse_casting(module: PreTrainedModel, parts: Parts) -> None:
    """Its parts, run by themselves, would compute in another type than within the whole."""
    for path, part in parts:
        if _casts(vars(part).get("forward")):
            raise LoadError(
                f"This {_name(module)} puts torch.autocast on while it runs ({path or 'it'} was "
                "wrapped: by accelerate with mixed_precision, or by torch.autocast(…)), and its "
                "parts by themselves do not: there would be products of two types. Give the model "
                "inside, accelerator.unwrap_model(model, keep_fp32_wrapper=False), in the type "
                "that you want."
            )


def _casts(forward: Any) -> bool:
    """Whether a function puts torch.autocast on while it runs, however it is wrapped."""
    while forward is not None:
        forward = getattr(forward, "__func__", forward)
        if "autocast" in getattr(forward, "__script_unsupported", ""):
            return True
        forward = getattr(forward, "__wrapped__", None)
    return False


def _refuse_mixing(parts: Parts) -> None:
    """With such an adapter a token's numbers depend on all others, later ones too."""
    for path, _ in _of_kinds(parts, MIXING):
        raise LoadError(
            f"{path} has a Lily adapter (peft), which weighs its matrices by their mean over all "
            "positions of all texts in the batch: a cell would depend on those beside it, and a "
            "token on later ones. Adapters that act at every position by itself can be loaded: "
            "LoRA, IA3 and their like."
        )


def _of_kinds(parts: Parts, homes: tuple[str, ...]) -> Parts:
    """Those whose classes are from these modules of Python's: mostly none, and it is soon known."""
    kinds = {type(part) for _, part in parts}
    found = {kind for kind in kinds if kind.__module__.startswith(homes)}
    return [(path, part) for path, part in parts if type(part) in found] if found else []


def _refuse_attention(module: PreTrainedModel) -> None:
    if getattr(module.config, "_attn_implementation", None) == "flex_attention":
        raise LoadError(
            "With flex_attention a mask is a program, which cannot be shown or cut. Use another: "
            'load(…, attn_implementation="sdpa"), or hf.set_attn_implementation("sdpa").'
        )


def _is_compiled(given: object) -> bool:
    """Whether it is what `torch.compile` makes of a module; its class is costly to import."""
    return isinstance(given, nn.Module) and type(given).__name__ == "OptimizedModule"


def _is_of_transformers(given: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "transformers" for kind in type(given).__mro__)


def _library(given: object) -> str:
    return type(given).__module__.partition(".")[0]


def _name(given: object) -> str:
    return type(given).__name__
