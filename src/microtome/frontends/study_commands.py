"""The commands about studies; see `microtome.frontends.cli` for how they are answered."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from microtome.frontends import early, listing
from microtome.frontends.arguments import (
    Contrast,
    Donor,
    Language,
    Overwrite,
    PromptFile,
    Shown,
    Target,
    WorkersName,
    examples,
)
from microtome.frontends.folding import folded
from microtome.frontends.helping import Command, Group
from microtome.frontends.importing import imported

study_app = typer.Typer(
    cls=Group, help="Published experiments, claim by claim.", no_args_is_help=True
)


@study_app.command("list", cls=Command)
@folded
def study_list(shown: Shown, lang: Language = "en") -> None:
    """The studies: question, default model, cells there, and what they will take."""
    listing.study_list(shown, lang)


@study_app.command("show", cls=Command, epilog=examples("microtome study show hidden-scaling"))
@folded
def study_show(
    name: Annotated[str, typer.Argument(help="See 'microtome study list'.")],
    shown: Shown,
    lang: Language = "en",
) -> None:
    """What a study asks, how, with which parameters, and its claims."""
    early.check_study(name, listing.studies())
    _answering().show(name, shown, lang)


@study_app.command(
    "run",
    cls=Command,
    epilog=examples(
        "microtome study run head-ablation --model nano -o out/head-ablation",
        "microtome study run hidden-scaling --model nano --set layer=1 --set factor=0.5",
        "microtome study run ioi-levels --prompts prompts.jsonl --lang vi",
        "microtome study run --config study.yaml",
        "microtome study run --all --model nano -o results",
        "microtome study run ioi-levels --model nano --model gpt2 -o results",
    ),
)
@folded
def study_run(
    shown: Shown,
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
    workers: WorkersName = None,
    overwrite: Overwrite = False,
) -> None:
    """Run a published experiment: sweeps, figures, claims with their measured values, a report."""
    if name is not None:
        early.check_study(name, listing.studies())
    fields = {"prompt": prompt, "target": target, "contrast": contrast, "donor": donor}
    fields |= {"prompts": None if prompts is None else str(prompts), "lang": lang}
    given = {field: value for field, value in fields.items() if value is not None}
    asked = {**given, **_answering().own(own)}
    _answering().run(name, config, asked, model, output, overwrite, everything, shown, workers)


def _answering() -> ModuleType:
    """What answers: imported now, and it takes seconds."""
    return imported("microtome.frontends.commands.studying")
