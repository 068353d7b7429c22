"""What a plan has to know of an edit; those that compute are in `microtome.edits`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field
from enum import Enum
from typing import Any, Protocol, Self, runtime_checkable

from microtome.language.addresses import Address
from microtome.language.edges import Where
from microtome.language.regions import Region


class Source(Enum):
    """Whose activations an edit needs besides the values that it changes."""

    NOTHING = "nothing"
    DONOR = "the prompt's donor"
    REFERENCE = "a set of reference prompts"


@runtime_checkable
class Operation(Protocol):
    """An edit as plans see it; see `microtome.edits.base.Edit` for what each part means."""

    @property
    def address(self) -> Where:
        """Where it is made, a place or an edge; it may have stars."""

    @property
    def place(self) -> Address:
        """Whose values it changes; of an edge, what the writer adds."""

    @property
    def lands(self) -> Address:
        """Where that is put; of an edge, what the reader reads."""

    @property
    def widens(self) -> str | None:
        """An axis of which it is given all values."""

    @property
    def rounds(self) -> bool:
        """Whether values that it leaves alone come out as they were but for rounding."""

    @property
    def source(self) -> Source:
        """Whose activations it needs."""

    @property
    def alignment(self) -> str:
        """How positions are found in other texts."""

    @property
    def rowwise(self) -> bool:
        """Whether a row of the result is known to depend on that row alone."""

    @property
    def keeps_zeros(self) -> bool:
        """Whether 0 stays 0."""

    def change(self, values: Any, context: Any) -> Any:
        """New values for the addressed ones: tensors, of which plans know nothing."""

    def check(self, region: Region, causal: bool = True) -> None:
        """Raise if it cannot be made there."""

    def check_together(self, regions: Sequence[Region], causal: bool = True) -> None:
        """Raise if it cannot be made in these regions, one a layer, at once."""

    @classmethod
    def parameters(cls) -> Sequence[Field[Any]]:
        """The fields besides the address."""

    def at(self, **stars: int) -> Self:
        """The same with indices in the place of stars."""

    def having(self, **parameters: Any) -> Self:
        """The same with other parameters."""
