"""The commands that read: what states say, what parts add; see `cli` for how they are answered."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from microtome.frontends import early
from microtome.frontends.arguments import (
    Config,
    Contrast,
    Dtype,
    EditTexts,
    ModelName,
    OptionalModel,
    Overwrite,
    PromptFile,
    PromptText,
    Shown,
    Target,
    examples,
)
from microtome.frontends.folding import folded
from microtome.frontends.helping import Command


@dataclass(frozen=True)
class Read:
    """What every command that reads takes: the model, the prompts, and where the answer goes."""

    model: OptionalModel = None
    prompt: PromptText = field(default_factory=list)
    target: Target = None
    contrast: Contrast = None
    prompts: PromptFile = None
    dtype: Dtype = None
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out",
            help="Folder for figures and report; or a picture: .svg, .pdf, .png, .html.",
        ),
    ] = None  # fmt: skip
    config: Config = None
    overwrite: Overwrite = False


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(
        "lens",
        cls=Command,
        epilog=examples(
            "microtome lens nano -p 'Berlin is the capital of' --target ' Germany' -o out",
            "microtome lens gpt2 -p 'Berlin is the capital of' -a 'L*.mlp_out@*' -o map.svg",
        ),
    )(lens)
    app.command(
        "tune",
        cls=Command,
        epilog=examples("microtome tune nano --prompts texts.jsonl -o tuned"),
    )(tune)
    app.command(
        "attribute",
        cls=Command,
        epilog=examples(
            "microtome attribute nano -p 'Berlin is the capital of' --target ' Germany' -o out",
            "microtome attribute gpt2 --prompts prompts.jsonl --neurons 9",
        ),
    )(attribute)
    app.command(
        "attention",
        cls=Command,
        epilog=examples(
            "microtome attention nano -p 'Berlin is the capital of' -o out",
            "microtome attention nano -p 'Berlin is the capital of' --head L2.h3 -o map.svg",
        ),
    )(attention)
    app.command(
        "heads",
        cls=Command,
        epilog=examples("microtome heads nano", "microtome heads smollm2 --score duplicate_token"),
    )(heads)
    app.command(
        "trace",
        cls=Command,
        epilog=examples(
            "microtome trace nano -p 'Berlin is the capital of' --subject Berlin -o out",
            "microtome trace smollm2 --task capitals:4 --kind hidden -o out",
            "microtome trace gpt2 --prompts facts.jsonl -o out",
        ),
    )(trace)
    app.command(
        "head",
        cls=Command,
        epilog=examples(
            "microtome head L4.h3 nano --task ioi:8 -o out",
            "microtome head L23.h3 smollm2 --task ioi:16",
        ),
    )(head)


@folded
def lens(
    read: Read,
    shown: Shown,
    address: Annotated[
        str | None,
        typer.Option(
            "-a",
            "--address",
            help="Of states as wide as the residual stream; L*.resid_post@* unless given.",
        ),
    ] = None,
    edit: EditTexts = [],  # noqa: B006  (typer reads the default, nothing changes it)
    top: Annotated[
        int | None, typer.Option(min=1, help="How many tokens to keep; 5 unless given.")
    ] = None,
    tuned: Annotated[
        Path | None, typer.Option(help="A folder with translators, for the tuned lens.")
    ] = None,
) -> None:
    """What each layer's state would have the model say: the logit lens."""
    early.check(read.model, edit)
    given = {"address": address, "edits": [*edit], "top": top, "tuned": tuned}
    _answering("reading").lens(read, shown, given)


@folded
def tune(
    model: ModelName,
    shown: Shown,
    prompts: Annotated[
        Path,
        typer.Option(help="A .jsonl, .json, .csv, .tsv or .parquet file of texts; or a task."),
    ],
    output: Annotated[Path, typer.Option("-o", "--out", help="A folder for the translators.")],
    steps: Annotated[int, typer.Option(min=1, help="Of training, for each block.")] = 250,
    batch: Annotated[int, typer.Option(min=1, help="States in a step.")] = 64,
    seed: Annotated[int, typer.Option(help="Of their order.")] = 0,
    dtype: Dtype = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace translators that are in the folder.")
    ] = False,
) -> None:
    """Train the tuned lens: per block a translator of its states, for 'lens --tuned'."""
    _answering("reading").tune(
        model, shown, prompts, output, (steps, batch, seed), dtype, overwrite
    )


