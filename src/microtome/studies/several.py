"""Studies over several models, and the table of which published claims hold on which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microtome.errors import MicrotomeError, OtherModelError, StudyError
from microtome.paths import settled
from microtome.report import (
    ClaimRow,
    OnModel,
    Overview,
    StudyRows,
    check_folder,
    check_index,
    write_overview,
)
from microtome.report.layout import REPORT
from microtome.report.names import distinct
from microtome.studies.everything import run_all
from microtome.studies.perform import Result, Tell, perform, silent
from microtome.studies.study import Study
from microtome.studies.telling import mean_of
from microtome.verbs.load import load
from microtome.verbs.model import Model
from microtome.workers import Workers

Ran = Mapping[str, Mapping[str, OnModel]]
"""Study → claim's name → the claim on one model."""


def compare(
    studies: Iterable[Study[Any]],
    models: Sequence[str | Path | Model],
    out: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    tell: Tell = silent,
    overwrite: bool = False,
    workers: Workers | str | None = None,
) -> Overview:
    """Run studies on several models, one model after the other, and lay their claims side by side.

    A study that cannot run on a model, or a model that cannot be loaded, does not stop the others;
    the overview says why.

    Args:
        studies: one, or several; several are run with their published parameters.
        models: loaded models, or what `load` takes; each once.
        out: a folder. In it each model has one of its own (with an index, where there are several
            studies), beside ``overview.html`` and ``overview.json``.
        given: parameters in the place of the published ones; of several studies, the language.
        tell: takes a line whenever a step begins.
        overwrite: replace results of other questions that are in the folders.
        workers: who runs the units of sweeps.

    Raises:
        StudyError: a model is given twice, or fewer than two are.
        EffectsError: one of the folders cannot be written to; nothing ran.
    """
    chosen, parameters = list(studies), dict(given or {})
    named = dict(zip(labels(models), models, strict=True))
    place = None if out is None else settled(out)
    folders = None if place is None else folders_of(place, named, chosen)
    rows = {study.name: _Rows(study, parameters.get("lang", "en")) for study in chosen}
    for label, model in named.items():
        tell(f"model {label}")
        folder = None if folders is None else folders[label]
        for name, result in _ran(
            chosen, model, folder, parameters, tell, overwrite, workers
        ).items():
            rows[name].add(label, result, _href(name, folder, len(chosen)))
        overview = Overview(
            tuple(named), tuple(one.rows() for one in rows.values()), parameters.get("lang", "en")
        )
        if place is not None:
            write_overview(place, overview)  # what is done, should it stop
    return overview


def labels(models: Sequence[str | Path | Model]) -> tuple[str, ...]:
    """What the models are called in an overview: a directory by its last part.

    Raises:
        StudyError: one is given twice, or fewer than two are.

    >>> labels(["nano", "openai-community/gpt2"])
    ('nano', 'openai-community/gpt2')
    """
    given = [model.name if isinstance(model, Model) else str(model) for model in models]
    if len(given) < 2:
        raise StudyError(f"An overview is of two models or more; given: {given}.")
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise StudyError(f"The model {twice[0]!r} is given twice; give each model once.")
    short = [Path(name).name if Path(name).is_dir() else name for name in given]
    return tuple(short if len(set(short)) == len(short) else given)


def folders_of(
    out: Path, named: Mapping[str, object], studies: Sequence[Study[Any]]
) -> dict[str, Path]:
    """Each model's folder, all of them checked before anything is computed.

    Raises:
        EffectsError: one of them cannot be written to.
    """
    found = dict(zip(named, (out / name for name in distinct(named)), strict=True))
    for folder in found.values():
        if len(studies) == 1:
            check_folder(folder)
        else:
            check_index(folder, [study.name for study in studies])
    return found


def _ran(
    studies: Sequence[Study[Any]],
    model: str | Path | Model,
    folder: Path | None,
    given: Mapping[str, Any],
    tell: Tell,
    overwrite: bool,
    workers: Workers | str | None,
) -> Mapping[str, Result | MicrotomeError]:
    """Study → what it gave on one model, or why nothing."""
    try:
        loaded = model if isinstance(model, Model) else load(model)
        if len(studies) > 1 and folder is not None:
            lang = given.get("lang", "en")
            return run_all(studies, loaded, folder, lang, tell, overwrite, workers)
    except MicrotomeError as error:
        tell(f"{model} did not run: {error}")
        return {study.name: error for study in studies}
    done: dict[str, Result | MicrotomeError] = {}
    for study in studies:
        try:
            done[study.name] = perform(study, given, loaded, folder, tell, overwrite, workers)
        except MicrotomeError as error:
            tell(f"{study.name} did not run: {error}")
            done[study.name] = error
    return done


def _href(study: str, folder: Path | None, studies: int) -> str:
    """Where a model's report lies, from the overview on; nowhere unless it is written."""
    if folder is None:
        return ""
    return f"{folder.name}/{REPORT}" if studies == 1 else f"{folder.name}/{study}/{REPORT}"


class _Rows:
    """The rows of one study, filled model by model."""

    def __init__(self, study: Study[Any], lang: str) -> None:
        self._study, self._texts = study, study.texts(lang)
        self._on: dict[str, dict[str, OnModel]] = {claim.name: {} for claim in study.claims}
        self._reports: dict[str, str] = {}
        self._caveats: dict[str, tuple[str, ...]] = {}
        self._failures: dict[str, str] = {}
        self._skipped: list[str] = []
        self._published: list[str] = [""] * len(study.claims)

    def add(self, model: str, result: Result | MicrotomeError, href: str) -> None:
        """What a model gave, or why it gave nothing."""
        if isinstance(result, MicrotomeError):
            self._failures[model] = str(result)
            if isinstance(result, OtherModelError):
                self._skipped.append(model)
            return
        self._reports[model] = href
        if result.document.caveats:
            self._caveats[model] = result.document.caveats
        for claim, finding in zip(self._study.claims, result.findings, strict=True):
            values = [one["value"] for one in result.summary["claims"][claim.name]]
            self._on[claim.name][model] = OnModel(
                finding.verdict, finding.measured, mean_of(values).value
            )
        self._published = [finding.published for finding in result.findings]

    def rows(self) -> StudyRows:
        """As far as they are filled."""
        say = self._texts
        claims = tuple(
            ClaimRow(
                say(f"claims.{name}.text"),
                say(f"claims.{name}.rule"),
                published,
                say(f"claims.{name}.value"),
                dict(on),
            )
            for (name, on), published in zip(self._on.items(), self._published, strict=True)
            if on
        )
        return StudyRows(
            self._study.name,
            say("title"),
            claims,
            dict(self._reports),
            dict(self._caveats),
            dict(self._failures),
            tuple(self._skipped),
        )
