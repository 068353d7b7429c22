"""Running a circuit by hand: writer by writer, every reader in runs of its own, in numpy.

Nothing of microtome is used. Of each head the queries are taken from a run whose stream is what its
queries read, the keys and the values likewise, and what it makes of these from one more run. A
reader's stream is the clean one, with the clean share of every writer replaced by what the circuit
lets through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedModel

from oracles import families as by_hand
from oracles.families import HEADS, ByHand, Change, Hooked

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Circuits:
    """One model and one text; ``edges`` are names such as ``a0.h1->a2.h3<q>``."""

    hf: PreTrainedModel
    hand: ByHand
    ids: Sequence[int]

    def run(self, edges: Collection[str], ablated: Values) -> np.ndarray:
        """The logits ``[pos, vocab]`` where all edges but these carry ablated values."""
        made: dict[str, np.ndarray] = {"input": self.clean.seen["embed", None]}
        for layer in range(self.hand.layers):
            for head in range(HEADS):
                name = f"a{layer}.h{head}"
                reads = [
                    self._stream(f"{name}<{part}>", layer, edges, made, ablated) for part in "qkv"
                ]
                made[name] = self._head(layer, head, *reads)
            made[f"m{layer}"] = self._mlp(
                layer, self._stream(f"m{layer}", layer, edges, made, ablated)
            )
        end = self._stream("logits", self.hand.layers, edges, made, ablated)
        return self._with("resid_post", self.hand.layers - 1, end).logits.numpy()

    @cached_property
    def written(self) -> Values:
        """What everything writes in the clean run."""
        found = {"input": self.clean.seen["embed", None]}
        for layer in range(self.hand.layers):
            for head in range(HEADS):
                found[f"a{layer}.h{head}"] = self._share(layer, head, self.clean.seen["z", layer])
            found[f"m{layer}"] = self.clean.seen["mlp_out", layer]
        return found

    @cached_property
    def clean(self) -> Hooked:
        return by_hand.run(self.hf, self.hand, self.ids)

    @property
    def is_parallel(self) -> bool:
        return self.hand.rest is None

    def _stream(
        self, reader: str, layer: int, edges: Collection[str], made: Values, ablated: Values
    ) -> np.ndarray:
        """What a reader reads."""
        mlp, logits = reader.startswith("m"), reader == "logits"
        between = mlp and not self.is_parallel
        site = (
            ("resid_post", self.hand.layers - 1)
            if logits
            else (("resid_mid" if between else "resid_pre"), layer)
        )
        stream = self.clean.seen[site].copy()

        def change(writer: str) -> np.ndarray:
            now = made if f"{writer}->{reader}" in edges else ablated
            return now[writer] - self.written[writer]

        stream += change("input")
        for earlier in range(layer):
            stream += self._added(earlier, [change(f"a{earlier}.h{h}") for h in range(HEADS)])
            stream += change(f"m{earlier}")
        if between:
            stream += self._added(layer, [change(f"a{layer}.h{h}") for h in range(HEADS)])
        return stream

    def _head(
        self, layer: int, head: int, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> np.ndarray:
        """What a head adds, of the streams that its queries, keys and values read."""
        parts = {
            part: self._with("resid_pre", layer, stream).seen[part, layer]
            for part, stream in zip("qkv", (q, k, v), strict=True)
        }
        changes = [self._all(part, layer, values) for part, values in parts.items()]
        z = by_hand.run(self.hf, self.hand, self.ids, changes).seen["z", layer]
        return self._share(layer, head, z)

    def _mlp(self, layer: int, stream: np.ndarray) -> np.ndarray:
        site = "resid_pre" if self.is_parallel else "resid_mid"
        return self._with(site, layer, stream).seen["mlp_out", layer]

    def _with(self, site: str, layer: int, values: np.ndarray) -> Hooked:
        return by_hand.run(self.hf, self.hand, self.ids, [self._all(site, layer, values)])

    def _all(self, site: str, layer: int, values: np.ndarray) -> Change:
        return Change(site, layer, [list(range(n)) for n in values.shape], lambda _: values)

    def _share(self, layer: int, head: int, z: np.ndarray) -> np.ndarray:
        """What a head adds, before a norm of the sum: a product with its rows of the matrix."""
        weight = self._projection(layer).weight.detach().numpy()
        weight = weight if type(self._projection(layer)).__name__ == "Conv1D" else weight.T
        rows = np.split(weight, HEADS)[head]
        return z[:, head] @ rows * (1.0 if self._norm(layer) else self.hand.factor)

    def _added(self, layer: int, changes: Sequence[np.ndarray]) -> np.ndarray:
        """What the stream changes by, of what the heads of a layer add."""
        norm, change = self._norm(layer), sum(changes)
        if norm is None:
            return change
        z = torch.from_numpy(self.clean.seen["z", layer])
        with torch.no_grad():
            whole = self._projection(layer)(z.flatten(1))
            return (norm(whole + torch.from_numpy(change)) - norm(whole)).numpy()

    def _norm(self, layer: int) -> torch.nn.Module | None:
        """The norm of what attention adds, where there is one."""
        if not self.hand.attn_out.endswith("norm"):
            return None
        return self.hf.get_submodule(f"{self.hand.blocks}.{layer}.{self.hand.attn_out}")

    def _projection(self, layer: int) -> torch.nn.Module:
        return self.hf.get_submodule(f"{self.hand.blocks}.{layer}.{self.hand.z}")
