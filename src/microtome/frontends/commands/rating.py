"""``microtome card``."""

from __future__ import annotations

from microtome import load
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.shown import Table, print_json, print_table, say


def rate(model: str, n: int, seed: int, dtype: str | None, shown: Shown) -> None:
    """Show what a model can do of the tasks."""
    with answering(shown):
        card = load(model, dtype=dtype).card(n, seed)
    if shown.json:
        print_json(card.as_dict())
        return
    say(f"{card.model}, {card.dtype}, seed {card.seed}")
    print_table(Table.of(card.table.fillna("")))
