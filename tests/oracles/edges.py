"""Edges as one would make them by hand: shares from clean runs, put where one reader reads.

A writer's share is taken from runs with plain hooks. What a reader reads is edited as
`oracles.readers` does it: in runs of their own, for everybody, of which the one reader's part is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from oracles.families import D_MODEL, HEADS, ByHand, Hooked
from oracles.readers import Oracle

ShareOp = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A share ``[pos, d_model]``, and the donor's → the edited one."""

VECTOR = np.linspace(-0.5, 0.75, D_MODEL)
OPS: dict[str, ShareOp] = {
    "patch": lambda own, donor: donor,
    "zero": lambda own, donor: 0 * own,
    "scale(-1.5)": lambda own, donor: -1.5 * own,
    f"add({VECTOR.tolist()})": lambda own, donor: own + VECTOR,
}


@dataclass(frozen=True)
class Node:
    """A writer (``input``, ``head``, ``mlp``), or what reads (a head's ``q``, ``k`` or ``v``,
    ``mlp``, ``logits``)."""

    kind: str
    layer: int = 0
    head: int = 0

    @property
    def writes(self) -> str:
        own = {"input": "embed", "head": "L{0}.z.h{1}", "mlp": "L{0}.mlp_out"}[self.kind]
        return own.format(self.layer, self.head)

    @property
    def reads(self) -> str:
        if self.kind == "logits":
            return "final_in"
        own = "L{0}.mlp_in" if self.kind == "mlp" else f"L{{0}}.{self.kind}_in.h{{1}}"
        return own.format(self.layer, self.head)


def all_edges(hand: ByHand) -> list[tuple[Node, Node]]:
    """Every writer with every reader behind it, by when each is."""
    writers = [(-1.0, Node("input"))]
    readers = [(float(hand.layers), Node("logits"))]
    for layer in range(hand.layers):
        writers += [(layer + 0.2, Node("head", layer, head)) for head in range(HEADS)]
        writers.append((layer + 0.4, Node("mlp", layer)))
        for head in range(HEADS):
            readers += [(layer + 0.1, Node(kind, layer, head)) for kind in "qkv"]
        readers.append((layer + (0.1 if hand.rest is None else 0.3), Node("mlp", layer)))
    return [(one, other) for early, one in writers for late, other in readers if early < late]


@dataclass(frozen=True)
class Edges:
    """Edges of one model and text, with a donor."""

    here: Oracle
    donor: Sequence[int]

    def cell(
        self, change: np.ndarray, reader: Node, positions: Sequence[int] | None = None
    ) -> Hooked:
        """The run in which one reader reads something else."""
        where = list(range(len(change))) if positions is None else list(positions)
        site = {"mlp": "mlp_in", "logits": "final_in"}.get(reader.kind, f"{reader.kind}_in")
        own = replace(self.here, layer=reader.layer)
        return own.edit(site, where, [reader.head], lambda values: values + change[where])

    def change(self, writer: Node, op: ShareOp) -> np.ndarray:
        """What is edited of a writer's share, ``[pos, d_model]``."""
        there = replace(self.here, ids=self.donor)
        own, donor = (self._share(oracle, writer) for oracle in (self.here, there))
        change = op(own, donor) - own
        oracle = replace(self.here, layer=writer.layer)
        if writer.kind != "head" or not oracle.is_normed:
            return change
        bias = oracle.projection.bias
        whole = oracle.shares(oracle.clean.seen["z", writer.layer]).sum(axis=1)
        whole = whole + (0 if bias is None else bias.detach().numpy())
        path = f"{self.here.hand.blocks}.{writer.layer}.{self.here.hand.attn_out}"
        norm = self.here.hf.get_submodule(path)
        with torch.no_grad():
            after, before = (norm(torch.from_numpy(x)).numpy() for x in (whole + change, whole))
        return after - before

    @staticmethod
    def _share(oracle: Oracle, writer: Node) -> np.ndarray:
        seen = oracle.clean.seen
        match writer.kind:
            case "input":
                return seen["embed", None]
            case "mlp":
                return seen["mlp_out", writer.layer]
        own = replace(oracle, layer=writer.layer)
        return own.shares(seen["z", writer.layer])[:, writer.head]
