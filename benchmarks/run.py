"""Measure all tools in one process.

python -m benchmarks.run --shape small --shape large --out bench.json
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1")

import torch

from benchmarks.machine import Machine
from benchmarks.measure import Options, Row, measure, tools_for
from benchmarks.models import subject
from benchmarks.questions import MAPS, SHAPES, USUAL
from benchmarks.tools import PEERS, Absent
from benchmarks.tools.microtome_sweep import NAME, Microtome
from microtome.results import provenance


def main() -> None:
    """Measure; write the JSON after every row, so that a run that is cut short keeps its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", action="append", choices=SHAPES, help="small, unless given")
    parser.add_argument("--maps", default=USUAL, help="letters of the maps")
    parser.add_argument("--tool", action="append", choices=PEERS, help="all, unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--singles", type=int, default=Options.singles)
    parser.add_argument("--batches", type=int, default=Options.batches)
    parser.add_argument("--longest", type=float, default=Options.longest)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    options = Options(asked.rounds, asked.singles, asked.batches, asked.longest)
    machine = Machine(asked.device)
    record: dict[str, Any] = {
        **provenance.of_machine(),
        "machine": machine.describe(),
        "options": vars(options),
        "tools": {name: _about(name) for name in PEERS},
        "rows": [],
    }
    for name in asked.shape or ["small"]:
        made = subject(SHAPES[name], asked.device)
        ours = Microtome(made)
        peers, absent = tools_for(made, asked.tool or tuple(PEERS))
        for tool, why in absent.items():
            print(f"{name}: {tool} is absent: {why}", flush=True)
        for key in asked.maps:
            row = measure(made, MAPS[key], ours, peers, absent, machine, options)
            print(describe(row), flush=True)
            record["rows"].append(row.as_dict())
            if asked.out is not None:
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                asked.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def describe(row: Row) -> str:
    """A row in a few lines."""
    ours = row.tools[NAME]
    assert ours.seconds is not None
    lines = [
        f"{row.shape} ({row.map}) {row.title}: {row.cells:,} cells; {row.matrix_rate / 1e9:,.0f} "
        f"GFLOP/s; {row.flops / 1e9:,.1f} GFLOP at least; microtome {ours.seconds:.3f} s, "
        f"{ours.seconds / row.floor_seconds:.2f} × floor; largest effect {row.largest_effect:.1g}, "
        f"tolerance {row.tolerance:.1g}, difference {ours.difference:.1g}"
        + ("" if ours.agrees else ": DOES NOT AGREE")
    ]
    for name, timing in row.tools.items():
        if timing.absent is not None:
            lines.append(f"    {name}: absent: {timing.absent}")
        elif name != NAME:
            assert timing.seconds is not None
            lines.append(
                f"    {name}: {timing.seconds:.2f} s from {timing.cells} cells in "
                f"{timing.measured:.2f} s; ratio {timing.seconds / ours.seconds:.1f}; "
                f"difference {timing.difference:.1g}" + ("" if timing.agrees else ": DISAGREES")
            )
    return "\n".join(lines)


def _about(name: str) -> dict[str, str]:
    try:
        version = PEERS[name].version()
    except Absent:
        version = "not installed"
    return {"package": PEERS[name].package, "version": version, "how": PEERS[name].how}


if __name__ == "__main__":
    with torch.no_grad():
        main()
