"""Text under an edit: seconds to write it, beside the model's own ``generate``.

python -m benchmarks.generation MODEL --out generation.json

Three ways to write the same text: the module's own ``generate`` without an edit (*own*); the same
with one plain torch hook that adds the vector (*hook*), which is the least that steering can cost;
and `Model.generate` with the same edit, which also proves each step (*steered*), tells what would
have been without the edit (*told*, ``verify=False``), and reads the finished text once more
(*verified*, the default). Each round runs all of them; seconds are of processor time of one
thread, since the machine may be busy, and medians over rounds. Texts of *hook* and *steered* have
to be the same. nnsight takes part where it is installed.
"""

from __future__ import annotations

import argparse
import copy
import platform
from collections.abc import Callable, Mapping
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import microtome as mt
from benchmarks.turns import in_turn, keep

PROMPT = "The film that we saw last night was"
Way = Callable[[], list[int]]
"""Writes, and gives the tokens."""


def ways(
    model: mt.Model, layer: int, vector: np.ndarray[Any, Any], steps: int
) -> Mapping[str, Way]:
    """The ways to write, by name."""
    [encoded] = model.encode(PROMPT)
    ids = torch.tensor([encoded.tokens.ids])
    edit = mt.SteeringVector({layer: vector}).add(layers=layer)
    settings = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False}

    def own() -> list[int]:
        written: list[int] = model.hf.generate(ids, **settings)[0, ids.shape[1] :].tolist()
        return written

    def hook() -> list[int]:
        added = torch.tensor(vector, dtype=model.dtype)
        block = model.anatomy.block(model.hf, layer)

        def add(module: torch.nn.Module, args: object, output: Any) -> Any:
            return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

        handle = block.register_forward_hook(add)
        try:
            return own()
        finally:
            handle.remove()

    def steered(verify: bool) -> list[int]:
        made = model.generate(PROMPT, edit, steps, min_new_tokens=steps, verify=verify)
        return list(made[0].ids)

    found: dict[str, Way] = {
        "own": own,
        "hook": hook,
        "told": lambda: steered(False),
        "verified": lambda: steered(True),
    }
    if find_spec("nnsight") is not None:
        found["nnsight"] = nnsight_way(model, layer, vector, steps)
    return found


def nnsight_way(model: mt.Model, layer: int, vector: np.ndarray[Any, Any], steps: int) -> Way:
    """nnsight's ``generate``, with the vector added in every step."""
    import nnsight  # an extra that .venv does not have

    wrapped = nnsight.LanguageModel(copy.deepcopy(model.hf), tokenizer=model.tokenizer)
    block = reduce(getattr, model.anatomy.family.blocks.split("."), wrapped)[layer]
    added = torch.tensor(vector, dtype=model.dtype)

    def write() -> list[int]:
        with wrapped.generate(PROMPT, max_new_tokens=steps, min_new_tokens=steps) as tracer:
            with tracer.iter[:steps]:
                block.output = block.output + added
            output = tracer.result.save()
        written: list[int] = output[0, -steps:].tolist()
        return written

    return write


def measured(named: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """Median processor seconds of each, over rounds in which all of them run."""
    texts = {name: way() for name, way in named.items()}  # once for warmth, and to compare
    for name, text in texts.items():
        if name != "own" and text != texts["hook"]:
            raise SystemExit(f"{name} writes another text than a hook does: {text}")
    return in_turn(named, rounds)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = mt.load(asked.model, device="cpu")
    generator = np.random.default_rng(0)
    vector = generator.normal(size=model.anatomy.dims.d_model)
    found = measured(ways(model, asked.layer, vector, asked.steps), asked.rounds)
    for name, seconds in found.items():
        print(f"{name:18} {seconds:8.3f} s   {seconds / found['own']:6.2f} × own")
    where = platform.processor() or platform.machine()
    kept = {"model": asked.model, "steps": asked.steps, "machine": where, "seconds": found}
    keep(kept, asked.out)


if __name__ == "__main__":
    main()
