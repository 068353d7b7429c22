"""One row of the table: every tool on one map, in turn, round after round.

microtome is timed on the whole map; the others on a sample of cells, scaled by the rows that they
send through the model. Plain hooks are the oracle: what a tool answers on its cells is compared
with what they answer, and microtome's answers with both samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
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
    ready = _ready(peers, question, chosen, timings)
    ours.sweep(ask(_small(map_), subject.shape, subject.device))
    clocked = _clocked(question, ours, ready, machine, subject.shape.width, options)

    truth = _truth(question, chosen, peers[ORACLE], clocked.answers[ORACLE])
    tolerance = CLOSE * max(1.0, _spread_of_logits(question, peers[ORACLE]))
    for name, (tool, cells) in ready.items():
        difference = _difference(clocked.answers[name], cells, truth)
        scale = tool.passes(question, question.cells) / tool.passes(question, cells)
        measured, count = clocked.median(name), len(cells) * len(question.prompts)
        agrees = difference <= tolerance
        timings[name] = Timing(measured * scale, measured, count, difference, agrees)
    mine = ours.values(clocked.sweep, question, list(truth))
    difference = _difference(mine, list(truth), truth)
    median, total = clocked.median(NAME), len(question.cells) * len(question.prompts)
    timings[NAME] = Timing(median, median, total, difference, difference <= tolerance)
    clean = clocked.sweep.data["clean_logit_diff"].values
    rate, flops = statistics.median(clocked.rates), floor.flops(question)
    return Row(
        shape=subject.shape.name,
        map=map_.key,
        title=map_.title,
        edit=map_.edit(subject.shape),
        cells=total,
        tokens=TOKENS,
        rounds=len(clocked.seconds[NAME]),
        matrix_rate=rate,
        matrix_rates=(min(clocked.rates), max(clocked.rates)),
        flops=flops,
        floor_seconds=flops / rate,
        tolerance=tolerance,
        largest_effect=max(abs(float(v)) for v in (mine.numpy() - clean.reshape(1, -1)).ravel()),
        unverified_seconds=statistics.median(clocked.unverified) if clocked.unverified else None,
        tools={name: timings[name] for name in [NAME, *PEERS]},
    )


Ready = Mapping[str, tuple[Tool, list[Cell]]]
"""The tools that run, and the cells that each is timed on."""


def _ready(
    peers: Mapping[str, Tool], question: Question, chosen: Sample, timings: dict[str, Timing]
) -> Ready:
    """The tools that can do the map; of the others, ``timings`` says why not."""
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
    return ready


@dataclass
class _Clocked:
    """What came of all rounds.

    Attributes:
        seconds: tool → those of each round.
        answers: tool → the values of its cells.
        sweep: microtome's map.
        unverified: seconds of the same map without verification.
        rates: of matrix products, before each tool of each round.
    """

    seconds: dict[str, list[float]]
    answers: dict[str, Tensor] = field(default_factory=dict)
    sweep: Any = None
    unverified: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def median(self, name: str) -> float:
        """A tool's seconds."""
        return statistics.median(self.seconds[name])


def _clocked(
    question: Question,
    ours: Microtome,
    ready: Ready,
    machine: Machine,
    width: int,
    options: Options,
) -> _Clocked:
    """Every tool in turn, each round beginning with another."""
    found = _Clocked({name: [] for name in [NAME, *ready]})
    for turn in range(options.rounds):
        for name in _rotated(list(found.seconds), turn):
            found.rates.append(machine.matrix_rate(width))
            if name == NAME:
                seconds, found.sweep = machine.timed(lambda: ours.sweep(question))
            else:
                run = partial(ready[name][0].values, question, ready[name][1])
                seconds, found.answers[name] = machine.timed(run)
            found.seconds[name].append(seconds)
        if found.seconds[NAME][0] > options.longest:
            break
        found.unverified.append(machine.timed(lambda: ours.sweep(question, verify=0))[0])
    return found


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
