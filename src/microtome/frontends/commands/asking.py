"""From options to an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microtome import Experiment, Prompt, Prompts
from microtome.errors import MicrotomeError
from microtome.frontends.arguments import Asking
from microtome.frontends.experiment.options import asked, checkpoint, values_of
from microtome.tasks import named_by


def experiment_of(question: Asking, **more: Any) -> Experiment:
    """The experiment that options, and perhaps a file, describe.

    Args:
        question: the options that `sweep` and `plan` share.
        **more: other fields; None is not given.
    """
    return asked(question.config, {**fields_of(question), **more})


def fields_of(question: Asking) -> dict[str, Any]:
    """The fields that options describe; what is None or empty is not given."""
    q = question
    return {
        "model": checkpoint(q.model, q.dtype, q.revision, q.device, q.attention),
        "prompts": _prompts(question),
        "edits": q.edit,
        "metrics": q.metric or (None if q.config else ["prob"]),
        "over": values_of(q.over),
        "reference": Prompts.read(q.reference) if q.reference else None,
        "engine": q.engine,
        "memory": q.memory,
    }


def prompts_in(file: Path) -> Prompts | dict[str, Any]:
    """The prompts of a file; or of the task that the option names, as an experiment has them."""
    asked = named_by(file)
    return Prompts.read(file) if asked is None else as_task(asked)


def as_task(asked: tuple[str, int]) -> dict[str, Any]:
    """A task and how many prompts of it, as an experiment has them."""
    name, n = asked
    return {"task": {"name": name, "n": n}}


def _prompts(question: Asking) -> Prompts | dict[str, Any] | None:
    """The prompts of the options; None where a file of the experiment names its own."""
    texts, file, donor = question.prompt, question.prompts, question.donor
    expected = question.expected
    if question.config is not None and not any((texts, file, expected, donor)):
        return None
    if bool(texts) == (file is not None):
        raise MicrotomeError("Give the prompt with -p TEXT, or several with --prompts FILE.")
    if file is None:
        return Prompts(Prompt(text, donor=donor, **expected) for text in texts)
    if donor is not None or expected:
        raise MicrotomeError(
            "With --prompts, target, contrast and donor stand in the file, one for each prompt."
        )
    return prompts_in(file)
