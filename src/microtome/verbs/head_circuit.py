"""One head on the vocabulary: does it copy what it looks at, and does it look at what is alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from microtome import stats
from microtome.amounts import bytes_of, single, whole_of
from microtome.errors import AddressError, MicrotomeError, TokenError
from microtome.language.addresses import parse
from microtome.language.selectors import Everything, Index
from microtome.model.devices import onto
from microtome.model.loaded import check_loaded
from microtome.passes.hooks import quiet
from microtome.passes.session import session
from microtome.passes.trace import Piece, record
from microtome.plan.memory.budget import DEFAULT_MEMORY
from microtome.prompts.encoding import piece
from microtome.prompts.prompt import Prompt
from microtome.readings.lens import HELD
from microtome.readings.vocabulary import looked_at, written
from microtome.spoken import spoken
from microtome.verbs.head_names import head_of
from microtome.verbs.model import Model
from microtome.verbs.readout import recorded

TOGETHER = 128
"""Texts of one token that run in one pass."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class HeadCircuit:
    """What one head writes where it looks at a token, and which tokens it looks at.

    Attributes:
        layer, head: which.
        table: a row per token: ``token``, ``id``; ``writes``, the tokens that it is most for where
            it looks at this one, and ``rank``, this token's own among all of the vocabulary;
            ``looks_at``, the keys that fit this token's query best among those of the table, and
            ``key_rank``, its own among these.
        top: up to which rank a token counts as copied, or as matched.
        provenance: what is needed to repeat it.
    """

    layer: int
    head: int
    table: pd.DataFrame
    top: int
    provenance: Mapping[str, Any]

    @property
    def copying(self) -> stats.Estimate:
        """The share of tokens that the head writes where it looks at them, with its interval."""
        return stats.share(int((self.table["rank"] <= self.top).sum()), len(self.table))

    @property
    def matching(self) -> stats.Estimate:
        """The share of tokens whose query fits their own key, with its interval."""
        return stats.share(int((self.table["key_rank"] <= self.top).sum()), len(self.table))

    def __repr__(self) -> str:
        return (
            f"<HeadCircuit of L{self.layer}.h{self.head}: copies {self.copying}; "
            f"matches {self.matching}>"
        )


@spoken
def head_circuit(
    model: Model,
    head: str,
    *,
    tokens: int | Sequence[int] = 500,
    at: str = "L0.resid_post",
    top: int = 5,
    seed: int = 0,
    memory: int | str | None = None,
) -> HeadCircuit:
    """What a head does on the vocabulary: its OV and QK circuits, token by token.

    What is written goes through the final norm with its own statistics and the unembedding, as the
    lens reads a head's output. Queries and keys are the projections' own, before norms of them and
    before any rotary embedding: what they say of the tokens, not of distance.

    After Elhage et al., "A mathematical framework for transformer circuits" (2021), whose circuits
    are products of weights alone: here each token goes through the norm before the head, with its
    bias, and is stood for by the state after the first block, as in the copying score of Wang et
    al., "Interpretability in the wild" (2022). ``at="embed"`` is the embedding itself.

    Args:
        model: from `load`.
        head: such as ``"L5.h3"``.
        tokens: how many, drawn at random from those that are not special; or their ids.
        at: the state that stands for a token, in a text of that token alone.
        top: up to which rank a token counts as copied or matched, and how many are listed.
        seed: of the draw.
        memory: bytes for logits, or a text such as ``"500MB"``; 2 GiB unless given.

    Raises:
        AddressError: there is no such head or state.
        TokenError: an id is none of the model's.
        MicrotomeError: somebody has added to the model.

    >>> import microtome as mt
    >>> mt.head_circuit(mt.load("nano"), "L0.h3", tokens=20).copying.n
    20
    """
    check_loaded(model)
    layer, number = head_of(head, model.anatomy.dims)
    place = parse(at)
    fixed = place.layers is None or isinstance(place.layers, Index)
    if place.site.axes != ("pos", "d_model") or set(place.selectors) != {Everything()} or not fixed:
        raise AddressError(
            f"{at!r} is no state that can stand for a token: give embed or, for example, "
            "L0.resid_post."
        )
    if model.whole is not None:
        raise MicrotomeError(
            f"A head's circuits are of the model's own parts, and {model.whole}. "
            "Take it off, or load the model anew."
        )
    ids = _chosen(model, tokens, seed)
    budget = DEFAULT_MEMORY if memory is None else bytes_of(memory, what="memory")
    at_once = max(1, budget // (8 * HELD * model.anatomy.dims.d_vocab))
    with session(model.hf, model.anatomy), quiet(model.hf):
        states = _states(model, ids, at)
        own = onto(states.device, np.array(ids, dtype=np.int64))
        ov = written(model.hf, model.anatomy, layer, number, states, own, top, at_once)
        qk = looked_at(model.hf, model.anatomy, layer, number, states, top)
    names = {token: piece(token, model.tokenizer) for token in {*ids, *ov.ids.flatten().tolist()}}
    table = pd.DataFrame(
        {
            "token": [names[token] for token in ids],
            "id": ids,
            "writes": [[names[token] for token in row] for row in ov.ids.tolist()],
            "rank": ov.rank.tolist(),
            "looks_at": [[names[ids[n]] for n in row] for row in qk.ids.tolist()],
            "key_rank": qk.rank.tolist(),
        }
    )
    asked = {"head": f"L{layer}.h{number}", "tokens": list(ids), "at": at, "top": top}
    return HeadCircuit(layer, number, table, top, recorded(model, (), **asked))


def _chosen(model: Model, tokens: int | Sequence[int], seed: int) -> list[int]:
    tokens = single(tokens)
    known = min(len(model.tokenizer), model.anatomy.dims.d_vocab)
    if isinstance(tokens, int):
        special = set(model.tokenizer.all_special_ids)
        usable = [token for token in range(known) if token not in special]
        n = min(whole_of(tokens, 1, "tokens"), len(usable))
        chance = np.random.default_rng(whole_of(seed, 0, "seed"))
        drawn: list[int] = chance.choice(usable, n, replace=False).tolist()
        return drawn
    given = [*map(single, tokens)]
    wrong = [token for token in given if not isinstance(token, int) or not 0 <= token < known]
    if wrong or not given:
        raise TokenError(
            f"tokens= is a number, or ids from 0 to {known - 1}; given: {wrong[:5] or given}."
        )
    return given


def _states(model: Model, ids: Sequence[int], at: str) -> Tensor:
    """What stands for tokens, ``[token, d_model]``."""
    address = parse(at)
    layer = address.layers.value if isinstance(address.layers, Index) else None
    if layer is not None:
        head_of(f"L{layer}.h0", model.anatomy.dims)
        layer %= model.anatomy.dims.n_layers
    place = (address.site, layer)
    texts = [one.tokens for one in model.encode([Prompt(ids=[token]) for token in ids])]
    found = []
    for first in range(0, len(texts), TOGETHER):
        some = texts[first : first + TOGETHER]
        found.append(record(model.hf, model.anatomy, some, [Piece(place, 0, 0)])[place][:, 0])
    return torch.cat(found)
