"""``microtome trace``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from microtome import Prompts, Traces, tasks
from microtome.errors import MicrotomeError, listing
from microtome.figures.pictures import is_picture, write
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.asking import as_task
from microtome.frontends.commands.keeping import answering, keeping
from microtome.frontends.commands.reading import (
    asked_of,
    placed,
    placed_by,
    prompts_given,
    say_place,
)
from microtome.frontends.experiment.reading import ReadTraces
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report import Folder
from microtome.report.of_tracing import document_of_traces, largest, summary_of_traces


def trace(
    read: Read, shown: Shown, subject: str | None, task: str | None, given: Mapping[str, Any]
) -> None:
    """Show the largest average effects; write maps and report."""
    asked = asked_of(ReadTraces, read, facts_of(read, subject, task), given)
    read = placed_by(read, asked, asked.kinds)
    place = None if read.output is None or is_picture(read.output) else read.output
    own = nullcontext() if place is None else Folder(place)
    with answering(shown), keeping(place, option="-o"), own as folder:
        traces = asked.run(
            tell=(lambda line: None) if shown.quiet else _tell,
            out=None if folder is None else folder.several,
            overwrite=read.overwrite,
        )
        if folder is None:
            _draw(traces, asked, read)
        else:
            folder.begin()
            folder.kept_besides(traces.maps)
            folder.finish(lambda: document_of_traces(traces), summary_of_traces(traces))
    if shown.json:
        print_json({**summary_of_traces(traces), **placed(read)})
        return
    say(repr(traces).strip("<>"))
    print_table(Table.of(largest(traces)))
    say_place(read)


def _draw(traces: Traces, asked: ReadTraces, read: Read) -> None:
    """The picture that was asked for, if any."""
    if read.output is not None:
        fact = 0 if len(traces.encoded) == 1 else None
        write(traces.figure(asked.kinds[0], fact), read.output)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def facts_of(
    read: Read, subject: str | None, task: str | None
) -> Prompts | dict[str, dict[str, Any]] | None:
    """The prompts of the options, or a task's as an experiment names them; None: a file's own.

    Raises:
        MicrotomeError: there is no such task, or both are given.
    """
    if task is None:
        given = prompts_given(read)
        if subject is None:
            return given
        if not isinstance(given, Prompts):
            raise MicrotomeError("--subject is of the prompts that -p or --prompts give.")
        return Prompts(replace(one, roles={**one.roles, "subject": subject}) for one in given)
    asked = tasks.named(task)
    if asked is None:
        raise MicrotomeError(
            f"--task takes a task and how many prompts, such as capitals:4, not {task!r}; tasks: "
            f"{listing(tasks.TASKS)}."
        )
    if read.prompt or read.prompts is not None:
        raise MicrotomeError("--task brings its own prompts: leave -p and --prompts out.")
    return as_task(asked)
