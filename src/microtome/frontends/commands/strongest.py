"""The largest effects of a sweep, as the command line shows them."""

from __future__ import annotations

from microtome.amounts import many
from microtome.frontends.shown import Table, print_table, say, tell
from microtome.report.cells import comparable, told
from microtome.report.groups import by_groups
from microtome.report.method import approximated
from microtome.results.effects import Effects
from microtome.results.over_prompts import largest

TOP = 10
NARROW = ("clean", "edited", "significant")
"""Columns of `Effects.top` that are left out of many prompts, for those that are more."""


def print_effects(effects: Effects, metric: str, quiet: bool = False) -> None:
    """The largest effects: of many prompts their means, and what is sure of them."""
    shown = comparable(effects)
    several = effects.data.sizes["prompt"] > 1
    about = ", approximate" if effects.provenance.get("audit") else ""
    say(heading=f"{'Largest mean' if several else 'Strongest'} effects on {metric}{about}")
    hidden = ["text", *(NARROW if several else [])]
    frame = shown.table(metric) if several else shown.top(TOP, metric)
    print_table(Table.of(largest(frame, TOP).drop(columns=hidden, errors="ignore")))
    if quiet:
        return
    for sentence in approximated(effects):
        tell(sentence)
    if several:
        for sentence in told(shown, metric, frame):
            tell(sentence)
        for name, table in by_groups(shown, metric, frame, TOP):
            say()
            say(heading=f"The same by {name}")
            print_table(Table.of(table.frame))
    elif effects.n_unchanged:
        which = many(effects.n_unchanged, "cell")
        whose = "its" if effects.n_unchanged == 1 else "their"
        say(f"\nIn {which} nothing changed: {whose} effect is exactly 0.")
