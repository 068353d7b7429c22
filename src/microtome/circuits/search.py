"""What every search for a circuit has: a trial, a journal, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from microtome.amounts import many
from microtome.circuits.ablations import Ablation, Mean, Patch, Zero
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.elsewhere import lent
from microtome.circuits.journal import Journal, kept
from microtome.circuits.trial import Trial
from microtome.engines.observer import Observer, go_on, observed
from microtome.model.code import code_of
from microtome.results import provenance
from microtome.spoken import spoken
from microtome.verbs.record import added
from microtome.workers import Workers

KEPT = "What was measured is kept where out= was given."
PASSING = ("created",)

Decision = tuple[str, bool, float, int]
"""An edge, whether it went, what that costs, and how many edges are left."""


@spoken
@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to.

    Attributes:
        circuit: the circuit, pruned.
        steps: a row for each decision, in their order: which edge, whether it was ``removed``, how
            much worse the metric is with it gone (``cost``, in the metric's unit) and how many
            ``edges`` are left.
        method: which search, with its parameters.
        verification: how many circuits were run again on the reference path, and how far apart
            the two were; empty where nothing was run.
    """

    circuit: Circuit
    steps: pd.DataFrame
    method: str
    verification: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Found by {self.method}: {self.circuit!r}>"


@dataclass(frozen=True, eq=False)
class Search:
    """A search that is going on.

    Attributes:
        trial: what circuits are measured by.
        journal: what was measured.
        observer: who is told.
    """

    trial: Trial
    journal: Journal
    observer: Observer

    def worse(self, circuits: Sequence[Circuit]) -> Array:
        """The mean over prompts of the first metric, more where it is worse, ``[circuit]``."""
        go_on(self.observer, KEPT)
        name = str(self.trial.asked[0])
        values = self.journal.step(circuits, lambda: self.trial.measure(circuits)[name])
        found: Array = self.trial.worse * values.mean(axis=0)
        return found


@contextmanager
def searching(
    trial: Trial,
    method: Mapping[str, Any],
    out: str | Path | None,
    progress: bool | Observer,
    cells: int,
    cost: str,
    workers: Workers | str | None = None,
) -> Iterator[Search]:
    """A search with its journal, and an observer that has been told what it costs.

    Raises:
        CircuitError: see `kept`.
    """
    asked = {} if out is None else identity(trial, method)
    with (
        kept(out, asked) as journal,
        observed(progress, cells, 1) as observer,
        provenance.held(trial.model),
        lent(trial, workers) as trial,
    ):
        observer.note(cost)
        yield Search(trial, journal, observer)


def identity(trial: Trial, method: Mapping[str, Any]) -> dict[str, object]:
    """Everything that decides what is found."""
    machine, dims = provenance.of_machine(), trial.model.anatomy.dims
    return {
        "method": dict(method),
        "metric": str(trial.asked[0]),
        "read_at": [trial.asked[0].position(one, dims) for one in trial.encoded],
        "ablation": _told(trial.ablation),
        "reference": [list(one.tokens.ids) for one in getattr(trial.ablation, "reference", ())],
        "prompts": [
            {
                "tokens": list(one.tokens.ids),
                "donor": None if one.donor is None else list(one.donor.ids),
                "target": _plain(one.target),
                "contrast": _plain(one.contrast),
                "read": trial.place(trial.asked[0], number),
            }
            for number, one in enumerate(trial.encoded)
        ],
        "model": provenance.of_model(trial.model),
        "modules": trial.model.modules_hash,
        **added(trial.model),
        **{name: value for name, value in machine.items() if name not in PASSING},
    }


def _told(ablation: Ablation) -> str:
    """By its name, or of somebody's own, of which that does not say all, with what it holds."""
    if isinstance(ablation, Patch | Zero | Mean):
        return ablation.name
    # Its text would leave out the middle of a vector.
    return f"{ablation.name}: {code_of([type(ablation), vars(ablation)])}"


def _plain(answer: object) -> object:
    return sorted(answer) if isinstance(answer, frozenset) else answer


def priced(trial: Trial, name: str, circuits: int, how: str) -> str:
    """What a search costs, in words."""
    tokens = sum(len(one.tokens.read) for one in trial.encoded) * circuits
    at_most = f"at most {many(circuits, 'circuit')} on {many(len(trial.encoded), 'prompt')}"
    return f"{name}: {how}; {at_most}, {many(tokens, 'token')} through the model"


def table(rows: Sequence[Decision]) -> pd.DataFrame:
    """The decisions of a search."""
    frame = pd.DataFrame(rows, columns=["edge", "removed", "cost", "edges"])
    return frame.astype({"removed": bool, "cost": np.float64, "edges": np.int64})
