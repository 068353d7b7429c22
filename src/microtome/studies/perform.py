"""A study, step by step: read the parameters, load, fit, sweep, observe, measure, judge, tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from microtome.engines.observer import as_observer
from microtome.errors import OtherModelError, StudyError
from microtome.notebook import html_line, html_table
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.prompts.tokens import MASKS
from microtome.report import (
    Beginning,
    Document,
    Finding,
    Folder,
    TokenRow,
    check_folder,
    texts_of,
)
from microtome.results import provenance
from microtome.results.effects import Effects
from microtome.studies import again, findings
from microtome.studies.checkpoints import CHECKPOINTS
from microtome.studies.parameters import Adapted, Parameters, read_config
from microtome.studies.study import CELLS, PROMPT, Data, Labelled, Place, Study
from microtome.tasks import TASKS, named_by
from microtome.texts import Texts
from microtome.verbs.load import load
from microtome.verbs.model import Model
from microtome.verbs.sweep import sweep
from microtome.workers import Workers

SHOWN_PROMPTS = 3
"""How many prompts are shown token by token."""

HOLDS = {"holds": True, "does not hold": False}
"""What a verdict says of a claim."""

Tell = Callable[[str], None]
"""Takes a line about how far a study is."""


def silent(line: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Result:
    """What a study gives.

    Attributes:
        study: the study.
        data: its sweeps and what it looked at besides.
        findings: its claims with what was measured, and verdicts.
        document: its report.
        summary: the numbers kept.
        seconds: how long it took, without loading the model and writing files.
    """

    study: Study[Any]
    data: Data[Any]
    findings: tuple[Finding, ...]
    document: Document
    summary: Mapping[str, Any]
    seconds: float

    @property
    def effects(self) -> Mapping[str, Effects]:
        """Its sweeps, by name."""
        return self.data.effects

    def claims(self) -> pd.DataFrame:
        """A row per claim, by its name; verdicts are in the language that the study was run in.

        Returns:
            ``claim``, what was published; ``measured``; ``verdict``; ``holds``: True, False, or
            None where there is no verdict; and ``rule``, when the claim counts as holding.

        >>> from microtome import studies
        >>> studies.run("ioi-levels", model="nano").claims()["holds"].to_dict()
        {'flips': True, 'never': False}
        """
        say = texts_of(self.document.lang)
        rows = [
            {
                "claim": one.claim,
                "measured": one.measured,
                "verdict": say(f"verdicts.{one.verdict}"),
                "holds": HOLDS.get(one.verdict.removesuffix(" here")),
                "rule": one.note,
            }
            for one in self.findings
        ]
        names = [claim.name for claim in self.study.claims]
        return pd.DataFrame(rows, pd.Index(names, name="name"), dtype=object)

    def _repr_html_(self) -> str:
        """In a notebook: what is asked, what stands in the way, and every claim."""
        found = self.claims().drop(columns="holds")
        lines = (self.document.title, self.document.question, *self.document.caveats)
        return "".join(map(html_line, lines)) + html_table(
            tuple(found.columns), found.values.tolist()
        )


def perform(
    study: Study[Any],
    given: Mapping[str, Any],
    model: str | Path | Model | None = None,
    out: str | Path | None = None,
    tell: Tell = silent,
    overwrite: bool = False,
    workers: Workers | str | None = None,
) -> Result:
    """Run a study; see `microtome.studies.run`."""
    asked = study.parameters.of(study.name, _given(given, model))
    if out is not None:
        check_folder(out)
    loaded = model if isinstance(model, Model) else load(asked.model)
    check_kind(study, loaded)
    published = CHECKPOINTS[study.published.model]
    fitting = asked.fit(study.name, loaded.name, loaded.anatomy.dims, published)
    with nullcontext() if out is None else Folder(out, study.sweeps(fitting[0])) as folder:
        return _performed(study, loaded, fitting, tell, folder, overwrite, workers)


def _performed(
    study: Study[Any],
    loaded: Model,
    fitting: tuple[Any, tuple[Adapted, ...]],
    tell: Tell,
    folder: Folder | None,
    overwrite: bool,
    workers: Workers | str | None,
) -> Result:
    """Run a study with the parameters that fit the model, into a folder where there is one."""
    parameters, adapted = fitting
    texts = study.texts(parameters.lang)
    began = time.perf_counter()
    data = collect(study, loaded, parameters, tell, folder, overwrite, workers)
    with nullcontext() if folder is None else folder.keeping("The report"):
        measured = findings.measure(study.claims, data)
        comparable = study.comparable(loaded, parameters)
        judged = findings.judge(study, measured, comparable, texts)
        document = _document(study, data, judged, measured, adapted, texts)
        seconds = time.perf_counter() - began
        summary = {
            "study": study.name,
            "model": provenance.of_model(loaded),
            "parameters": parameters.plain(),
            "prompts": [one.prompt.as_dict() for one in data.encoded],
            "cells": cells_of(data),
            "seconds": round(seconds, 3),
            **study.numbers(data),
            "caveats": document.caveats,
            "claims": findings.numbers(measured),
            **provenance.of_machine(),
        }
    if folder is not None:
        tell(f"{study.name}: figures and report")
        folder.finish(document, summary)
    return Result(study, data, judged, document, summary, seconds)


def check_kind(study: Study[Any], model: Model) -> None:
    """Raise `OtherModelError` unless the model predicts what the study asks about."""
    if study.masked and model.anatomy.dims.causal:
        raise OtherModelError(
            f"{study.name} needs a masked-language model, and {model.name} predicts the next "
            "token: give a BERT, RoBERTa, DistilBERT or ModernBERT, such as bert-base-uncased."
        )
    if not study.masked and not model.anatomy.dims.causal:
        raise OtherModelError(
            f"{study.name} asks for the next token, and {model.name} is a masked-language model, "
            "which fills in a word: give a model such as gpt2."
        )


def prompts_for(study: Study[Any], model: Model, parameters: Parameters) -> Prompts:
    """The prompts to run, with the mask of the model at hand where the study is about one."""
    prompts = task_prompts(parameters.prompts, model) or parameters.as_prompts()
    mask = model.tokenizer.mask_token
    if not study.masked or mask is None:
        return prompts
    return Prompts(_with_mask(prompt, str(mask)) for prompt in prompts)


def task_prompts(given: object, model: Model) -> Prompts | None:
    """The prompts of a task in the words of the model's tokenizer, where ``ioi:16`` asks for them.

    Args:
        given: what ``prompts`` is; a file of that name goes before a task.
        model: whose tokenizer the prompts have to fit.

    Returns:
        None where something else is given than a task's name, with or without a number.

    Raises:
        PromptError: a path is neither a file nor a task, and has no ending of a file of prompts.
        TaskError: the tokenizer has not the words for so many.
    """
    asked = named_by(given) if isinstance(given, Path) else None
    if asked is None:
        return None
    name, n = asked
    return TASKS[name](n, tokenizer=model.tokenizer)


def prompts_at(given: Path, model: Model) -> Prompts:
    """The prompts of a file, or of the task that it names; see `task_prompts`."""
    made = task_prompts(given, model)
    return Prompts.read(given) if made is None else made


def _with_mask(prompt: Prompt, mask: str) -> Prompt:
    donor = None if prompt.donor is None else prompt.donor.replace(MASKS[0], mask)
    return replace(prompt, text=prompt.text.replace(MASKS[0], mask), donor=donor)


def given_in(config: str | Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a YAML file, with these in their place; ``study`` is left in.

    A `Prompt` given as ``prompt`` replaces the published one with all that belongs to it.
    """
    fields = read_config(config) if config is not None else {}
    for name, value in given.items():
        if isinstance(value, Prompt) and name == "prompt":
            whole: dict[str, Any] = {
                "text": None,
                "target": None,
                "contrast": None,
                "donor": None,
                "roles": {},
            }
            whole |= value.as_dict()
            fields |= {"prompt": whole.pop("text"), **whole}
        else:
            fields[name] = value
    return fields


