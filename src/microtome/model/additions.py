"""What somebody has put on a model: hooks, functions in the place of `forward`, classes of theirs.

The modules of transformers and of the libraries that it works with take each position by itself
outside of attention, whatever is before it or beside it in a batch. Of anything else that is not
known: a hook may steer the fourth position, or the last. So a model with such additions is only run
whole and as it is, on the reference path, and its records name them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.modules import module as globally
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.moe import ExpertsInterface

from microtome.errors import listing
from microtome.model.modules import modules, named_modules
from microtome.model.replaced import called_by, replaced
from microtome.model.whose import KNOWN, is_known, name_of, root, written

EAGER = "eager_attention_forward"
"""What a model's own Python module calls its attention without a fused kernel."""

CALLED = ("forward", "__call__", "_call_impl")
"""Methods that run when a module is called."""

UNDER = "_old_forward"
"""Accelerate's name for a `forward` that it has wrapped."""

HARMLESS = ("__init__", "__repr__", "extra_repr")
"""Methods that may be somebody's own and decide no number."""

MOST = 4
"""How many a message names."""

OFF = "disable_adapters"
"""By which peft's layers say whether their adapters are switched off."""

EXPERTS = "is_transposed"
"""What each transformers sets on modules of experts that look up by name what computes them."""

Kind = Literal["hook", "method", "class", "attention", "experts", "function"]
"""A hook, a function in the place of a method, a class, or what all attention, or all experts, are
computed by; a function in the place of one that all models of a process call by its name."""


@dataclass(frozen=True)
class Addition:
    """Something on one module that is no part of the library that made it.

    Attributes:
        path: the module's; empty for the whole model; of a function, the name that it is found by.
        kind: of what kind it is.
        what: in words.
    """

    path: str
    kind: Kind
    what: str

    def __str__(self) -> str:
        joined = {"class": "of", "function": "in the place of"}.get(self.kind, "on")
        return f"{self.what} {joined} {self.path or 'the model'}"


def additions(hf: PreTrainedModel) -> tuple[Addition, ...]:
    """All that somebody has put on a model, module by module.

    Not hooks that see gradients alone, nor what makes weights (parametrizations, weight norm): they
    see no position.
    """
    found = [Addition("", "hook", f"{name} in every module") for name in _global_hooks()]
    attention = str(getattr(hf.config, "_attn_implementation", None))
    attends, masks = own_attention(attention), AttentionMaskInterface().get(attention)
    if attends is not None:
        what = f"an attention function of your own ({name_of(attends)})"
        found.append(Addition("", "attention", what))
    if masks is not None and not is_known(masks):
        what = f"a mask function of your own ({name_of(masks)})"
        found.append(Addition("", "attention", what))
    computes = own_experts(hf)
    if computes is not None:
        what = f"a function of your own for experts ({name_of(computes)})"
        found.append(Addition("", "experts", what))
    classes: dict[type, list[tuple[Kind, str]]] = {}
    for path, module in named_modules(hf):
        if "parametrizations" in path and "parametrizations" in path.split("."):
            continue
        made = type(module)
        if made not in classes:
            classes[made] = [*_of_class(made)]
        for kind, what in (*put_on(module), *classes[made]):
            found.append(Addition(path, kind, what))
    for path, function in replaced(attention, classes).items():
        found.append(Addition(path, "function", f"a function of your own ({name_of(function)})"))
    return tuple(found)


def additions_on(module: nn.Module) -> tuple[Addition, ...]:
    """The same on one module by itself."""
    own = (*put_on(module), *_of_class(type(module)))
    return tuple(Addition("", kind, what) for kind, what in own)


