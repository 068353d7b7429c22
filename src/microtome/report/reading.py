"""What the reports of readings share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microtome.prompts.encoding import Encoded
from microtome.report import spelling
from microtome.report.document import Snippet, TokenRow

MOST_PROMPTS = 3
"""How many prompts are shown one by one."""
PROMPTS = "prompts"
"""What a summary has for each of them."""


def token_rows(encoded: Sequence[Encoded]) -> tuple[TokenRow, ...]:
    """The first prompts, token by token."""
    return tuple(TokenRow("recipient", one.tokens.pieces) for one in encoded[:MOST_PROMPTS])


def again(record: Mapping[str, Any], call: str) -> tuple[Snippet, ...]:
    """Python that repeats a reading.

    Args:
        record: its provenance.
        call: what is asked of ``model`` and ``prompts``.
    """
    prompts = f"prompts = {spelling.prompts(record['spec']['prompts'])}"
    return (Snippet("In Python", "\n".join([*spelling.opening(record), prompts, call])),)
