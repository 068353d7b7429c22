"""Relevance patching: gradients by the rules of layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from microtome.engines.approximate.atp import AtP, OwnRun
from microtome.engines.approximate.method import Method, Take
from microtome.engines.approximate.stretch import Stretch
from microtome.errors import SweepError
from microtome.passes.relevance import halves, relevance
from microtome.plan.approximation import Passes
from microtome.plan.question import Question
from microtome.spoken import spoken

FROZEN = ("q", "k", "k_head", "q_in", "k_in", "k_in_group", "pattern")
"""Sites that act through attention weights alone, which the rules take as they are."""


@spoken
@dataclass(frozen=True)
class RelP(Method):
    """Relevance patching: the edit's change times a gradient that goes back by LRP's rules.

    On the way back the scale of a norm is a constant, as attention weights are; an activation
    function is its value divided by its input, times that input; and where a gated MLP multiplies
    two values, each gets half. So in a model without biases, and without a
    soft cap on its logits, what all values of a layer's stream say adds up to the logit.

    Source: Jafari et al. 2025 (arXiv:2508.21258), section 3; the rules are those of Ali et al. 2022
    (arXiv:2202.07304) and Arras et al. 2019.

    >>> str(RelP())
    'relp'
    """

    name: ClassVar[str] = "relp"
    about: ClassVar[str] = (
        "what an edit changes times a gradient by LRP's rules: norms and attention weights "
        "constant, activations linear, products shared"
    )

    def check(self, question: Question) -> None:
        """What `AtP` refuses; and what acts through attention weights, which say nothing here."""
        AtP().check(question)
        for edit in question.edits:
            if edit.address.site.name in FROZEN:
                raise SweepError(
                    f"method={str(self)!r} takes attention weights as they are, so that '{edit}' "
                    "would have no effect: use AtPStar()."
                )

    def passes(self, question: Question) -> Passes:
        """Forward once, and back for each metric."""
        return Passes(1, len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The one of the clean run."""
        hf, anatomy = stretch.model.hf, stretch.model.anatomy

        def around() -> AbstractContextManager[object]:
            return relevance(hf, anatomy)

        made = stretch.graph(before=halves(anatomy), around=around)
        found = made.back()
        stretch.knows(found)
        yield OwnRun(found)
