"""The walk against one forward pass per cell, in one process, as a ratio.

    python benchmarks/walk.py --shape small --out walk.json

Random weights of GPT-2's published shapes and random token ids stand in for a checkpoint: the time
does not depend on their values. The plain way is timed on a sample of cells and scaled, and the
table says on how many. ``floor`` is the time that the map's operations take at the rate of the
machine's own matrix product, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import microtome as mt
from microtome import provenance
from microtome.metrics import readings
from microtome.model.model import Model
from microtome.run import trace
from microtome.sweep import reference
from microtome.sweep.measured import Measured
from microtome.sweep.sweep import plan_of, sources_of

SHAPES = {
    "small": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
}
MAPS = {
    "heads zeroed, all positions": "zero L*.z.h*",
    "heads patched at the last token": "patch L*.z.h*@-1",
    "head × position patches": "patch L*.z.h*@*",
}
TOKENS = 15
VOCABULARY = 50257


@dataclass(frozen=True)
class Row:
    """One map: seconds are medians over rounds; ``plain`` is scaled from ``sampled`` cells."""

    shape: str
    map: str
    cells: int
    walk: float
    plain: float
    sampled: int
    ratio: float
    floor: float
    over_floor: float
    largest_difference: float


def main() -> None:
    """Measure and print a table; write it as JSON with versions where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--sample", type=int, default=6, help="cells timed the plain way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    model = model_of(options.shape)
    rate = matrix_rate(model.anatomy.dims.d_model)
    print(f"{options.shape}: {rate / 1e9:.0f} GFLOP/s in its own matrix product")
    rows = []
    for name, edit in MAPS.items():
        rows.append(measure(model, options.shape, name, edit, rate, options))
        row = rows[-1]
        print(
            f"{row.map}: {row.cells:,} cells; walk {row.walk:.2f} s, plain {row.plain:.1f} s "
            f"(scaled from {row.sampled}); ratio {row.ratio:.0f}; {row.over_floor:.2f} × floor; "
            f"largest difference {row.largest_difference:.1g}",
            flush=True,
        )
    if options.out is not None:
        record = {
            **provenance.of_machine(),
            "threads": torch.get_num_threads(),
            "matrix_rate": rate,
            "rows": [asdict(row) for row in rows],
        }
        options.out.write_text(json.dumps(record, indent=2))


def measure(
    model: Model, shape: str, name: str, edit: str, rate: float, options: argparse.Namespace
) -> Row:
    """One map, the two ways in turn."""
    prompt = mt.Prompt(words(0), donor=words(100), target=" w7", contrast=" w8")
    encoded = model.encode(prompt)
    plan = plan_of(model, encoded, [mt.edit(edit)])
    some = [plan.cells[n * len(plan.cells) // options.sample] for n in range(options.sample)]
    sources = sources_of(model, plan, encoded, encoded)
    asked = readings("logit_diff")
    clean = trace(model.hf, model.anatomy, encoded[0].tokens).logits
    slow_values = Measured.empty(plan, asked)

    def plain() -> None:
        reference.measure(model, some, encoded[0], clean, sources, slow_values, lambda _: None)

    plain()  # the donor's run is recorded once, before anything is timed
    walks, plains = [], []
    for _ in range(options.rounds):
        began = time.perf_counter()
        effects = mt.sweep(model, prompt, edit, metrics="logit_diff", verify=0, progress=False)
        walks.append(time.perf_counter() - began)
        plains.append(len(plan.cells) * timed(plain) / len(some))
    found = effects.data["logit_diff"].values
    differences = [
        abs(float(found[cell.index] - slow_values.values[asked[0]][cell.index])) for cell in some
    ]
    walk, slow = statistics.median(walks), statistics.median(plains)
    floor = plan.cost.flops / rate
    return Row(
        shape=shape,
        map=name,
        cells=len(plan.cells),
        walk=walk,
        plain=slow,
        sampled=len(some),
        ratio=slow / walk,
        floor=floor,
        over_floor=walk / floor,
        largest_difference=max(differences),
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def matrix_rate(width: int) -> float:
    """Operations per second of a float32 product of the MLP's shape, with many rows."""
    rows, wide = torch.randn(720, width), torch.randn(width, 4 * width)
    rows @ wide
    seconds = statistics.median(timed(lambda: rows @ wide) for _ in range(9))
    return 2 * 720 * width * 4 * width / seconds


def model_of(shape: str) -> Model:
    """Random weights of a published shape, with a vocabulary of numbered words."""
    torch.manual_seed(0)
    config = GPT2Config(**SHAPES[shape], vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0)
    vocabulary = {"<unk>": 0, **{f" w{n}": n for n in range(1, VOCABULARY)}}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_next")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    return mt.load(GPT2LMHeadModel(config).eval(), tokenizer=tokenizer)


def words(first: int) -> str:
    """A prompt of as many tokens as every map here has."""
    return "".join(f" w{first + n}" for n in range(1, TOKENS + 1))


if __name__ == "__main__":
    main()
