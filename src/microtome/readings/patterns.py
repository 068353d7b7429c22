"""Numbers read off attention weights: where a head looks, and how spread out its look is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

Pattern = Float[Tensor, "head q_pos k_pos"]


def entropy(pattern: Float[Tensor, "*n q_pos k_pos"]) -> Float[Tensor, "*n q_pos"]:
    """The entropy of each query's weights, in nats: 0 where it attends to one token."""
    found: Tensor = torch.special.entr(pattern.double()).sum(-1)
    return found


def weighted(
    pattern: Pattern,
    values: Float[Tensor, "k_pos head d_head"],
    matrix: Float[Tensor, "head d_head d_model"],
) -> Pattern:
    """Weights times the size of what is moved: ``α · ‖v · W_O‖``.

    Kobayashi et al., "Attention is not only a weight: analyzing transformers with vector norms"
    (2020).
    """
    moved = torch.einsum("khd,hdm->hkm", values.double(), matrix.double())
    sizes: Tensor = moved.norm(dim=-1)
    return pattern.double() * sizes[:, None]


@dataclass(frozen=True)
class Repeated:
    """A row of tokens that stands twice, ``before`` tokens after the text's beginning."""

    before: int
    length: int

    @property
    def again(self) -> Tensor:
        """Positions of the second row."""
        return torch.arange(self.before + self.length, self.before + 2 * self.length, device="cpu")


@dataclass(frozen=True)
class Score:
    """A number per head, read off a text in which a row of random tokens stands twice.

    Attributes:
        about: what it is, in words.
        measure: the head's weights, and where the rows are → one number per head, 0 to 1.
    """

    name: str
    about: str
    measure: Callable[[Pattern, Repeated], Float[Tensor, " head"]]


def _at(pattern: Pattern, queries: Tensor, keys: Tensor) -> Float[Tensor, " head"]:
    found = pattern[:, queries.to(pattern.device), keys.to(pattern.device)]
    return found.double().mean(-1)


def _previous(pattern: Pattern, where: Repeated) -> Tensor:
    queries = torch.arange(where.before + 1, where.before + 2 * where.length, device="cpu")
    return _at(pattern, queries, queries - 1)


def _first(pattern: Pattern, where: Repeated) -> Tensor:
    queries = torch.arange(1, where.before + 2 * where.length, device="cpu")
    return _at(pattern, queries, torch.zeros_like(queries))


SCORES: Mapping[str, Score] = MappingProxyType(
    {
        one.name: one
        for one in (
            Score("previous_token", "mean weight of the token before", _previous),
            Score("duplicate_token", "in the second row, mean weight of the same one in the first",
                  lambda pattern, at: _at(pattern, at.again, at.again - at.length)),
            Score("induction", "in the second row, mean weight of the token behind the same one in "
                  "the first",
                  lambda pattern, at: _at(pattern, at.again, at.again - at.length + 1)),
            Score("first_token", "mean weight of the text's first token", _first),
        )
    }
)  # fmt: skip
"""Name → score. Induction as in Olsson et al., "In-context learning and induction heads" (2022)."""
