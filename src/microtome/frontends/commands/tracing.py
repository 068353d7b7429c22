"""``microtome trace``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from microtome import Model, Prompts, tasks, trace_facts
from microtome.errors import MicrotomeError, listing
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.reading import (
    check_output,
    deliver,
    model_of,
    placed,
    prompts_of,
    say_place,
)
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report.of_tracing import document_of_traces, largest, summary_of_traces
from microtome.verbs.tracing import KINDS


def trace(
    read: Read,
    shown: Shown,
    subject: str | None,
    task: str | None,
    kind: Sequence[str],
    asked: Mapping[str, Any],
) -> None:
    """Show the largest average effects; write maps and report."""
    check_output(read)
    kinds = list(kind) or list(KINDS)
    with answering(shown):
        model = model_of(read)
        facts = facts_of(read, model, subject, task)
        told = (lambda line: None) if shown.quiet else _tell
        traces = trace_facts(model, facts, kinds=kinds, tell=told, **asked)
        deliver(
            read,
            lambda: traces.figure(kinds[0], 0 if len(facts) == 1 else None),
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


def facts_of(read: Read, model: Model, subject: str | None, task: str | None) -> Prompts:
    """The prompts of the options, or of a task in the model's tokens.

    Raises:
        MicrotomeError: there is no such task, or both are given.
    """
    if task is None:
        given = prompts_of(read)
        if subject is None:
            return given
        return Prompts(replace(one, roles={**one.roles, "subject": subject}) for one in given)
    name, _, n = task.partition(":")
    if name not in tasks.TASKS or not (n or "16").isdigit():
        raise MicrotomeError(
            f"--task takes a task and how many prompts, such as capitals:4, not {task!r}; tasks: "
            f"{listing(tasks.TASKS)}."
        )
    if read.prompt or read.prompts is not None:
        raise MicrotomeError("--task brings its own prompts: leave -p and --prompts out.")
    return tasks.TASKS[name](int(n or 16), tokenizer=model.tokenizer)
