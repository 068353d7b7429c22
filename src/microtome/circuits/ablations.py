"""Ablations: what an edge outside of a circuit carries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.amounts import many
from microtome.circuits.graph import Graph
from microtome.circuits.written import written
from microtome.errors import CircuitError, there_are
from microtome.model.loaded import Loaded
from microtome.prompts.encoding import Encoded

Values = Float[Tensor, "writer pos d_model"]


class Ablation(ABC):
    """What a reader reads of a writer over an edge that is outside of the circuit.

    ``edit`` is the edit that does the same to one edge in a sweep; empty where there is none.
    ``alike``: it makes the same of all prompts of one length.
    """

    name: ClassVar[str]
    edit: ClassVar[str] = ""
    alike: ClassVar[bool] = False

    @abstractmethod
    def check(self, one: Encoded) -> None:
        """Raise `CircuitError` unless a prompt has what this needs."""

    @abstractmethod
    def values(self, model: Loaded, graph: Graph, one: Encoded) -> Values:
        """Of each writer, in one prompt."""


@dataclass(frozen=True)
class Patch(Ablation):
    """What it writes in the donor's run."""

    name: ClassVar[str] = "patch"
    edit: ClassVar[str] = "patch"

    def check(self, one: Encoded) -> None:
        """There is a donor, as long as the prompt."""
        shown = one.prompt.shown
        if one.donor is None:
            raise CircuitError(
                f"The prompt {shown} has no donor, and edges outside of a circuit carry what is in "
                'the donor\'s run: give Prompt(…, donor="…"), or choose ablation="zero" or "mean".'
            )
        if len(one.donor.read) != len(one.tokens.read):
            raise CircuitError(
                f"The prompt {shown} has {many(len(one.tokens.read), 'token')} and its donor "
                f"{len(one.donor.read)}: what a reader at a position reads is patched from the "
                "same position. Give a donor of the same length."
            )

    def values(self, model: Loaded, graph: Graph, one: Encoded) -> Values:
        """The donor's."""
        assert one.donor is not None, "checked before anything runs"
        return written(model, graph, [one.donor])[0]


@dataclass(frozen=True)
class Zero(Ablation):
    """Nothing: zeros."""

    name: ClassVar[str] = "zero"
    edit: ClassVar[str] = "zero"
    alike: ClassVar[bool] = True

    def check(self, one: Encoded) -> None:
        """Nothing is needed."""

    def values(self, model: Loaded, graph: Graph, one: Encoded) -> Values:
        """Zeros."""
        shape = len(graph.writers), len(one.tokens.read), graph.d_model
        return torch.zeros(shape, dtype=model.dtype, device=model.device)


@dataclass(frozen=True)
class Mean(Ablation):
    """What it writes at this position on average over reference prompts.

    Attributes:
        reference: the prompts, at least two, each as long as the prompt that is run.
    """

    name: ClassVar[str] = "mean"
    edit: ClassVar[str] = 'mean(over="prompts")'
    alike: ClassVar[bool] = True

    reference: tuple[Encoded, ...]

    def check(self, one: Encoded) -> None:
        """There are several references, of the same length."""
        if len(self.reference) < 2:
            raise CircuitError(
                f"A mean over {len(self.reference)} prompt is that prompt's own: give at least two "
                'with reference=, or choose ablation="patch" or "zero".'
            )
        for other in self.reference:
            if len(other.tokens.read) != len(one.tokens.read):
                raise CircuitError(
                    f"The prompt {one.prompt.shown} has {many(len(one.tokens.read), 'token')}, and "
                    f"the reference prompt {other.prompt.shown} has {len(other.tokens.read)}: the "
                    "mean is of each position. Give references of the same length."
                )

    def values(self, model: Loaded, graph: Graph, one: Encoded) -> Values:
        """The mean, of sums in float64."""
        total = torch.zeros((), dtype=torch.float64, device=model.device)
        for other in self.reference:
            total = total + written(model, graph, [other.tokens])[0].double()
        return (total / len(self.reference)).to(model.dtype)


ABLATIONS: Mapping[str, Callable[[Sequence[Encoded]], Ablation]] = MappingProxyType(
    {
        "patch": lambda reference: Patch(),
        "zero": lambda reference: Zero(),
        "mean": lambda reference: Mean(tuple(reference)),
    }
)
"""Name → what makes it, of the reference prompts."""


def ablation_of(given: str | Ablation, reference: Sequence[Encoded]) -> Ablation:
    """An ablation, or that of a name.

    Raises:
        CircuitError: there is no such one.
    """
    if isinstance(given, Ablation):
        return given
    if given not in ABLATIONS:
        raise CircuitError(f"No ablation is called {given!r}; {there_are(given, ABLATIONS)}")
    return ABLATIONS[given](reference)
