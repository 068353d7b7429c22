"""The commands about studies."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from microtome import studies
from microtome.errors import MicrotomeError, OtherModelError
from microtome.frontends.arguments import (
    Contrast,
    Donor,
    Overwrite,
    PromptFile,
    Target,
    examples,
)
from microtome.frontends.guard import writing_to
from microtome.frontends.shown import err, out
from microtome.report import OnModel, texts_of
from microtome.sheets import value_of
from microtome.texts import Texts

study_app = typer.Typer(help="Published experiments, claim by claim.", no_args_is_help=True)
Language = Annotated[str, typer.Option("--lang", help="en or vi.")]


@study_app.command("list")
def study_list(lang: Language = "en") -> None:
    """The studies: question, default model, cells there, and what they will take."""
    table = Table("study", "question", "default model", "cells", "predicted cost")
    for study in studies.STUDIES.values():
        cost = studies.predict(study)
        table.add_row(
            study.name,
            escape(study.texts(lang)("question")),
            study.published.model,
            f"{cost.cells:,}",
            f"{cost.flops / 1e9:,.0f} GFLOP: {cost.passes:,.0f} forward passes, and "
            f"{cost.reference_passes:,} cell by cell",
        )
    out.print(table)
    out.print("Parameters of one:  microtome study show NAME", markup=False)


@study_app.command("show", epilog=examples("microtome study show hidden-scaling"))
def study_show(
    name: Annotated[str, typer.Argument(help="See 'microtome study list'.")],
    lang: Language = "en",
) -> None:
    """What a study asks, how, with which parameters, and its claims."""
    study = studies.find(name)
    texts = study.texts(lang)
    out.print(f"[bold]{escape(texts('title'))}[/bold]\n")
    out.print(texts("question"), markup=False)
    out.print(f"\n{texts('method')}\n", markup=False)
    table = Table("parameter", "as published", "what it is")
    for parameter, value in study.published.plain().items():
        table.add_row(parameter, escape(repr(value)), escape(texts(f"parameters.{parameter}")))
    out.print(table)
    claims = Table("claim", "rule")
    for claim in study.claims:
        key = f"claims.{claim.name}"
        claims.add_row(escape(texts(f"{key}.text")), escape(texts(f"{key}.rule")))
    out.print(claims)


@study_app.command(
    "run",
    epilog=examples(
        "microtome study run head-ablation --model nano -o out/head-ablation",
        "microtome study run hidden-scaling --model nano --set layer=1 --set factor=0.5",
        "microtome study run ioi-levels --prompts prompts.jsonl --lang vi",
        "microtome study run --config study.yaml",
        "microtome study run --all --model nano -o results",
        "microtome study run ioi-levels --model nano --model gpt2 -o results",
    ),
)
def study_run(
    name: Annotated[str | None, typer.Argument(help="See 'microtome study list'.")] = None,
    model: Annotated[
        list[str],
        typer.Option(help="nano, a hub id or a directory; of several, an overview is made."),
    ] = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; results/NAME unless given.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Another text.")] = None,
    target: Target = None,
    contrast: Contrast = None,
    donor: Donor = None,
    prompts: PromptFile = None,
    own: Annotated[
        list[str],
        typer.Option("--set", help="A parameter of the study's own, NAME=VALUE in YAML."),
    ] = [],  # noqa: B006
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with the same fields; options go before it.")
    ] = None,
    lang: Annotated[str | None, typer.Option(help="The report's language, en or vi.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every study, and an index page in the folder.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Run a published experiment: sweeps, figures, claims with their measured values, a report."""
    fields = {"prompt": prompt, "target": target, "contrast": contrast, "donor": donor}
    fields |= {"prompts": None if prompts is None else str(prompts), "lang": lang, **_own(own)}
    given = {field: value for field, value in fields.items() if value is not None}
    if everything:
        _check_all(name, config, given, model)
    if len(model) > 1:
        _study_over(None if everything else name, config, given, model, output, overwrite)
        return
    if everything:
        _study_all(given.get("lang", "en"), model[0], output, overwrite)
        return
    chosen = studies.named(name, config)
    folder = output or Path("results") / chosen
    with writing_to(folder):
        result = studies.run(
            chosen,
            model[0] if model else None,
            folder,
            config=config,
            tell=_tell,
            overwrite=overwrite,
            **given,
        )
    table = Table("claim", "measured", "verdict", title=escape(result.document.title))
    say = texts_of(result.document.lang)
    for finding in result.findings:
        verdict = say(f"verdicts.{finding.verdict}")
        table.add_row(*map(escape, (finding.claim, finding.measured, verdict)))
    out.print(table)
    for caveat in result.document.caveats:
        out.print(f"\n{caveat}", markup=False, highlight=False)
    out.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True, markup=False)


def _check_all(
    name: str | None, config: Path | None, given: dict[str, Any], model: list[str]
) -> None:
    if name is not None or config is not None or given.keys() - {"lang"} or not model:
        raise MicrotomeError(
            "--all runs every study with its own published parameters: give --model (or several), "
            "and besides it only --lang and -o."
        )


def _study_over(
    name: str | None,
    config: Path | None,
    given: dict[str, Any],
    models: list[str],
    output: Path | None,
    overwrite: bool,
) -> None:
    """One study, or all, on several models."""
    one = name is not None or config is not None
    folder = output or (Path("results") / studies.named(name, config) if one else Path("results"))
    with writing_to(folder):
        overview = studies.compare(
            name, models, folder, config=config, tell=_tell, overwrite=overwrite, **given
        )
    say = texts_of(overview.lang)
    for study in overview.studies:
        table = Table(say("claim"), *overview.models, say("overview.holds_on"))
        table.title = escape(study.title)
        for row in study.claims:
            cells = [_on_model(row.on.get(model), say) for model in overview.models]
            of = say("overview.of", holds=row.holds_on, judged=row.judged_on)
            table.add_row(*map(escape, (row.claim, *cells, of)))
        out.print(table)
        for model, said in study.caveats.items():
            for sentence in said:
                out.print(f"{model}: {sentence}", markup=False, highlight=False)
        for model, why in study.failures.items():
            failed = say("overview.failed", model=model, why=why)
            out.print(failed, markup=False, highlight=False)
    out.print(f"\nOverview: {folder / 'overview.html'}", soft_wrap=True, markup=False)
    if any(study.failures.keys() - set(study.skipped) for study in overview.studies):
        sys.exit(2)


def _on_model(one: OnModel | None, say: Texts) -> str:
    """A verdict with its number."""
    if one is None:
        return "–"
    number = "" if math.isnan(one.value) else f" ({one.value:.3g})"
    return f"{say(f'verdicts.{one.verdict}')}{number}"


def _study_all(lang: str, model: str, output: Path | None, overwrite: bool) -> None:
    folder = output or Path("results")
    with writing_to(folder):
        done = studies.run_all(studies.STUDIES.values(), model, folder, lang, _tell, overwrite)
    out.print(f"\nIndex: {folder / 'index.html'}", soft_wrap=True, markup=False)
    failed = [result for result in done.values() if isinstance(result, MicrotomeError)]
    if not all(isinstance(error, OtherModelError) for error in failed):
        sys.exit(2)


def _own(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE``, each value as YAML reads it."""
    fields: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise MicrotomeError(f"--set takes NAME=VALUE, such as factor=0.6, not {text!r}.")
        fields[name] = value_of(value, f"--set {name}")
    return fields


def _tell(line: str) -> None:
    err.print(line, style="dim", markup=False, highlight=False)