def _given(given: Mapping[str, Any], model: str | Path | Model | None) -> dict[str, Any]:
    if model is None:
        return dict(given)
    return {**given, "model": model.name if isinstance(model, Model) else str(model)}


def collect(
    study: Study[Any],
    model: Model,
    parameters: Parameters,
    tell: Tell,
    folder: Folder | None = None,
    overwrite: bool = False,
    workers: Workers | str | None = None,
) -> Data[Any]:
    """Run a study's sweeps, in a folder where there is one, and look at what no sweep measures.

    Raises:
        StudyError, PromptError, MetricError: a prompt does not fit the model or the study.
    """
    prompts = prompts_for(study, model, parameters)
    encoded = model.encode(prompts)
    for one in encoded:
        study.check(one)
    effects = {}
    for name, asked in study.sweeps(parameters).items():
        tell(f"{study.name}: sweep {name}")
        effects[name] = sweep(
            model,
            prompts,
            asked.edits,
            metrics=asked.metrics,
            over=asked.over,
            out=None if folder is None else folder.path_of(name),
            progress=True if folder is None else Beginning(as_observer(True), folder),
            overwrite=overwrite,
            workers=workers,
        )
        if folder is not None:
            folder.kept(name)
    if study.observe_all is not None:
        if folder is not None:
            folder.begin()
        place = Place(None if folder is None else folder.several, overwrite, tell)
        observed = study.observe_all(model, prompts, parameters, place)
        if folder is not None:
            folder.kept_besides(study.watched(parameters, model.anatomy.dims))
        return Data(model, parameters, encoded, effects, observed)
    seen = []
    for number, prompt in enumerate(prompts):
        tell(f"{study.name}: prompt {number + 1} of {len(prompts)}, what no sweep measures")
        own = {n: Effects(e.data.isel({PROMPT: [number]})) for n, e in effects.items()}
        seen.append(study.observe(model, prompt, parameters, own))
    return Data(model, parameters, encoded, effects, _together(seen))


