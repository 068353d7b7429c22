"""The report of attention patterns."""

from __future__ import annotations

from typing import Any

from microtome.figures.view import visible_line
from microtome.report.document import Document, Picture, Section
from microtome.report.reading import MOST_PROMPTS, PROMPTS, again, token_rows
from microtome.verbs.attention import Attention

METHOD = (
    "Each small map is a head: from which token (down) it looks to which (right). Weights "
    "say where a head looks and not how much it moves: the second map has each weight times the "
    "norm of what is moved, the value through W_O."
)


def document_of_attention(seen: Attention) -> Document:
    """Both grids of the first prompts."""
    address = seen.provenance["spec"]["address"]
    n = min(MOST_PROMPTS, len(seen.encoded))
    return Document(
        title=f"Attention at {address}, on {seen.provenance['model']['name']}",
        question="Where does each head look, and how much does it move?",
        method=METHOD,
        sections=tuple(_section(seen, prompt) for prompt in range(n)),
        snippets=again(seen.provenance, f"mt.attention(model, prompts, {address!r}).grid()"),
        provenance=seen.provenance,
        tokens=token_rows(seen.encoded),
        n_prompts=len(seen.encoded),
    )


def summary_of_attention(seen: Attention) -> dict[str, Any]:
    """How spread out each head's look at the last token is, for ``summary.json``."""
    found = []
    for prompt, one in enumerate(seen.encoded):
        last = seen.data["entropy"].isel(prompt=prompt, q_pos=len(one.tokens) - 1)
        found.append({"text": one.tokens.text, "entropy_at_last": last.values})
    return {"model": seen.provenance["model"], "spec": seen.provenance["spec"], PROMPTS: found}


def _section(seen: Attention, prompt: int) -> Section:
    caption = "Hover over a cell for the head and its two tokens."
    return Section(
        visible_line(seen.encoded[prompt].tokens.text),
        pictures=(
            Picture(f"pattern-{prompt}", seen.grid(prompt), caption),
            Picture(f"weighted-{prompt}", seen.grid(prompt, "weighted"), caption),
        ),
    )
