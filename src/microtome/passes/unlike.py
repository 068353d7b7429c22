"""What is found where a model is not what its row in the table of families says."""

from __future__ import annotations

from torch import Tensor

from microtome.language.sites import Site
from microtome.passes.relations import differences


class Unlike(Exception):  # noqa: N818  (whether it is an error of the model's is still to be said)
    """What was found; and how that is told where the row of the table must be wrong."""

    def __init__(self, complaint: str, message: str) -> None:
        super().__init__(complaint)
        self.complaint, self.message = complaint, message


def expect_close(found: Tensor, wanted: Tensor, complaint: str, eps: float = 0.0) -> None:
    """Equal but for rounding, of their own type unless that of another is larger; or `Unlike`."""
    [(difference, allowed)] = differences(found[None], wanted[None], eps)
    expect_within(difference, allowed, complaint)


def expect_within(difference: float, allowed: float, complaint: str) -> None:
    """A difference that is allowed; raises `Unlike` of another."""
    expect(difference <= allowed, f"{complaint} (they differ by {difference:.2g})")


def expect(holds: bool, complaint: str) -> None:
    """What holds; raises `Unlike` with the complaint where it does not."""
    if not holds:
        row = "The model is not what its row in microtome/model/families says"
        raise Unlike(complaint, f"{row}: {complaint}.")


def site_at(site: Site, layer: int | None) -> str:
    """A site of a layer as an address names it."""
    return site.name if layer is None else f"L{layer}.{site.name}"
