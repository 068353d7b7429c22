"""A card: what a model can do of the tasks, as measured now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from microtome import stats
from microtome.errors import MicrotomeError, PromptError, TaskError, did_you_mean, listing
from microtome.model.loaded import Loaded
from microtome.passes.hooks import forward
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.prompts.encoding import Encoded
from microtome.tasks import TASKS

ASKED: Final = ("ioi", "capitals", "induction", "greater_than")
"""The tasks of a card, unless it is asked for others."""

TOGETHER: Final = 8
"""Prompts of one length that run in one pass."""

Sample = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Ability:
    """How a model does one task.

    Attributes:
        task: its name.
        n: how many prompts; 0 where none could be made in the model's tokens.
        accuracy: the share of prompts whose target has a larger logit than the contrast.
        accuracy_low: the lower end of its 95 % interval (Wilson's).
        accuracy_high: the upper end.
        first: the share of prompts whose target is the most probable token of all.
        logit_diff: target minus contrast, in logits, the mean over prompts.
        logit_diff_low: the lower end of its 95 % interval (Student's t).
        logit_diff_high: the upper end.
        prob: the mean probability of the target.
        why_not: why no prompt could be made, or run; empty otherwise.
    """

    task: str
    n: int = 0
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    first: float | None = None
    logit_diff: float | None = None
    logit_diff_low: float | None = None
    logit_diff_high: float | None = None
    prob: float | None = None
    why_not: str = ""


@dataclass(frozen=True, repr=False)
class Card:
    """What a model can do of the tasks.

    Attributes:
        model: what it was loaded as.
        weight_hash: of the weights that were measured.
        dtype: their type.
        seed: of the prompts' draw.
        abilities: a task each.
    """

    model: str
    weight_hash: str
    dtype: str
    seed: int
    abilities: tuple[Ability, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row per task: ``task``, ``n`` prompts, and as texts the rest.

        These are ``right`` (accuracy) and ``logit_diff`` with their intervals, ``first`` and
        ``prob``; where there are no prompts, why not.
        """
        return pd.DataFrame([_row(one) for one in self.abilities])

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain values, as ``microtome card --json`` prints it."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"<Card of {self.model!r}, seed {self.seed}>\n{self.table.to_string(index=False)}"


def measured(model: Loaded, n: int, seed: int, tasks: Iterable[str]) -> Card:
    """The card of a model; see `Model.card`."""
    names = tuple(tasks)
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        hint = did_you_mean(unknown[0], TASKS) if unknown else ""
        raise TaskError(
            f"A card is of tasks, not of {listing(map(repr, unknown)) or 'none'}; there are: "
            f"{listing(TASKS)}.{hint}"
        )
    if not model.anatomy.dims.causal:
        raise MicrotomeError(
            f"{model.name!r} fills in masks, and the tasks of a card ask for the next token."
        )
    if n < 2:
        raise TaskError(f"n is the number of prompts, at least 2 for an interval, not {n}.")
    with session(model.hf, model.anatomy):
        found = tuple(_ability(model, name, n, seed) for name in names)
    dtype = str(model.dtype).removeprefix("torch.")
    return Card(model.name, model.weight_hash, dtype, seed, found)


def _ability(model: Loaded, name: str, n: int, seed: int) -> Ability:
    try:
        encoded = model.encode(TASKS[name](n, seed, tokenizer=model.tokenizer))
    except (TaskError, PromptError) as error:
        return Ability(name, why_not=str(error))
    measures = [_of(model, group) for group in _alike(encoded)]
    difference, first, prob = (np.concatenate(parts) for parts in zip(*measures, strict=True))
    right = int((difference > 0).sum())
    share = stats.share(right, len(difference))
    mean = stats.mean(difference)
    return Ability(
        name,
        len(difference),
        share.value,
        share.low,
        share.high,
        float(first.mean()),
        mean.value,
        mean.low,
        mean.high,
        float(prob.mean()),
    )


def _alike(encoded: Iterable[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Prompts of one length together, some at a time."""
    by_length: dict[int, list[Encoded]] = defaultdict(list)
    for one in encoded:
        by_length[len(one.tokens)].append(one)
    for several in by_length.values():
        for start in range(0, len(several), TOGETHER):
            yield several[start : start + TOGETHER]


def _of(model: Loaded, prompts: Sequence[Encoded]) -> tuple[Sample, Sample, Sample]:
    """Of each prompt: target minus contrast, whether the target comes first, its probability."""
    ids = ids_of([one.tokens for one in prompts], model.hf)
    logits = forward(model.hf, model.anatomy, ids)[:, -1].double().cpu()
    probs = logits.softmax(-1).numpy()
    plain, rows = logits.numpy(), np.arange(len(prompts))
    target, contrast = (
        np.array([getattr(p, of) for p in prompts]) for of in ("target", "contrast")
    )
    difference = plain[rows, target] - plain[rows, contrast]
    return difference, (plain.argmax(-1) == target).astype(float), probs[rows, target]


def _row(one: Ability) -> dict[str, object]:
    if one.why_not:
        return {"task": one.task, "n": 0, "right": one.why_not}
    return {
        "task": one.task,
        "n": one.n,
        "right": _with_interval(one.accuracy, one.accuracy_low, one.accuracy_high),
        "first": f"{one.first:.2f}",
        "logit_diff": _with_interval(one.logit_diff, one.logit_diff_low, one.logit_diff_high),
        "prob": f"{one.prob:.2f}",
    }


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
