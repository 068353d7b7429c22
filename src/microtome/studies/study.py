"""What a study is: a published experiment with its claims, each measured and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from microtome.effects import Effects
from microtome.model.model import Model
from microtome.prompts import Prompt
from microtome.report import Finding, Section


class Measured(NamedTuple):
    """A claim held against data: the measured value in words, and whether the claim holds."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Claim:
    """What the published experiment reports.

    Attributes:
        text: the claim.
        rule: when it counts as holding, in words.
        anywhere: it can be judged on any model and prompt. A claim that is not is judged only
            where it was made; elsewhere its measured value is shown without a verdict.
    """

    text: str
    rule: str
    anywhere: bool = False

    def judge(self, measured: Measured, comparable: bool) -> Finding:
        """The claim with what was measured, and the verdict if there can be one."""
        verdict = "not comparable on this model"
        if comparable or self.anywhere:
            verdict = "holds" if measured.holds else "does not hold"
        return Finding(self.text, measured.text, verdict, self.rule)


@dataclass(frozen=True)
class Performance:
    """What a study did on one model.

    Attributes:
        effects: its sweeps, by name.
        sections: text, figures and tables of the report, in order.
        measured: every claim with what was measured, in the order of the claims.
        numbers: what the summary keeps.
    """

    effects: Mapping[str, Effects]
    sections: tuple[Section, ...]
    measured: tuple[tuple[Claim, Measured], ...]
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A published experiment as one command.

    Attributes:
        name: how the command line calls it.
        title: of its report.
        question: what it asks, in plain words.
        method: how, in a few sentences.
        published_on: the checkpoint of the published experiment, its default model.
        cells: how many cells it has there, in words.
        prompt: as published.
        perform: runs it on a model with a prompt.
    """

    name: str
    title: str
    question: str
    method: str
    published_on: str
    cells: str
    prompt: Prompt
    perform: Callable[[Model, Prompt], Performance]

    def comparable(self, model: Model, prompt: Prompt) -> bool:
        """Whether this is the published checkpoint and prompt, so that claims can be judged.

        A local directory has the hub id's name at most by coincidence, so it does not count.
        """
        published = {self.published_on, f"openai-community/{self.published_on}"}
        return (
            model.name in published
            and not Path(model.name).is_dir()
            and prompt.as_dict() == self.prompt.as_dict()
        )
