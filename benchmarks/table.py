"""The page of the benchmarks, made from what was measured.

python -m benchmarks.table small-a.json small-b.json … --memory memory.json -o docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import edges
from benchmarks.bars import BARS, Row, over_floor, ratio, seconds, unverified
from benchmarks.measure import UNASKED
from benchmarks.questions import MAPS, SHAPES
from benchmarks.tools import ORACLE
from benchmarks.tools.microtome_sweep import NAME

Record = Mapping[str, Any]

DRIFT = 0.7
"""Where the matrix rate falls below this share of its best, something else was running."""

INTRODUCTION = """# Benchmarks

What a causal map costs in microtome, and in the tools that a researcher would otherwise use. This
page is made from measurements by `python -m benchmarks.table`; do not edit it.

```
make bench-quick   # all tools on a tiny model, to see that everything runs: some minutes
make bench         # the figures below, map by map: some hours on two cores, left alone meanwhile
```

Both install the other tools in an environment of their own, `.venv-bench`. One run by hand:
`python -m benchmarks.run --shape small --maps b --out bench.json` (`--device cuda` for a GPU).

## How it is measured

Models have GPT-2's published shapes and random weights, since time does not depend on their values,
in float32. *stories260K* is a trained Llama with grouped key heads, so small that a forward pass is
mostly overhead, every tool's own. Prompts are 15 random tokens, and donors 15 others. Every tool
reports the logit difference of two tokens after the last position, for the same cells.

- **One process, in turn.** In each round every tool runs once; the order moves on by one from round
  to round. Seconds are medians over rounds. Every tool has its own modules over the same weights
  (TransformerLens loads its own copy), so that none sees another's hooks.
- **microtome is timed whole**, as it is called by default: `mt.sweep(…, metrics="logit_diff")` from
  text to labelled result, with the clean and the donor runs, and with what it verifies by itself:
  cells recomputed on the reference path. *Unverified* is the same with `verify=0`. (What was
  measured before that was so has the two the other way round; it is told apart here.)
- **The other tools are timed on a sample and scaled**, since some would take hours. Cells come from
  three layers spread over the model, by a fixed seed within each; tools that run one cell at a
  time take some of them, tools that batch take more. Seconds are scaled by the rows that go through
  the model. What a tool records once, such as the donor's activations, is *not* on its clock.
  `14.2* (50 ×)` reads: 14.2 seconds for the whole map, scaled; 50 times as long as microtome.
- **A row counts only if the tools agree.** Everything is compared with the plain hooks, which share
  no code with microtome. The tolerance is 5e-5 × the logits' standard deviation, at least 5e-5; the
  largest effect among these cells stands beside it, so that agreement is seen to mean something.
- **Floor.** The matrix products that the map needs at least (`benchmarks/floor.py` says how they
  are counted: what comes after the edit in its own block, whole blocks from there, from the first
  edited position on, in the last one what is read, two columns of the unembedding, clean and donor
  runs), at the rate of torch's own float32 matrix product with many rows, measured before
  each tool of each round, as it drifts: median (least–most). Where these are far apart, the row
  says *busy!*: something else was running, and seconds mean little.
"""


def main() -> None:
    """Read records, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--memory", action="append", type=Path, default=[])
    parser.add_argument("--first-minute", type=Path)
    parser.add_argument("--edges", action="append", type=Path, default=[])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/benchmarks.md"))
    asked = parser.parse_args()
    records = [json.loads(path.read_text()) for path in asked.records]
    memory = [json.loads(path.read_text()) for path in asked.memory]
    first = None if asked.first_minute is None else json.loads(asked.first_minute.read_text())
    graphs = [json.loads(path.read_text()) for path in asked.edges]
    asked.out.write_text(page(records, memory, first, graphs))


def page(
    records: Sequence[Record],
    memory: Sequence[Record] = (),
    first: Record | None = None,
    graphs: Sequence[Record] = (),
) -> str:
    """The whole page."""
    parts = [INTRODUCTION, *tools(records)]
    machines: dict[str, list[Record]] = {}
    for record in records:
        machines.setdefault(_machine(record), []).append(record)
    for name, own in machines.items():
        parts += machine(name, own)
    parts += bars(records)
    for record in graphs:
        parts += edges.lines(record)
    for record in memory:
        parts += memory_of(record)
    if first is not None:
        parts += first_minute_of(first)
    return "\n".join(parts).rstrip() + "\n"