@folded
def attribute(
    read: Read,
    shown: Shown,
    metric: Annotated[
        str | None,
        typer.Option("-m", "--metric", help="logit, logit(contrast) or logit_diff, as in a sweep."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 20,
    neurons: Annotated[
        int | None, typer.Option(help="A layer: its neurons, with the tokens they promote.")
    ] = None,
) -> None:
    """What each head, MLP and bias adds to a logit by itself: direct logit attribution."""
    early.check(read.model, (), [] if metric is None else [metric])
    _answering("reading").attribute(read, shown, metric, top, neurons)


@folded
def attention(
    read: Read,
    shown: Shown,
    address: Annotated[
        str | None,
        typer.Option("-a", "--address", help="Which layers and heads; L*.pattern unless given."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="One head, such as L5.h3, token to token.")
    ] = None,
    weighted: Annotated[
        bool, typer.Option("--weighted", help="Weights times the size of what they move.")
    ] = False,
) -> None:
    """Where heads look: all patterns side by side, or one head's, token to token."""
    early.check(read.model, ())
    _answering("looking").attention(read, shown, address, head, weighted)


@folded
def heads(
    model: ModelName,
    shown: Shown,
    score: Annotated[
        str, typer.Option(help="previous_token, duplicate_token, induction or first_token.")
    ] = "induction",
    n: Annotated[int, typer.Option("-n", min=2, help="How many rows of random tokens.")] = 10,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens in a row; 25 unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of their draw.")] = 0,
    top: Annotated[int, typer.Option(min=1, help="How many heads to show.")] = 10,
    output: Annotated[
        Path | None, typer.Option("-o", "--out", help="A picture: .svg, .pdf, .png, .html.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """What heads look at in rows of random tokens that stand twice: induction and the like."""
    _answering("looking").heads(model, shown, score, (n, length, seed), top, output, overwrite)


@folded
def trace(
    read: Read,
    shown: Shown,
    subject: Annotated[
        str | None, typer.Option(help="What the prompt is about, a word of it.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="A task's prompts in the model's tokens: capitals:4.")
    ] = None,
    kind: Annotated[
        list[str], typer.Option(help="What is put back: hidden, mlp, attention; all unless given.")
    ] = [],  # noqa: B006  (typer reads the default, nothing changes it)
    samples: Annotated[
        int | None, typer.Option(min=1, help="Of the noise; 10 unless given.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="In deviations of the subjects' embeddings; 3 unless given."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Layers of MLPs that go back together; 10 unless given."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise.")] = None,
) -> None:
    """Where a fact comes back in a run that has forgotten its subject: causal tracing."""
    asked = {
        "kinds": [*kind], "samples": samples, "noise_std": noise, "window": window, "seed": seed,
    }  # fmt: skip
    _answering("tracing").trace(read, shown, subject, task, asked)


@folded
def head(
    *,  # the head stands before the model, and either may come from a file
    name: Annotated[str | None, typer.Argument(help="Such as L23.h3.", metavar="HEAD")] = None,
    read: Read,
    shown: Shown,
    task: Annotated[
        str | None, typer.Option(help="A task's prompts in the model's tokens: ioi:16.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Rows of each table; 10 unless given.")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Of the vocabulary, for what it copies; 300 unless given."),
    ] = None,
) -> None:
    """One head on one card: its effect, what it writes, looks at and copies, and what feeds it."""
    early.check(read.model, ())
    _answering("head").head(name, read, shown, task, top, tokens)


def _answering(name: str) -> ModuleType:
    return importlib.import_module(f"microtome.frontends.commands.{name}")
