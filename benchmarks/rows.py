"""What products cost by the number of their rows, and what fewer of them would save.

    python -m benchmarks.rows --threads 2

The matrices of GPT-2 Small's blocks and nothing else: how fast a few rows are, and the map of heads
at the last token, with the 30 tokens of clean run and donor by themselves, or in the cells' row.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

WIDTH, LAYERS, HEADS, TOKENS = 768, 12, 12, 30
SHAPES = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
ROWS = (1, 8, 30, 144, 512)
TIMES = 7


def seconds(blocks: list[list[Tensor]], rows: int) -> float:
    """Of the products of one block, with so many rows: the median of some times through all."""
    inputs = {width: torch.randn(rows, width) for width, _ in SHAPES}
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        for block in blocks:
            for matrix in block:
                torch.mm(inputs[len(matrix)], matrix)
        found.append(time.perf_counter() - began)
    return statistics.median(found) / len(blocks)


def main() -> None:
    """Print the rates, and the map's products in both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    blocks = [[torch.randn(shape) for shape in SHAPES] for _ in range(LAYERS)]
    operations = sum(2 * rows * columns for rows, columns in SHAPES)
    with torch.inference_mode():
        for rows in ROWS:
            rate = rows * operations / seconds(blocks, rows) / 1e9
            print(f"{rows:4} rows: {rate:6.1f} GFLOP/s")
        cells = [HEADS * (layer + 1) for layer in range(LAYERS)]
        apart = sum(seconds(blocks, TOKENS) + seconds(blocks, own) for own in cells)
        in_one = sum(seconds(blocks, TOKENS + own) for own in cells)
    print(f"heads at the last token: {apart * 1e3:.0f} ms apart, {in_one * 1e3:.0f} in one row")


if __name__ == "__main__":
    main()
