"""The load-time probe: proof that a model computes what its family's row says.

On a few random tokens it checks that every site exists and has the shape it should, that
contributions add up to the residual stream, that ``z · W_O + b`` is ``attn_out``, that a pass with
hooks but without edits is bit-identical to the bare model, and that each site is live: adding to
it changes the logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from microtome.errors import MicrotomeError, ProbeError
from microtome.model.anatomy import Anatomy
from microtome.run import Place, Visit, forward
from microtome.sites import Site

TOKENS = 6
"""Length of the random prompt: enough for attention to have a choice."""


def probe(hf: PreTrainedModel, anatomy: Anatomy) -> None:
    """Check a model against its row in the table of families.

    Raises:
        ProbeError: it differs; the message names the site, the layer and what was found.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(anatomy.dims.d_vocab, (1, TOKENS), generator=generator).to(hf.device)
    seen = _activations(hf, anatomy, ids)
    _check_shapes(anatomy, seen)
    with torch.no_grad():
        bare = hf(input_ids=ids).logits
    _expect(torch.equal(bare, seen["logits", None]), "a pass without edits is not the bare model's")
    _check_sums(hf, anatomy, seen)
    _check_end(hf, anatomy, seen)
    for site in anatomy.sites:
        _check_live(hf, anatomy, ids, site, bare)


def _activations(
    hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> dict[tuple[str, int | None], Tensor]:
    seen: dict[tuple[str, int | None], Tensor] = {}

    def keeper(place: Place) -> Visit:
        site, layer = place
        return Visit(place, lambda view: seen.__setitem__((site.name, layer), view.clone()))

    try:
        forward(hf, anatomy, ids, [keeper(place) for place in anatomy.places()])
    except (MicrotomeError, AttributeError, RuntimeError) as error:
        raise ProbeError(
            f"{type(hf).__name__} cannot be tapped as its family says: {error}"
        ) from error
    return seen


def _check_shapes(anatomy: Anatomy, seen: dict[tuple[str, int | None], Tensor]) -> None:
    for site, layer in anatomy.places():
        sizes = [TOKENS if axis == "pos" else anatomy.dims.size(axis) for axis in site.axes]
        found = list(seen[site.name, layer].shape)
        _expect(found == [1, *sizes], f"{_name(site, layer)} has shape {found}, not {[1, *sizes]}")


def _check_sums(
    hf: PreTrainedModel, anatomy: Anatomy, seen: dict[tuple[str, int | None], Tensor]
) -> None:
    _expect(torch.equal(seen["embed", None], seen["resid_pre", 0]), "embed is not L0.resid_pre")
    for layer in range(anatomy.dims.n_layers):
        at = {name: x for (name, where), x in seen.items() if where == layer}
        with torch.no_grad():
            projected = anatomy.out_proj(hf, layer)(at["z"].flatten(-2))
        _expect_close(projected, at["attn_out"], f"L{layer}: z · W_O + b is not attn_out")
        middle = at["resid_pre"] + at["attn_out"]
        _expect_close(middle, at["resid_mid"], f"L{layer}: resid_pre + attn_out is not resid_mid")
        _expect_close(
            at["resid_mid"] + at["mlp_out"],
            at["resid_post"],
            f"L{layer}: resid_mid + mlp_out is not resid_post",
        )
        if layer:
            before = seen["resid_post", layer - 1]
            _expect(
                torch.equal(before, at["resid_pre"]),
                f"L{layer - 1}.resid_post is not resid_pre of L{layer}",
            )


def _check_end(
    hf: PreTrainedModel, anatomy: Anatomy, seen: dict[tuple[str, int | None], Tensor]
) -> None:
    last = seen["resid_post", anatomy.dims.n_layers - 1]
    with torch.no_grad():
        logits = hf.get_output_embeddings()(anatomy.final_norm(hf)(last))
    _expect_close(
        logits, seen["logits", None], "the unembedding of the normed last resid_post is not logits"
    )


def _check_live(
    hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, site: Site, bare: Tensor
) -> None:
    """Adding to the site, in every layer, must change the logits; and the sum must still hold."""
    layers = range(anatomy.dims.n_layers) if site.layered else [None]

    def push(view: Tensor) -> None:
        # A ramp, not a constant: adding one number everywhere is what a layer norm takes out.
        ramp = torch.linspace(-1, 1, view[0].numel(), dtype=torch.float64).to(view)
        view += view.std() * ramp.reshape(view[0].shape)

    pushed = forward(hf, anatomy, ids, [Visit((site, layer), push, True) for layer in layers])
    _expect(not torch.equal(pushed, bare), f"changing {site} does not change the logits")
    if site.name == "resid_mid":
        _check_middle(hf, anatomy, ids, push)


def _check_middle(
    hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, push: Callable[[Tensor], None]
) -> None:
    """An edit of resid_mid must reach the residual stream, not the MLP alone."""
    by_name = {site.name: site for site in anatomy.sites}
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Visit:
        return Visit((by_name[name], 0), lambda view: seen.__setitem__(name, view.clone()))

    edit = Visit((by_name["resid_mid"], 0), push, True)
    names = ("resid_mid", "mlp_out", "resid_post")
    forward(hf, anatomy, ids, [edit, *map(keeper, names)])
    _expect_close(
        seen["resid_mid"] + seen["mlp_out"],
        seen["resid_post"],
        "an edit of L0.resid_mid does not reach the residual stream",
    )


def _expect_close(found: Tensor, wanted: Tensor, complaint: str) -> None:
    rounding = 64 * torch.finfo(found.dtype).eps
    scale = max(1.0, float(wanted.abs().max()))
    difference = float((found - wanted).abs().max())
    _expect(difference <= rounding * scale, f"{complaint} (they differ by {difference:.2g})")


def _expect(holds: bool, complaint: str) -> None:
    if not holds:
        raise ProbeError(
            f"The model is not what its row in microtome/model/anatomy.py says: {complaint}."
        )


def _name(site: Site, layer: int | None) -> str:
    return site.name if layer is None else f"L{layer}.{site.name}"
