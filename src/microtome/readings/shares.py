"""What each writer adds to a logit, directly: with every norm's scale left as it was.

At one position the residual stream is a sum of what was written to it: the embedding, each head,
each MLP, and biases. A logit before any cap is linear in the stream once the scale of the final
norm is held (`microtome.readings.affine`); so are norms between a part and the stream, and norms of
the stream itself. So the shares of all writers and biases sum to the logit, or to the difference of
two.

Direct logit attribution: Elhage et al., "A mathematical framework for transformer circuits" (2021);
Wang et al., "Interpretability in the wild" (2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.passes.hooks import Place
from microtome.passes.trace import Piece
from microtome.readings.affine import Affine, affine, pulled, pushed


@dataclass(frozen=True)
class Logits:
    """What is explained: the logit of a token, or of one minus that of another.

    Attributes:
        plus: the token's id.
        minus: of the one that is taken away; None for the first alone.
    """

    plus: int
    minus: int | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids."""
        return (self.plus,) if self.minus is None else (self.plus, self.minus)

    def of(self, values: Float[Tensor, " token *n"]) -> Tensor:
        """The first of `tokens`' values, less the second's."""
        return values[0] if self.minus is None else values[0] - values[1]


@dataclass(frozen=True, eq=False)
class Shares:
    """What each writer adds to a logit at one position of one prompt, in logits.

    Attributes:
        logit: the model's own, before a cap.
        embed: of what enters block 0.
        head_out: ``[layer, head]``.
        source: ``[layer, head, pos]``, each head's by the token that it attends to; or None.
        attn_bias: ``[layer]``, of what attention adds besides its heads.
        mlp_out: ``[layer]``, of the neurons.
        mlp_bias, norm_bias: ``[layer]``, of the down projection and the norm behind it, and of
            norms of the stream itself.
        final_bias: of what stands between the last block and the unembedding.
        unembed_bias: the unembedding's own.
    """

    logit: float
    embed: float
    head_out: Float[Tensor, "layer head"]
    source: Float[Tensor, "layer head pos"] | None
    attn_bias: Float[Tensor, " layer"]
    mlp_out: Float[Tensor, " layer"]
    mlp_bias: Float[Tensor, " layer"]
    norm_bias: Float[Tensor, " layer"]
    final_bias: float
    unembed_bias: float


