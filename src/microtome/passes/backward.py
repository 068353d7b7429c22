"""Gradients of what is read off passes, at sites: forward once, and back once for each number.

At each place a writer adds zeros to the site's values, just where an edit of them would be made,
and the gradient of these zeros is the site's. So what a gradient is of is what an edit changes, in
every family: one head's key where heads share it, the stream as the MLP alone reads it. A detour
(`passes.detours`) leaves what it does not change to the pass, so its gradient is taken where it
ends and goes back the way by itself (`Way.pulled`).

Weights are left as they are: nothing is added to their ``grad``, and whether they ask for one makes
no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.devices import numbers
from microtome.model.families.taps import Tap
from microtome.passes.calling import call_body
from microtome.passes.detours import is_apart
from microtome.passes.hooks import Place, Visit, quiet, recorded, visited
from microtome.passes.session import session
from microtome.passes.way import Way
from microtome.passes.ways import way_of

Look = tuple[int, int]
"""A row of a batch and a position in it: where something is read."""

Read = Callable[[Float[Tensor, "look vocab"]], Sequence[Float[Tensor, " row"]]]
"""Makes numbers, each with a value for every row, of the logits where something is read."""

Around = Callable[[], AbstractContextManager[object]]
"""Makes what a pass runs within."""


@dataclass(eq=False)
class Slopes:
    """What a pass and its way back gave.

    Attributes:
        values: per number its values, ``[row]``.
        kept: per place the site's values, ``[row, *axes]``.
        ways: of the places that take a detour.
        seen: what was seen where a detour begins.
        ends: per number, and per place or end of a detour, the gradient there.
        pulled: per number and place, what went back a detour.
    """

    values: list[Float[Tensor, " row"]] = field(default_factory=list)
    kept: dict[Place, Tensor] = field(default_factory=dict)
    ways: dict[Place, Way] = field(default_factory=dict)
    seen: dict[Place, Tensor] = field(default_factory=dict)
    ends: list[dict[tuple[Place, Tap | None], Tensor]] = field(default_factory=list)
    pulled: dict[tuple[int, Place], Tensor] = field(default_factory=dict)

    def at(self, number: int, place: Place) -> Tensor:
        """The gradient of a number at a site's values, ``[row, *axes]``."""
        way = self.ways.get(place)
        if way is None:
            return self.ends[number][place, None]
        if (number, place) not in self.pulled:
            slope = self.ends[number][way.end, way.tap]
            self.pulled[number, place] = way.pulled(self.seen[way.begin], slope)
        return self.pulled[number, place]


@dataclass(eq=False)
class Graph:
    """A pass of which the way back can be gone, again and again.

    Attributes:
        found: what the pass gave, without gradients.
        made: per number its values, ``[row]``, with the way back.
        probes: the zeros that gradients are taken of.
    """

    found: Slopes
    made: list[Float[Tensor, " row"]] = field(default_factory=list)
    probes: dict[tuple[Place, Tap | None], Tensor] = field(default_factory=dict)

    def back(self, again: bool = False) -> Slopes:
        """Go back once for each number; it can be done once more only if that is said ``again``."""
        keys = [*self.probes]
        ends = []
        for number, values in enumerate(self.made):
            more = again or number < len(self.made) - 1
            each = _back(values, [self.probes[key] for key in keys], more)
            ends.append(dict(zip(keys, each, strict=True)))
        return replace(self.found, ends=ends, pulled={})


def graph(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    places: Iterable[Place],
    looks: Sequence[Look],
    read: Read,
    before: Sequence[Visit] = (),
    behind: Sequence[Visit] = (),
    around: Around = nullcontext,
    records: bool = True,
) -> Graph:
    """A pass of rows that know nothing of each other, with a way back to the sites of some places.

    Args:
        hf: the model.
        anatomy: its anatomy.
        ids: the texts.
        places: where values, and gradients, are wanted.
        looks: where logits are read.
        read: what is made of them, ``[look, vocab]``.
        before: what else is done on the way: at a place, before its gradient is taken.
        behind: the same, after it.
        around: what the pass runs within, forward.
        records: gradients are wanted; without, values are kept alone.
    """
    found = Graph(Slopes())
    wanted = [*dict.fromkeys(places)]
    asked = [*before, *(Visit(place, _keeper(place, found.found.kept)) for place in wanted)]
    asked += _probing(hf, anatomy, wanted, found.probes, found.found) if records else ()
    end = find_site("final_in"), None
    ended: list[Tensor] = []
    asked += [*behind, Visit(end, ended.append)]
    rows, positions = (numbers(ids.device, [look[side] for look in looks]) for side in (0, 1))
    with session(hf, anatomy), (recorded if records else quiet)(hf):
        with around(), visited(hf, anatomy, asked):
            call_body(hf, ids, use_cache=False)
            [stream] = ended
            final = anatomy.final(hf, stream)[rows.to(stream.device), positions.to(stream.device)]
            made = read(anatomy.unembed(hf, final))
        found.found.values.extend(values.detach() for values in made)
        found.made.extend(made if records else ())
    return found


def _back(values: Float[Tensor, " row"], probes: Sequence[Tensor], again: bool) -> list[Tensor]:
    """The gradients of a sum; of what does not depend on a probe, zeros."""
    if not values.requires_grad:
        return [torch.zeros_like(probe) for probe in probes]
    each = torch.autograd.grad(
        values,
        probes,
        torch.ones_like(values),
        retain_graph=again,
        allow_unused=True,
        materialize_grads=True,
    )
    return [*each]


def _probing(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    places: Iterable[Place],
    probes: dict[tuple[Place, Tap | None], Tensor],
    found: Slopes,
) -> Iterable[Visit]:
    """The visits that put zeros where a site's gradient is to be."""
    ends: dict[tuple[Place, Tap | None], None] = {}
    begins: dict[Place, None] = {}
    for place in places:
        if not is_apart(place[0], anatomy):
            ends[place, None] = None
            continue
        assert place[1] is not None, "these sites are in layers"
        found.ways[place] = way = way_of(place[0].name, place[1], hf, anatomy)
        ends[way.end, way.tap] = None
        begins[way.begin] = None
    for begin in begins:
        yield Visit(begin, _keeper(begin, found.seen))
    for end, tap in ends:
        yield Visit(end, _prober((end, tap), probes), writes=True, tap=tap)


def _keeper(place: Place, kept: dict[Place, Tensor]) -> Callable[[Tensor], None]:
    def keep(view: Tensor) -> None:
        once = view.detach()
        for axis, stride in enumerate(view.stride()):  # what is one for all heads stays one
            once = once if stride else once.narrow(axis, 0, 1)
        kept[place] = once.clone().expand_as(view)

    return keep


def _prober(
    key: tuple[Place, Tap | None], probes: dict[tuple[Place, Tap | None], Tensor]
) -> Callable[[Tensor], None]:
    def probe(view: Tensor) -> None:
        zeros = torch.zeros(view.shape, dtype=view.dtype, device=view.device, requires_grad=True)
        probes[key] = zeros
        view.add_(zeros)

    return probe
