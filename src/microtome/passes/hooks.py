"""One hooked forward pass: the reference path, and the only place that owns hooks.

A pass is a list of visits. Each says at which site of which layer it wants to be called, and gets
that site's values as a view ``[batch, *axes]``: a reader copies what it keeps, a writer changes
the view. Hooks exist inside a ``with`` block of a session only (`microtome.passes.session`). The
module's weights, its own buffers and the user's hooks are never touched; a pass without writers is
the Hugging Face module's own, bit for bit. (But for layers whose attention weights are looked at:
see `microtome.passes.attention`.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from microtome.amounts import many
from microtome.errors import InertEditError, MicrotomeError
from microtome.language.sites import OF_HEADS
from microtome.model.anatomy import Anatomy
from microtome.model.devices import numbers
from microtome.model.families.taps import Tap
from microtome.model.modes import in_training, refuse_autocast
from microtome.model.modules import module_at
from microtome.model.placement import device_of
from microtome.passes.attention import show
from microtome.passes.branches import Branches, Heads, by_head
from microtome.passes.calling import call
from microtome.passes.detours import detoured
from microtome.passes.guests import Act, Side
from microtome.passes.session import opened, session
from microtome.passes.visits import Place as Place
from microtome.passes.visits import Visit as Visit

Point = tuple[str, Literal["input", "output", "weights"], bool, int | None]
"""Where a hook goes: module, side, whether it writes in place, a layer whose branches it sees."""

BRANCHED = ("q", "k", "k_head", "v", "v_head", "pattern")
"""Sites where a row of attention may have branches beside it."""

# ----------------------------------------------------------------------------------- the hooks


@contextmanager
def hooked(
    hf: PreTrainedModel, anatomy: Anatomy, visits: Iterable[Visit]
) -> Iterator[Counter[Visit]]:
    """Within this block, a forward pass of the model makes these visits.

    Visits are made in the order of the forward pass; at one place the writers come first, in the
    order given, and then the readers. Yields how often each visit was made. The block is one of a
    session's, of the one that is open in this thread or of its own.
    """
    dims = anatomy.dims
    made: Counter[Visit] = Counter()
    asked = in_order(visits, anatomy)
    known = frozenset(asked)

    def count(visit: Visit) -> None:
        if visit in known:  # a detour's own would keep the detour alive, and what it holds
            made[visit] += 1

    visits = in_order(detoured(asked, hf, anatomy, count), anatomy)
    branches = _branches(visits, anatomy)
    points = _points(visits, anatomy, branches)
    rows: list[torch.Size] = []  # batch and positions, noted where a block goes on without them

    def see(stops: Sequence[tuple[Tap, Visit]], branch: Branches | None, full: Tensor) -> Tensor:
        writes = any(visit.writes for _, visit in stops)
        in_place = any(tap.in_place for tap, _ in stops)
        full = full.clone() if writes and not in_place else full
        for tap, visit in stops:
            count(visit)
            if branch is not None:
                with own.visit():
                    branch.visit(tap, visit.place[0].name, visit.act, full)
                continue
            whole = full.view(*rows[-1], -1) if tap.flat else full
            whole = whole if visit.within is None else visit.within.of(whole)
            view = tap.view(whole, dims)
            with own.visit():
                visit.act(by_head(view, dims) if visit.place[0].name in OF_HEADS else view)
            if visit.writes and tap.put is not None:
                tap.put(whole, view, dims)
        return full

    def note(full: Tensor) -> Tensor:
        rows[:] = [full.shape[:2]]
        return full

    hooks: list[tuple[nn.Module, Side, Act]] = []
    with session(hf, anatomy) as own:
        if any(tap.flat for stops in points.values() for tap, _ in stops):
            blocks = (anatomy.block(hf, layer) for layer in range(dims.n_layers))
            hooks += [_at(block, "input", note) for block in blocks]
        for layer, branch in branches.items():
            hooks.append((anatomy.attention(hf, layer), "input", partial(_fork, branch)))
            hooks.append(_at(anatomy.out_proj(hf, layer), "input", branch.join))
        for (path, side, _, branched), stops in points.items():
            branch_there = None if branched is None else branches[branched]
            module, look = module_at(hf, path), partial(see, stops, branch_there)
            if side == "weights":
                fine = any(visit.fine for _, visit in stops)
                show(own, module, look, anatomy.family, fine)
            else:
                hooks.append(_at(module, side, look))
        own.hook(hooks)
        yield made


def in_order(visits: Iterable[Visit], anatomy: Anatomy) -> list[Visit]:
    """Visits as a pass gets to them; at one place the writers first, in the order given."""
    return sorted(visits, key=lambda v: (anatomy.order(*v.place), not v.writes))


def _branches(visits: Iterable[Visit], anatomy: Anatomy) -> dict[int, Branches]:
    """The layers in which what single heads see is changed, with the branches that this takes."""
    edited: dict[int, list[Heads | None]] = defaultdict(list)
    for visit in visits:
        site, layer = visit.place
        if visit.writes and site.name in OF_HEADS and layer is not None:
            edited[layer].append(visit.heads)
    apart = "k" in anatomy.family.joint
    return {layer: Branches(anatomy.dims, heads, apart) for layer, heads in edited.items()}


def _points(
    visits: Iterable[Visit], anatomy: Anatomy, branches: Container[int | None]
) -> dict[Point, list[tuple[Tap, Visit]]]:
    """Where hooks go, and the visits that each makes, in their order."""
    points: dict[Point, list[tuple[Tap, Visit]]] = defaultdict(list)
    for visit in visits:
        site, layer = visit.place
        tap = anatomy.tap(site, layer) if visit.tap is None else visit.tap
        branched = layer if site.name in BRANCHED and layer in branches else None
        points[tap.module, tap.side, tap.in_place, branched].append((tap, visit))
    return points


def _at(
    module: nn.Module, side: Side, see: Callable[[Tensor], Tensor]
) -> tuple[nn.Module, Side, Act]:
    """A hook that sees what enters or leaves a module, and gives what is to go on."""

    def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (see(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": see(kwargs["hidden_states"])}

    def on_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return see(output)
        if isinstance(output, tuple):
            return (see(output[0]), *output[1:])
        return type(output)(**{**output, "logits": see(output["logits"])})

    return module, side, on_input if side == "input" else on_output


def _fork(
    branches: Branches, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What enters attention, where its rows have branches beside them."""
    entered = args[0] if args else kwargs["hidden_states"]
    forked = branches.fork(entered)

    def given(one: Any) -> Any:
        return forked if one is entered else branches.beside(one, entered)

    return tuple(map(given, args)), {name: given(one) for name, one in kwargs.items()}