@dataclass(frozen=True, eq=False)
class Routes:
    """From what each part of each layer adds, at one position, to the unembedding.

    Attributes:
        hf, anatomy: the model, in a session.
        kept: what a clean pass had at that position, per place ``[1, 1, …]``.
        final: between the last block and the unembedding.
        around: per layer, the norms there are: behind attention (``attn``) and the MLP (``mlp``),
            of the stream after either (``mid``, ``post``).
    """

    hf: PreTrainedModel
    anatomy: Anatomy
    kept: Mapping[Place, Tensor]
    final: tuple[Affine, ...]
    around: Mapping[tuple[str, int], tuple[Affine, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, hf: PreTrainedModel, anatomy: Anatomy, kept: Mapping[Place, Tensor]) -> Routes:
        """The routes of one pass."""
        x = kept[find_site("final_in"), None][0, 0]
        final: list[Affine] = []
        for step in anatomy.family.final:
            act = hf.get_submodule(step) if isinstance(step, str) else step
            final += affine(act, x)
            x = act(x[None, None])[0, 0]
        return cls(hf, anatomy, kept, tuple(final), dict(_norms(hf, anatomy, kept)))

    def at(self, site: str, layer: int | None) -> Tensor:
        """What the pass had, in float64."""
        return self.kept[find_site(site), layer][0, 0].double()

    def after(self, part: str, layer: int) -> tuple[Affine, ...]:
        """All that stands between what a layer's ``attn`` or ``mlp`` adds and the unembedding."""
        found = [*self.around.get((part, layer), ())]
        if part == "attn":
            found += self.around.get(("mid", layer), ())
        found += self.around.get(("post", layer), ())
        for later in range(layer + 1, self.anatomy.dims.n_layers):
            found += self.around.get(("mid", later), ())
            found += self.around.get(("post", later), ())
        return (*found, *self.final)


def wanted(anatomy: Anatomy, at: int, length: int, sources: bool) -> Iterator[Piece]:
    """What a pass has to keep for the shares at a position.

    Args:
        anatomy: the model's.
        at: the position.
        length: of the prompt.
        sources: each head's share is asked for by the token that it attends to.
    """
    has = {site.name for site in anatomy.sites}
    yield Piece((find_site("embed"), None), at, at)
    yield Piece((find_site("final_in"), None), at, at)
    for layer in range(anatomy.dims.n_layers):
        for name in ("resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out"):
            if name in has:
                yield Piece((find_site(name), layer), at, at)
        if sources:
            yield Piece((find_site("pattern"), layer), at, at)
            yield Piece((find_site("v"), layer), 0, length - 1)


def shares(routes: Routes, logits: Logits, sources: bool = False) -> Shares:
    """What each writer adds.

    Args:
        routes: of one pass.
        logits: what is explained.
        sources: each head's share by the token that it attends to, too.
    """
    layers = range(routes.anatomy.dims.n_layers)
    direction, head_bias, logit, factor = _unembedding(routes, logits)
    stream, final_bias = pulled(routes.final, direction)
    parts: dict[str, list[Tensor]] = {name: [] for name in _BY_LAYER}
    by_source: list[Tensor] = []
    for layer in reversed(layers):
        own, bias = pulled(routes.around.get(("post", layer), ()), stream)
        mlp, mlp_bias = _mlp(routes, layer, own)
        stream, mid = pulled(routes.around.get(("mid", layer), ()), own)
        weights, attn_bias = _heads(routes, layer, stream)
        parts["head_out"].append((routes.at("z", layer) * weights).sum(-1))
        parts["attn_bias"].append(attn_bias)
        parts["mlp_out"].append(mlp)
        parts["mlp_bias"].append(mlp_bias)
        parts["norm_bias"].append(stream.new_tensor(bias + mid))
        if sources:
            by_source.append(_sources(routes, layer, weights))
    stacked = {name: torch.stack(values[::-1]) * factor for name, values in parts.items()}
    return Shares(
        logit=logit,
        embed=float(stream @ routes.at("embed", None)) * factor,
        source=torch.stack(by_source[::-1]) * factor if sources else None,
        final_bias=final_bias * factor,
        unembed_bias=head_bias * factor,
        **stacked,
    )


_BY_LAYER = ("head_out", "attn_bias", "mlp_out", "mlp_bias", "norm_bias")


@dataclass(frozen=True, eq=False)
class Neurons:
    """What each neuron of a layer adds at one position, in logits.

    Attributes:
        activation: ``[neuron]``.
        share: ``[neuron]``.
        written: ``[neuron, d]``, what an activation of 1 becomes in front of the unembedding.
    """

    activation: Float[Tensor, " neuron"]
    share: Float[Tensor, " neuron"]
    written: Float[Tensor, "neuron d"]


def neurons(routes: Routes, layer: int, logits: Logits) -> Neurons:
    """What each neuron of a layer adds."""
    direction, _, _, factor = _unembedding(routes, logits)
    like = routes.kept[find_site("mlp_post"), layer][0, 0]
    matrix = routes.anatomy.down_matrix(routes.hf, layer, like).double()
    written = pushed(routes.after("mlp", layer), matrix)
    activation = like.double()
    return Neurons(activation, activation * (written @ direction) * factor, written)


def _unembedding(routes: Routes, logits: Logits) -> tuple[Tensor, float, float, float]:
    """The direction that is read, its bias, the logit, and what all of it is multiplied by."""
    hf, anatomy = routes.hf, routes.anatomy
    final = anatomy.final(hf, routes.kept[find_site("final_in"), None])
    rows, biases = anatomy.unembedding(hf, logits.tokens, final)
    factor = anatomy.scale_of_logits(hf)
    plain = anatomy.plain_logits(hf, final, logits.tokens)[0, 0].double()
    logit = float(logits.of(plain)) * factor
    return logits.of(rows.double()), float(logits.of(biases.double())), logit, factor


def _norms(
    hf: PreTrainedModel, anatomy: Anatomy, kept: Mapping[Place, Tensor]
) -> Iterator[tuple[tuple[str, int], tuple[Affine, ...]]]:
    family = anatomy.family

    def of(norm: str, layer: int, x: Tensor) -> tuple[Affine, ...]:
        return affine(hf.get_submodule(norm.format(layer=layer)), x[0, 0])

    for layer in range(anatomy.dims.n_layers):
        at = {site.name: x for (site, where), x in kept.items() if where == layer}
        if family.attn_norm is not None:
            yield ("attn", layer), of(family.attn_norm, layer, anatomy.mixes(hf, layer, at["z"]))
        if family.mlp_norm is not None:
            added: Tensor = anatomy.down_proj(hf, layer)(at["mlp_post"])
            yield ("mlp", layer), of(family.mlp_norm, layer, added)
        if family.mid_norm is not None:
            yield ("mid", layer), of(family.mid_norm, layer, at["resid_pre"] + at["attn_out"])
        if family.post_norm is not None:
            middle = at.get("resid_mid", at["resid_pre"] + at["attn_out"])
            yield ("post", layer), of(family.post_norm, layer, middle + at["mlp_out"])


def _mlp(routes: Routes, layer: int, direction: Tensor) -> tuple[Tensor, Tensor]:
    """What the neurons of a layer add, and what is added without any."""
    whole = direction @ routes.at("mlp_out", layer)
    if routes.anatomy.family.down_proj is None:
        return whole, torch.zeros_like(whole)
    inner, bias = pulled(routes.around.get(("mlp", layer), ()), direction)
    like = routes.kept[find_site("mlp_post"), layer][0, 0]
    nothing = routes.anatomy.down_bias(routes.hf, layer, like).double()
    own = inner @ nothing + bias
    return whole - own, own


def _heads(routes: Routes, layer: int, direction: Tensor) -> tuple[Tensor, Tensor]:
    """What the direction reads of each head's z ``[head, d_head]``, and what is added besides."""
    hf, anatomy = routes.hf, routes.anatomy
    inner, bias = pulled(routes.around.get(("attn", layer), ()), direction)
    z = routes.kept[find_site("z"), layer]
    matrix = anatomy.out_matrix(hf, layer, z).double()
    nothing = anatomy.mixes(hf, layer, torch.zeros_like(z))[0, 0].double()
    return matrix @ inner, inner @ nothing + bias


def _sources(
    routes: Routes, layer: int, weights: Float[Tensor, "head d_head"]
) -> Float[Tensor, "head pos"]:
    anatomy = routes.anatomy
    values = routes.kept[find_site("v"), layer]
    values = anatomy.family.values(values, routes.hf.config)[0].double()
    values = values.repeat_interleave(anatomy.dims.n_heads // values.shape[1], dim=1)
    pattern = routes.kept[find_site("pattern"), layer][0, :, 0].double()
    return pattern * torch.einsum("khd,hd->hk", values, weights)


def tokens_written(
    routes: Routes, written: Float[Tensor, "n d"], k: int
) -> Sequence[tuple[Sequence[int], Sequence[int]]]:
    """Of each vector in front of the unembedding, the k tokens that it is most for and against."""
    kind = routes.kept[find_site("final_in"), None].dtype
    head = routes.hf.get_output_embeddings()
    rows: Tensor = head(written.to(kind)) - head(torch.zeros_like(written[:1]).to(kind))
    k = min(k, rows.shape[-1])
    return [(row.topk(k).indices.tolist(), (-row).topk(k).indices.tolist()) for row in rows]
