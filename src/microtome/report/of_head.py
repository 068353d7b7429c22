"""The report of one head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from microtome.report.cells import visible_tokens
from microtome.report.document import Document, Picture, Section, Table
from microtome.report.reading import again, token_rows
from microtome.texts import visible
from microtome.verbs.head_card import FED, HeadCard

METHOD = (
    "The head's effect is exact: it is taken away (zero), or given what it had in the donor's run "
    "(patch), at all positions, and what follows is measured. What it writes for the answer by "
    "itself is its direct share of the logit, with norms held as they were. Its circuit is what it "
    "makes of single tokens: what it writes where it looks at one. What feeds it is measured edge "
    "by edge, over the first {fed} prompts: what one earlier part writes is changed in what the "
    "head's queries, keys or values alone read."
)
ROWS = 12


def document_of_head(card: HeadCard) -> Document:
    """The card as a page."""
    prompts = card.attention.encoded
    pattern = card.attention.figure(card.layer, card.head)
    spec = card.provenance["spec"]
    asked = ", ".join(f"{name}={spec[name]}" for name in ("k", "tokens", "seed"))
    return Document(
        title=f"What {card.name} does, on {card.provenance['model']['name']}",
        question="What does this head change, write, look at and copy, and what feeds it?",
        method=METHOD.format(fed=min(FED, len(prompts))),
        sections=(
            Section(
                "What it changes and writes",
                (f"It writes {card.share} logits of {card.metric} by itself.",),
                tables=(Table(f"Effects on {card.metric}", card.effects),),
            ),
            Section(
                "Where it looks",
                pictures=(Picture("pattern", pattern, "The first prompt, token to token."),),
                tables=(
                    Table("From the position that is read", card.looks),
                    *_scores(card),
                ),
            ),
            _copies(card),
            _fed(card),
            _neighbours(card),
        ),
        snippets=again(card.provenance, f"mt.head_card(model, {card.name!r}, prompts, {asked})"),
        provenance=card.provenance,
        tokens=token_rows(prompts),
        n_prompts=len(prompts),
        exports={"circuit": _listed(card), "fed": card.fed},
    )


def _scores(card: HeadCard) -> Iterator[Table]:
    if not card.scores.empty:
        yield Table("In rows of random tokens that stand twice", card.scores)


def summary_of_head(card: HeadCard) -> dict[str, Any]:
    """The card's numbers, for ``summary.json``."""
    return {
        "model": card.provenance["model"],
        "spec": card.provenance["spec"],
        "share": vars(card.share),
        "effects": card.effects.to_dict(orient="records"),
        "looks": card.looks.to_dict(orient="records"),
        "scores": card.scores.to_dict(orient="records"),
        "copying": vars(card.circuit.copying),
        "matching": vars(card.circuit.matching),
        "fed": card.fed.to_dict(orient="records"),
        "neighbours": card.neighbours.to_dict(orient="records"),
    }


def _copies(card: HeadCard) -> Section:
    circuit = card.circuit
    said = (
        f"Of single tokens it writes {circuit.copying} again, among the first {circuit.top} of the "
        f"whole vocabulary; its queries fit the same token's key for {circuit.matching}."
    )
    title = "Tokens that it copies best"
    return Section(
        "What it copies", (said,), tables=(Table(title, visible_tokens(_listed(card).head(ROWS))),)
    )


def _fed(card: HeadCard) -> Section:
    if card.not_fed:
        return Section("What feeds it", (card.not_fed,))
    return Section("What feeds it", tables=(Table(f"Edges, effect on {card.metric}", card.fed),))


def _neighbours(card: HeadCard) -> Section:
    title = "Neighbours in behaviour"
    if card.neighbours.empty:
        return Section(title, ("Over fewer than three prompts nothing can be correlated.",))
    said = (
        "Heads whose effects, each by itself, go up and down with this one's from prompt to prompt "
        "(Pearson's correlation); negative, one goes down where the other goes up."
    )
    return Section(title, (said,), tables=(Table("The most alike", card.neighbours),))


def _listed(card: HeadCard) -> Any:
    """The circuit's rows, the best copied first, with lists as texts."""
    frame = card.circuit.table.sort_values("rank", kind="stable").reset_index(drop=True)
    for name in ("writes", "looks_at"):
        frame[name] = [" ".join(map(visible, row)) for row in frame[name]]
    return frame
