"""What metrics are computed from: the logits at one position, in many cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.prompts.answers import Answer


@dataclass(frozen=True, eq=False)
class Outcome:
    """Logits at one position, and what metrics make of them: once for all metrics, in float64."""

    logits: Float[Tensor, "cell vocab"]

    @cached_property
    def exact(self) -> Float[Tensor, "cell vocab"]:
        """The logits in float64."""
        return self.logits.double()

    @cached_property
    def broken(self) -> Bool[Tensor, " cell"]:
        """In which cells a logit is no number: nothing can be read off the others then."""
        return self.logits.isnan().any(-1)

    @cached_property
    def logprobs(self) -> Float[Tensor, "cell vocab"]:
        """Log probabilities."""
        return self.exact.log_softmax(-1)

    def at(self, rows: Int[Tensor, " row"]) -> Outcome:
        """Some of its cells, one perhaps several times; log probabilities are computed once."""
        return _Some(self.logits[rows.to(self.logits.device)], self, rows)


@dataclass(frozen=True, eq=False)
class _Some(Outcome):
    """Some cells of an outcome."""

    whole: Outcome
    rows: Int[Tensor, " row"]

    @cached_property
    def logprobs(self) -> Float[Tensor, "cell vocab"]:
        """Log probabilities."""
        return self.whole.logprobs[self.rows.to(self.logits.device)]


@dataclass(frozen=True)
class Prediction:
    """What a metric is computed from, at one position.

    ``token`` is what the metric is about; ``target`` and ``contrast`` are the prompt's: an id, or
    a set of which any is meant.
    """

    edited: Outcome
    clean: Outcome
    token: Answer | None
    target: Answer | None
    contrast: Answer | None
