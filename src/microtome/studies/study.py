"""What a study is: a published experiment with its claims, each measured and judged.

A study says what is swept (`Study.sweeps`), what is looked at besides (`Study.observe`), how each
claim is measured on the data (`Claim.measure`), and what its report shows (`Study.sections`). Its
texts stand in ``texts/<name>.yaml``. Running, judging, many prompts, languages and files are the
framework's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import xarray as xr

from microtome.edits import Edit
from microtome.figures.view import visible_line
from microtome.language.sites import Dimensions
from microtome.model.published import is_published
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.report import Section
from microtome.results.effects import Effects
from microtome.studies.parameters import Parameters
from microtome.texts import Texts, catalogue, visible
from microtome.verbs.model import Model

P = TypeVar("P", bound=Parameters)
Labelled = xr.DataArray | xr.Dataset
PROMPT = "prompt"
CELLS = "cells"
"""What is observed under this name is how many cells were walked besides the sweeps."""


@dataclass(frozen=True)
class Measured:
    """A claim held against the data of one prompt.

    Attributes:
        holds: whether the claim does, by its rule; None where there is nothing to judge it by, such
            as no early layers in a model of one layer.
        value: the number that decides, or the nearest to it; compared from prompt to prompt.
        words: what the text ``claims.<name>.measured`` is filled with: numbers, `Estimate`\\ s,
            and texts without a language (token texts, ``"3 … 5"``).
        wording: another text under ``claims.<name>`` than ``measured``, where there is nothing to
            fill in.
    """

    holds: bool | None
    value: float
    words: Mapping[str, Any] = field(default_factory=dict)
    wording: str = "measured"


@dataclass(frozen=True)
class Claim(Generic[P]):
    """What the published experiment reports.

    Attributes:
        name: its key: ``claims.<name>`` has ``text`` (the claim), ``rule`` (when it counts as
            holding), ``measured`` and ``value`` (what the deciding number is).
        measure: the data of one prompt → what was measured.
        of_checkpoint: it is about one checkpoint alone, such as "143 of its 144 heads". Elsewhere
            its measured value is shown without a verdict; any other claim is judged on every
            model, by the same rule.
        on: the models that it was published on, where those are not the study's: it is never said
            to hold where it was published, as these are not run here.
    """

    name: str
    measure: Callable[[Data[P]], Measured]
    of_checkpoint: bool = False
    on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """One sweep of a study, as `microtome.sweep` takes it."""

    edits: tuple[Edit | str, ...]
    metrics: tuple[str, ...]
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Data(Generic[P]):
    """What a study has measured, on one prompt or several.

    Attributes:
        model: the model.
        parameters: what the study was told.
        encoded: the prompts, in the model's tokens.
        effects: its sweeps, by name.
        observed: what it looked at besides, by name; ``prompt`` is the first dimension.
    """

    model: Model
    parameters: P
    encoded: tuple[Encoded, ...]
    effects: Mapping[str, Effects]
    observed: Mapping[str, Labelled]

    def of(self, prompt: int) -> Data[P]:
        """The same for one prompt alone."""
        at = {PROMPT: [prompt]}
        return replace(
            self,
            encoded=(self.encoded[prompt],),
            effects={name: Effects(e.data.isel(at)) for name, e in self.effects.items()},
            observed={name: array.isel(at) for name, array in self.observed.items()},
        )

    @property
    def text(self) -> str:
        """The text of the first prompt, on one line, as reports write it."""
        return visible_line(self.encoded[0].prompt.text)

    @property
    def target(self) -> str:
        """The target of the first prompt, with its spaces shown."""
        return visible(str(self.encoded[0].prompt.target))

    @property
    def several(self) -> bool:
        """Whether there is more than one prompt."""
        return len(self.encoded) > 1

    def effect(self, sweep: str, metric: str) -> xr.DataArray:
        """The effects of a sweep on a metric, averaged over the prompts."""
        return self.effects[sweep].delta(metric).mean(PROMPT, keep_attrs=True)

    def edited(self, sweep: str, metric: str) -> xr.DataArray:
        """A metric in the cells of a sweep, averaged over the prompts."""
        return self.effects[sweep].data[metric].mean(PROMPT, keep_attrs=True)

    def clean(self, sweep: str, metric: str) -> float:
        """A metric without edits, averaged over the prompts."""
        return float(self.effects[sweep].clean(metric).mean())

    def array(self, name: str) -> xr.DataArray:
        """What was observed under a name, averaged over the prompts."""
        found = self.observed[name]
        assert isinstance(found, xr.DataArray), f"{name} is a dataset"
        return found.mean(PROMPT, keep_attrs=True)

    def dataset(self, name: str) -> xr.Dataset:
        """The same where several variables were observed together."""
        found = self.observed[name]
        assert isinstance(found, xr.Dataset), f"{name} is an array"
        return found.mean(PROMPT, keep_attrs=True)

    def each(self, sweep: str, metric: str) -> xr.DataArray:
        """A metric in the cells of a sweep, prompt by prompt."""
        return self.effects[sweep].data[metric]


@dataclass(frozen=True)
class Place:
    """Where a study that walks maps of its own keeps them, and who is told.

    Attributes:
        folder: that of its sweeps; None where nothing is kept.
        overwrite: whether maps of other questions may go.
        tell: takes a line.
    """

    folder: Path | None
    overwrite: bool
    tell: Callable[[str], None]


Observe = Callable[[Model, Prompt, Any, Mapping[str, Effects]], Mapping[str, Labelled]]

ObserveAll = Callable[[Model, Prompts, Any, Place], Mapping[str, Labelled]]


def observe_nothing(
    model: Model, prompt: Prompt, parameters: Any, effects: Mapping[str, Effects]
) -> Mapping[str, Labelled]:
    """For a study whose sweeps say it all."""
    return {}


def accept(encoded: Encoded) -> None:
    """For a study that takes any prompt that its sweeps take."""


def presume_nothing(data: Data[Any], texts: Texts) -> tuple[str, ...]:
    """For a study that asks nothing of what the model answers."""
    return ()


def watch_nothing(parameters: Any, dims: Dimensions) -> Mapping[str, Sweep]:
    """For a study that walks nothing but its sweeps."""
    return {}


@dataclass(frozen=True)
class Study(Generic[P]):
    """A published experiment as one command.

    Attributes:
        name: how the command line calls it; its texts are ``texts/<name>.yaml``.
        parameters: what it can be told, with the published values as defaults.
        tokens: the published prompt in GPT-2's tokens, with ``|`` between them: what its cost is
            predicted from.
        donor_tokens: likewise of the donor; empty where there is none.
        sites: where in a block its edits sit, for the drawing.
        key_figure: the picture that stands for it on the index page.
        sweeps: its parameters → its sweeps by name. Pure: nothing is run.
        observe: looks at what no sweep measures, for one prompt: model, prompt, parameters, and
            that prompt's effects → arrays by name, without the dimension ``prompt``.
        observe_all: the same for all prompts together, in the place of `observe`: model, prompts,
            parameters and where its maps are kept → arrays by name; ``prompt`` is a dimension.
        watched: its parameters and a model's dimensions → the maps that these walk by themselves,
            as on the published prompt: what its cost is predicted from, besides its sweeps.
        claims: what was published, in order.
        sections: the data and the texts → text, figures and tables of the report.
        numbers: the data → what the summary keeps besides.
        check: raises `PromptError` for a prompt that it cannot take.
        premise: the data and the texts → what the study takes for granted and this model does not
            do, a sentence each; they stand at the top of its report.
        also_on: other checkpoints that it was published on.
        masked: it is for masked-language models, and ``[MASK]`` in its prompts is the mask of the
            model at hand; else it is for models that predict the next token.
    """

    name: str
    parameters: type[P]
    tokens: str
    sites: tuple[str, ...]
    key_figure: str
    sweeps: Callable[[P], Mapping[str, Sweep]]
    claims: tuple[Claim[P], ...]
    sections: Callable[[Data[P], Texts], tuple[Section, ...]]
    numbers: Callable[[Data[P]], Mapping[str, Any]]
    observe: Observe = observe_nothing
    observe_all: ObserveAll | None = None
    watched: Callable[[P, Dimensions], Mapping[str, Sweep]] = watch_nothing
    check: Callable[[Encoded], None] = accept
    premise: Callable[[Data[P], Texts], tuple[str, ...]] = presume_nothing
    donor_tokens: str = ""
    also_on: tuple[str, ...] = ()
    masked: bool = False

    @property
    def published(self) -> P:
        """The parameters as published."""
        return self.parameters()  # type: ignore[call-arg]  # every study has its defaults

    def texts(self, lang: str) -> Texts:
        """Its texts in one language, and those that all studies share."""
        package = "microtome.studies.texts"
        own, common = catalogue(package, f"{self.name}.yaml"), catalogue(package, "common.yaml")
        return Texts(lang, MappingProxyType({**common, **own}))

    def comparable(self, model: Model, parameters: P) -> bool:
        """Whether this is a published checkpoint with the published parameters.

        What was published is repeated there, and not only tried elsewhere. A local directory has
        the hub id's name at most by coincidence, and a model in memory may have been changed: see
        `is_published`.
        """
        names = (self.published.model, *self.also_on)
        owner = "google-bert" if self.masked else "openai-community"
        published = {full for name in names for full in (name, f"{owner}/{name}")}
        return model.name in published and not parameters.differences() and is_published(model)