def tools(records: Sequence[Record]) -> Iterator[str]:
    """What each tool does for a cell."""
    yield "\n## The tools\n"
    own = records[0]["versions"]
    others = {name: tool for record in records for name, tool in record["tools"].items()}
    yield from grid(
        ["tool", "version", "what it does"],
        [
            [NAME, own["microtome"], "`mt.sweep`: the whole map in one call"],
            *([name, t["version"], t["how"]] for name, t in others.items()),
        ],
    )
    yield (
        f"\nAll on Python {own['python']}, torch {own['torch']} and transformers "
        f"{own['transformers']}.\n"
    )


def machine(name: str, records: Sequence[Record]) -> Iterator[str]:
    """All that was measured on one machine: a table for each question, a line for each shape."""
    rows = _rows(records)
    names = list(dict.fromkeys(name for record in records for name in record["tools"]))
    yield f"\n## {name}\n"
    yield from _options(records)
    yield "\n### microtome\n"
    yield from grid(
        [
            "map",
            "shape",
            "cells",
            "rounds",
            "seconds",
            "unverified",
            "GFLOP at least",
            "GFLOP/s",
            "time ÷ floor",
        ],
        [_own(row) for row in rows],
    )
    for key in dict.fromkeys(row["map"] for row in rows):
        own = [row for row in rows if row["map"] == key]
        here = [name for name in names if any(seconds(row, name) is not None for row in own)]
        yield f"\n### {_title(own[0])}\n"
        yield from grid(
            ["shape", "cells", NAME, *here],
            [
                [row["shape"], f"{row['cells']:,}", _number(seconds(row, NAME), 3)]
                + [_against(row, name) for name in here]
                for row in own
            ],
        )
    yield f"\n### Largest difference from {ORACLE}\n"
    yield from grid(
        ["map", "shape", "largest effect", "tolerance", NAME, *names],
        [
            [
                _title(row),
                row["shape"],
                f"{row['largest_effect']:.1g}",
                f"{row['tolerance']:.0e}",
                *(_difference(row["tools"].get(name)) for name in [NAME, *names]),
            ]
            for row in rows
        ],
    )
    notes = list(_notes(rows))
    if notes:
        yield "\nAbsent, or not counted:\n"
        yield from notes


def _machine(record: Record) -> str:
    where = record["machine"]
    threads = f", {where['threads']} threads" if where["device"] == "cpu" else ""
    return f"{where['name']}{threads}"


def _rows(records: Sequence[Record]) -> list[Row]:
    """Question by question, small shapes first; what was measured again counts as of last."""
    found = {(row["map"], row["shape"]): row for record in records for row in record["rows"]}
    return [found[place] for place in sorted(found, key=lambda at: (at[0], [*SHAPES].index(at[1])))]


def _options(records: Sequence[Record]) -> Iterator[str]:
    """How they were measured: a line for all that were measured in the same way."""
    alike: dict[str, dict[str, list[str]]] = {}
    for record in records:
        options = record["options"]
        how = (
            f"{record['created'][:10]}, up to {options['rounds']} rounds, one where microtome "
            f"takes more than {options['longest']:.0f} s; about {options['singles']} cells for "
            f"tools that run one at a time and {options['batches']} for those that batch"
        )
        of_shape = alike.setdefault(how, {})
        for row in record["rows"]:
            of_shape.setdefault(row["shape"], []).append(row["map"])
    for how, of_shape in alike.items():
        what = "; ".join(
            f"{shape} {', '.join(f'({key})' for key in sorted(set(of_shape[shape])))}"
            for shape in sorted(of_shape, key=[*SHAPES].index)
        )
        yield f"- {what}: measured {how}."


def bars(records: Sequence[Record]) -> Iterator[str]:
    """The limits that the engine was built for, judged from the rows."""
    yield "\n## Bars\n"
    lines = []
    for bar in BARS:
        verdicts = [bar.judge(record) for record in records]
        measured = [verdict for verdict in verdicts if verdict[0] is not None]
        value, verdict = measured[-1] if measured else verdicts[0]
        sign = "≥" if bar.least else "≤"
        map_ = f"({bar.map}) {MAPS[bar.map].title}"
        limit = f"{sign} {bar.limit:g}"
        lines.append([bar.shape, map_, bar.about, limit, _number(value, 3), verdict])
    yield from grid(["shape", "map", "what", "bar", "measured", ""], lines)


