"""Which tokens the pass at hand reads, of a text that grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Read = tuple[int, int]
"""The first position that a pass reads, and the one behind its last."""


@dataclass
class Now:
    """Which tokens the pass at hand reads, of a text that grows.

    Attributes:
        prompt: how many tokens the prompt has.
        ids: all tokens up to the last one that this pass reads.
        start: the first position that it reads.
        passes: what each pass so far has read.
    """

    prompt: int
    ids: tuple[int, ...] = ()
    start: int = 0
    passes: list[Read] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The number of the token that comes of this pass, from 0."""
        return len(self.ids) - self.prompt

    @property
    def steps(self) -> range:
        """The steps whose tokens this pass reads: step 0 reads the prompt, step n token n."""
        return range(max(0, self.start - self.prompt + 1), self.step + 1)

    def span(self, step: int) -> Read:
        """The positions that are new in a step."""
        return (self.prompt + step - 1 if step else 0), self.prompt + step

    def read(self, ids: Sequence[int], start: int) -> None:
        """A pass reads these tokens, from a position on."""
        self.ids = (*self.ids[:start], *ids)
        self.start = start
        self.passes.append((start, len(self.ids)))