def cells_of(data: Data[Any]) -> int:
    """How many cells a study's maps have, those of its own among them."""
    besides = data.observed.get(CELLS)
    swept = sum(effects.n_cells for effects in data.effects.values())
    return swept if besides is None else swept + int(besides.sum())


def _together(seen: Iterable[Mapping[str, Labelled]]) -> dict[str, Labelled]:
    """What was observed on each prompt, along ``prompt``."""
    several = list(seen)
    along = xr.DataArray(range(len(several)), dims=PROMPT, name=PROMPT)
    together: dict[str, Labelled] = {}
    for name in several[0]:
        each: list[Any] = [one[name] for one in several]
        try:
            together[name] = xr.concat(each, along, join="exact")
        except ValueError as error:
            raise StudyError(f"The prompts cannot be laid side by side: {error}") from error
    return together


# ---------------------------------------------------------------------------------- the document


def _document(
    study: Study[Any],
    data: Data[Any],
    judged: tuple[Finding, ...],
    measured: findings.Table,
    adapted: tuple[Adapted, ...],
    texts: Texts,
) -> Document:
    n, model = len(data.encoded), provenance.of_model(data.model)
    method = [texts("method"), *(_adapted(one, texts) for one in adapted)]
    if data.several:
        method.append(texts("averaged", n=n))
    sections = study.sections(data, texts)
    if data.several:
        sections = (*sections, findings.by_prompt(study.claims, measured, data, texts))
    return Document(
        title=texts("title"),
        question=texts("question"),
        method="\n\n".join(method),
        sections=sections,
        findings=judged,
        caveats=study.premise(data, texts),
        snippets=again.snippets(study.name, data.parameters, texts, model),
        provenance={
            "study": study.name,
            "parameters": data.parameters.plain(),
            "model": model,
            "engines": {name: one.provenance["engine"] for name, one in data.effects.items()},
            "cells": cells_of(data),
            **provenance.of_machine(),
        },
        tokens=tuple(_token_rows(data)),
        n_prompts=n,
        sites=study.sites,
        parallel="resid_mid" not in data.model.anatomy.family.taps,
        lang=texts.lang,
    )


def _adapted(one: Adapted, texts: Texts) -> str:
    return texts(
        "adapted",
        name=one.name,
        published=one.published,
        last=one.of - 1,
        here=one.here,
        last_here=one.of_here - 1,
    )


def _token_rows(data: Data[Any]) -> Iterable[TokenRow]:
    for one in data.encoded[:SHOWN_PROMPTS]:
        yield TokenRow("recipient", one.tokens.pieces)
        if one.donor is not None:
            yield TokenRow("donor", one.donor.pieces)
