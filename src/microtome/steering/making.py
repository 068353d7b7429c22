"""Where steering vectors come from: pairs of texts, one text, a token of the vocabulary.

Methods: mean difference, contrastive activation addition, Rimsky et al. 2024 (arXiv:2312.06681),
section 3; principal direction of the pairs' differences, Zou et al. 2023 (arXiv:2310.01405),
section 3.1; one text, or the difference of two, activation addition, Turner et al. 2023
(arXiv:2308.10248).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.amounts import many
from microtome.edits.base import one_of
from microtome.errors import AddressError, MicrotomeError
from microtome.language.addresses import parse
from microtome.language.regions import Region
from microtome.model.loaded import Loaded, check_loaded
from microtome.model.placement import device_of
from microtome.passes.hooks import quiet
from microtome.passes.session import session
from microtome.passes.trace import Piece, record
from microtome.prompts.encoding import Encoded, piece, token_id
from microtome.prompts.legible import whole
from microtome.prompts.prompts import Given
from microtome.prompts.resolve import regions
from microtome.spoken import spoken
from microtome.steering.vector import SteeringVector

States = np.ndarray[Any, np.dtype[np.float64]]

HOW = ("mean", "pca", "pca_centred")

LEAVE_OUT = "leave out"
"""What may become of layers without a principal direction."""


@spoken
def contrast(
    model: Loaded,
    positive: Given | Iterable[Given],
    negative: Given | Iterable[Given],
    *,
    how: str = "mean",
    site: str = "resid_post",
    at: str = "last",
    normalise: bool = False,
    alike: str = "refuse",
) -> SteeringVector:
    """A vector that points from some texts to others, in every layer.

    Args:
        model: the model that reads them.
        positive, negative: texts with what is to be steered to, and without it.
        how: ``"mean"``: the mean state of the positive texts minus that of the negative ones.
            Of pairs, equally many texts of each in one order, also ``"pca"``: the unit vector that
            the pairs' differences are most along, their mean included (repeng's ``pca_center``);
            or ``"pca_centred"``: the one that they differ most along among themselves (repeng's
            ``pca_diff``, its default). Either points to where most positive texts are.
        site: of d_model's width, such as ``resid_post``, ``attn_out``, ``mlp_out``.
        at: the position whose state is taken, as in an address; of several the mean.
        normalise: give each direction the length 1.
        alike: what becomes of a layer whose pairs do not differ, or all by the same, so that it has
            no principal direction: ``"refuse"``, or ``"leave out"``.

    Raises:
        MicrotomeError: there are no texts, or no pairs where there have to be; or a layer, which
            it names, has no principal direction, or none has.
        AddressError: the site or the position is not there.

    >>> import microtome as mt
    >>> model = mt.load("nano")
    >>> vector = contrast(model, ["Berlin is in Germany"], ["Paris is in France"])
    >>> len(vector.layers), vector[0].shape
    (6, (192,))
    """
    check_loaded(model)
    one_of(how, HOW, "contrast(how=…)")
    one_of(alike, ("refuse", LEAVE_OUT), "contrast(alike=…)")
    with session(model.hf, model.anatomy):
        ours, theirs = (_states(model, texts, site, at) for texts in (positive, negative))
    if how != "mean" and ours.shape != theirs.shape:
        raise MicrotomeError(
            f"how={how!r} is of pairs, and there are {many(len(ours), 'positive text')} and "
            f"{len(theirs)} negative ones: give equally many, in one order, or use how='mean'."
        )
    layers: Sequence[int] = range(ours.shape[1])
    if how != "mean" and alike == LEAVE_OUT:
        apart = [n for n in layers if _differ(ours[:, n], theirs[:, n], how)]
        layers = apart or layers  # of which the first says that it has none
    made = {}
    for layer in layers:
        one, other = ours[:, layer], theirs[:, layer]
        made[layer] = (
            one.mean(0) - other.mean(0) if how == "mean" else _principal(one, other, how, layer)
        )
    vector = SteeringVector(
        made,
        site,
        _about(model, f"contrast, {how}", at, positive=len(ours), negative=len(theirs)),
    )
    return vector.normalised() if normalise else vector


@spoken
def of_text(
    model: Loaded,
    text: Given,
    *,
    without: Given | None = None,
    site: str = "resid_post",
    at: str = "last",
    normalise: bool = False,
) -> SteeringVector:
    """The state that a model has at a position of one text, in every layer.

    Args:
        model: the model that reads it.
        text: the text.
        without: a text whose state there is taken away.
        site, at, normalise: as in `contrast`.
    """
    check_loaded(model)
    with session(model.hf, model.anatomy):
        states = _states(model, [text], site, at)[0]
        if without is not None:
            states = states - _states(model, [without], site, at)[0]
    about = _about(model, "one text" if without is None else "two texts", at)
    vector = SteeringVector(dict(enumerate(states)), site, about)
    return vector.normalised() if normalise else vector


@spoken
def of_token(
    model: Loaded, token: str | int, *, without: str | int | None = None, normalise: bool = False
) -> SteeringVector:
    """The direction along which a token's logit grows most, for every layer's output.

    It is the token's row of the unembedding, with the weight of the final norm and, of a LayerNorm,
    without its mean, times what the family multiplies logits by: the gradient of the logit, before
    a cap, at the final norm's input, where the norm's scale is 1, as the logit lens reads a state.
    One for all layers.

    Args:
        model: the model.
        token: a text that is one token, or its id.
        without: a token whose direction is taken away: that of the difference of two logits.
        normalise: give it the length 1.

    Raises:
        TokenError: a text is no single token.
        PromptError: it has half a character.
        MicrotomeError: the unembedding is none of d_model's width; or somebody has added to what
            stands behind the last block.
    """
    check_loaded(model)
    if not model.anatomy.dims.causal:
        raise MicrotomeError(
            f"{model.name!r} fills in masks: between its last block and the unembedding is more "
            "than a norm, so that no one direction is a token's."
        )
    rows = [_row(model, one) for one in (token, without) if one is not None]
    direction = _before_norm(model, rows[0] - rows[1] if len(rows) > 1 else rows[0])
    name = token if isinstance(token, str) else piece(token, model.tokenizer)
    about = _about(model, "unembedding", "", token=name)
    layers = range(model.anatomy.dims.n_layers)
    vector = SteeringVector(dict.fromkeys(layers, direction), about=about)
    return vector.normalised() if normalise else vector


# -------------------------------------------------------------------------------------- from states


def _states(
    model: Loaded, texts: Given | Iterable[Given], site: str, at: str
) -> Float[States, "text layer d_model"]:
    """What each text has at a position, in every layer; of several positions their mean."""
    encoded = model.encode(texts)
    return np.stack([_state(model, one, site, at) for one in encoded])


def _state(model: Loaded, one: Encoded, site: str, at: str) -> Float[States, "layer d_model"]:
    address = parse(f"L:.{site}@{at}")
    if address.site.axes != ("pos", "d_model"):
        raise AddressError(
            f"A steering vector is of d_model's width, and {site} has axes "
            f"{', '.join(address.site.axes)}: take resid_post, resid_pre, attn_out or mlp_out."
        )
    found = regions(address, model.anatomy.dims, one.tokens)
    first, last = min(found[0].indices[0]), max(found[0].indices[0])
    pieces = [Piece((region.site, region.layer), first, last) for region in found]
    kept = record(model.hf, model.anatomy, [one.tokens], pieces)
    return np.stack([_mean(kept[region.site, region.layer], region, first) for region in found])


def _mean(values: Float[Tensor, "1 pos d_model"], region: Region, first: int) -> States:
    chosen = [position - first for position in region.indices[0]]
    found: States = values[0, chosen].double().mean(0).cpu().numpy()
    return found


def _differences(ours: States, theirs: States, how: str) -> States:
    differences: States = ours - theirs
    return differences - differences.mean(0) if how == "pca_centred" else differences


def _differ(ours: States, theirs: States, how: str) -> bool:
    return bool(np.abs(_differences(ours, theirs, how)).max() > 0)


def _principal(ours: States, theirs: States, how: str, layer: int) -> States:
    """The direction that pairs' differences are most along, towards the positive ones."""
    differences = _differences(ours, theirs, how)
    if not _differ(ours, theirs, how):
        raise MicrotomeError(
            f"The pairs do not differ in layer {layer}, or all by the same: there is no principal "
            "direction. Give more pairs, use how='mean', or alike='leave out' for the others."
        )
    direction: States = np.linalg.svd(differences, full_matrices=False)[2][0]
    more = np.sign((ours - theirs) @ direction).sum()
    more = more or np.sign(((ours - theirs) @ direction).sum())
    return direction if more >= 0 else -direction


