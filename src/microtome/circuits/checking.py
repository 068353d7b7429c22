"""Verification of runs of circuits: some of them again on the reference path.

As of sweeps (`engines.verification`): the circuit that is furthest from the clean run, and others
by a seed, each as one full pass with plain hooks (`circuits.again`); what is compared are the
changes of all logits where metrics look, and every metric. What is allowed is in `engines.judging`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.amounts import many
from microtome.circuits.again import Again
from microtome.circuits.circuit import Circuit
from microtome.circuits.passing import in_sums
from microtome.engines import judging
from microtome.engines.judging import Pair, Precision
from microtome.errors import VerificationError
from microtome.model.loaded import Loaded
from microtome.plan.verify import SHARE, Verify
from microtome.prompts.encoding import Encoded
from microtome.readings.output import TOKEN_ID, Reading
from microtome.results.effects import Effects

Logits = Mapping[int, Tensor]
"""Position → logits there, ``[vocab]``."""

NOBODY = (-1, -1)
"""In the place of a pair of a prompt and a circuit where none was seen yet."""


@dataclass(eq=False)
class Check:
    """What is verified of a trial, as far as it has come.

    Attributes:
        model: the model.
        verify: how many circuits on a prompt are run again.
        seed: of their choice.
        rows: how many have been run.
        done: how many of them again.
        noise: per metric, the largest difference between the two paths in a circuit.
        largest: of what came nearest to its tolerance, how far apart it was, and that tolerance.
    """

    model: Loaded
    verify: Verify
    seed: int = 0
    rows: int = 0
    done: int = 0
    noise: dict[str, float] = field(default_factory=dict)
    largest: tuple[float, float] | None = None
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def due(self, rows: int) -> int:
        """How many of some rows are to be run again.

        As many as asked for of the first ones; then as many as cost a twentieth.
        """
        before, self.rows = self.rows, self.rows + rows
        if self.verify.cells is None:
            return rows
        asked = self.verify.most if not before else int(SHARE * self.rows) - self.done
        return min(rows, self.verify.most, max(0, asked))

    def chosen(self, rows: int, some: int) -> list[int]:
        """Which of some rows are run again."""
        found: list[int] = self._rng.choice(rows, size=some, replace=False).tolist()
        return found

    def hear(self, metric: str, noise: float) -> None:
        """Take down how far apart values of a metric are that should be the same."""
        if np.isfinite(noise):
            self.noise[metric] = max(self.noise.get(metric, 0.0), noise)

    def hear_of(self, effects: Effects, metric: str) -> None:
        """Take down what a sweep verified by itself."""
        told = effects.provenance["verification"]
        self.rows += int(effects.provenance["predicted"]["cells"])
        self.done += int(told["cells"])
        if told["largest_difference"] is not None:
            self._note(told["largest_difference"], told["tolerance"])
        self.hear(metric, effects.noise_floor(metric) or 0.0)

    def _note(self, off: float, allowed: float) -> None:
        """Of what came equally near it is the larger, so that it is the same in any order."""
        most = self.largest or (0.0, 0.0)
        if self.largest is None or (off * most[1], allowed) > (most[0] * allowed, most[1]):
            self.largest = off, allowed

    def state(self) -> dict[str, Any]:
        """What is known so far, in plain values."""
        largest = None if self.largest is None else [*self.largest]
        return {"rows": self.rows, "done": self.done, "noise": self.noise, "largest": largest}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Know what was known when `state` said so."""
        self.rows, self.done, self.noise = state["rows"], state["done"], dict(state["noise"])
        self.largest = None if state["largest"] is None else (*state["largest"],)

    # -------------------------------------------------------------------------- the comparison

    def take(
        self,
        circuit: Circuit,
        one: Encoded,
        places: Mapping[Reading, int],
        ablated: Tensor,
        logits: Logits,
        clean: Logits,
        values: Mapping[Reading, float],
    ) -> None:
        """Run a circuit on a prompt again, and hold against it what was found.

        Args:
            circuit: the circuit.
            one: the prompt.
            places: where each metric is read.
            ablated: what edges outside carry.
            logits: of the circuit, where metrics are read.
            clean: of the model itself, likewise.
            values: of the metrics.

        Raises:
            VerificationError: it is beyond the tolerance.
        """
        precision = Precision.of_stream(self.model)
        wanted, coarse = self._again(circuit, one, ablated, precision)
        for reading, at in places.items():
            pair = Pair(*(own.double() for own in (logits[at], clean[at], wanted[at], clean[at])))
            noise = judging.heard(coarse[at].double(), wanted[at].double())
            for gap in judging.of_logits(precision, pair):
                allowed = gap["fixed"] + gap.get("times", 0.0) * noise
                told = circuit, one, reading, values[reading]
                self._judge(*told, "the changes of its logits", gap["difference"], allowed)
            self._compare(circuit, one, reading, pair, values[reading])
        self.done += 1

    def _again(
        self, circuit: Circuit, one: Encoded, ablated: Tensor, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        """The logits ``[pos, vocab]`` of the circuit; and in half precision, whose noise nothing
        else tells, of the same with every sum rounded to it, not its result."""
        wide = ablated.to(torch.promote_types(ablated.dtype, torch.float32))
        found = Again(self.model, circuit, one.tokens, wide).logits()
        if precision.promise is not None:
            return found, found
        return found, Again(self.model, circuit, one.tokens, ablated).logits()

    def _compare(
        self, circuit: Circuit, one: Encoded, reading: Reading, pair: Pair, value: float
    ) -> None:
        """A metric of it."""
        precision, without = Precision.of_stream(self.model), pair.reference_clean[None]
        clean = float(reading.measure(without, without, one))
        there, off, allowed = judging.of_reading(precision, reading, pair, one, value, clean)
        self._judge(circuit, one, reading, value, "the values", off, allowed)
        if reading.metric.unit != TOKEN_ID:
            self.hear(str(reading), abs(value - clean - there))

    def _judge(
        self,
        circuit: Circuit,
        one: Encoded,
        reading: Reading,
        value: float,
        about: str,
        off: float,
        allowed: float,
    ) -> None:
        if not off <= allowed:
            raise VerificationError(
                f"A circuit of {many(len(circuit), 'edge')} on {one.prompt.shown} is not what it "
                f"is on the reference path: {reading} is {value:.6g}; {about} differ by {off:.2g}, "
                f"tolerance {allowed:.2g}. Nothing of this run is kept. Load the model with "
                "dtype='float64', where rounding is no reason, and please report this with the "
                "model's name if it says so there too."
            )
        self._note(off, allowed)

    def as_dict(self) -> dict[str, Any]:
        """What was verified, in plain values."""
        off, allowed = (None, None) if self.largest is None else self.largest
        how = "the one with the largest effect and others by a seed, on the reference path"
        return {
            "runs": self.done,
            "of": self.rows,
            "largest_difference": off,
            "tolerance": allowed,
            "why": how if self.done else "nothing was recomputed",
        }


@dataclass(eq=False)
class Witnesses:
    """Logits of the circuits that are to be run again, kept until they are.

    Attributes:
        chosen: of a prompt and a circuit, by number: as many as are to be run again, in order. The
            last of them gives way to the one that is furthest from the clean run.
        furthest: that one, so far; None where none is asked for.
        rows: what is kept of these.
        far: how far the furthest is.
        number: of the rows that it was in.
    """

    chosen: dict[tuple[int, int], None]
    furthest: tuple[int, int] | None
    rows: dict[tuple[int, int], Logits] = field(default_factory=dict)
    far: float = -1.0
    number: int = -1

    @classmethod
    def of(cls, check: Check, pairs: Sequence[tuple[int, int]]) -> Witnesses:
        """None seen yet of these pairs of a prompt and a circuit."""
        rows = len(pairs)
        some = check.due(rows)
        chosen = dict.fromkeys(pairs[number] for number in check.chosen(rows, some))
        return cls(chosen, NOBODY if 0 < some < rows else None)

    def ready(self) -> Iterator[tuple[tuple[int, int], Logits]]:
        """Those seen that are run again whatever comes: they need not be kept."""
        last = None if self.furthest is None else next(reversed(self.chosen))
        for which in [one for one in self.rows if one in self.chosen and one != last]:
            yield which, self.rows.pop(which)

    def left(self) -> Iterator[tuple[tuple[int, int], Logits]]:
        """The others, in the end: the furthest, or if that was one of them, the last chosen."""
        if self.furthest is not None and self.furthest in self.rows:
            yield self.furthest, self.rows[self.furthest]
        else:
            yield from self.rows.items()

    def see(
        self,
        prompt: int,
        circuits: Sequence[int],
        logits: Mapping[int, Tensor],
        clean: Mapping[int, Tensor],
    ) -> None:
        """Keep of some circuits on a prompt what is to be kept.

        Args:
            prompt: its number.
            circuits: theirs.
            logits: position → ``[circuit, vocab]``.
            clean: position → ``[1, vocab]``.
        """
        for row, number in enumerate(circuits):
            if (prompt, number) in self.chosen:
                self.rows[prompt, number] = _row(logits, row)
        if self.furthest is None:
            return
        change = sum(
            (own - clean[at]).nan_to_num(0.0, 0.0, 0.0).double().norm(dim=-1)
            for at, own in logits.items()
        )
        assert isinstance(change, Tensor), "a metric is read somewhere"
        row = int(change.argmax())
        if float(change[row]) > self.far:
            if self.furthest not in self.chosen:
                self.rows.pop(self.furthest, None)
            self.furthest, self.far = (prompt, circuits[row]), float(change[row])
            self.rows[self.furthest] = _row(logits, row)

    def join(self, seen: Witnesses, number: int) -> None:
        """Take over what is to be kept of what rows have kept, in whatever order they come.

        Of pairs that are equally far it is that of the first rows.

        Args:
            seen: what they have kept; nothing of it is left there.
            number: theirs.
        """
        self.rows.update((pair, seen.rows[pair]) for pair in seen.chosen)
        if seen.furthest is not None and (seen.far, -number) > (self.far, -self.number):
            if self.furthest is not None and self.furthest not in self.chosen:
                self.rows.pop(self.furthest, None)
            self.furthest, self.far, self.number = seen.furthest, seen.far, number
            self.rows[seen.furthest] = seen.rows[seen.furthest]
        seen.rows.clear()

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent: plain arrays, of a type that numpy has and that holds the same values."""
        rows = {
            pair: {at: in_sums(own.cpu()).numpy() for at, own in kept.items()}
            for pair, kept in self.rows.items()
        }
        return {**vars(self), "rows": rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows = {
            pair: {at: torch.tensor(own, device="cpu") for at, own in kept.items()}
            for pair, kept in state["rows"].items()
        }
        vars(self).update(state, rows=rows)


def _row(logits: Logits, row: int) -> Logits:
    return {at: own[row].clone() for at, own in logits.items()}
