"""``microtome sweep``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from microtome import Aggregates, Effects
from microtome.errors import MicrotomeError
from microtome.figures.pictures import check_picture, is_picture, write
from microtome.figures.view import cut
from microtome.frontends.arguments import Asking, Shown
from microtome.frontends.commands.asking import experiment_of
from microtome.frontends.commands.keeping import answering, writing_to
from microtome.frontends.commands.strongest import NARROW, TOP, print_effects
from microtome.frontends.looks import Answering
from microtome.frontends.shown import Table, print_json, print_table, say, tell
from microtome.report.method import with_delta
from microtome.report.of_aggregates import summary_of_aggregates
from microtome.report.of_sweep import summary_of_sweep


def sweep(question: Asking, how: Answering, shown: Shown) -> None:
    """Run the sweep; leave its folder, or the picture that was asked for."""
    picture = how.output if how.output is not None and is_picture(how.output) else None
    if picture is not None:
        check_picture(picture, how.overwrite)
    experiment = experiment_of(
        question,
        verify=how.verify,
        screen=how.screen,
        refine=how.refine,
        method=how.method,
        audit=how.audit,
        seed=how.seed,
        window=how.window,
        keep=how.keep,
        workers=how.workers,
        out=None if picture is not None else how.output,
    )
    out = experiment.out
    if picture is None and out is None:
        raise MicrotomeError("Say where map and report go: -o DIR.")
    if picture is not None and out is not None:
        experiment = experiment.model_copy(update={"out": None})
        out = None
    with answering(shown), contextlib.nullcontext() if out is None else writing_to(out):
        found = experiment.run(overwrite=how.overwrite)
        if isinstance(found, Aggregates):
            _show_aggregates(found, shown, out, picture)
            return
        effects = found
        if picture is not None:
            metric = _drawn(effects)
            write(effects.figure(metric, **cut(effects, metric)), picture)
    where = {"picture": str(picture)} if out is None else {
        "folder": str(out), "report": str(out / "report.html")
    }  # fmt: skip
    if shown.json:
        print_json({**summary_of_sweep(effects), **where})
    else:
        _print(effects, shown)
        _print_place(out, picture)


def _show_aggregates(
    found: Aggregates, shown: Shown, out: Path | None, picture: Path | None
) -> None:
    """The same of what is known over all prompts."""
    if picture is not None:
        write(found.figure(), picture)
    if shown.json:
        where = {"picture": str(picture)} if out is None else {"folder": str(out)}
        print_json({**summary_of_aggregates(found), **where})
        return
    say(repr(found))
    say()
    say(heading=f"Largest mean effects on {found.metrics[0]}")
    print_table(Table.of(found.top(TOP).drop(columns=[*NARROW])))
    tell(f"{found.over_prompts()}.")
    _print_place(out, picture)


def _drawn(effects: Effects) -> str:
    found = with_delta(effects)
    if not found:
        raise MicrotomeError("Token ids have no effect to draw: measure another metric too.")
    return found[0]


def _print(effects: Effects, shown: Shown) -> None:
    if not shown.quiet:
        say(repr(effects))
    for first in with_delta(effects)[:1]:
        say()
        print_effects(effects, first, shown.quiet)


def _print_place(out: Path | None, picture: Path | None) -> None:
    say()
    if out is not None:
        say(f"Report: {out / 'report.html'}")
    else:
        say(f"Picture: {picture} (nothing else is kept; -o DIR keeps the numbers and a report)")
