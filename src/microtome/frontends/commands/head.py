"""``microtome head``."""

from __future__ import annotations

from microtome.amounts import many
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.reading import (
    asked_of,
    deliver,
    placed,
    placed_by,
    say_place,
)
from microtome.frontends.commands.tracing import facts_of
from microtome.frontends.experiment.reading import ReadHead
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report.of_head import document_of_head, summary_of_head


def head(
    name: str | None,
    read: Read,
    shown: Shown,
    task: str | None,
    top: int | None,
    tokens: int | None,
) -> None:
    """Show the card of one head."""
    given = {"head": name, "k": top, "tokens": tokens}
    asked = asked_of(ReadHead, read, facts_of(read, None, task), given)
    read = placed_by(read, asked)
    with answering(shown):
        card = asked.run()
        deliver(
            read,
            lambda: card.attention.figure(card.layer, card.head),
            lambda: document_of_head(card),
            summary_of_head(card),
        )
    if shown.json:
        print_json({**summary_of_head(card), **placed(read)})
        return
    say(f"{card.name} over {many(len(card.attention.encoded), 'prompt')}")
    print_table(Table.of(card.effects, names=("edit",)))
    say(f"It writes {card.share} logits of {card.metric} by itself.")
    say()
    print_table(Table.of(card.looks, names=("at",)))
    if len(card.scores):
        say()
        print_table(Table.of(card.scores))
    say(f"It copies {card.circuit.copying} of tokens, and matches {card.circuit.matching}.")
    say()
    if card.not_fed:
        say(card.not_fed)
    else:
        print_table(Table.of(card.fed, names=("writer",)))
    if len(card.neighbours):
        say()
        print_table(Table.of(card.neighbours, names=("head",)))
    say_place(read)
