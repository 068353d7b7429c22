"""All studies on one model, and the page that leads to their reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from microtome.errors import MicrotomeError, OtherModelError
from microtome.paths import settled
from microtome.report import Card, Index, check_index, write_index
from microtome.spoken import spoken
from microtome.studies.perform import Result, Tell, cells_of, perform, silent
from microtome.studies.study import Study
from microtome.verbs.load import load
from microtome.verbs.model import Model
from microtome.workers import Workers


@spoken
def run_all(
    studies: Iterable[Study[Any]],
    model: str | Path | Model,
    out: str | Path,
    lang: str = "en",
    tell: Tell = silent,
    overwrite: bool = False,
    workers: Workers | str | None = None,
) -> Mapping[str, Result | MicrotomeError]:
    """Run studies with their published parameters, each to its own folder, and write the index.

    A study that cannot run on this model does not stop the others; its card says why. One that is
    for models of another kind is skipped.

    Args:
        studies: which.
        model: a loaded model or what `load` takes.
        out: the folder; a study's report is ``<out>/<name>/report.html``.
        lang: of the reports and the index.
        tell: takes a line whenever a step begins.
        overwrite: replace results of other questions that are in the studies' folders.
        workers: who runs the units of sweeps.

    Returns:
        Name → the result, or why there is none.

    Raises:
        EffectsError: the folder, or one of a study's in it, cannot be written to; nothing ran.
    """
    chosen = list(studies)
    check_index(out, [study.name for study in chosen])
    place = settled(out)
    loaded = model if isinstance(model, Model) else load(model)
    done: dict[str, Result | MicrotomeError] = {}
    cards = []
    for number, study in enumerate(chosen, 1):
        tell(f"[{number}/{len(chosen)}] {study.name}")
        folder = place / study.name
        try:
            result = perform(study, {"lang": lang}, loaded, folder, tell, overwrite, workers)
        except MicrotomeError as error:
            done[study.name] = error
            skipped = isinstance(error, OtherModelError)
            tell(f"{study.name} {'is skipped' if skipped else 'did not run'}: {error}")
            cards.append(_failed(study, lang, error))
        else:
            done[study.name] = result
            cards.append(_card(study, result, folder))
        write_index(place, Index(loaded.name, tuple(cards), lang))  # what is done, should it stop
    return done


def _card(study: Study[Any], result: Result, folder: Path) -> Card:
    [key] = [one for one in result.document.pictures if one.name == study.key_figure]
    return Card(
        title=result.document.title,
        question=result.document.question,
        href=f"{study.name}/report.html",
        thumbnail=(folder / "figures" / f"{key.name}.png").read_bytes(),
        caption=key.caption,
        findings=result.findings,
        caveats=result.document.caveats,
        cells=cells_of(result.data),
        seconds=result.seconds,
    )


def _failed(study: Study[Any], lang: str, error: MicrotomeError) -> Card:
    texts = study.texts(lang)
    return Card(
        title=texts("title"),
        question=texts("question"),
        failure=str(error),
        skipped=isinstance(error, OtherModelError),
    )
