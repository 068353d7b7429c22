"""The largest effects of a sweep, as the command line shows them."""

from __future__ import annotations

from rich.markup import escape

from microtome.frontends.shown import out, print_table
from microtome.report.cells import comparable, told
from microtome.results.effects import Effects
from microtome.results.over_prompts import largest

NARROW = ("clean", "edited", "significant")
"""Columns of `Effects.top` that are left out of many prompts, for those that are more."""


def print_effects(effects: Effects, metric: str, n: int = 10) -> None:
    """The largest effects: of many prompts their means, and what is sure of them."""
    shown = comparable(effects)
    several = effects.data.sizes["prompt"] > 1
    which = "Largest mean effects" if several else "Strongest effects"
    out.print(f"\n[bold]{which} on {escape(metric)}[/bold]")
    hidden = ["text", *(NARROW if several else [])]
    frame = shown.table(metric) if several else shown.top(n, metric)
    print_table(largest(frame, n).drop(columns=hidden, errors="ignore"))
    if several:
        for sentence in told(shown, metric, frame):
            out.print(sentence, highlight=False, markup=False)
    elif effects.n_unchanged:
        out.print(f"\nIn {effects.n_unchanged:,} cells nothing changed: their effect is exactly 0.")
