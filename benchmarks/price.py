"""microtome by itself on a machine that is shared: its time over the floor, and verifying's price.

    python -m benchmarks.price --shape small --maps abde

Other processes slow the clock on the wall down, not the one that counts a process's own seconds.
So these are CPU seconds of one thread: the floor's product, the map without verification and the
default call in turn, round after round, and of each the least. They are no seconds to wait for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks import floor
from benchmarks.machine import Machine
from benchmarks.models import subject
from benchmarks.questions import MAPS, SHAPES, Question, ask
from benchmarks.tools.microtome_sweep import Microtome

PRODUCTS = 7
"""How often the product is taken in a round."""


@dataclass(frozen=True)
class Price:
    """CPU seconds of one map.

    Attributes:
        floor: of the products that it needs at least, at the product's rate.
        unverified: of the walk.
        default: of the walk and its verification.
    """

    floor: float
    unverified: float
    default: float

    def __str__(self) -> str:
        return (
            f"floor {self.floor:.3f} s; unverified {self.unverified:.3f} s, "
            f"{self.unverified / self.floor:.2f} × floor; default {self.default:.3f} s, "
            f"{self.default / self.floor:.2f} × floor; default ÷ unverified "
            f"{self.default / self.unverified:.3f}"
        )


def main() -> None:
    """Measure some maps on a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--maps", default="b", help="letters of the maps")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shape = SHAPES[asked.shape]
    ours = Microtome(subject(shape))
    ours.sweep(ask(MAPS["b"], shape))  # whatever is built on the first call
    for key in asked.maps:
        print(
            f"{shape.name} ({key}): {price(ours, ask(MAPS[key], shape), asked.rounds)}", flush=True
        )


def price(ours: Microtome, question: Question, rounds: int) -> Price:
    """Of one map."""
    least = [float("inf")] * 3
    width = question.shape.width
    rows, wide = torch.randn(Machine("cpu").rows, width), torch.randn(width, 4 * width)
    for _ in range(rounds):
        for number, work in enumerate(
            (
                lambda: [rows @ wide for _ in range(PRODUCTS)],
                lambda: ours.sweep(question, verify=0),
                lambda: ours.sweep(question),
            )
        ):
            least[number] = min(least[number], _seconds(work))
    product = 2 * len(rows) * width * 4 * width * PRODUCTS / least[0]
    return Price(floor.flops(question) / product, *least[1:])


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    with torch.no_grad():
        main()