def behind_blocks(hf: PreTrainedModel, blocks: str, steps: Iterable[str]) -> tuple[Addition, ...]:
    """Those that have a part in what becomes of the last block's output.

    Args:
        hf: the model.
        blocks: the path of its blocks.
        steps: the paths of what stands between them and the logits.
    """
    ends = [
        *steps,
        *(path for path, one in named_modules(hf) if one is hf.get_output_embeddings()),
    ]

    def is_inside(path: str) -> bool:
        return any(path == end or path.startswith(f"{end}.") for end in ends)

    def counts(path: str) -> bool:
        around = f"{path}." if path else ""
        return is_inside(path) or any(end.startswith(around) for end in (blocks, *ends))

    # The whole model's own code has the last word on the logits: a soft cap.
    kinds = dict.fromkeys(type(one) for path, one in named_modules(hf) if is_inside(path))
    called = replaced("", {type(hf): None} | kinds)
    found = [one for one in additions(hf) if one.kind not in ("attention", "experts")]
    return tuple(
        one for one in found if (one.path in called if one.kind == "function" else counts(one.path))
    )


def why_not_in_parts(hf: PreTrainedModel) -> str | None:
    """Why a model has to be run whole; None where its blocks can be run by themselves."""
    own = additions(hf)
    if not own:
        return None
    return (
        f"the model has {named(own)}: what that does, it may do by position or to the whole text, "
        "so the model is run as it is (a hook that only looks may say so: microtome.watching)"
    )


def named(own: tuple[Addition, ...]) -> str:
    """The first of some additions, in words.

    >>> named((Addition("lm_head", "hook", "a hook of your own (double)"),))
    'a hook of your own (double) on lm_head'
    """
    more = f" and {len(own) - MOST} more" if len(own) > MOST else ""
    return listing(own[:MOST]) + more


def unsteady(own: str) -> str:
    """The complaint about a model of which two passes differ."""
    return (
        f"Two passes of the model over one text differ. It has {own}: something there draws random "
        "numbers, or keeps what earlier passes left, so an edit's effect could not be told from "
        "that. Make it the same each time, or take it off."
    )


def adapters(hf: PreTrainedModel) -> dict[str, Any]:
    """What peft's layers are set to, which no weight tells: by what they are, how many modules.

    Which adapters are active, or merged into the weights, with what strength, and whether they are
    switched off; and a hash that says the same module by module. Empty without such layers.
    """
    found: Counter[str] = Counter()
    digest = hashlib.sha256()
    for path, module in named_modules(hf):
        if not (hasattr(type(module), OFF) or OFF in vars(module)):  # to ask a module takes longer
            continue
        off = getattr(module, OFF)
        if not isinstance(off, bool):  # a method, where it is the whole model's
            continue
        active = list(getattr(module, "active_adapters", ()))
        strengths = getattr(module, "scaling", None)
        strengths = strengths if isinstance(strengths, Mapping) else {}
        state = {
            "active": active,
            "off": off,
            "merged": list(getattr(module, "merged_adapters", ())),
            "scaling": {name: strengths[name] for name in active if name in strengths},
        }
        text = json.dumps(state, default=float)
        found[text] += 1
        digest.update(f"{path} {text}".encode())
    if not found:
        return {}
    return {"hash": digest.hexdigest(), "states": dict(found)}


def is_adapted(module: nn.Module) -> bool:
    """Whether it is a layer with an adapter of peft's around it."""
    return root(type(module).__module__) == "peft"


def without_hooks(hf: PreTrainedModel) -> PreTrainedModel:
    """A model of the same modules, weights shared, without anybody's own forward hooks.

    The model itself keeps them: another thread may be running it.
    """
    copied: PreTrainedModel = _unhooked(hf, {})
    return copied


def _unhooked(module: nn.Module, made: dict[int, Any]) -> Any:
    if id(module) not in made:
        own = made[id(module)] = type(module).__new__(type(module))
        vars(own).update(vars(module))
        parts = module._modules.items()
        inside = {name: None if one is None else _unhooked(one, made) for name, one in parts}
        tables = ("_parameters", "_buffers")
        vars(own).update({name: dict(vars(module)[name]) for name in tables}, _modules=inside)
        # Not those that make weights, or collect what a model is asked to return.
        hooks = (module._forward_pre_hooks, module._forward_hooks)
        known = {n for table in hooks for n, hook in table.items() if is_known(hook)}
        for table in [name for name in vars(own) if name.startswith("_forward_")]:
            kept = [(n, one) for n, one in vars(module)[table].items() if n in known]
            vars(own)[table] = OrderedDict(kept)
    return made[id(module)]


