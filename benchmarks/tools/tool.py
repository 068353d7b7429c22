"""What a tool has to do to be measured."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from benchmarks.models import Subject
from benchmarks.questions import Cell, Question

BATCH = 16
"""Rows (cells × prompts) that tools which batch put into one forward pass."""


class Absent(Exception):  # noqa: N818  (it is a finding, not a fault)
    """The tool cannot answer, and why."""


class Tool(ABC):
    """Another way to compute cells. Making one may raise `Absent` or ImportError.

    Attributes:
        name: in the table.
        package: the distribution that it comes from.
        how: what it does for a cell, in words, for the page.
        batched: several cells go through the model at once.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    how: ClassVar[str]
    batched: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, subject: Subject) -> None: ...

    @classmethod
    def version(cls) -> str:
        """Of its package.

        Raises:
            Absent: it is not installed.
        """
        try:
            return importlib.metadata.version(cls.package)
        except importlib.metadata.PackageNotFoundError:
            raise Absent(f"{cls.package} is not installed") from None

    @abstractmethod
    def prepare(self, question: Question) -> None:
        """Record what is recorded once per map, such as the donor's activations. Not timed.

        Raises:
            Absent: this map is beyond the tool.
        """

    @abstractmethod
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """The logit difference of these cells, [cell, prompt]. Timed."""

    def passes(self, question: Question, cells: Sequence[Cell]) -> int:
        """Rows, per prompt, that go through the model for these cells: seconds scale with it."""
        return len(cells)


def chunks(question: Question, cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells of one layer, as many as make a batch."""
    size = batch(question)
    of_layer: dict[int, list[Cell]] = {}
    for cell in cells:
        of_layer.setdefault(cell.layer, []).append(cell)
    for group in of_layer.values():
        for first in range(0, len(group), size):
            yield group[first : first + size]


def batch(question: Question) -> int:
    """Cells of a batch.

    Raises:
        Absent: the prompts fill it by themselves.
    """
    if len(question.prompts) >= BATCH:
        raise Absent("the prompts are a batch already, so there is nothing to add")
    return BATCH // len(question.prompts)
