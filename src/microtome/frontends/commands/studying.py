"""``microtome study show`` and ``microtome study run``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome import studies
from microtome.errors import MicrotomeError, OtherModelError
from microtome.figures.pictures import is_picture
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering, writing_to
from microtome.frontends.experiment.options import named_of
from microtome.frontends.listing import words
from microtome.frontends.shown import Table, err, print_json, print_table, say, tell
from microtome.report import Finding, OnModel, Overview, texts_of
from microtome.studies.perform import Result
from microtome.texts import Texts


def show(name: str, shown: Shown, lang: str) -> None:
    """Show what a study asks, its parameters and its claims."""
    study = studies.find(name)
    texts, say_in = study.texts(lang), words(lang)
    parameters = tuple(
        (parameter, repr(value), texts(f"parameters.{parameter}"))
        for parameter, value in study.published.plain().items()
    )
    claims = tuple(
        (texts(f"claims.{claim.name}.text"), texts(f"claims.{claim.name}.rule"))
        for claim in study.claims
    )
    if shown.json:
        print_json(
            {
                "study": name,
                **{key: texts(key) for key in ("title", "question", "method")},
                "parameters": Table(("parameter", "published", "about"), parameters).records,
                "claims": Table(("claim", "rule"), claims).records,
            }
        )
        return
    say(heading=texts("title"))
    tell(f"\n{texts('question')}\n\n{texts('method')}\n")
    headers = tuple(say_in(f"show.{column}") for column in ("parameter", "published", "about"))
    print_table(Table(headers, parameters, names=headers[:1]))
    print_table(Table((say_in("show.claim"), say_in("show.rule")), claims))


def run(
    name: str | None,
    config: Path | None,
    given: Mapping[str, Any],
    models: Sequence[str],
    output: Path | None,
    overwrite: bool,
    everything: bool,
    shown: Shown,
    workers: str | None = None,
) -> None:
    """Run one study, or every one, on one model or on several."""
    if everything:
        _check_all(name, config, given, models)
    keep = Keeping(output, overwrite, shown, workers)
    if len(models) > 1:
        _run_over(None if everything else name, config, given, models, keep)
    elif everything:
        _run_all(given.get("lang", "en"), models[0], keep)
    else:
        _run_one(name, config, given, models[0] if models else None, keep)


@dataclass(frozen=True)
class Keeping:
    """Where results go, how they are shown, and who computes them."""

    output: Path | None
    overwrite: bool
    shown: Shown
    workers: str | None = None

    def folder(self, *inside: str) -> Path:
        """The folder that was asked for, or one of this name among the results."""
        return _folder(self.output) or Path("results", *inside)


def _run_one(
    name: str | None,
    config: Path | None,
    given: Mapping[str, Any],
    model: str | None,
    keep: Keeping,
) -> None:
    chosen = studies.named(name, config)
    folder = keep.folder(chosen)
    with answering(keep.shown), writing_to(folder):
        result = studies.run(
            chosen, model, folder, config=config, tell=_tell, overwrite=keep.overwrite,
            workers=keep.workers, **given,
        )  # fmt: skip
    report = folder / "report.html"
    if keep.shown.json:
        print_json({**_answer(result), "folder": str(folder), "report": str(report)})
        return
    say_in = words(result.document.lang)
    headers = tuple(say_in(f"run.{column}") for column in ("claim", "measured", "verdict"))
    rows = tuple((one.claim, one.measured, _verdict(one, result)) for one in result.findings)
    print_table(Table(headers, rows, title=result.document.title))
    for caveat in result.document.caveats:
        tell(f"\n{caveat}")
    say("\n" + say_in("run.report", path=report))


def _check_all(
    name: str | None, config: Path | None, given: Mapping[str, Any], models: Sequence[str]
) -> None:
    if name is not None or config is not None or given.keys() - {"lang"} or not models:
        raise MicrotomeError(
            "--all runs every study with its own published parameters: give --model (or several), "
            "and besides it only --lang and -o."
        )


def _run_all(lang: str, model: str, keep: Keeping) -> None:
    folder = keep.folder()
    with answering(keep.shown), writing_to(folder):
        done = studies.run_all(studies.STUDIES.values(), model, folder, lang, _tell, keep.overwrite)
    if keep.shown.json:
        print_json(
            {
                one: {"error": str(found)} if isinstance(found, MicrotomeError) else _answer(found)
                for one, found in done.items()
            }
        )
    else:
        say("\n" + words(lang)("run.index", path=folder / "index.html"))
    failed = [result for result in done.values() if isinstance(result, MicrotomeError)]
    if not all(isinstance(error, OtherModelError) for error in failed):
        sys.exit(2)


def _run_over(
    name: str | None,
    config: Path | None,
    given: Mapping[str, Any],
    models: Sequence[str],
    keep: Keeping,
) -> None:
    """One study, or all, on several models."""
    one = name is not None or config is not None
    folder = keep.folder(studies.named(name, config)) if one else keep.folder()
    with answering(keep.shown), writing_to(folder):
        overview = studies.compare(
            name, models, folder, config=config, tell=_tell, overwrite=keep.overwrite,
            workers=keep.workers, **given,
        )  # fmt: skip
    if keep.shown.json:
        print_json(overview.as_dict())
    else:
        _print_overview(overview)
        say("\n" + words(overview.lang)("run.overview", path=folder / "overview.html"))
    if any(study.failures.keys() - set(study.skipped) for study in overview.studies):
        sys.exit(2)


def _print_overview(overview: Overview) -> None:
    say_in = texts_of(overview.lang)
    for study in overview.studies:
        headers = (say_in("claim"), *overview.models, say_in("overview.holds_on"))
        rows = tuple(
            (
                row.claim,
                *(_on_model(row.on.get(model), say_in) for model in overview.models),
                say_in("overview.of", holds=row.holds_on, judged=row.judged_on),
            )
            for row in study.claims
        )
        print_table(Table(headers, rows, title=study.title))
        if rows:
            say(say_in("overview.brackets"))
        for row in study.claims:
            say(f"- {row.claim} {row.number}")
        for model, said in study.caveats.items():
            for sentence in said:
                say(f"{model}: {sentence}")
        for model, why in study.failures.items():
            say(say_in("overview.failed", model=model, why=why))


def _on_model(one: OnModel | None, say_in: Texts) -> str:
    """A verdict with its number."""
    if one is None:
        return "–"
    number = "" if math.isnan(one.value) else f" ({one.value:.3g})"
    return f"{say_in(f'verdicts.{one.verdict}')}{number}"


def own(given: Iterable[str]) -> dict[str, Any]:
    """The parameters that ``--set`` gives."""
    return named_of(given, "--set", "factor=0.6")


def _folder(output: Path | None) -> Path | None:
    if output is not None and is_picture(output):
        raise MicrotomeError(
            f"A study leaves a folder with several figures, and {output} names one picture: give "
            "a folder, and draw one map from it with 'microtome figure DIR/effects/NAME.zarr "
            f"-o {output.name}'."
        )
    return output


def _answer(result: Result) -> dict[str, object]:
    findings = [
        {"claim": one.claim, "measured": one.measured, "verdict": _verdict(one, result)}
        for one in result.findings
    ]
    return {"study": result.study.name, "findings": findings}


def _verdict(finding: Finding, result: Result) -> str:
    return texts_of(result.document.lang)(f"verdicts.{finding.verdict}")


def _tell(line: str) -> None:
    err.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
