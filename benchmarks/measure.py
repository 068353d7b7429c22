"""One row of the table: every tool on one map, in turn, round after round.

microtome is timed on the whole map; the others on a sample of cells, scaled by the rows that they
send through the model. Plain hooks are the oracle: what a tool answers on its cells is compared
with what they answer, and microtome's answers with both samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from benchmarks import floor
from benchmarks.machine import Machine
from benchmarks.models import Subject
from benchmarks.questions import TOKENS, Cell, Map, Question, Sample, ask, sample
from benchmarks.tools import ORACLE, PEERS, Absent, Tool
from benchmarks.tools.microtome_sweep import NAME, Microtome

UNASKED = "not asked for"
"""Why a tool is absent that the command line left out."""

CLOSE = 5e-5
"""Largest difference that is rounding, × the logits' standard deviation where that is above 1."""


@dataclass(frozen=True)
class Options:
    """How a run is measured.

    Attributes:
        rounds: of which the median is taken.
        singles, batches: cells in the samples, see `Sample`.
        longest: a map that microtome takes more seconds for is measured in one round, and not a
            second time without verification.
    """

    rounds: int = 3
    singles: int = 12
    batches: int = 48
    longest: float = 60.0


@dataclass
class Timing:
    """A tool on a map. Seconds are of the whole map; ``measured`` are those on the clock.

    Attributes:
        cells: how many it was timed on, counting each prompt.
        difference: largest, from plain hooks, over these cells.
        absent: why it is not there; all else is then empty.
    """

    seconds: float | None = None
    measured: float | None = None
    cells: int = 0
    difference: float | None = None
    agrees: bool = False
    absent: str | None = None


@dataclass
class Row:
    """A map on a shape; the JSON has the same fields.

    ``unverified_seconds`` are microtome's with ``verify=0``; those of its `Timing` are of the
    default call. ``matrix_rate`` is the median of what was measured before each tool of each
    round, and ``matrix_rates`` its least and most: far apart, they say that something else was
    running.
    """

    shape: str
    map: str
    title: str
    edit: str
    cells: int
    tokens: int
    rounds: int
    matrix_rate: float
    matrix_rates: tuple[float, float]
    flops: float
    floor_seconds: float
    tolerance: float
    largest_effect: float
    unverified_seconds: float | None
    tools: dict[str, Timing] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def tools_for(
    subject: Subject, wanted: Sequence[str] = tuple(PEERS)
) -> tuple[dict[str, Tool], dict[str, str]]:
    """The tools that could be made, and for the others why not."""
    made: dict[str, Tool] = {}
    absent: dict[str, str] = {}
    for name, kind in PEERS.items():
        if name not in wanted and name != ORACLE:
            absent[name] = UNASKED
            continue
        try:
            kind.version()
            made[name] = kind(subject)
        except Absent as why:
            absent[name] = str(why)
        except Exception as error:
            absent[name] = _failed("could not be set up", error)
    return made, absent


