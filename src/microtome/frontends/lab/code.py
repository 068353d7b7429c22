"""Code for a view: Python, a command and a file that give the numbers which the page shows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microtome.circuits import Circuit
from microtome.edits import as_edits
from microtome.frontends.experiment import CircuitExperiment
from microtome.frontends.experiment.running import Edited, Ran
from microtome.frontends.experiment.writing import Written
from microtome.frontends.lab.answers.pinned import circuit_of
from microtome.frontends.lab.answers.upstream import edits_into, why_no_patch
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.sides import other_of
from microtome.frontends.lab.state import View
from microtome.plan.question import Question
from microtome.report import spelling
from microtome.report.code import run_in_python, sweep_in_python, sweep_in_shell, sweep_in_yaml
from microtome.verbs.asking import asking
from microtome.verbs.record import asked

if TYPE_CHECKING:
    from microtome import Model

Models = Callable[[str], "Model"]
"""A loaded model, by its name."""

Record = dict[str, Any]

ALONE = ("patch", "zero")
"""What edges outside carry where there is one prompt: a mean over it would be its own."""

CIRCUIT = "circuit.json"
"""The file that the command about a circuit reads."""


@dataclass(frozen=True)
class Code:
    """Something that a page shows, as code.

    Attributes:
        about: what it is of, such as the edits; plain text.
        python: Python.
        shell: a command; None where the command line cannot say it.
        yaml: a file for ``--config``; None where no file can say it.
    """

    about: str
    python: str
    shell: str | None = None
    yaml: str | None = None


def parts(view: View) -> tuple[str, ...]:
    """What of a view there is code for, as keys of `codes`.

    >>> parts(View(text="Berlin is"))
    ('map',)
    >>> parts(View(text="Berlin is", chosen=("zero L1.z.h2@-1",), reader="logits"))
    ('map', 'cells', 'run', 'trace', 'writing')
    """
    there = {
        "map": True,
        "cells": view.chosen,
        "run": view.chosen,
        "trace": view.reader,
        "circuit": view.pins,
        "comparison": view.against,
        "writing": view.chosen,
    }
    return tuple(part for part, given in there.items() if given and view.text)


def codes(part: str, view: View, models: Models) -> tuple[Code, ...]:
    """The code for a part of a view; several pieces where it takes several sweeps.

    Args:
        part: one of `parts`.
        view: what the page shows.
        models: what has the models that the view names.

    Raises:
        MicrotomeError: the view names what is not there, as running it would say.
    """
    return tuple(_MADE[part](view, models))


# ------------------------------------------------------------------------------------------ sweeps


def _question(view: View, edits: Sequence[str], models: Models, measures: bool = True) -> Question:
    """What is asked of a model.

    Args:
        view: what the page shows.
        edits: of a cell.
        models: by name.
        measures: whether the metric is measured, so that the prompt has to have what it is of.
    """
    model, prompt = models(view.model), prompt_of(view)
    return asking(model, prompt, edits, metrics=view.measured, to_run=measures)


def _record(view: View, edits: Sequence[str], models: Models, measures: bool = True) -> Record:
    """What the result of a sweep would say of its question; see `_question`."""
    return asked(models(view.model), _question(view, edits, models, measures))


def _edited(record: Record) -> str:
    return "; ".join(record["spec"]["edits"])


def _sweep(record: Record) -> Code:
    return Code(
        _edited(record),
        sweep_in_python(record),
        sweep_in_shell(record),
        sweep_in_yaml(record),
    )


def _map(view: View, models: Models) -> Iterator[Code]:
    yield _sweep(_record(view, [view.edit], models))


def _cells(view: View, models: Models) -> Iterator[Code]:
    """All cells together, as a map of one cell."""
    yield _sweep(_record(view, view.chosen, models))


def _run(view: View, models: Models) -> Iterator[Code]:
    """The run of all cells together: tokens and receipts."""
    record = _record(view, view.chosen, models, measures=False)
    edits = as_edits(view.chosen)
    command = _command("run", record, (), ("donor",), _edits(view))
    file = _file(
        record, "microtome run --config run.yaml", Ran,
        prompts=prompt_of(view), edits=view.chosen,
    )  # fmt: skip
    yield Code("; ".join(view.chosen), run_in_python(record, edits), command, file)


def _comparison(view: View, models: Models) -> Iterator[Code]:
    """The other side; and both with their difference, where their cells are the same."""
    there = other_of(view)
    assert there is not None, "asked for only where there is another side"
    own, other = (_question(one, [one.edit], models) for one in (view, there))
    one, two = asked(models(view.model), own), asked(models(there.model), other)
    yield _sweep(two)
    if own.ranges != other.ranges:
        return
    yield Code(
        f"{_edited(two)} − {_edited(one)}",
        "\n".join(
            [
                sweep_in_python(one),
                "one = effects",
                "",
                sweep_in_python(two).partition("\n\n")[2],
                f"metric = {spelling.quoted(one['spec']['metrics'][0])}",
                "difference = effects.delta(metric) - one.delta(metric)",
            ]
        ),
    )


def _trace(view: View, models: Models) -> Iterator[Code]:
    """Every edge into what is traced, writers of one kind a sweep."""
    for edit in edits_into(models(view.model), prompt_of(view), view.reader, view.way):
        yield _sweep(_record(view, [edit], models))


# ------------------------------------------------------------------------------ circuit and text


def _circuit(view: View, models: Models) -> Iterator[Code]:
    """How faithful the pinned circuit is to the prompt of the page, by each ablation it allows."""
    record, model = _record(view, [view.edit], models), models(view.model)
    circuit, [encoded] = circuit_of(model, view.pins), model.encode(prompt_of(view))
    for ablation in ("zero",) if why_no_patch(encoded) else ALONE:
        yield _judged(view, circuit, record, ablation)


def _judged(view: View, circuit: Circuit, record: Record, ablation: str) -> Code:
    metric = record["spec"]["metrics"][0]
    python = [
        *spelling.opening(record),
        f"prompts = {spelling.prompts(record['spec']['prompts'])}",
        "circuit = mt.circuits.Circuit.of(model, [",
        *(f"{spelling.TAB}{spelling.quoted(edge)}," for edge in circuit),
        "])",
        "found = mt.circuits.faithfulness(",
        f'    model, prompts, circuit, {spelling.quoted(metric)}, ablation="{ablation}"',
        ")",
        'print(found["faithfulness"].item())',
    ]
    command = _command(
        "circuit evaluate", record, ("dtype",), spelling.ANSWERED,
        f"{CIRCUIT} --ablation {ablation} -m {shlex.quote(metric)}",
    )  # fmt: skip
    file = _file(
        record, "microtome circuit run --config circuit.yaml -o out", CircuitExperiment,
        prompts=prompt_of(view), metric=metric, ablation=ablation, circuit=list(circuit),
    )  # fmt: skip
    return Code(
        f"{ablation}; {', '.join(view.pins)}",
        "\n".join(python),
        command and spelling.file(CIRCUIT, [_form(circuit)]) + command,
        file,
    )


def _form(circuit: Circuit) -> Record:
    """What a file of a circuit has to say: its edges, and the model's sizes."""
    within = {"in_graph": True}
    return {
        "cfg": circuit.graph.cfg,
        "nodes": dict.fromkeys(circuit.nodes, within),
        "edges": dict.fromkeys(circuit, within),
    }


