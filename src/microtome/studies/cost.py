"""What a study costs where it was published, from its plan alone: no weights, no tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from microtome.edits import as_edits
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import ask
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import MASKS, Tokens
from microtome.spoken import spoken
from microtome.studies.checkpoints import CHECKPOINTS
from microtome.studies.study import Study


@dataclass(frozen=True)
class Predicted:
    """The cost of all sweeps of a study on its default model and prompt.

    Attributes:
        cells: of all its sweeps.
        passes: full forward passes of the same number of operations.
        reference_passes: forward passes that running it cell by cell would take.
        flops: floating-point operations.
    """

    cells: int
    passes: float
    reference_passes: int
    flops: float


@spoken
def predict(study: Study[Any]) -> Predicted:
    """What a study's sweeps take as published."""
    plans = plans_of(study)
    return Predicted(
        cells=sum(len(plan.cells) for plan in plans.values()),
        passes=sum(plan.cost.passes for plan in plans.values()),
        reference_passes=sum(plan.cost.reference_passes for plan in plans.values()),
        flops=sum(plan.cost.flops for plan in plans.values()),
    )


def plans_of(study: Study[Any]) -> dict[str, Plan]:
    """The plans of a study's sweeps as published, nothing run."""
    published = study.published
    dims = CHECKPOINTS[published.model]
    prompt = published.as_prompt()
    donor = _tokens(study.donor_tokens) if study.donor_tokens else None
    places = {n: p[0] if isinstance(p, tuple) else p for n, p in prompt.roles.items()}
    encoded = Encoded(prompt, replace(_tokens(study.tokens), places=places), donor, 0, 0)
    return {
        name: make_plan(ask(dims, [encoded], as_edits(sweep.edits), (), sweep.over, [encoded]))
        for name, sweep in {**study.sweeps(published), **study.watched(published, dims)}.items()
    }


def _tokens(text: str) -> Tokens:
    found = Tokens.of_texts(*text.split("|"))
    masks = tuple(n for n, piece in enumerate(found.pieces) if piece == MASKS[0])
    return replace(found, mask=MASKS[0] if masks else "", masks=masks)
