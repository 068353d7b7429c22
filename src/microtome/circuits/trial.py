"""A trial: the prompts, metrics and ablation by which circuits are measured; and how they are run.

Rows of a pass are pairs of a prompt and a circuit, of prompts of one length, as many as the memory
takes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from microtome.amounts import bytes_of
from microtome.circuits.ablations import Ablation, ablation_of
from microtome.circuits.checking import NOBODY, Check, Logits, Witnesses
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array, CleanRuns
from microtome.circuits.graph import Graph
from microtome.circuits.measures import on_the_output, refuse_several, worse
from microtome.circuits.needs import Needs
from microtome.circuits.passing import CircuitPass, cut_of, in_sums
from microtome.circuits.rows import Ran, Rows, Runner, edges_of
from microtome.engines.observer import Observer, go_on
from microtome.errors import CircuitError
from microtome.language.regions import Column
from microtome.model.devices import onto
from microtome.model.loaded import Loaded
from microtome.passes.session import session
from microtome.plan.memory.budget import Budget
from microtome.plan.verify import Verify
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompts import Given, listed
from microtome.readings.output import TOKEN_ID, Reading
from microtome.readings.registry import readings
from microtome.verbs.options import budget_of

Tick = Callable[[int], None]

VERIFIED = 2
"""Circuits on a prompt that are run again on the reference path, unless told otherwise."""


def ticking(observer: Observer) -> Tick:
    """Tells an observer of rows that are done, and stops where it wants no more."""

    def tick(rows: int) -> None:
        observer.advanced(rows)
        go_on(observer)

    return tick


@dataclass(frozen=True, eq=False)
class Trial:
    """What circuits of a model are measured by.

    Attributes:
        model: the model.
        graph: its graph.
        encoded: the prompts.
        asked: the metrics, each on the output.
        ablation: what edges outside of a circuit carry.
        budget: what may be used of the machine.
        checked: what is run again on the reference path, and how far apart that was.
        kept: what the ablation makes of prompts, where all of that is a small part of the memory.
        runner: who runs the rows; None: this process.
    """

    model: Loaded
    graph: Graph
    encoded: tuple[Encoded, ...]
    asked: tuple[Reading, ...]
    ablation: Ablation
    budget: Budget
    checked: Check
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    runner: Runner | None = None

    @classmethod
    def of(
        cls,
        model: Loaded,
        prompts: Given | Iterable[Given],
        metrics: str | Iterable[str],
        ablation: str | Ablation = "patch",
        reference: Iterable[Given] = (),
        memory: int | str | None = None,
        verify: Verify | int | str = VERIFIED,
    ) -> Trial:
        """A trial, checked: nothing of it is refused later.

        Raises:
            CircuitError: the model has no edges, or prompts are not what the ablation needs.
            MetricError: a metric is inside the model, or of several tokens.
        """
        graph, encoded = Graph.of(model), model.encode(prompts)
        others = listed(reference)
        chosen = ablation_of(ablation, model.encode(others) if others else encoded)
        asked = tuple(map(on_the_output, readings(metrics)))
        for one in encoded:
            chosen.check(one)
            for reading in asked:
                reading.check(one, model.anatomy.dims)
                refuse_several(reading, one)
        own = None if memory is None else bytes_of(memory, what="memory")
        checked = Check(model, Verify.of(verify))
        return cls(model, graph, encoded, asked, chosen, budget_of(model, own), checked)

    @classmethod
    def by(
        cls,
        model: Loaded,
        prompts: Given | Iterable[Given],
        metric: str,
        ablation: str | Ablation = "patch",
        reference: Iterable[Given] = (),
        memory: int | str | None = None,
        verify: Verify | int | str = VERIFIED,
    ) -> Trial:
        """A trial by one metric, of which there is more and less.

        Raises:
            CircuitError: the metric is a token id; and as `of`.
            MetricError: as `of`.
        """
        trial = cls.of(model, prompts, [metric], ablation, reference, memory, verify)
        if trial.asked[0].metric.unit == TOKEN_ID:
            raise CircuitError(
                f"The metric {metric} is the id of a token, of which there is no more or less."
            )
        return trial

    # ----------------------------------------------------------------------- clean runs

    @cached_property
    def runs(self) -> CleanRuns:
        """The prompts' clean runs."""
        return CleanRuns(self.model, self.encoded, self.asked)

    @property
    def clean(self) -> Mapping[str, Array]:
        """The metrics of the model itself, ``[prompt]`` each."""
        return self.runs.metrics

    @property
    def worse(self) -> int:
        """The sign of a change of the first metric for the worse: 1 where less is better."""
        return worse(self.asked[0])

    @property
    def rounding(self) -> float:
        """How far apart the first metric's values of two passes may be and say nothing."""
        return self.runs.rounding

    def place(self, reading: Reading, prompt: int) -> int:
        """The position of a prompt where a metric is read."""
        return self.runs.place(reading, prompt)

    # ----------------------------------------------------------------------- circuits

    def measure(
        self, circuits: Sequence[Circuit], tick: Tick = lambda rows: None
    ) -> dict[str, Array]:
        """The metrics of circuits, ``[prompt, circuit]`` each.

        Args:
            circuits: of this model.
            tick: is told of rows that are done.

        Some of them are run again on the reference path (`checked`).

        Raises:
            CircuitError: a circuit is of another model; not even one row fits into the memory; or
                what comes out is no number.
            VerificationError: a circuit is not what it is on the reference path.
        """
        every = np.indices((len(self.encoded), len(circuits))).reshape(2, -1).T
        return self.measure_pairs(circuits, every, tick)

    def measure_pairs(
        self, circuits: Sequence[Circuit], pairs: Column, tick: Tick = lambda rows: None
    ) -> dict[str, Array]:
        """The same of some pairs ``[row, 2]`` of a prompt and a circuit; NaN of all others."""
        self.check(circuits)
        shape = len(self.encoded), len(circuits)
        found = {str(reading): np.full(shape, np.nan) for reading in self.asked}
        witnesses = Witnesses.of(self.checked, [(int(a), int(b)) for a, b in pairs])
        units = self._units(circuits, pairs, witnesses)
        with closing(self._ran(units, tick)) as results:
            for ran in results:
                own = units[ran.number].pairs
                for name, values in ran.values.items():
                    found[name][own[:, 0], own[:, 1]] = values
                self._refuse_no_number(own, found)
                witnesses.join(ran.seen, ran.number)
                for pair, logits in witnesses.ready():
                    self._verify(pair, circuits[pair[1]], logits, found)
                tick(len(own))
        for pair, logits in witnesses.left():
            self._verify(pair, circuits[pair[1]], logits, found)
        return found

    def _units(
        self, circuits: Sequence[Circuit], pairs: Column, witnesses: Witnesses
    ) -> list[Rows]:
        """Pairs as they are run: the same whoever runs them."""
        chosen, seeks = {*witnesses.chosen}, witnesses.furthest is not None
        return [
            Rows(
                number=number,
                pairs=own,
                edges=partial(edges_of, circuits, own),
                chosen=tuple(chosen & {(a, b) for a, b in own.tolist()}) if chosen else (),
                seeks=seeks,
            )
            for number, own in enumerate(self._batches(pairs))
        ]

    def _ran(self, units: Sequence[Rows], tick: Tick) -> Generator[Ran, None, None]:
        """What rows gave, each as it is done."""
        if self.runner is not None:
            yield from self.runner.run(units, partial(tick, 0))
            return
        with session(self.model.hf, self.model.anatomy):
            for rows in units:
                yield self.run(rows)

    def run(self, rows: Rows) -> Ran:
        """What rows give; within a session of the model."""
        seen = Witnesses(dict.fromkeys(rows.chosen), NOBODY if rows.seeks else None)
        values = {str(reading): np.full(len(rows.pairs), np.nan) for reading in self.asked}
        self._run(rows, values, seen)
        return Ran(rows.number, values, seen)

    def _verify(
        self,
        pair: tuple[int, int],
        circuit: Circuit,
        logits: Logits,
        found: Mapping[str, Array],
    ) -> None:
        """Run a circuit on a prompt again."""
        prompt = pair[0]
        clean = {at: own[0] for at, own in self.runs.of(prompt).items()}
        with session(self.model.hf, self.model.anatomy):
            self.checked.take(
                circuit,
                self.encoded[prompt],
                {reading: self.place(reading, prompt) for reading in self.asked},
                self._values(prompt),
                {at: own.to(clean[at].device) for at, own in logits.items()},
                clean,
                {reading: float(found[str(reading)][pair]) for reading in self.asked},
            )

    def _refuse_no_number(self, rows: Column, found: Mapping[str, Array]) -> None:
        prompts, which = rows.T
        for reading in self.asked:
            lost = prompts[np.isnan(found[str(reading)][prompts, which])]
            if len(lost) and not reading.metric.undefined:
                raise CircuitError(
                    f"The metric {reading} is no number in some circuit on "
                    f"{self.encoded[lost[0]].prompt.shown}: the model's type, "
                    f"{str(self.model.dtype).removeprefix('torch.')}, holds no activation as "
                    "large. Load it with dtype='float32'."
                )

    def check(self, circuits: Iterable[Circuit]) -> None:
        """Raise `CircuitError` unless some circuits are of this model."""
        for circuit in circuits:
            if circuit.graph != self.graph:
                raise CircuitError(
                    f"The circuit is of a model with {circuit.graph}, and {self.model.name!r} has "
                    f"{self.graph}: run it on the model that it was found in."
                )

    def _batches(self, pairs: Column) -> Iterator[Column]:
        """Pairs of a prompt and a circuit, ``[row, 2]``, some at a time."""
        for length, alike in self.by_length(pairs[:, 0]):
            own = pairs[np.isin(pairs[:, 0], alike)]
            at_once = self.rows_at_once(length)
            for first in range(0, len(own), at_once):
                yield own[first : first + at_once]

    def by_length(self, prompts: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
        """Prompts, each once, by their length."""
        lengths = [len(one.tokens.read) for one in self.encoded]
        order = sorted({*prompts}, key=lambda n: (lengths[n], n))
        for length, alike in groupby(order, key=lambda n: lengths[n]):
            yield length, [*map(int, alike)]

    def rows_at_once(self, length: int) -> int:
        """How many rows of so many tokens a pass takes.

        One, where somebody's own additions to the model may see what is beside a row.
        """
        if self.model.whole is not None:
            return 1
        return self.needs.rows_at_once(length)

    @cached_property
    def needs(self) -> Needs:
        """What all of this takes of the memory."""
        lengths = [len(one.tokens.read) for one in self.encoded]
        looks = ({self.place(reading, n) for reading in self.asked} for n in range(len(lengths)))
        dims = self.model.anatomy.dims
        places = max(map(len, looks), default=0)
        return Needs(dims, self.graph, self.budget, lengths, places, self.ablation.alike)

    def _run(
        self,
        rows: Rows,
        into: Mapping[str, Array],
        witnesses: Witnesses,
    ) -> None:
        prompts, which = rows.pairs.T
        own = np.unique(which, return_inverse=True)[1]
        cut = cut_of([Circuit(self.graph, edges) for edges in rows.edges()])[own]
        texts = [self.encoded[n].tokens for n in prompts.tolist()]
        there = {
            (prompt, r): self.place(r, prompt) for prompt in prompts.tolist() for r in self.asked
        }
        places = sorted({*there.values()})
        ablated = self._ablated(prompts)
        final = CircuitPass(self.model, self.graph, texts, cut, ablated).final(places)
        for prompt in np.unique(prompts).tolist():
            mine = np.flatnonzero(prompts == prompt)
            own_final = final[onto(final.device, mine)]
            logits = {
                at: self._unembedded(own_final[:, places.index(at)])
                for at in {there[prompt, reading] for reading in self.asked}
            }
            clean = self.runs.of(prompt)
            for reading in self.asked:
                at = there[prompt, reading]
                values = reading.measure(logits[at], clean[at], self.encoded[prompt])
                into[str(reading)][mine] = values.cpu().numpy()
            witnesses.see(prompt, which[mine].tolist(), logits, clean)

    def _unembedded(self, final: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.anatomy.unembed(self.model.hf, final)

    # ----------------------------------------------------------------------- what is ablated

    def _ablated(self, prompts: Column) -> Tensor:
        """What edges outside carry, ``[row, writer, pos, d_model]``."""
        some, own = np.unique(prompts, return_inverse=True)
        each = [in_sums(self._values(n)) for n in some.tolist()]
        if len(each) == 1:
            return each[0].expand(len(prompts), *each[0].shape)
        return torch.stack(each)[onto(each[0].device, own)]

    def _values(self, prompt: int) -> Tensor:
        key = self._key(prompt)
        if key in self.kept:
            return self.kept[key]
        values = self.ablation.values(self.model, self.graph, self.encoded[prompt])
        if self.needs.keeps:
            self.kept[key] = values
        return values

    def _key(self, prompt: int) -> tuple[str, int]:
        """What prompts share of which the ablation makes the same."""
        length = len(self.encoded[prompt].tokens.read)
        return ("length", length) if self.ablation.alike else ("prompt", prompt)