def _writing(view: View, models: Models) -> Iterator[Code]:
    """What is written under the chosen cells, greedily, and without them."""
    record = _record(view, view.chosen, models, measures=False)
    edits = ", ".join(map(spelling.edit, as_edits(view.chosen)))
    python = [
        *spelling.opening(record),
        f"prompt = {spelling.prompt(record['spec']['prompts'][0])}",
        f"made = model.generate(prompt, [{edits}], steps={view.steps}, do_sample=False)",
        f"plain = model.generate(prompt, steps={view.steps}, do_sample=False)",
        "print(made[0].text)",
        "print(plain[0].text)",
    ]
    command = _command(
        "generate", record, ("dtype",), ("donor",),
        f"{_edits(view)} --steps {view.steps} --greedy",
    )  # fmt: skip
    file = _file(
        record, "microtome generate --config writing.yaml", Written,
        prompts=prompt_of(view), edits=view.chosen, steps=view.steps,
        settings={"do_sample": False},
    )  # fmt: skip
    yield Code("; ".join(view.chosen), "\n".join(python), command, file)


def _file(
    record: Record,
    command: str,
    form: Callable[..., Edited | CircuitExperiment],
    **fields: Any,
) -> str | None:
    """A file, under the command that it is for; None where none can say how the model was loaded.

    Args:
        record: of the question.
        command: as it is typed.
        form: what the file holds.
        **fields: of it, besides the model.
    """
    if not spelling.is_sayable(record):
        return None
    file = form(model=spelling.loaded(record), **fields)
    return f"# {command}\n" + file.to_yaml().rstrip("\n")


def _command(
    name: str, record: Record, loading: Sequence[str], fields: Sequence[str], more: str
) -> str | None:
    """A command about the prompt of a record.

    Args:
        name: the command's.
        record: of the question.
        loading: the options that it takes of how a model is loaded.
        fields: those that it takes of a prompt.
        more: its other words.
    """
    given = spelling.options(record["spec"]["prompts"][0], fields)
    if given is None or not spelling.is_sayable(record):
        return None
    return f"microtome {name} {spelling.loading(record, loading)} {more} {given}"


def _edits(view: View) -> str:
    return " ".join(f"-e {shlex.quote(edit)}" for edit in view.chosen)


_MADE: Mapping[str, Callable[[View, Models], Iterator[Code]]] = {
    "map": _map,
    "cells": _cells,
    "run": _run,
    "trace": _trace,
    "circuit": _circuit,
    "comparison": _comparison,
    "writing": _writing,
}