# ------------------------------------------------------------------------------- whose they are


def put_on(module: nn.Module) -> Iterator[tuple[Kind, str]]:
    """What was put on one module: hooks of torch's kind and of accelerate's, functions."""
    placed = vars(module).get("_hf_hook")
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    hooks += [] if placed is None else getattr(placed, "hooks", (placed,))
    for hook in hooks:
        if not is_known(hook):
            yield "hook", f"a hook of your own ({name_of(hook)})"
    if not any(map(callable, [*vars(module).values()])):  # mostly none is, and it is soon known
        return
    for name, own in [*vars(module).items()]:
        if callable(own) and (is_method(module, name) or name == UNDER) and not is_known(own):
            yield "method", f"a {name.removeprefix('_old_')} of your own ({name_of(own)})"


def is_method(module: nn.Module, name: str) -> bool:
    """Whether a module's class has a method of this name, which may decide a number.

    Of what torch gives every module, and transformers every model, only what a pass calls: none
    calls `generate` or `train`. Of a layer's own, any may be called by the module around it.
    """
    made = type(module)
    if name in CALLED:
        return True
    home = next((base for base in made.__mro__ if name in vars(base)), None)
    if home is None or not callable(vars(home)[name]) or name in HARMLESS:
        return False
    general = home is nn.Module or issubclass(made, PreTrainedModel)
    return not general or name in called_by(made, CALLED)


def _of_class(made: type) -> Iterator[tuple[Kind, str]]:
    """What a class is that is somebody's own, or was changed by somebody."""
    own = _own_class(made)
    if own is not None:
        yield "class", f"a class of your own ({own})"
        return
    for name in CALLED:  # what these call in their turn, `replaced` finds
        function = written(made, name)
        if function is not None and not is_known(function):
            yield "method", f"a {name} of your own ({name_of(function)})"


def own_attention(name: str, module: nn.Module | None = None) -> Callable[..., Any] | None:
    """What somebody has registered as an implementation of attention, by its name.

    Of one attention module, too, what stands in the place of its library's own, or calls what does.
    """
    function: Callable[..., Any] | None = AttentionInterface().get(name)
    if module is not None and name == "eager":
        home = sys.modules.get(type(module).__module__)  # a class may name one that is gone
        function = getattr(home, EAGER, None)
    calls_own = module is not None and any(replaced(name, [type(module)]))
    return function if calls_own else _own(function)


def own_experts(hf: PreTrainedModel) -> Callable[..., Any] | None:
    """What somebody has registered for a model's experts, under the name that it has chosen."""
    name = getattr(hf.config, "_experts_implementation", None)
    function = None if name is None else _own(ExpertsInterface().get(name))
    looks_up = function is not None and any(EXPERTS in vars(one) for one in modules(hf))
    return function if looks_up else None


def _own(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    return None if function is None or is_known(function) else function


def _global_hooks() -> Iterator[str]:
    tables = (globally._global_forward_pre_hooks, globally._global_forward_hooks)
    for hook in [hook for table in tables for hook in table.values()]:
        if not is_known(hook):
            yield f"a hook of your own ({name_of(hook)})"


def _own_class(made: type) -> str | None:
    """The name of somebody's class that a class is, or is made of, if that changes what it does."""
    for number, one in enumerate(made.__mro__):
        if root(one.__module__) in KNOWN or one is object:
            continue
        bases = [base for base in made.__mro__[number + 1 :] if base is not object]
        for name, value in vars(one).items():
            is_code = callable(value) or isinstance(value, property | staticmethod | classmethod)
            if is_code and name not in HARMLESS and any(name in vars(base) for base in bases):
                return one.__qualname__
    return None