@contextmanager
def outputs_of(hf: PreTrainedModel, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Within this block, what these modules return, as it is, by their paths.

    Raises:
        MicrotomeError: no session on the model is open in this thread.
    """
    seen: dict[str, Any] = {}

    def keep(path: str, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen[path] = output

    own = opened(hf)
    with own.block():
        own.hook([(hf.get_submodule(path), "output", partial(keep, path)) for path in paths])
        yield seen


def forward(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    ids: Int[Tensor, "batch pos"],
    visits: Sequence[Visit] = (),
) -> Float[Tensor, "batch pos vocab"]:
    """The logits of one pass of the unmodified module, with these visits made on its way.

    Raises:
        MicrotomeError: the model is in training mode, where dropout makes passes differ.
        InertEditError: a visit was not made exactly once.
    """
    with session(hf, anatomy), quiet(hf), visited(hf, anatomy, visits):
        logits: Tensor = call(hf, ids, use_cache=False).logits
    return logits


class _Mode:
    """Within a ``with`` block of this gradients are recorded, or not.

    No generator: one that an interrupt leaves suspended ends whenever it is collected, and would
    switch gradients on in the middle of a later pass. Where an interrupt comes between, the session
    around it puts them back.

    Raises:
        MicrotomeError: the model, or a part of it, is in training mode; or autocast is on.
    """

    records = False

    def __init__(self, hf: PreTrainedModel) -> None:
        self._hf, self._before = hf, torch.is_grad_enabled()

    def __enter__(self) -> None:
        refuse_autocast(device_of(self._hf))
        training = in_training(self._hf)
        if training:
            raise MicrotomeError(f"{training} model.hf.eval() first.")
        torch.set_grad_enabled(self.records)

    def __exit__(self, *_: object) -> None:
        torch.set_grad_enabled(self._before)


class quiet(_Mode):  # noqa: N801  (it is used as a function is)
    """Within a ``with`` block of this nothing is recorded for gradients."""


class recorded(_Mode):  # noqa: N801
    """Within a ``with`` block of this, what gradients need is.

    Raises:
        MicrotomeError: torch's inference mode is on, in which nothing can be; or the model was made
            in it.
    """

    records = True

    def __enter__(self) -> None:
        if torch.is_inference_mode_enabled():
            raise MicrotomeError(
                "torch.inference_mode is on, in which there are no gradients: leave the block "
                "(torch.no_grad() may stay), or take method='exact'."
            )
        refuse_inference(self._hf)
        super().__enter__()


def refuse_inference(hf: PreTrainedModel) -> None:
    """Raise where no gradients go through a model.

    Raises:
        MicrotomeError: its weights were made in torch's inference mode.
    """
    if any(own.is_inference() for own in (*hf.parameters(), *hf.buffers())):
        raise MicrotomeError(
            "The model was made in torch.inference_mode, and there are no gradients through its "
            "weights, wherever it is used: load it outside of the block (in torch.no_grad() if "
            "need be)."
        )


@contextmanager
def visited(hf: PreTrainedModel, anatomy: Anatomy, visits: Sequence[Visit]) -> Iterator[None]:
    """`hooked`, with proof at its end that each visit was made once.

    Raises:
        InertEditError: one was not.
    """
    with hooked(hf, anatomy, visits) as made:
        yield
    for visit in visits:
        if made[visit] != 1:
            site, layer = visit.place
            raise InertEditError(
                f"The hook at {site} of layer {layer} fired {many(made[visit], 'time')} in one "
                "pass, instead of once: this model does not run that part as its family does."
            )


@contextmanager
def only_at(module: nn.Module, positions: Sequence[int]) -> Iterator[None]:
    """Within this block, a module that takes each position by itself runs at these alone.

    Its output ``[batch, pos, …]`` is zero at the others, where nobody may read it.

    Raises:
        MicrotomeError: no session is open in this thread.
    """
    length = 0

    def cut(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal length
        length = args[0].shape[1]
        own = tuple(x.index_select(1, numbers(x.device, positions)) for x in args)
        return own, kwargs

    def spread(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        full = output.new_zeros(output.shape[0], length, *output.shape[2:])
        return full.index_copy_(1, numbers(full.device, positions), output)

    with _hooks([(module, "input", cut), (module, "output", spread)]):
        yield


End = tuple[nn.Module, Side]
"""Where a stretch of a block ends: before or after a module."""


@contextmanager
def once_for_alike(
    begin: nn.Module, end: End, prompts: int, apart: int, alike: int
) -> Iterator[None]:
    """Within this block, what lies between two modules runs once for rows that are alike.

    From the input of one module on; a batch has ``apart + alike`` rows for each prompt there, of
    which the last ones are equal.

    Raises:
        MicrotomeError: no session is open in this thread.
    """

    def fewer(x: Tensor) -> Tensor:
        rows = x.view(prompts, apart + alike, *x.shape[1:])
        return rows[:, : apart + 1].flatten(0, 1).contiguous()

    def more(x: Tensor) -> Tensor:
        rows = x.view(prompts, apart + 1, *x.shape[1:])
        last = rows[:, apart:].expand(-1, alike, *x.shape[1:])
        return torch.cat([rows[:, :apart], last], dim=1).flatten(0, 1).contiguous()

    with between((begin, "input"), end, fewer, more):
        yield


@contextmanager
def between(
    begin: End, end: End, enter: Callable[[Tensor], Tensor], leave: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within this block, what lies between two modules runs on other rows.

    Args:
        begin, end: before or after which modules.
        enter: the rows there, of those that come.
        leave: the rows that go on, of those.

    Raises:
        MicrotomeError: no session is open in this thread.
    """
    with _hooks([_at(*begin, enter), _at(*end, leave)]):
        yield


@contextmanager
def _hooks(hooks: Sequence[tuple[nn.Module, Side, Act]]) -> Iterator[None]:
    own = opened(hooks[0][0])
    with own.block():
        own.hook(hooks)
        yield
