"""What the modules of a model return: a tensor, or a tuple and of what.

It differs between families and between versions of transformers, and hooks written by hand trip
over it. microtome's own take either form, so edits and readings are the same whichever it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from torch import Tensor

from microtome.language.sites import Dimensions
from microtome.model.loaded import Loaded
from microtome.passes.hooks import outputs_of, quiet
from microtome.passes.session import session
from microtome.passes.trace import ids_of

EAGER = "eager"
"""The attention implementation that computes the weights as a tensor of their own."""

ABOUT = (
    "Attention weights [batch, head, query, key] need an implementation that computes them: "
    'load(…, attn_implementation="eager"), and then output_attentions=True collects them. '
    "Edits are the same whichever form a block returns."
)
"""What the table does not say by itself."""


@dataclass(frozen=True)
class Element:
    """One thing that a module returns.

    Attributes:
        kind: its class, such as ``Tensor`` or ``NoneType``.
        name: what it is, where that is known: ``hidden states`` or ``attention weights``.
        axes: a tensor's axes, where they are known.
        shape: its sizes along them; empty for what is no tensor.
    """

    kind: str
    name: str = ""
    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.kind != "Tensor":
            return "None" if self.kind == "NoneType" else self.kind
        return f"{self.name or self.kind} {list(self.shape)}"


@dataclass(frozen=True)
class Returned:
    """What one module returned in one pass.

    Attributes:
        attention: the attention implementation of the pass.
        output_attentions: whether the model was called with ``output_attentions=True``.
        module: ``block``, ``attention``, or ``model``, of which only ``.attentions`` is looked at.
        path: where it is, as ``get_submodule`` takes it; empty for the whole model.
        form: ``tensor``, ``tuple``, or the name of another class.
        elements: the tensor, or what the tuple holds.
    """

    attention: str
    output_attentions: bool
    module: str
    path: str
    form: str
    elements: tuple[Element, ...]

    def __str__(self) -> str:
        runs = ((one, len([*same])) for one, same in groupby(map(str, self.elements)))
        inside = ", ".join(one if n == 1 else f"{n} × ({one})" for one, n in runs)
        return f"{self.form} ({inside})" if self.form == "tuple" else f"{self.form}: {inside}"


def table_of(found: Iterable[Returned]) -> pd.DataFrame:
    """A row per module and pass: how the model was called, and what the module returned."""
    rows = [
        {
            "attention": one.attention,
            "output_attentions": str(one.output_attentions),
            "module": "model(…).attentions" if one.module == "model" else one.path,
            "returns": str(one) if one.form != "NoneType" else "None",
        }
        for one in found
    ]
    return pd.DataFrame(rows)


def returned(model: Loaded, text: str = "Berlin is the capital of") -> tuple[Returned, ...]:
    """What the first block and its attention return, and the whole model's ``attentions``.

    On a short text: as the model is, and with the eager attention implementation, each with
    ``output_attentions=True`` and without. Attention weights ``[batch, head, query, key]`` exist
    only where the implementation computes them: eager does; fused ones (sdpa, flash) never hold
    them, and give None in their place. The model is left as it was (but for the hooks that
    transformers itself puts on at the first ``output_attentions=True``, to collect them). For a
    whole session of weights load it with ``load(…, attn_implementation="eager")``.

    Args:
        model: from `load`.
        text: what it reads.

    >>> from microtome import load
    >>> block, attention, *_ = returned(load("nano"), "Berlin is")
    >>> print(block.elements[0])
    hidden states [1, 2, 192]
    >>> print(attention)
    tuple (hidden states [1, 2, 192], None)
    """
    own = str(model.hf.config._attn_implementation)
    found: list[Returned] = []
    for attention in dict.fromkeys((own, EAGER)):
        for weights in (False, True):
            with session(model.hf, model.anatomy) as opened, quiet(model.hf):
                opened.choose(attention)
                found += _pass(model, text, attention, weights)
    return tuple(found)


def _pass(model: Loaded, text: str, attention: str, weights: bool) -> Iterator[Returned]:
    family, ids = model.anatomy.family, ids_of([model.encode(text)[0].tokens], model.hf)
    paths = {
        "block": f"{family.blocks}.0",
        "attention": family.attention.format(layer=0),
    }
    with outputs_of(model.hf, paths.values()) as outputs:
        whole = model.hf(input_ids=ids, use_cache=False, output_attentions=weights)
    for module, output in (*paths.items(), ("model", getattr(whole, "attentions", None))):
        path = paths.get(module, "")
        found = outputs[path] if path else output
        form = {Tensor: "tensor", tuple: "tuple"}.get(type(found), type(found).__name__)
        several = found if isinstance(found, tuple) else (found,)
        elements = tuple(_element(one, model.anatomy.dims, ids.shape[1]) for one in several)
        yield Returned(attention, weights, module, path, form, elements)


def _element(one: object, dims: Dimensions, length: int) -> Element:
    if not isinstance(one, Tensor):
        return Element(type(one).__name__)
    known = {
        (1, length, dims.d_model): ("hidden states", ("batch", "pos", "d_model")),
        (1, dims.n_heads, length, length): ("attention weights", ("batch", "head", "query", "key")),
    }
    return Element("Tensor", *known.get(tuple(one.shape), ("", ())), tuple(one.shape))
