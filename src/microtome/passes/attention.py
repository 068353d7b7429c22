"""Attention weights in the open: a layer's softmax, to be read and edited on its way.

Fused attention never has the weights in memory, so a layer whose site ``pattern`` is visited, and
no other, computes its attention in the open, by the same formula: scores, soft-cap, mask, softmax,
mixing. Where the family looks its attention up by name (transformers' `AttentionInterface`), the
session gives that layer's module another name. Where it does not, the module's own calls of
``softmax`` and ``scaled_dot_product_attention`` are caught. The rest of the model stays as it is.
What this switch alone changes is rounding: the load-time probe holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from microtome.errors import MicrotomeError
from microtome.model.additions import own_attention
from microtome.model.families.family import Family, Upcast
from microtome.model.whose import name_of
from microtome.passes.modes import Mode
from microtome.passes.session import Session, opened

IGNORED = frozenset(
    {"cache_position", "dropout", "output_attentions", "position_ids", "position_embeddings"}
    | {"use_cache", "is_causal", "output_hidden_states", "return_dict", "output_router_logits"}
    | {"deterministic"}
)
"""What models hand on to attention functions, and makes no difference to attention."""

BY_MASK = ("eager", "sdpa")
"""Attention that has a window in its mask or not at all, whatever width a module says besides."""

NEAR = 2.0**8
"""How many times its type's rounding one attention function may be from another."""

See = Callable[[Tensor], Tensor]
"""Gets a module's attention weights ``[batch, head, query, key]``; gives those to go on with."""


def watcher(module: nn.Module) -> InTheOpen | None:
    """Who looks at the attention weights of a module now, in this thread's session."""
    function = opened(module).shown.get(module)
    return function if isinstance(function, InTheOpen) else None


def show(own: Session, module: nn.Module, see: See, family: Family, fine: bool = False) -> None:
    """Let an attention module show its weights, until the end of the session's innermost block.

    Args:
        own: the session.
        module: of one layer.
        see: what gets them.
        family: whether it looks its attention up by name; and what its own function without a
            fused kernel computes in float32.
        fine: it gets them before they are rounded to half precision, where the model's own code
            has them so.
    """
    if not family.looks_up:
        _catch(own, module, see)
        return
    choice = own.own_attention()
    upcast: Upcast = family.upcast if choice == "eager" else ""
    beside = own_attention(str(choice), module)
    own.show(module, InTheOpen(see, upcast, choice, fine, beside))


@dataclass(frozen=True, eq=False)
class InTheOpen:
    """An attention function that shows its weights.

    Attributes:
        see: what gets them.
        upcast: what is in float32.
        choice: the attention that the model chose for itself. One for fused kernels caps no scores,
            whatever the module asks for.
        fine: the weights are shown before they are rounded. A knockout shares out what one key
            had, and where that was nearly all, the rest is nothing in half precision.
        beside: what somebody has put in the place of the model's own function, which may compute
            something else.
    """

    see: See
    upcast: Upcast
    choice: str | None
    fine: bool = False
    beside: Callable[..., Any] | None = None

    def __call__(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch kv_head key d_head"],
        value: Float[Tensor, "batch kv_head key d_value"],
        attention_mask: Tensor | None = None,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        **others: Any,
    ) -> tuple[Float[Tensor, "batch query head d_value"], None]:
        """What transformers calls in the place of the model's own choice."""
        refuse_unknown(others, module)
        causal = others.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        length = key.shape[2]
        narrow = None if self.choice in BY_MASK else sliding_window
        if attention_mask is None and narrow is not None and narrow < length:
            attention_mask = window(query.shape[2], length, narrow, query.device, causal)
        if self.upcast == "scores":
            scores = _scores(query.float(), key.float(), scaling)
            scores = scores.to(torch.promote_types(scores.dtype, query.dtype))
        else:
            scores = _scores(query, key, scaling)
        if softcap is not None and self.choice != "sdpa":
            scores = (scores / softcap).tanh() * softcap
        masked, upcast = _masked(scores, attention_mask, causal), self.upcast == "softmax"
        bare = _softmax(masked, upcast)
        if self.beside is not None:
            more = {"scaling": scaling, "softcap": softcap, "sliding_window": sliding_window}
            given = self.beside(module, query, key, value, attention_mask, **more, **others)[0]
            _check_same(_mixed(bare.to(value.dtype), value).transpose(1, 2), given, self.beside)
        weights = self.shown(bare, scores.dtype).to(value.dtype)
        return _mixed(weights, value).transpose(1, 2), None

    def shown(self, weights: Tensor, kind: torch.dtype) -> Tensor:
        """The weights to go on with, in the type of the scores, of those in float32 at least."""
        if not self.fine:
            return self.see(weights.to(kind))
        return self.see(weights.to(torch.promote_types(weights.dtype, kind))).to(kind)