def memory_of(record: Record) -> Iterator[str]:
    """Peaks and limits."""
    yield f"\n## Peak memory ({record['device']})\n"
    yield (
        "Each line is two processes: one loads the model, runs prompt and donor through it and "
        "tells what it holds then; another sweeps as well and tells the most that it held while it "
        "did. The limit is model + budget + 10 %; `python -m benchmarks.memory` fails where one is "
        f"above it. Measured {record['created'][:10]}.\n"
    )
    yield from grid(
        ["shape", "map", "tokens", "budget", "model alone", "with the sweep", "limit", ""],
        [
            [
                case["shape"],
                f"({case['map']}) {MAPS[case['map']].title}",
                f"{case['tokens']:,}",
                _mib(case["budget_mib"]),
                _mib(case["model_mib"]),
                _mib(case["peak_mib"]),
                _mib(case["limit_mib"]),
                "within" if case["within"] else case.get("error", "above"),
            ]
            for case in record["cases"]
        ],
    )


def first_minute_of(record: Record) -> Iterator[str]:
    """How long commands take, and what they are held to."""
    yield "\n## The first minute\n"
    yield (
        "Each line is a process, from the shell's prompt to its end: the median of "
        f"{record['rounds']} rounds on {record['cores']} cores. Beside it the same as a multiple "
        "of what the same round took to import torch and transformers' auto classes; for the "
        "sweep, to import them, load model and tokenizer through them, and compute the map "
        "unverified. "
        "`python -m benchmarks.first_minute` measures it.\n"
    )
    yield from grid(
        ["command", "seconds", "÷ base", "held to"],
        [
            [
                row["name"],
                f"{row['seconds']:.2f}",
                f"{row['ratio']:.2f}",
                f"{row['bar']:g} × base" if row["computes"] else f"{row['bar']:g} s",
            ]
            for row in record["rows"]
        ],
    )


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def _title(row: Row) -> str:
    return f"({row['map']}) {row['title']}"


def _own(row: Row) -> list[str]:
    return [
        _title(row),
        row["shape"],
        f"{row['cells']:,}",
        str(row["rounds"]),
        _number(seconds(row, NAME), 3),
        _number(unverified(row), 3),
        f"{row['flops'] / 1e9:,.1f}",
        _rate(row),
        "–" if over_floor(row) is None else f"{over_floor(row):.2f}",
    ]


def _against(row: Row, name: str) -> str:
    """Seconds, with a star where they are scaled, and times slower."""
    found, slower = seconds(row, name), ratio(row, name)
    if found is None:
        return "–"
    scaled = row["tools"][name]["cells"] != row["cells"]
    times = "" if slower is None else f" ({_number(slower, 3)} ×)"
    return f"{_number(found, 3)}{'*' if scaled else ''}{times}"


def _difference(timing: Mapping[str, Any] | None) -> str:
    if timing is None or timing["absent"] is not None:
        return "–"
    return f"{timing['difference']:.1g}" + ("" if timing["agrees"] else " ✗")


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each reason; one for all that nobody asked for."""
    absent: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, timing in row["tools"].items():
            where = f"({row['map']}) {row['shape']}"
            if timing["absent"] == UNASKED:
                absent.setdefault(("", UNASKED), []).append(where)
            elif timing["absent"] is not None:
                absent.setdefault((name, timing["absent"]), []).append(where)
            elif not timing["agrees"]:
                yield (
                    f"- {name}, {where}: differs by {timing['difference']:.1g}, more than "
                    f"{row['tolerance']:.1g}, so it does not count."
                )
    for (name, why), places in absent.items():
        who = f"{name}: {why}" if name else "Tools left out to save time"
        yield f"- {who}: {', '.join(dict.fromkeys(places))}."


def _rate(row: Row) -> str:
    """Median, least and most; marked where the machine was not left alone."""
    least, most = row["matrix_rates"]
    busy = " busy!" if least < DRIFT * most else ""
    return f"{row['matrix_rate'] / 1e9:,.0f} ({least / 1e9:,.0f}–{most / 1e9:,.0f}){busy}"


def _mib(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} MiB"


def _number(value: float | None, digits: int) -> str:
    """With so many digits that count, and no exponent."""
    if value is None:
        return "–"
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):,.10g}"


if __name__ == "__main__":
    main()
