"""``microtome trace``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from microtome import Prompts, tasks
from microtome.errors import MicrotomeError, listing
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.reading import (
    asked_of,
    deliver,
    placed,
    placed_by,
    prompts_given,
    say_place,
)
from microtome.frontends.experiment.reading import ReadTraces
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report.of_tracing import document_of_traces, largest, summary_of_traces


def trace(
    read: Read, shown: Shown, subject: str | None, task: str | None, given: Mapping[str, Any]
) -> None:
    """Show the largest average effects; write maps and report."""
    asked = asked_of(ReadTraces, read, facts_of(read, subject, task), given)
    read = placed_by(read, asked)
    with answering(shown):
        traces = asked.run(tell=(lambda line: None) if shown.quiet else _tell)
        deliver(
            read,
            lambda: traces.figure(asked.kinds[0], 0 if len(traces.encoded) == 1 else None),
            lambda: document_of_traces(traces),
            summary_of_traces(traces),
        )
    if shown.json:
        print_json({**summary_of_traces(traces), **placed(read)})
        return
    say(repr(traces).strip("<>"))
    print_table(Table.of(largest(traces)))
    say_place(read)


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
        if given is None:
            raise MicrotomeError("--subject is of the prompts that -p or --prompts give.")
        return Prompts(replace(one, roles={**one.roles, "subject": subject}) for one in given)
    name, _, n = task.partition(":")
    if name not in tasks.TASKS or not (n or "16").isdigit():
        raise MicrotomeError(
            f"--task takes a task and how many prompts, such as capitals:4, not {task!r}; tasks: "
            f"{listing(tasks.TASKS)}."
        )
    if read.prompt or read.prompts is not None:
        raise MicrotomeError("--task brings its own prompts: leave -p and --prompts out.")
    return {"task": {"name": name, "n": int(n or 16)}}