def _check_same(shown: Tensor, given: Tensor, function: Callable[..., Any]) -> None:
    """Raise unless a function gives what comes of weights that are shown, but for rounding."""
    allowed = NEAR * torch.finfo(given.dtype).eps * float(given.abs().max())
    if not bool((shown - given).abs().max() <= allowed):
        raise MicrotomeError(
            f"The attention function {name_of(function)} is your own, and gives something else "
            "than the softmax of scaled scores makes of the values: it has no weights that could "
            'be shown. Choose another, hf.set_attn_implementation("sdpa").'
        )


def refuse_unknown(others: dict[str, Any], module: nn.Module) -> None:
    """Raise if a model asks its attention for what ours does not do."""
    for name, given in others.items():
        if name not in IGNORED and given is not None and given is not False:
            raise MicrotomeError(
                f"{type(module).__name__} calls its attention with {name}, which microtome's own "
                "attention does not know: it cannot show its weights."
            )


def window(
    own: int, seen: int, width: int, device: torch.device, causal: bool = True
) -> Bool[Tensor, "own seen"]:
    """Which positions each of the last ones sees: itself and so many less one before, or around.

    >>> window(2, 4, 2, torch.device("cpu")).int().tolist()
    [[0, 1, 1, 0], [0, 0, 1, 1]]
    >>> window(3, 3, 2, torch.device("cpu"), causal=False).int().tolist()
    [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """
    whole = torch.ones(own, seen, dtype=torch.bool, device=device)
    itself = seen - own
    return whole.triu(itself - width + 1).tril(itself if causal else itself + width - 1)


def _scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return query @ _for_each_head(key, query).mT * scaling


def _mixed(weights: Tensor, value: Tensor) -> Float[Tensor, "batch head query d_head"]:
    return weights @ _for_each_head(value, weights)


def _for_each_head(x: Tensor, of: Tensor) -> Tensor:
    """Keys or values of groups, once for each head of theirs."""
    return x.repeat_interleave(of.shape[1] // x.shape[1], dim=1)


def _masked(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if mask is None:
        own, seen = scores.shape[-2:]
        if not causal or own == 1:
            return scores
        mask = torch.ones(own, seen, dtype=torch.bool, device=scores.device).tril(seen - own)
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask


def _softmax(scores: Tensor, upcast: bool) -> Tensor:
    """In float32 at least, as fused kernels do; exactly so where the model's own code does."""
    inner = scores.dtype if scores.dtype == torch.float64 and not upcast else torch.float32
    return scores.softmax(-1, dtype=inner)


# ------------------------------------------------------------- attention that is not looked up


def _catch(own: Session, module: nn.Module, see: See) -> None:
    """Let ``see`` get what a module's own code computes as attention weights, in this block."""
    catcher = _Catch(own, see)
    own.at_end(catcher.take_off)
    own.hook([(module, "input", catcher.begin), (module, "output", catcher.end)])


class _Catch(Mode):
    """Shows the result of ``softmax``, and makes one where attention is fused.

    A mode is of one thread. It does nothing once it was closed, or its session is over.
    """

    def __init__(self, own: Session, shown: See) -> None:
        super().__init__()
        self.session, self.shown = own, shown

    def begin(self, *_: Any) -> None:
        """The module runs."""
        self.put_on()

    def end(self, *_: Any) -> None:
        """It has run."""
        self.take_off()

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of a mode; weights are shown."""
        if self.session.is_here and func is nn.functional.softmax:
            return self.shown(func(*args, **kwargs))
        if self.session.is_here and func is nn.functional.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        return func(*args, **kwargs)

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        scores = _masked(_scores(query, key, scale), attn_mask, is_causal)
        return _mixed(self.shown(_softmax(scores, upcast=False).to(scores.dtype)), value)
