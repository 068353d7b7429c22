"""A circuit once more, on the reference path: one full pass of the model, with plain hooks.

Reader by reader, the edges into it that the circuit does not name: over each of them it gets the
ablated share in the place of the one that was written in this pass. The passes of many circuits
(`circuits.passing`) do so for all readers of a place, and all circuits, in one product; nothing is
shared with them but the hooks, and what the ablation makes of a prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import Reader
from microtome.circuits.written import resting, writing
from microtome.language.sites import site as find_site
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit, forward
from microtome.passes.trace import ids_of
from microtome.prompts.tokens import Tokens


@dataclass(eq=False)
class Again:
    """A circuit in a pass of its own.

    Attributes:
        model: the model.
        circuit: the circuit.
        text: what it is run on.
        ablated: what edges outside carry, ``[writer, pos, d_model]``, of the type of sums.
        outside: per reader, the numbers of the writers of edges into it that are outside.
        written: what has been written in this pass, likewise.
        still: per layer, what heads add that write nothing; where what is left is summed by itself.
    """

    model: Loaded
    circuit: Circuit
    text: Tokens
    ablated: Float[Tensor, "writer pos d_model"]
    outside: dict[str, list[int]] = field(init=False)
    written: Float[Tensor, "writer pos d_model"] = field(init=False)
    still: Sequence[Tensor] = ()

    def __post_init__(self) -> None:
        self.written = torch.zeros_like(self.ablated)
        self.outside = _outside(self.circuit)
        if self._is_normed or self._carries_nothing:
            self.still = resting(self.model)

    def logits(self) -> Float[Tensor, "pos vocab"]:
        """What comes out."""
        hf, graph = self.model.hf, self.circuit.graph
        visits = [*writing(graph, self._write), *self._reading()]
        return forward(hf, self.model.anatomy, ids_of([self.text], hf), visits)[0]

    @property
    def _is_normed(self) -> bool:
        return self.model.anatomy.family.attn_norm is not None

    @property
    def _carries_nothing(self) -> bool:
        return not self.ablated.any()

    def _write(self, first: int, view: Float[Tensor, "1 pos writer d_model"]) -> None:
        self.written[first : first + view.shape[2]] = view[0].transpose(0, 1)

    def _reading(self) -> Iterator[Visit]:
        readers: dict[tuple[str, int | None], list[Reader]] = defaultdict(list)
        for reader in self.circuit.graph.readers:
            site = f"{reader.part or 'mlp'}_in" if reader.layer is not None else "final_in"
            readers[site, reader.layer].append(reader)
        for (site, layer), own in readers.items():
            if any(self.outside[reader.name] for reader in own):
                act = partial(self._act, own)
                yield Visit((find_site(site), layer), act, writes=True)

    def _act(self, readers: Sequence[Reader], view: Tensor) -> None:
        for number, reader in enumerate(readers):
            own = view[0, :, number] if reader.head is not None else view[0]
            gone = self.outside[reader.name]
            if not self.still:
                own += self._change(gone)
                continue
            moved = (self.ablated[gone] != self.written[gone]).any(-1).any(0)
            if moved.any():
                own[moved] = self._left(reader)[moved].to(own.dtype)

    def _change(self, gone: Sequence[int]) -> Float[Tensor, "pos d_model"]:
        """What a reader reads otherwise than the stream."""
        found = torch.zeros_like(self.written[0])
        for writer in gone:
            found += self.ablated[writer] - self.written[writer]
        return found

    def _left(self, reader: Reader) -> Float[Tensor, "pos d_model"]:
        """What a reader reads, summed from what every edge into it carries: of nothing, nothing."""
        graph, outside = self.circuit.graph, set(self.outside[reader.name])
        found = torch.zeros_like(self.written[0])
        by_layer: dict[int, Tensor] = {}
        for number, writer in enumerate(graph.writers[: graph.written_before(reader)]):
            own = self.ablated[number] if number in outside else self.written[number]
            if writer.head is not None and writer.layer is not None:
                by_layer[writer.layer] = by_layer.get(writer.layer, self.still[writer.layer]) + own
            else:
                found += own
        for layer, whole in by_layer.items():
            whole = whole.to(self.model.dtype) if self._is_normed else whole
            found += self.model.anatomy.attention_normed(self.model.hf, layer, whole)
        return found


def _outside(circuit: Circuit) -> dict[str, list[int]]:
    """Per reader the writers, by number, of edges into it that a circuit does not name."""
    numbers = {writer.name: number for number, writer in enumerate(circuit.graph.writers)}
    found: dict[str, list[int]] = {reader.name: [] for reader in circuit.graph.readers}
    inside = set(circuit.edges)
    for edge in circuit.graph.edges:
        if edge not in inside:
            writer, _, reader = edge.partition("->")
            found[reader].append(numbers[writer])
    return found
