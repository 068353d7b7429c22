"""A circuit as a file: it is scored, searched for, and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import xarray as xr
from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainValidator,
    ValidationInfo,
)

from microtome import circuits
from microtome.circuits import ABLATIONS, Circuit, Curve, Found, Scores
from microtome.circuits.journal import QUESTION, measured_in
from microtome.circuits.methods import method_of
from microtome.circuits.search import table
from microtome.circuits.trial import VERIFIED
from microtome.engines.observer import Observer
from microtome.errors import ExperimentError, there_are
from microtome.frontends.experiment import sources
from microtome.frontends.experiment.fields import (
    Bytes,
    Hired,
    Metric,
    Named,
    Place,
    Text,
    Verified,
    several,
)
from microtome.frontends.experiment.form import Filed, text_of
from microtome.frontends.experiment.searching import Scoring, Searching
from microtome.frontends.experiment.sources import Source
from microtome.report.document import Document
from microtome.report.folder import GONE, Folder
from microtome.report.layout import kept_in
from microtome.report.of_circuit import document_of_circuit, document_of_curve
from microtome.results import disk
from microtome.sheets import dump
from microtome.verbs.model import Model

GIVEN = "given"
"""The method of a circuit that nobody searched for."""
ASKED = "experiment.yaml"
SCORES, CIRCUIT, KEPT = "scores.zarr", "circuit.json", "kept"
"""In a folder, beside the experiment: scores, the circuit, and what is gone on from."""


def _ablation(given: Any) -> str:
    name = text_of(given)
    if name not in ABLATIONS:
        raise ValueError(f"no ablation is called {name!r}; {there_are(name, ABLATIONS)}")
    return name


def _edges(given: Any) -> Any:
    """One edge as a tuple of one; none is none."""
    return None if given is None else several(given)


def _alone(given: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
    """A circuit that is known: nothing is scored for it, or searched."""
    for name, unsaid in (("scores", Scoring()), ("search", None)):
        if given is not None and info.data.get(name, unsaid) != unsaid:
            raise ValueError(f"the circuit is given, and judged as it is: leave {name} out")
    return given


@dataclass(frozen=True, eq=False)
class Hunted:
    """What came of it.

    Attributes:
        scores: of edges or nodes; None where the search looks at none.
        found: the circuit; None where none was searched for.
        judged: how faithful the circuit is, as `faithfulness` says; or of scores alone the curve.
    """

    scores: Scores | None
    found: Found | None
    judged: xr.Dataset | Curve

    def summary(self) -> dict[str, Any]:
        """The numbers, in plain values."""
        if isinstance(self.judged, Curve):
            names = ["edges", "faithfulness", "low", "high"]
            frame = self.judged.data[names].to_dataframe().reset_index()[["share", *names]]
            return {
                "cpr": self.judged.cpr.value,
                "cmd": self.judged.cmd.value,
                "sizes": frame.replace({np.nan: None}).to_dict("records"),
            }
        assert self.found is not None, "a circuit is what is judged, where there is no curve"
        return {
            "method": self.found.method,
            "edges": len(self.found.circuit),
            "nodes": list(self.found.circuit.nodes),
            **{name: float(self.judged[name]) for name in ("faithfulness", "low", "high")},
        }


class CircuitExperiment(Filed):
    """All that scoring, a search and its judgement are told, checked.

    Attributes:
        model, prompts, reference, memory: as an `Experiment` has them.
        metric: on the output.
        ablation: what edges outside carry: ``patch``, ``zero`` or ``mean``.
        scores: how edges or nodes are scored.
        search: how a circuit is found; without it, circuits of growing size are judged.
        circuit: one that is known already, in the place of scores and search: its edges by name,
            ``a0.h1->m3``.
        judge: the prompts that it is judged by; ``prompts`` unless given.
        verify: how many circuits of a run are run again on the reference path.
        workers: who runs sweeps and circuits, by name: ``processes:2``, ``ray:auto``. Scores by
            gradients are some passes of this process.
        out: a folder for scores, circuit, report and what goes on from where it was stopped.

    Raises:
        ExperimentError: a field is missing, unknown or wrong; the message names each that is.

    >>> experiment = CircuitExperiment(
    ...     model="nano",
    ...     prompts={"task": {"name": "ioi", "n": 2}},
    ...     scores={"level": "node"},
    ...     search={"by": "top", "n": 20},
    ... )
    >>> 0 < experiment.run().summary()["faithfulness"] <= 1
    True
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    model: Named
    prompts: Source
    metric: Metric = "logit_diff"
    ablation: Annotated[str, PlainValidator(_ablation)] = "patch"
    reference: Source | None = None
    scores: Scoring = Scoring()
    search: Searching | None = None
    circuit: Annotated[tuple[Text, ...] | None, BeforeValidator(_edges), AfterValidator(_alone)] = (
        None
    )
    judge: Source | None = None
    verify: Verified = VERIFIED
    memory: Bytes | None = None
    workers: Hired | None = None
    out: Place | None = None

    def to_yaml(self) -> str:
        """The experiment as YAML, which reads back equal; fields at their defaults are left out."""
        return dump(self.plain())

    def plain(self) -> dict[str, Any]:
        """The fields that are not at their defaults, in YAML's own types."""
        fields: dict[str, Any] = {
            **dict(self),
            "model": self.model.plain(),
            "scores": self.scores.model_dump(exclude_defaults=True),
            "search": self.search and self.search.model_dump(exclude_defaults=True),
            "circuit": None if self.circuit is None else list(self.circuit),
            "out": None if self.out is None else str(self.out),
        }
        for name in ("prompts", "reference", "judge"):
            given = getattr(self, name)
            fields[name] = None if given is None else sources.plain(given)
        return self._told(fields)

    # ------------------------------------------------------------------------------- running it

    def run(
        self,
        model: Model | None = None,
        *,
        progress: bool | Observer = True,
        overwrite: bool = False,
        command: str = "",
    ) -> Hunted:
        """Score, search and judge; where ``out`` is given, leave its folder.

        The same again goes on from where it was stopped, and opens what is finished.

        Args:
            model: one that is loaded already, in the place of the experiment's.
            progress: show bars, or an `Observer`.
            overwrite: replace what another experiment has left in ``out``.
            command: that repeats it, for the report.

        Raises:
            MicrotomeError: as `load`, `score`, `greedy`, `acdc` and `faithfulness` do.
        """
        with nullcontext() if self.out is None else Folder(self.out, ()) as folder:
            if folder is not None:
                self._take(folder, overwrite)
            model = model or self.model.load()
            hunted = self._hunted(model, progress)
            if folder is not None:
                again = command or "microtome circuit run --config circuit.yaml"
                folder.finish(lambda: _document(model.name, hunted, again), hunted.summary())
        return hunted

    def _hunted(self, model: Model, progress: bool | Observer) -> Hunted:
        """Score, search and judge."""
        reference = () if self.reference is None else sources.make(self.reference, model)
        how: dict[str, Any] = {
            "ablation": self.ablation, "reference": tuple(reference), "memory": self.memory,
            "progress": progress, "workers": self.workers,
        }  # fmt: skip
        scores = self._scored(model, how) if self._scores else None
        found = self._circuit(model, scores, how)
        judged = self._judged(model, scores, found, {**how, "verify": self.verify})
        return Hunted(scores, found, judged)

    def _take(self, folder: Folder, overwrite: bool) -> None:
        """Have a folder be of this experiment, and of no other.

        Raises:
            ExperimentError: it is another's.
        """
        # Who computes is no part of what is asked.
        asked = self.model_copy(update={"out": None, "workers": None})
        place, own = folder.out / ASKED, asked.to_yaml().encode()
        if overwrite:
            disk.remove_folder(folder.out / KEPT, folder.out / (KEPT + GONE))
        elif place.exists() and place.read_bytes() != own:
            raise ExperimentError(
                f"{folder.out} is of another experiment, which is in {ASKED} there: choose another "
                "folder, or replace it (--overwrite, in Python overwrite=True)."
            )
        folder.begin()
        with disk.failures(place):
            disk.write_file(place, own)

    @property
    def _scores(self) -> bool:
        if self.search is None:
            return self.circuit is None
        return self.search.needs_scores

    def _place(self, name: str) -> Path | None:
        return None if self.out is None else self.out / KEPT / name

    def _scored(self, model: Model, how: Mapping[str, Any]) -> Scores:
        prompts, own = sources.make(self.prompts, model), self.scores
        workers = self.workers if method_of(own.method).exact else None
        scores = circuits.score(
            model, prompts, self.metric, level=own.level, method=own.method,
            audit=own.audit, seed=own.seed, out=self._place("scores"),
            **{**how, "workers": workers},
        )  # fmt: skip
        if self.out is not None:
            scores.save(self.out / SCORES)
        return scores

    def _circuit(self, model: Model, scores: Scores | None, how: Mapping[str, Any]) -> Found | None:
        """The circuit that is given, or is found; None where sizes are judged."""
        if self.search is not None:
            return self._found(self.search, model, scores, how)
        if self.circuit is None:
            return None
        circuit = Circuit.of(model, self.circuit)
        if self.out is not None:
            circuit.save(self.out / CIRCUIT)
        return Found(circuit, table([]), GIVEN)

    def _found(
        self, search: Searching, model: Model, scores: Scores | None, how: Mapping[str, Any]
    ) -> Found:
        start = None
        if search.by != "top" and search.start is not None:
            assert scores is not None, "they were needed"
            start = scores.circuit(search.start)
        more = {**how, "start": start, "out": self._place("search")}
        prompts = sources.make(self.prompts, model)
        if search.by == "top":
            assert scores is not None, "they were needed"
            found = circuits.top(scores, search.n, threshold=search.threshold)
        elif search.by == "greedy":
            found = circuits.greedy(
                model, prompts, self.metric, n=search.n or 0, tolerance=search.tolerance,
                every=search.every, **more,
            )  # fmt: skip
        else:
            assert search.threshold is not None, "acdc has one"
            found = circuits.acdc(
                model, prompts, search.threshold, self.metric, order=search.order, **more
            )
        if self.out is not None:
            found.circuit.save(self.out / CIRCUIT)
        return found

    def _judged(
        self, model: Model, scores: Scores | None, found: Found | None, how: Mapping[str, Any]
    ) -> xr.Dataset | Curve:
        prompts = sources.make(self.judge or self.prompts, model)
        if found is not None:
            return circuits.faithfulness(model, prompts, found.circuit, self.metric, **how)
        assert scores is not None, "without a search there are scores"
        return circuits.curve(model, prompts, scores, self.metric, **how)


def scored_in(folder: Path) -> str:
    """What there is of scores that are not finished, in words: circuits in a journal, or sweeps."""
    return measured_in(folder) if (folder / QUESTION).is_file() else kept_in(folder)


def kept_of(out: Path) -> str:
    """What is in a folder of a circuit, in words."""
    told: dict[str, Callable[[Path], str]] = {"scores": scored_in, "search": measured_in}
    found = [f"of {name} {say(out / KEPT / name)}" for name, say in told.items()]
    return " and ".join(found)


def _document(name: str, hunted: Hunted, command: str) -> Document:
    if isinstance(hunted.judged, Curve):
        assert hunted.scores is not None, "a curve is of scores"
        return document_of_curve(name, hunted.scores, hunted.judged, command)
    assert hunted.found is not None, "a circuit was judged"
    circuit: Circuit = hunted.found.circuit
    return document_of_circuit(name, circuit, hunted.judged, command, hunted.scores)
