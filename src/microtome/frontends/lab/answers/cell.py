"""A cell, or several together: what it answers, where its head looks, what it writes.

Each part is a function of its own, so that a page shows the quick ones first. What feeds a cell is
`upstream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import pandas as pd

from microtome import Model, Prompt, attention, attribute_logits, sweep
from microtome.edits import as_edits
from microtome.edits.application import Receipt
from microtome.errors import EditError
from microtome.figures import Drawn
from microtome.frontends.lab.answers.measuring import Value, canonical, value_of
from microtome.frontends.lab.answers.nodes import nodes_of, writer_called

TOP = 10
"""Tokens, and writers, that are shown."""
MOST = 32
"""Cells that are also run each by itself."""


@dataclass(frozen=True)
class Word:
    """A token that may come next, with the edits and without.

    Attributes:
        token: its text.
        id: its number.
        prob, clean_prob: its probability, 0 to 1.
        rank, clean_rank: 1 is the most probable.
    """

    token: str
    id: int
    prob: float
    clean_prob: float
    rank: int
    clean_rank: int


@dataclass(frozen=True)
class Changed:
    """What a run under edits answers.

    Attributes:
        edits: their texts.
        before: the most probable tokens without the edits.
        after: those with them.
        receipts: what each edit did.
    """

    edits: tuple[str, ...]
    before: tuple[Word, ...]
    after: tuple[Word, ...]
    receipts: tuple[Receipt, ...]


def changed(model: Model, prompt: Prompt, edits: Sequence[str], k: int = TOP) -> Changed:
    """One run with all the edits: the k most probable tokens before and after, and receipts.

    Args:
        model: from `load`.
        prompt: what is read.
        edits: texts without stars.
        k: how many tokens of each.

    Raises:
        AddressError, EditError, PromptError: an edit names what is not there, or patches from a
            donor that the prompt has not.
    """
    _check_cells(edits)
    run = model.run(prompt, edits)
    before, after = (_words(run.top(k, by=by)) for by in ("clean", "edited"))
    return Changed(tuple(edits), before, after, tuple(run.receipts))


def _words(table: pd.DataFrame) -> tuple[Word, ...]:
    names = [one.name for one in fields(Word)]
    return tuple(Word(**{name: row[name] for name in names}) for row in table.to_dict("records"))


def _check_cells(edits: Sequence[str]) -> None:
    if not edits:
        raise EditError("No cell is chosen: click one on the map, or pick it from the list.")
    starred = [str(edit) for edit in as_edits(edits) if edit.address.stars]
    if starred:
        raise EditError(
            f"{starred[0]!r} is a map, not a cell of one: put a number in the place of each star."
        )


# ------------------------------------------------------------------------- several together


@dataclass(frozen=True)
class Alone:
    """What one of several edits does by itself."""

    edit: str
    effect: float


@dataclass(frozen=True)
class Together:
    """What edits do to a metric in one run, beside what each does alone.

    Attributes:
        value: of all in one run; its noise is the largest of all these runs.
        alone: each by itself.
    """

    value: Value
    alone: tuple[Alone, ...]

    @property
    def summed(self) -> float:
        """The effects of each alone, added up."""
        return sum(one.effect for one in self.alone)

    @property
    def joint(self) -> float:
        """What is there only together: the effect − the sum."""
        return self.value.effect - self.summed


def together(model: Model, prompt: Prompt, edits: Sequence[str], metric: str) -> Together:
    """What edits do together, and what each does alone.

    Args:
        model: from `load`.
        prompt: what is read, with what the metric needs of it.
        edits: texts without stars; one is alone and together the same.
        metric: one with a difference, such as ``"logit_diff"``.

    Raises:
        EditError: there are more than `MOST`, or one has stars.
        AddressError, PromptError, MetricError: as `sweep`.
    """
    _check_cells(edits)
    if len(edits) > MOST:
        raise EditError(
            f"{len(edits)} cells are chosen, and at most {MOST} are weighed one by one: let some "
            "go."
        )
    name = canonical(metric)

    def of(some: Sequence[str]) -> Value:
        return value_of(sweep(model, prompt, some, metrics=[name], progress=False))

    whole = of(edits)
    each = [whole] if len(edits) == 1 else [of([edit]) for edit in edits]
    noise = max(one.noise for one in (whole, *each))
    alone = (Alone(edit, one.effect) for edit, one in zip(edits, each, strict=True))
    return Together(replace(whole, noise=noise), tuple(alone))


# ------------------------------------------------------------------------- looks and writes


def looked(model: Model, prompt: Prompt, layer: int, head: int) -> Drawn:
    """Where a head looks in the run without edits, from which token (down) to which (right).

    Raises:
        AddressError: there is no such head.
    """
    seen = attention(model, prompt, f"L{layer}.pattern.h{head}")
    return seen.figure(layer, head)


@dataclass(frozen=True)
class Share:
    """What one part writes for the answer by itself, in logits."""

    writer: str
    share: float


@dataclass(frozen=True)
class Shares:
    """Direct attribution of an answer.

    Attributes:
        metric: ``logit_diff``, or ``logit`` where there is no contrast.
        logit: the model's own value, which all shares sum to.
        own: those of the chosen cells' heads and MLPs.
        largest: the largest of all, by size.
        figure: the map of all.
    """

    metric: str
    logit: float
    own: tuple[Share, ...]
    largest: tuple[Share, ...]
    figure: Drawn


def shares(model: Model, prompt: Prompt, edits: Sequence[str], k: int = TOP) -> Shares:
    """What the parts that cells are of, and the strongest others, write for the answer directly.

    It is of the run without edits: what a part writes, not what would happen without it.

    Raises:
        MetricError: the prompt has no target of one token.
        AddressError, EditError, PromptError: an edit names what is not there.
    """
    found = attribute_logits(model, prompt)
    rows = [Share(one["writer"], one["share"]) for one in found.table().to_dict("records")]
    nodes = dict.fromkeys(node for edit in edits for node in nodes_of(model, prompt, edit))
    wanted = {writer_called(node) for node in nodes}
    return Shares(
        str(found.provenance["spec"]["metric"]),
        float(found.data["logit"].values[0]),
        tuple(row for row in rows if row.writer in wanted),
        tuple(rows[:k]),
        found.figure(0),
    )
