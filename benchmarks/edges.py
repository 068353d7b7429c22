"""Every edge of a GPT-2's graph: microtome's sweeps beside hooks written by hand.

python -m benchmarks.edges --shape small --out benchmarks/results/edges.json

The prompt has 15 random tokens, and the donor is the same but for the tenth. Seconds are the
processor's, of the process: a map takes minutes, and meanwhile others may run. The hooks are timed
on a sample of edges, spread over the graph, and scaled.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1")

import torch
from torch import Tensor

import microtome as mt
from benchmarks import floor
from benchmarks.machine import Machine
from benchmarks.models import Subject, subject
from benchmarks.questions import SHAPES, TOKENS, Shape, words
from benchmarks.tools.tool import BATCH
from microtome.results import provenance

START = 9
"""The first position at which text and donor differ."""

CLOSE = 5e-5
"""Largest difference that is rounding."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Asked:
    """A prompt and its donor, as ids, and the two tokens of the metric."""

    ids: list[int]
    donor: list[int]
    target: int
    contrast: int

    @property
    def prompt(self) -> mt.Prompt:
        """The same as text."""
        return mt.Prompt(
            words(self.ids),
            donor=words(self.donor),
            target=words([self.target]),
            contrast=words([self.contrast]),
        )


def asked_of(shape: Shape) -> Asked:
    """Random words; the same each time."""
    chance = random.Random(0)
    ids = [chance.randrange(1, shape.vocabulary) for _ in range(TOKENS + 3)]
    donor = [*ids[:START], ids[TOKENS], *ids[START + 1 : TOKENS]]
    return Asked(ids[:TOKENS], donor, ids[-2], ids[-1])


@dataclass(frozen=True)
class Reader:
    """What reads: ``q``, ``k`` or ``v`` of a head, ``mlp`` of a layer, or ``logits``."""

    kind: str
    layer: int
    head: int = 0

    @classmethod
    def of(cls, name: str, shape: Shape) -> Reader:
        """The reader at the end of an edge's name."""
        if name == "logits":
            return cls("logits", shape.layers)
        numbers = [int(number) for number in re.findall(r"\d+", name)]
        return cls("mlp", *numbers) if name[0] == "m" else cls(name[-2], *numbers)


def flops(shape: Shape, readers: Sequence[str]) -> float:
    """What the map needs at least, counted as `benchmarks.floor` does; and three runs."""
    kinds: dict[tuple[str, int], int] = {}
    for name in readers:
        own = Reader.of(name, shape)
        kinds[own.kind, own.layer] = kinds.get((own.kind, own.layer), 0) + 1
    cells = sum(n * of_edge(shape, Reader(*where)) for where, n in kinds.items())
    return cells + 2 * floor.blocks(shape, 0, 0, TOKENS) + floor.readout(shape)


def of_edge(shape: Shape, reader: Reader) -> float:
    """Of one edge: of the layer where it is read, one head, or the MLP; whole blocks from there."""
    if reader.kind == "logits":
        return floor.readout(shape)
    own = TOKENS - START
    _, _, mlp = floor.parts(shape, START, TOKENS)
    head = (2.0 * 2 * shape.width * shape.d_head * own) + (
        4.0 * shape.d_head * sum(range(START + 1, TOKENS + 1))
    )
    entered = mlp if reader.kind == "mlp" else head + mlp
    after = floor.blocks(shape, reader.layer + 1, START, TOKENS)
    unread = mlp * (own - 1) / own
    return entered + after - unread + floor.readout(shape)


