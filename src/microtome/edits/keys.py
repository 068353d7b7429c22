"""Texts that name regions of prompts' runs: the roots of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from microtome.language.regions import Column, Region, Regions
from microtome.prompts.tokens import Tokens


def key(region: Region, tokens: Tokens) -> str:
    """A text that names a region of a prompt's run: the root of its random numbers."""
    return f"{region.site}|{region.layer}|{region.indices}|{tokens.ids}"


@dataclass(frozen=True, eq=False)
class Keys(Sequence[str]):
    """A key per cell, made when an edit draws random numbers and asks for it.

    Attributes:
        regions: where each cell's edit lands.
        tokens: the prompts that the cells are of.
        prompt: per cell, which of these; None where there is one prompt.
    """

    regions: Regions
    tokens: Sequence[Tokens]
    prompt: Column | None = None

    def __len__(self) -> int:
        return self.regions.cells

    @overload
    def __getitem__(self, cell: int) -> str: ...
    @overload
    def __getitem__(self, cell: slice) -> Sequence[str]: ...
    def __getitem__(self, cell: int | slice) -> str | Sequence[str]:
        if isinstance(cell, slice):
            return [self[n] for n in range(*cell.indices(len(self)))]
        if not 0 <= cell < len(self):
            raise IndexError(cell)
        prompt = 0 if self.prompt is None else int(self.prompt[cell])
        return key(self.regions[cell], self.tokens[prompt])
