"""``microtome study show`` and ``microtome study run``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from microtome import studies
from microtome.errors import MicrotomeError, OtherModelError
from microtome.figures.pictures import is_picture
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering, writing_to
from microtome.frontends.listing import words
from microtome.frontends.shown import Table, err, print_json, print_table, say
from microtome.report import Finding, texts_of
from microtome.sheets import value_of
from microtome.studies.perform import Result


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
    say(f"\n{texts('question')}\n\n{texts('method')}\n")
    headers = tuple(say_in(f"show.{column}") for column in ("parameter", "published", "about"))
    print_table(Table(headers, parameters, names=headers[:1]))
    print_table(Table((say_in("show.claim"), say_in("show.rule")), claims))


def run(
    name: str | None,
    config: Path | None,
    given: Mapping[str, Any],
    model: str | None,
    output: Path | None,
    overwrite: bool,
    shown: Shown,
) -> None:
    """Run one study and show its claims."""
    chosen = studies.named(name, config)
    folder = _folder(output) or Path("results") / chosen
    with answering(shown), writing_to(folder):
        result = studies.run(
            chosen, model, folder, config=config, tell=_tell, overwrite=overwrite, **given
        )
    report = folder / "report.html"
    if shown.json:
        print_json({**_answer(result), "folder": str(folder), "report": str(report)})
        return
    say_in = words(result.document.lang)
    headers = tuple(say_in(f"run.{column}") for column in ("claim", "measured", "verdict"))
    rows = tuple((one.claim, one.measured, _verdict(one, result)) for one in result.findings)
    print_table(Table(headers, rows, title=result.document.title))
    say("\n" + say_in("run.report", path=report))


def run_all(
    name: str | None,
    config: Path | None,
    given: Mapping[str, Any],
    model: str | None,
    output: Path | None,
    overwrite: bool,
    shown: Shown,
) -> None:
    """Run every study on one model."""
    fields = dict(given)
    lang = fields.pop("lang", "en")
    if name is not None or config is not None or fields or model is None:
        raise MicrotomeError(
            "--all runs every study with its own published parameters, on one model: give "
            "--model, and besides it only --lang and -o."
        )
    folder = _folder(output) or Path("results")
    with answering(shown), writing_to(folder):
        done = studies.run_all(studies.STUDIES.values(), model, folder, lang, _tell, overwrite)
    if shown.json:
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


def own(given: Iterable[str]) -> dict[str, Any]:
    """``NAME=VALUE``, each value as YAML reads it."""
    fields: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise MicrotomeError(f"--set takes NAME=VALUE, such as factor=0.6, not {text!r}.")
        fields[name] = value_of(value, f"--set {name}")
    return fields


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