class Hooks:
    """Edges by hand on a GPT-2; nothing of microtome is used."""

    def __init__(self, made: Subject, question: Asked) -> None:
        self.model: Any = made.twin()
        self.shape, self.question = made.shape, question
        own, other = (self._written(ids) for ids in (question.ids, question.donor))
        self.changes = {name: other[name] - share for name, share in own.items()}

    @torch.no_grad()
    def values(self, edges: Sequence[str], keep: int = 1) -> Tensor:
        """The logit difference of some edges into one kind of reader of a layer, a row each.

        The unembedding runs at so many of the last positions; 0: at all.
        """
        sides = [name.split("->") for name in edges]
        readers = [Reader.of(reader, self.shape) for _, reader in sides]
        changes = torch.stack([self.changes[writer] for writer, _ in sides])
        tokens = torch.tensor([self.question.ids] * len(edges))
        with self._read(readers, changes):
            last = self.model(tokens, logits_to_keep=keep).logits[:, -1]
        found: Tensor = last[:, self.question.target] - last[:, self.question.contrast]
        return found

    @torch.no_grad()
    def _written(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """What every node writes in a run, ``[pos, width]``."""
        found: dict[str, Tensor] = {}
        handles = []
        for layer, block in enumerate(self.model.transformer.h):

            def heads(module: Any, args: Any, layer: int = layer) -> None:
                size = self.shape.d_head
                for head, z in enumerate(args[0][0].split(size, dim=-1)):
                    rows = module.weight[head * size : (head + 1) * size]
                    found[f"a{layer}.h{head}"] = z @ rows

            def mlp(module: Any, args: Any, output: Tensor, layer: int = layer) -> None:
                found[f"m{layer}"] = output[0].clone()

            handles.append(block.attn.c_proj.register_forward_pre_hook(heads))
            handles.append(block.mlp.register_forward_hook(mlp))

        def embed(module: Any, args: Any) -> None:
            found["input"] = args[0][0].clone()

        handles.append(self.model.transformer.h[0].register_forward_pre_hook(embed))
        self.model(torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        return found

    @contextmanager
    def _read(self, readers: Sequence[Reader], changes: Tensor) -> Iterator[None]:
        """Within this block, each row's reader reads its change besides."""
        kind, layer = readers[0].kind, readers[0].layer

        def besides(module: Any, args: Any) -> tuple[Tensor]:
            return (args[0] + changes,)

        if kind in ("mlp", "logits"):
            body = self.model.transformer
            norm = body.ln_f if kind == "logits" else body.h[layer].ln_2
            handles = [norm.register_forward_pre_hook(besides)]
        else:
            handles = self._into_heads(layer, kind, readers, changes)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _into_heads(
        self, layer: int, kind: str, readers: Sequence[Reader], changes: Tensor
    ) -> list[Any]:
        block, size = self.model.transformer.h[layer], self.shape.d_head
        entered: list[Tensor] = []

        def enter(module: Any, args: Any) -> None:
            entered[:] = [args[0]]

        def made(module: Any, args: Any, output: Tensor) -> Tensor:
            normed, changed = block.ln_1(entered[0] + changes), output.clone()
            for row, reader in enumerate(readers):
                first = "qkv".index(kind) * self.shape.width + reader.head * size
                own = slice(first, first + size)
                changed[row, :, own] = normed[row] @ module.weight[:, own] + module.bias[own]
            return changed

        return [
            block.register_forward_pre_hook(enter),
            block.attn.c_attn.register_forward_hook(made),
        ]


def sample(things: Sequence[Answer], some: int) -> list[Answer]:
    """Some things out of many, spread over them, by a fixed seed within each stretch."""
    chance = random.Random(0)
    some = min(some, len(things))
    ends = [n * len(things) // some for n in range(some + 1)]
    return [things[chance.randrange(*pair)] for pair in pairwise(ends)]


def batches(edges: Sequence[str], shape: Shape, some: int) -> list[list[str]]:
    """Batches of edges into one kind of reader of a layer, spread over the graph."""
    groups: dict[Reader, list[str]] = {}
    for name in edges:
        own = Reader.of(name.partition("->")[2], shape)
        groups.setdefault(replace(own, head=0), []).append(name)
    full = [own for own in groups.values() if len(own) >= BATCH]
    return [sample(own, BATCH) for own in sample(full, some)]


def timed(work: Callable[[], Answer]) -> tuple[float, Answer]:
    """Seconds of the processor, and what came out."""
    began = time.process_time()
    answer = work()
    return time.process_time() - began, answer


def measure(shape: Shape, singles: int, some: int) -> dict[str, Any]:
    """The record of one shape."""
    made, question = subject(shape), asked_of(shape)
    model = mt.load(made.twin(), tokenizer=made.tokenizer)
    graph, hooks, machine = mt.edges(model), Hooks(made, question), Machine("cpu")
    values: dict[str, float] = {}
    rates, kinds = [], {}
    mt.sweep(model, question.prompt, "zero embed -> final_in", metrics="logit_diff")
    for kind in graph.kinds:
        rates.append(_rate(machine, shape))
        seconds, effects = timed(lambda kind=kind: _swept(model, question, kind.text))  # type: ignore[misc]
        names = kind.names(graph.dims)
        own = effects.data["logit_diff"].values[0]
        values |= dict(zip(names[names != ""], own[names != ""], strict=True))
        kinds[kind.text] = {"edges": int((names != "").sum()), "seconds": seconds}
        print(f"{kind.text}: {kinds[kind.text]}", flush=True)
    assert set(values) == set(graph)
    chosen, groups = sample(graph, singles), batches(graph, shape, some)
    hooks.values(chosen[:1])
    lens, by_lens = _by_lens(made, question, chosen)
    alone, found = timed(lambda: [float(hooks.values([name], keep=0)) for name in chosen])
    together, rows = timed(lambda: [hooks.values(group).tolist() for group in groups])
    pairs = [*zip(chosen, found, strict=True), *zip(chosen, by_lens, strict=False)]
    pairs += [(n, v) for g, r in zip(groups, rows, strict=True) for n, v in zip(g, r, strict=True)]
    clean = float(effects.data["clean_logit_diff"].item())
    least, rate = flops(shape, list(graph.readers)), statistics.median(rates)
    return {
        "shape": shape.name,
        "edges": len(graph),
        "tokens": TOKENS,
        "differs_at": START,
        "kinds": kinds,
        "seconds": sum(own["seconds"] for own in kinds.values()),
        "flops": least,
        "matrix_rate": rate,
        "matrix_rates": [min(rates), max(rates)],
        "floor_seconds": least / rate,
        "hooks_seconds": alone / len(chosen) * len(graph),
        "hooks_measured": {"edges": len(chosen), "seconds": alone},
        **(
            {"lens_seconds": lens / len(chosen) * len(graph)}
            | {"lens_measured": {"edges": len(chosen), "seconds": lens}}
            if by_lens
            else {}
        ),
        "batched_seconds": together / sum(map(len, groups)) * len(graph),
        "batched_measured": {"edges": sum(map(len, groups)), "seconds": together},
        "difference": max(abs(values[name] - value) for name, value in pairs),
        "largest_effect": max(abs(value - clean) for value in values.values()),
    }


def _by_lens(made: Subject, question: Asked, chosen: Sequence[str]) -> tuple[float, list[float]]:
    """TransformerLens on some edges, where it is installed: seconds, and what came out."""
    if importlib.util.find_spec("transformer_lens") is None:
        return 0.0, []
    from benchmarks.tools.transformer_lens_edges import LensEdges

    own = LensEdges(made, question.ids, question.donor, question.target, question.contrast)
    own.value(chosen[0])
    return timed(lambda: [own.value(name) for name in chosen])


def _swept(model: mt.Model, question: Asked, text: str) -> mt.Effects:
    """A kind of edges, by the default call: what it verifies by itself is in it."""
    return mt.sweep(model, question.prompt, f"patch {text}", metrics="logit_diff", progress=False)


def _rate(machine: Machine, shape: Shape) -> float:
    """Operations in a second of the processor, of a product of an MLP's shape."""
    rows, wide = torch.randn(machine.rows, shape.width), torch.randn(shape.width, shape.neurons)
    rows @ wide
    seconds, _ = timed(lambda: [rows @ wide for _ in range(20)])
    return 40.0 * machine.rows * shape.width * shape.neurons / seconds


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What was measured, as a part of the page."""
    machine, row = record["machine"], record["row"]
    ours = row["seconds"]
    yield f"\n## Every edge ({machine['name']}, {machine['threads']} threads)\n"
    yield (
        f"All {row['edges']:,} edges of GPT-2's *{row['shape']}* shape ([what these are]"
        f"(edges.md)), patched, on a prompt of {row['tokens']} tokens whose donor differs at the "
        f"tenth: `python -m benchmarks.edges --shape {row['shape']}`. Seconds are the processor's, "
        "since other processes may run in the minutes that it takes. The floor is counted as "
        "above; in the layer where an edge is read, of one head or the MLP alone.\n"
    )
    yield "| | processor seconds | ÷ microtome | measured on |"
    yield "|---|---|---|---|"
    yield f"| microtome, fifteen sweeps | {ours:,.0f} | | {row['edges']:,} edges |"
    for name, what in (
        ("hooks", "plain hooks"),
        ("batched", f"plain hooks, batched, {BATCH} rows"),
        ("lens", "TransformerLens, its hooks on what is read"),
    ):
        if f"{name}_seconds" not in row:
            continue
        seconds, on = row[f"{name}_seconds"], row[f"{name}_measured"]["edges"]
        yield f"| {what} | {seconds:,.0f}* | {seconds / ours:.1f} × | {on} edges, scaled |"
    yield f"| floor | {row['floor_seconds']:,.0f} | {row['floor_seconds'] / ours:.2f} × | |"
    yield (
        f"\nThe largest difference from the hooks is {row['difference']:.1g}, the largest effect "
        f"{row['largest_effect']:.2g}."
    )


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    own = [name for name, shape in SHAPES.items() if shape.family == "gpt2"]
    parser.add_argument("--shape", choices=own, default="small")
    parser.add_argument("--singles", type=int, default=24)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    record = {
        **provenance.of_machine(),
        "machine": Machine("cpu").describe(),
        "row": measure(SHAPES[given.shape], given.singles, given.batches),
    }
    if given.out is not None:
        given.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(lines(record)))


if __name__ == "__main__":
    main()
