"""What a sweep may be told besides its question, each as an object; short spellings stay."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from microtome.amounts import bytes_of, whole_of
from microtome.engines.approximate.method import Method
from microtome.engines.approximate.precision import ENOUGH
from microtome.engines.approximate.text import EXACT, method_of
from microtome.engines.screen import dtype_of
from microtome.errors import SweepError
from microtome.model.host import memory_left
from microtome.model.loaded import Loaded
from microtome.plan.audit import Audit
from microtome.plan.memory.budget import BESIDE, DEFAULT_MEMORY, READING, TILES, Budget
from microtome.plan.verify import Verify
from microtome.spoken import spoken

REFINED = 64
"""How many cells of a screened map are computed again, unless said."""


@spoken
@dataclass(frozen=True)
class Screen:
    """The whole map in a coarse type first, then its strongest cells again, exactly.

    Attributes:
        dtype: the coarse type, such as ``"bfloat16"``.
        refine: how many cells are computed again: those with the largest effects on the first
            metric.

    >>> Screen.of("bfloat16", 64)
    Screen(dtype='bfloat16', refine=64)
    """

    dtype: str
    refine: int = REFINED

    def __post_init__(self) -> None:
        dtype_of(self.dtype)
        if whole_of(self.refine, least=None, what="refine") < 1:
            raise SweepError(f"refine={self.refine}: at least one cell has to be computed again.")

    @classmethod
    def of(cls, given: str | Screen | None, refine: int) -> Screen | None:
        """A screen as it is, or of a type's name; none where none is given."""
        return given if given is None or isinstance(given, Screen) else cls(given, refine)


@dataclass(frozen=True)
class Options:
    """How a question is answered.

    Attributes:
        engine: ``"auto"``, ``"walk"`` or ``"reference"``.
        verify: how many cells are recomputed.
        memory: bytes besides the model; None: 2 GiB.
        screen: a coarse map first, or None.
        seed: of the choice of the cells to verify, and to audit.
        method: how effects are approximated; None: they are exact.
        audit: which cells are exact all the same.
    """

    engine: str
    verify: Verify
    memory: int | None
    screen: Screen | None
    seed: int
    method: Method | None = None
    audit: Audit = field(default_factory=Audit)

    @classmethod
    def of(
        cls,
        engine: str,
        verify: Verify | int | str,
        memory: int | str | None,
        screen: str | Screen | None,
        refine: int | str | None,
        seed: int,
        method: str | Method = EXACT,
        audit: int | Audit = 64,
    ) -> Options:
        """Options as `sweep` takes them, checked.

        Raises:
            SweepError: one is not what it can be.
        """
        chosen = method_of(method)
        if chosen is not None and screen is not None:
            raise SweepError(
                f"screen= computes a map twice, and method={str(chosen)!r} approximates it: take "
                "one of the two."
            )
        audited = Audit.of(audit)
        if chosen is not None and refine is not None:
            audited = audited.refined(refine)
            refine = None
        if isinstance(refine, str) or (refine is not None and screen is None):
            raise SweepError(
                f"refine={refine!r} is of a map that is approximate first: give method='atp', or a "
                "number of cells and screen='bfloat16'."
            )
        return cls(
            engine=engine,
            verify=Verify.of(verify),
            memory=None if memory is None else bytes_of(memory, what="memory"),
            screen=Screen.of(screen, REFINED if refine is None else refine),
            seed=whole_of(seed, what="seed"),
            method=chosen,
            audit=audited,
        )

    def as_dict(self) -> dict[str, Any]:
        """In plain values."""
        found = {**asdict(self), "verify": self.verify.given}
        method = found.pop("method")
        found.pop("audit")
        if method is None:
            return found
        return {**found, "method": str(self.method), "audit": self.audit.as_dict()}

    def budget(self, model: Loaded) -> Budget:
        """What a sweep on a model may use."""
        return budget_of(model, self.memory, self.verify.most)

    def planned(self, model: Loaded) -> Budget:
        """The same for the plan, which knows of the copy of the model that is made for it."""
        budget = self.budget(model)
        if self.screen is not None:
            return replace(budget, copied=_bytes_in(dtype_of(self.screen.dtype), model))
        return budget if self.method is None else widened_for(model, budget)


def widened_for(model: Loaded, budget: Budget) -> Budget:
    """A budget for gradients: in float32 at least, on a copy of a model in half precision."""
    if model.dtype in ENOUGH:
        return budget
    copied = _bytes_in(torch.float32, model)
    return replace(budget, itemsize=torch.float32.itemsize, copied=copied)


def _bytes_in(dtype: torch.dtype, model: Loaded) -> int:
    """What the numbers of a model take in a type."""
    numbers = sum(own.numel() for own in model.hf.parameters())
    size: int = dtype.itemsize * numbers
    return size


def budget_of(model: Loaded, memory: int | None = None, verified: int = 0) -> Budget:
    """What a sweep on this model may use."""
    kind = model.device.type
    kind = kind if kind in TILES else "cuda"
    return Budget(
        memory=DEFAULT_MEMORY if memory is None else memory,
        tile=TILES[kind],
        itemsize=model.itemsize,
        reading=READING[kind],
        beside=BESIDE[kind],
        host=memory_left(),
        shared=kind == "cpu",
        verified=verified,
    )
