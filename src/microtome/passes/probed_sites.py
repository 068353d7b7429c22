"""The probe's checks of sites: there, in shape, what the row says of each other, and live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from microtome.amounts import many
from microtome.language.sites import APART, OF_HEADS, POSITIONS, Site
from microtome.model.additions import is_adapted
from microtome.model.anatomy import Anatomy
from microtome.model.placement import types_of
from microtome.passes.hooks import Place, Visit, forward
from microtome.passes.probed_heads import check_heads, check_readers, check_shared, shared_norms
from microtome.passes.relations import Seen, differences, relations
from microtome.passes.session import session
from microtome.passes.unlike import Unlike, expect, expect_close, expect_within, site_at

CHOOSING = ("q", "k", "k_head", "pattern")
"""Sites that say what is attended to, and no more."""

ROWS = 6
"""How many sites are edited in one pass, each in its own row."""

READING = frozenset((None, "resid_pre", "z"))
"""Sites whose edit what heads read and write depends on; and none."""

ALONE = ("q", "k", "k_head")
"""Sites of which no other's values tell whether an edit was heeded, but for the logits.

Each has a pass of its own, of one row as the clean one's: so every bit that differs is the edit's.
"""


def check_all(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """Everything that the probe checks.

    Raises:
        Unlike: something is not what the row says.
    """
    blocks = anatomy.n_blocks(hf)
    expect(blocks == anatomy.dims.n_layers, f"there are {many(blocks, 'block')}")
    _check_attention(anatomy)
    _check_apart_modules(hf, anatomy)
    with session(hf, anatomy):
        _check_sites(hf, anatomy, ids)


def _check_sites(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    clean = _activations(hf, anatomy, ids)
    _check_shapes(anatomy, clean, ids.shape[1])
    _check_untouched(hf, anatomy, ids, clean)
    shared = shared_norms(hf, anatomy, ids) if anatomy.family.mlp_reads is not None else None
    alone = tuple(site for site in anatomy.sites if site.name in ALONE)
    edited = [_edited(hf, anatomy, ids, [site]) for site in alone]
    for site, seen in zip(alone, edited, strict=True):
        _check_edits([site], clean, seen)
    _check_relations(hf, anatomy, _together([clean, *edited]), (None, *map(_site_name, alone)))
    for sites in _rounds(anatomy):
        seen = _edited(hf, anatomy, ids, sites)
        _check_edits(sites, clean, seen)
        _check_relations(hf, anatomy, seen, tuple(map(_site_name, sites)))
    if shared is not None:
        check_shared(hf, anatomy, shared)
    check_readers(hf, anatomy, ids)
    if ids.shape[1] > 1:
        check_heads(hf, anatomy, ids)


def _rounds(anatomy: Anatomy) -> Iterator[Sequence[Site]]:
    """Sites that are edited in the same pass. Those of single heads have copies of rows there."""
    others = [s for s in anatomy.sites if s.name not in (*ALONE, *OF_HEADS, *APART)]
    for start in range(0, len(others), ROWS):
        yield others[start : start + ROWS]
    of_heads = [s for s in anatomy.sites if s.name in OF_HEADS and s.name not in ALONE]
    if of_heads:
        yield of_heads


def _site_name(site: Site) -> str:
    return site.name


def _together(passes: Sequence[Seen]) -> Seen:
    """What several passes had, as if they had been rows of one."""
    return {place: torch.cat([seen[place] for seen in passes]) for place in passes[0]}


def _activations(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    ids: Tensor,
    edits: Sequence[Visit] = (),
    places: Sequence[Place] = (),
) -> Seen:
    seen: Seen = {}

    def keeper(place: Place) -> Visit:
        site, layer = place
        return Visit(
            place, lambda view: seen.__setitem__((site.name, layer), view.clone().to(ids.device))
        )

    forward(hf, anatomy, ids, [*edits, *map(keeper, places or _places(anatomy))])
    return seen


def _places(anatomy: Anatomy) -> list[Place]:
    """Every (site, layer) but those that are as wide as the stream for every head."""
    return [place for place in anatomy.places() if place[0].name not in APART]


def _check_shapes(anatomy: Anatomy, seen: Seen, length: int) -> None:
    for site, layer in _places(anatomy):
        sizes = [length if axis in POSITIONS else anatomy.dims.size(axis) for axis in site.axes]
        found = list(seen[site.name, layer].shape)
        expect(found == [1, *sizes], f"{site_at(site, layer)} has shape {found}, not {[1, *sizes]}")


def _check_attention(anatomy: Anatomy) -> None:
    taps = anatomy.family.taps
    inside = [taps[site].module for site in ("q", "k", "v")]
    for site in ("q", "k", "v"):
        expect(taps[site].side == "output", f"{site} is not what a projection gives")
    around = anatomy.family.attention
    holds = all(path.startswith(f"{around}.") for path in inside)
    expect(holds, f"{around} is not what q, k and v are made in: {inside[0]}")


def _check_apart_modules(hf: PreTrainedModel, anatomy: Anatomy) -> None:
    """No module with weights is a part of two layers, where a hook would be at work twice.

    What adapters share inside of a layer (VB-LoRA's vectors) has no hook on it.
    """
    found: dict[nn.Module, str] = {}
    adapted: tuple[str, ...] = ()
    for path, module in hf.named_modules(remove_duplicate=False):
        if not path.startswith(f"{anatomy.family.blocks}.") or not [*module.parameters()]:
            continue
        if path.startswith(adapted):
            continue
        if is_adapted(module):
            adapted += (f"{path}.",)
        first = found.setdefault(module, path)
        if first != path:
            complaint = f"{first} and {path} are one module, so that an edit of one is of the other"
            raise Unlike(complaint, f"This {type(hf).__name__} shares parts: {complaint}.")


def _check_untouched(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, seen: Seen) -> None:
    bare: Tensor = hf(input_ids=ids).logits
    places = [place for place in _places(anatomy) if place[0].name != "pattern"]
    hooked = _activations(hf, anatomy, ids, places=places)["logits", None]
    expect(torch.equal(bare, hooked), "a pass without edits is not the bare model's")
    # Which it does in the blocks: the head may be of a finer type.
    eps = max(torch.finfo(kind).eps for kind in types_of([hf]))
    complaint = "showing attention weights changes the logits"
    expect_close(seen["logits", None], bare, complaint, eps)
    for layer in range(anatomy.dims.n_layers):
        weights = seen["pattern", layer]
        # Many a model takes its softmax in float32, whatever its type.
        sums = weights.sum(-1, dtype=min(weights.dtype, torch.float32, key=lambda t: t.itemsize))
        complaint = f"L{layer}: weights of pattern do not sum to 1"
        expect_close(sums, torch.ones_like(sums), complaint)
        ahead = weights.triu(1).any() if anatomy.dims.causal else False
        expect(not ahead, f"L{layer}: pattern has attention to later tokens")


# ------------------------------------------------------------------------------------- relations


def _check_relations(
    hf: PreTrainedModel, anatomy: Anatomy, seen: Seen, edited: Sequence[str | None]
) -> None:
    """All relations hold, but for those that give the edited site, which the edit overrules.

    ``edited`` has the name of each row's.
    """
    for relation in relations(hf, anatomy, seen, projected=not READING.isdisjoint(edited)):
        apart = differences(relation.value, relation.seen)
        for site, (difference, allowed) in zip(edited, apart, strict=True):
            if relation.site != site:
                after = f"after an edit of {site}, " if site else ""
                expect_within(difference, allowed, after + relation.text)


# ----------------------------------------------------------------------------------------- edits


def _edited(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, sites: Sequence[Site]) -> Seen:
    """What a pass has that adds to one site in each of its rows, in every layer."""
    pushes = [push for row, site in enumerate(sites) for push in _pushes(anatomy, site, row)]
    return _activations(hf, anatomy, ids.expand(len(sites), -1), pushes)


def _check_edits(sites: Sequence[Site], clean: Seen, edited: Seen) -> None:
    """Adding to a site changes the logits.

    Among other rows they change by rounding too, so there the site itself has to have changed; that
    what comes after it followed is the relations' matter.
    """
    for row, site in enumerate(sites):
        changed = not torch.equal(edited["logits", None][row], clean["logits", None][0])
        heeded = changed and (site.name in ALONE or _moved(site.name, clean, edited, row))
        idle = site.name in CHOOSING and not _has_choice(clean)
        expect(heeded or idle, f"changing {site} does not change the logits")
        _check_apart(site.name, clean, edited, row)


def _moved(site: str, clean: Seen, edited: Seen, row: int) -> bool:
    """Whether a site is seen to have changed by something like what was added, in some layer."""
    pairs = [(edited[place][row], x[0]) for place, x in clean.items() if place[0] == site]
    return any(_by_much(found, was) for found, was in pairs)


def _by_much(found: Tensor, was: Tensor) -> bool:
    # Logits may be minus infinity, which is as far from itself as any number: 0.
    apart = (found - was).abs().masked_fill(found == was, 0).max()
    return not bool(apart <= was[was.isfinite()].std() / 4)


def _has_choice(clean: Seen) -> bool:
    """Whether it matters what is attended to: there are several tokens, of different values."""
    values = [values for (name, _), values in clean.items() if name == "v"]
    return any(not torch.equal(own, own[:, :1].expand_as(own)) for own in values)


def _pushes(anatomy: Anatomy, site: Site, row: int) -> tuple[Visit, ...]:
    def push(view: Tensor) -> None:
        # A ramp, not a constant: adding one number everywhere is what a layer norm takes out.
        own = view[row]
        ramp = torch.linspace(-1, 1, own.numel(), dtype=torch.float64, device="cpu").to(own)
        # Logits may be minus infinity, which has no deviation, and stays what it is.
        own += own[own.isfinite()].std() * ramp.reshape(own.shape)

    layers = range(anatomy.dims.n_layers) if site.layered else [None]
    heads = np.array([row]), np.arange(anatomy.dims.n_heads)[None]
    own = heads if site.name in OF_HEADS else None
    return tuple(Visit((site, layer), push, True, own) for layer in layers)


def _check_apart(site: str, clean: Seen, edited: Seen, row: int) -> None:
    """Queries, keys and values are made side by side: an edit of one leaves the others alone."""
    triple = ("q", "k", "v")
    for other in triple if site in triple else ():
        if other != site:
            text = f"an edit of L0.{site} changes L0.{other}"
            expect_close(edited[other, 0][row], clean[other, 0][0], text)
