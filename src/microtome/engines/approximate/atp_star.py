"""AtP*: attribution patching with its two false negatives mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import truth
from microtome.engines.approximate.atp import AtP, OwnRun
from microtome.engines.approximate.method import Change, Method, Take, refuse_split
from microtome.engines.approximate.stretch import Stretch
from microtome.engines.approximate.weights import attention_of
from microtome.errors import SweepError
from microtome.language.sites import site as find_site
from microtome.passes.hooks import Place, Visit
from microtome.plan.approximation import Passes
from microtome.plan.question import Question
from microtome.spoken import spoken

BEFORE_SOFTMAX = ("q", "k", "k_head", "q_in", "k_in", "k_in_group")
"""Sites of which attention weights are made, and nothing else."""


STREAM = ("embed", "resid_pre", "resid_mid", "resid_post", "final_in")
"""Sites from which there is a way past every layer."""


@spoken
@dataclass(frozen=True)
class AtPStar(Method):
    """Attribution patching that sees through a saturated softmax, and through effects that cancel.

    Args:
        qk_fix: of a changed query or key attention weights are computed again, and what they change
            is taken to first order: the softmax is flat where it is saturated, and its gradient
            says that nothing happens.
        grad_drop: the size of an effect is the mean over ways back that each leave out what one
            layer adds, so that two ways that cancel are seen; its sign is that of the effect with
            nothing left out. Of what is inside a layer the mean is over one layer less than there
            are, as without its own nothing is left; of the stream, where something is, over all.

    Source: Kramár et al. 2024 (arXiv:2403.00745), equations 7 to 11.

    >>> str(AtPStar()), str(AtPStar(grad_drop=False))
    ('atp_star', 'atp_star(grad_drop=False)')
    """

    name: ClassVar[str] = "atp_star"
    about: ClassVar[str] = (
        "what an edit changes times the gradient, with attention computed again for a changed "
        "query or key, and the mean size over ways back without one layer"
    )

    qk_fix: bool = True
    grad_drop: bool = True

    def __post_init__(self) -> None:
        truth(self.qk_fix, "AtPStar(qk_fix=…)")
        truth(self.grad_drop, "AtPStar(grad_drop=…)")

    def check(self, question: Question) -> None:
        """What `AtP` refuses; and there has to be a layer to leave out."""
        AtP().check(question)
        if self.grad_drop:
            refuse_split(self, question)
        if self.grad_drop and question.dims.n_layers < 2:
            raise SweepError(
                f"method={str(self)!r} leaves out one layer after another, and the model has one: "
                "use AtPStar(grad_drop=False)."
            )

    def passes(self, question: Question) -> Passes:
        """Forward once, and back for each metric and each layer; a block for each query or key."""
        back = 1 + question.dims.n_layers if self.grad_drop else 1
        again = self.qk_fix and any(_is_before(edit.address.site.name) for edit in question.edits)
        return Passes(1 + again, back * len(question.readings), int(again))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The clean run's gradient, and those without each layer."""
        dims = stretch.plan.question.dims
        switch = Switch()
        fixed = [place for place in stretch.places if self.qk_fix and _is_before(place[0].name)]
        layers = dict.fromkeys(layer for _, layer in fixed)
        weights = [(find_site("pattern"), layer) for layer in layers]
        gates = gates_of(dims.n_layers, switch) if self.grad_drop else []
        made = stretch.graph(places=[*stretch.places, *weights], behind=gates)
        first = made.back(again=self.grad_drop)
        stretch.knows(first)
        yield OwnRun(first)
        for layer in range(dims.n_layers if self.grad_drop else 0):
            switch.layer = layer
            yield WithoutALayer(made.back(again=layer < dims.n_layers - 1))

    def effect(self, take: Take, number: int, change: Change) -> Float[Tensor, " cell"]:
        """As `Method.effect`; of a query or a key, by what attention weights become."""
        stretch, (own, layer) = change.stretch, change.place
        site, layers = own.name, stretch.plan.question.dims.n_layers
        if not (self.qk_fix and _is_before(site)):
            effects = super().effect(take, number, change)
            # `together` divides by one layer less than there are.
            every = isinstance(take, WithoutALayer) and site in STREAM
            return effects * ((layers - 1) / layers) if every else effects
        assert isinstance(take, OwnRun), "these are of the clean run"
        place = find_site("pattern"), layer
        slope = take.slopes.at(number, place).double()
        found = []
        for rows, weights in attention_of(stretch, change.application):
            before = take.slopes.kept[place][rows].double()
            found.append(((weights.double() - before) * slope[rows]).flatten(1).sum(-1))
        return torch.cat(found)

    def together(self, each: Sequence[Float[Tensor, " cell"]]) -> Float[Tensor, " cell"]:
        """The mean size without each layer, with the sign of the first."""
        plain, *dropped = each
        if not dropped:
            return plain
        size = torch.stack([*dropped]).abs().sum(0) / (len(dropped) - 1)
        return torch.where(plain < 0, -size, size)


@dataclass(frozen=True, eq=False)
class WithoutALayer(OwnRun):
    """The gradients of a way back that leaves out what one layer adds."""


def _is_before(site: str) -> bool:
    return site in BEFORE_SOFTMAX


@dataclass(eq=False)
class Switch:
    """Which layer adds nothing on the way back; None: all do."""

    layer: int | None = field(default=None)


class _Gate(torch.autograd.Function):
    """Values as they are; on the way back nothing, where a layer is left out."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, switch: Switch, layer: int) -> Tensor:
        ctx.of = switch, layer
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (switch, layer), (slope,) = ctx.of, slopes
        return (torch.zeros_like(slope) if switch.layer == layer else slope), None, None


def gates_of(layers: int, switch: Switch) -> list[Visit]:
    """Visits that let the way back through what layers add, but for one that is left out."""

    def gate(layer: int) -> Callable[[Tensor], None]:
        def act(view: Tensor) -> None:
            view.copy_(cast(Tensor, _Gate.apply(view.clone(), switch, layer)))  # type: ignore[no-untyped-call]

        return act

    places: list[Place] = [
        (find_site(site), layer) for layer in range(layers) for site in ("attn_out", "mlp_out")
    ]
    return [Visit(place, gate(place[1] or 0), writes=True) for place in places]