def measure(
    subject: Subject,
    map_: Map,
    ours: Microtome,
    peers: Mapping[str, Tool],
    absent: Mapping[str, str],
    machine: Machine,
    options: Options,
) -> Row:
    """One row."""
    question = ask(map_, subject.shape, subject.device)
    chosen = sample(question, options.singles, options.batches)
    timings = {name: Timing(absent=why) for name, why in absent.items()}
    ready: dict[str, tuple[Tool, list[Cell]]] = {}
    for name, tool in peers.items():
        cells = chosen.batches if tool.batched else chosen.singles
        try:
            tool.prepare(question)
            tool.values(question, cells[:1])  # whatever it builds on its first call
            ready[name] = (tool, cells)
        except Absent as why:
            timings[name] = Timing(absent=str(why))
        except Exception as error:
            timings[name] = Timing(absent=_failed("failed", error))
    ours.sweep(ask(_small(map_), subject.shape, subject.device))
    clock: dict[str, list[float]] = {name: [] for name in [NAME, *ready]}
    unverified: list[float] = []
    rates: list[float] = []
    answers: dict[str, Tensor] = {}
    own: Any = None
    for turn in range(options.rounds):
        for name in _rotated(list(clock), turn):
            rates.append(machine.matrix_rate(subject.shape.width))
            if name == NAME:
                seconds, own = machine.timed(lambda: ours.sweep(question))
            else:
                tool, cells = ready[name]
                seconds, answers[name] = machine.timed(
                    lambda tool=tool, cells=cells: tool.values(question, cells)  # type: ignore[misc]
                )
            clock[name].append(seconds)
        if clock[NAME][0] > options.longest:
            break
        unverified.append(machine.timed(lambda: ours.sweep(question, verify=0))[0])

    truth = _truth(question, chosen, peers[ORACLE], answers[ORACLE])
    tolerance = CLOSE * max(1.0, _spread_of_logits(question, peers[ORACLE]))
    for name, (tool, cells) in ready.items():
        measured = statistics.median(clock[name])
        difference = _difference(answers[name], cells, truth)
        scale = tool.passes(question, question.cells) / tool.passes(question, cells)
        timings[name] = Timing(
            seconds=measured * scale,
            measured=measured,
            cells=len(cells) * len(question.prompts),
            difference=difference,
            agrees=difference <= tolerance,
        )
    mine = ours.values(own, question, list(truth))
    difference = _difference(mine, list(truth), truth)
    median = statistics.median(clock[NAME])
    total = len(question.cells) * len(question.prompts)
    timings[NAME] = Timing(median, median, total, difference, difference <= tolerance)
    clean = own.data["clean_logit_diff"].values
    effect = max(abs(float(v)) for v in (mine.numpy() - clean.reshape(1, -1)).ravel())
    rate, flops = statistics.median(rates), floor.flops(question)
    return Row(
        shape=subject.shape.name,
        map=map_.key,
        title=map_.title,
        edit=map_.edit(subject.shape),
        cells=total,
        tokens=TOKENS,
        rounds=len(clock[NAME]),
        matrix_rate=rate,
        matrix_rates=(min(rates), max(rates)),
        flops=flops,
        floor_seconds=flops / rate,
        tolerance=tolerance,
        largest_effect=effect,
        unverified_seconds=statistics.median(unverified) if unverified else None,
        tools={name: timings[name] for name in [NAME, *PEERS]},
    )


def _small(map_: Map) -> Map:
    """A map of the same kind that takes no time, for the first call."""
    return Map(map_.key, map_.title, map_.operation, "resid_post", "all", "middle")


def _rotated(names: list[str], turn: int) -> list[str]:
    return names[turn % len(names) :] + names[: turn % len(names)]


def _truth(
    question: Question, chosen: Sample, oracle: Tool, answered: Tensor
) -> dict[Cell, Tensor]:
    """Plain hooks on every cell of both samples; those of the batches are not timed."""
    truth = dict(zip(chosen.singles, answered.cpu(), strict=True))
    rest = [cell for cell in chosen.batches if cell not in truth]
    if rest:
        truth |= dict(zip(rest, oracle.values(question, rest).cpu(), strict=True))
    return truth


def _difference(found: Tensor, cells: Sequence[Cell], truth: Mapping[Cell, Tensor]) -> float:
    """The largest; NaN, which agrees with nothing, stays."""
    found = found.cpu().float()
    apart = [(own - truth[cell]).abs().max() for cell, own in zip(cells, found, strict=True)]
    return max((float(one) for one in apart), key=lambda one: (one != one, one))


def _spread_of_logits(question: Question, oracle: Tool) -> float:
    """The standard deviation of the clean logits after the last token."""
    logits = oracle.model(question.tokens[:1]).logits[0, -1]  # type: ignore[attr-defined]
    return float(logits.std())


def _failed(what: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{what}: {type(error).__name__}: {first}"[:200]
