"""``microtome head``."""

from __future__ import annotations

from microtome import head_card
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.reading import check_output, deliver, model_of, placed, say_place
from microtome.frontends.commands.tracing import facts_of
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report.of_head import document_of_head, summary_of_head


def head(name: str, read: Read, shown: Shown, task: str | None, top: int, tokens: int) -> None:
    """Show the card of one head."""
    check_output(read)
    with answering(shown):
        model = model_of(read)
        card = head_card(model, name, facts_of(read, model, None, task), k=top, tokens=tokens)
        deliver(
            read,
            lambda: card.attention.figure(card.layer, card.head),
            lambda: document_of_head(card),
            summary_of_head(card),
        )
    if shown.json:
        print_json({**summary_of_head(card), **placed(read)})
        return
    say(f"{card.name} over {len(card.attention.encoded)} prompts")
    print_table(Table.of(card.effects, names=("edit",)))
    say(f"It writes {card.share} logits of {card.metric} by itself.")
    say()
    print_table(Table.of(card.looks, names=("at",)))
    say()
    print_table(Table.of(card.scores))
    say(f"It copies {card.circuit.copying} of tokens, and matches {card.circuit.matching}.")
    say()
    if card.not_fed:
        say(card.not_fed)
    else:
        print_table(Table.of(card.fed, names=("writer",)))
    say_place(read)
