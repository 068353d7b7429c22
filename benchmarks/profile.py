"""Where microtome's time goes, operator by operator: the share of matrix products, and the rest.

    python -m benchmarks.profile --shape small --maps ac

"Done" are the operations that the profiler counted in matrix products, beside those that the map
needs at least (`floor`): more are work that could be saved. Their rate is beside that of the
machine's own product with many rows: less are products that are too thin. What is left is norms,
activation functions, copies, and Python.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import floor
from benchmarks.machine import Machine
from benchmarks.models import subject
from benchmarks.questions import MAPS, SHAPES, ask
from benchmarks.tools.microtome_sweep import Microtome

ONEDNN = "mkldnn::_linear_pointwise"
"""Whose operations the profiler does not count."""

PRODUCTS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", ONEDNN)


def main() -> None:
    """Profile some maps on a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--maps", default="abc", help="letters of the maps")
    parser.add_argument("--most", type=int, default=8, help="operators to print")
    asked = parser.parse_args()
    shape = SHAPES[asked.shape]
    ours = Microtome(subject(shape))
    ours.sweep(ask(MAPS["b"], shape))  # whatever is built on the first call
    for key in asked.maps:
        print("\n".join(describe(ours, key, asked.shape, asked.most)), flush=True)


def describe(ours: Microtome, key: str, name: str, most: int) -> list[str]:
    """A map in some lines."""
    shape = SHAPES[name]
    question, rate = ask(MAPS[key], shape), Machine("cpu").matrix_rate(shape.width)
    began = time.perf_counter()
    cpu = [ProfilerActivity.CPU]
    with profile(activities=cpu, with_flops=True, record_shapes=True) as seen:
        ours.sweep(question, verify=0)
    seconds = time.perf_counter() - began
    operators = sorted(seen.key_averages(), key=lambda one: -one.self_cpu_time_total)
    products = [one for one in operators if one.key in PRODUCTS]
    done = sum(one.flops for one in products)
    for one in seen.key_averages(group_by_input_shape=True):
        if one.key == ONEDNN:
            x, weight = one.input_shapes[:2]
            done += 2 * math.prod(x) * weight[0] * one.count
    inside = sum(one.self_cpu_time_total for one in products) / 1e6
    return [
        f"{name} ({key}): {seconds:.2f} s; {done / 1e9:,.1f} GFLOP in products, at least "
        f"{floor.flops(question) / 1e9:,.1f}; {inside:.2f} s ({inside / seconds:.0%}) in them, at "
        f"{done / inside / 1e9:,.0f} of {rate / 1e9:,.0f} GFLOP/s",
        *(
            f"    {one.key:44} {one.self_cpu_time_total / 1e6:8.3f} s "
            f"{one.self_cpu_time_total / 1e6 / seconds:6.1%} {one.count:8,} calls"
            for one in operators[:most]
        ),
    ]


if __name__ == "__main__":
    with torch.no_grad():
        main()