# ------------------------------------------------------------------------------ from the vocabulary


def _row(model: Loaded, token: str | int) -> Float[States, " d_model"]:
    if isinstance(token, str):
        whole(token, "A token")
        token = token_id(token, model.tokenizer)
    if not 0 <= token < model.anatomy.dims.d_vocab:
        raise MicrotomeError(
            f"There is no token {token}: the model knows {model.anatomy.dims.d_vocab}."
        )
    model.check_end("A token's direction is read off")
    hf, anatomy = model.hf, model.anatomy
    with session(hf, anatomy), quiet(hf):
        state = torch.zeros(1, 1, _width(model), dtype=model.dtype, device=device_of(hf))
        # As it computes, not as its weights say: it may be adapted, packed or offloaded.
        rows, _ = anatomy.unembedding(hf, [token], anatomy.final(hf, state)[0])
    if rows.shape[1:] != (_width(model),):
        raise MicrotomeError(
            f"The unembedding of {model.name!r} is not of d_model's width: its rows are none of "
            "the residual stream's."
        )
    found: States = rows[0].double().cpu().numpy()
    return found * anatomy.scale_of_logits(hf)


def _width(model: Loaded) -> int:
    return model.anatomy.dims.d_model


def _before_norm(model: Loaded, row: States) -> States:
    """The direction before the final norm that is a direction behind it, where its scale is 1.

    What the norm does is read off three inputs: nothing gives its bias, numbers of mean 0 and mean
    square 1 its weight, and ones say whether it takes the mean away.
    """
    shape = _balanced(_width(model))
    inputs = torch.stack([0 * shape, shape, 0 * shape + 1]) * SIZE
    with session(model.hf, model.anatomy), quiet(model.hf):
        given = inputs.to(model.dtype).to(device_of(model.hf))[None]
        bias, balanced, ones = model.anatomy.final(model.hf, given)[0].double().cpu()
    if bias.shape != shape.shape:
        raise MicrotomeError(f"{model.name!r} changes its width behind the last block.")
    weight = ((balanced - bias) / shape).numpy()
    scaled: States = row * weight
    is_centred = bool((ones - bias).abs().max() < CENTRED * np.abs(weight).max())
    return scaled - scaled.mean() if is_centred else scaled


def _balanced(width: int) -> Float[Tensor, " d_model"]:
    """Numbers of mean 0 and mean square 1, none of which is 0."""
    signs = torch.ones(width, dtype=torch.float64, device="cpu")
    signs[1::2] = -1
    if width % 2 and width > 1:
        signs[-3:] = torch.tensor([2, -0.5, -0.5], dtype=torch.float64, device="cpu").abs().sqrt()
        signs[-2:] *= -1
    return signs


SIZE = 2.0**10
"""Of the inputs that a norm is read off by: large beside what it adds to a variance."""

CENTRED = 0.5
"""Ones come out as nothing where the mean is taken away, and as the weight where it is not."""


def _about(model: Loaded, how: str, at: str, **more: str | int) -> dict[str, str | int | float]:
    told: dict[str, str | int | float] = {
        "how": how,
        "model": model.name,
        "model_type": str(model.anatomy.family.model_type),
        "weight_hash": model.weight_hash,
        **more,
    }
    return {**told, "at": at} if at else told
