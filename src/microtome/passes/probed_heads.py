"""The probe's checks of heads and of what is shared: where they are, and what leaves them alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.sites import OF_READERS, Site
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.families.taps import Tap
from microtome.passes.hooks import Visit, forward
from microtome.passes.unlike import expect, expect_close

Shared = tuple[dict[int, Tensor], dict[int, Tensor]]
"""By layer, what an MLP gets, and what the norm before it reads."""


def check_readers(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """What the first head of each kind reads in the first block is pushed, each in its own row."""
    dims, sites = anatomy.dims, [site for site in anatomy.sites if site.name in OF_READERS]
    seen: list[Tensor] = []

    def push(view: Tensor) -> None:
        ramp = torch.linspace(-1, 1, view.shape[-1], dtype=torch.float64, device="cpu").to(view)
        view += view.std() * ramp

    edits = [
        Visit((site, 0), push, True, (np.array([row]), np.array([[0]])))
        for row, site in enumerate(sites, start=1)
    ]
    keeper = Visit((find_site("z"), 0), lambda view: seen.append(view.clone()))
    forward(hf, anatomy, ids.expand(1 + len(sites), -1), [*edits, keeper])
    [z] = seen
    for row, site in enumerate(sites, start=1):
        own = dims.n_heads // dims.size(site.axes[1])
        text = f"an edit of L0.{site}.h0 changes L0.z of heads that do not read it"
        if own < dims.n_heads:
            expect_close(z[row, :, own:], z[0, :, own:], text)


def shared_norms(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> Shared:
    """What the MLP gets where it shares its norm with attention, and what that norm reads."""
    stream, mlp = find_site("resid_pre"), find_site("mlp_in")
    got: dict[int, Tensor] = {}
    read: dict[int, Tensor] = {}

    def keeper(site: Site, layer: int, into: dict[int, Tensor], tap: Tap) -> Visit:
        def keep(view: Tensor) -> None:
            into[layer] = view.clone()

        return Visit((site, layer), keep, tap=tap)

    visits = []
    for layer in range(anatomy.dims.n_layers):
        visits.append(keeper(stream, layer, read, anatomy.tap(stream, layer)))
        visits.append(keeper(mlp, layer, got, anatomy.tap(mlp, layer)))
    forward(hf, anatomy, ids, visits)
    for layer, own in got.items():
        found, wanted = list(own.shape), list(read[layer].shape)
        expect(found == wanted, f"the MLP gets L{layer}.mlp_in of shape {found}, not {wanted}")
    return got, read


def check_shared(hf: PreTrainedModel, anatomy: Anatomy, shared: Shared) -> None:
    """The MLP gets what the norm that it shares makes of the stream, in every block."""
    got, read = shared
    for layer, own in got.items():
        made = anatomy.mlp_normed(hf, layer, read[layer])
        expect_close(made, own, f"L{layer}: the norm of mlp_in is not what the MLP gets")


def check_heads(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """Part of a query moves one head at one position; of a key, its group's where it is seen.

    The first block's attention is fed numbers made up: all queries and the key of position 0 are
    one vector, other keys are zero, values are their position. So each position attends to position
    0 above all, until half of a query's numbers, or of that key's, change their sign. Row 0 is as
    it is, rows 1 and 3 have another query, rows 2 and 4 another key. A change of sign is seen
    through norms of queries and keys too, and leaves other heads alone there; half a head tells a
    head from two.
    """
    dims = anatomy.dims
    length = ids.shape[1]
    positions = torch.arange(length, device=ids.device).view(1, -1, 1, 1)
    signs = torch.ones(dims.d_head, device=ids.device)
    signs[1::2] = -1  # their mean is zero: a norm takes means out
    half = dims.d_head // 2
    halves = (slice(None, half), slice(half, None)) if half else (slice(None),)
    rows = 1 + 2 * len(halves)
    seen: list[Tensor] = []

    def feed_q(view: Tensor) -> None:
        view.copy_(signs)
        for row, numbers in zip(range(1, rows, 2), halves, strict=True):
            view[row, 1, 0, numbers] *= -1

    def feed_k(view: Tensor) -> None:
        view.zero_()
        view[:, 0] = signs.to(view)
        for row, numbers in zip(range(2, rows, 2), halves, strict=True):
            view[row, 0, 0, numbers] *= -1

    def feed_v(view: Tensor) -> None:
        view.copy_(positions)

    feeds = (("q", feed_q), ("k", feed_k), ("v", feed_v))
    edits = [Visit((find_site(name), 0), feed, True) for name, feed in feeds]
    keeper = Visit((find_site("z"), 0), lambda view: seen.append(view.clone()))
    forward(hf, anatomy, ids.expand(rows, -1), [*edits, keeper])

    [z] = seen
    moved = (z - z[0]).abs() > 2 * length * torch.finfo(z.dtype).eps
    one, group = torch.zeros_like(moved[0]), torch.zeros_like(moved[0])
    one[1, 0] = True
    # Position 0 itself has a choice only where it sees those after it.
    group[int(dims.causal) :, : dims.n_heads // dims.n_kv_heads] = True
    queries, keys = moved[1::2], moved[2::2]
    # The scores of the two halves are each other's negative, so at least one of them turns away.
    expect(
        bool((queries <= one).all() and (queries >= one).flatten(1).all(1).any()),
        "half of L0.q.h0@1 does not move L0.z.h0@1, all of it and no more",
    )
    # In a sliding window of two positions, the next one sees it, and those after do not.
    expect(
        bool((keys <= group).all() and (keys >= group)[:, :2].flatten(1).all(1).any()),
        "half of L0.k.h0@0 does not move the z of its heads at the next positions, and no more",
    )
