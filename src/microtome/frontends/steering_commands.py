"""The commands that steer: make a vector, and measure its doses; see `cli` for the answers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from microtome.frontends import early
from microtome.frontends.arguments import (
    Asking,
    Dtype,
    ModelName,
    Overwrite,
    Shown,
    examples,
)
from microtome.frontends.folding import folded
from microtome.frontends.helping import Command


@dataclass(frozen=True)
class Making:
    """What a steering vector is made of: contrasts, one text, or a token."""

    positive: Annotated[
        list[str], typer.Option(help="A text with what is to be steered to; as often as wanted.")
    ] = field(default_factory=list)
    negative: Annotated[list[str], typer.Option(help="A text without it, as often.")] = field(
        default_factory=list
    )
    pairs: Annotated[
        Path | None,
        typer.Option(help="A .jsonl or .csv file with the columns positive and negative."),
    ] = None
    text: Annotated[str | None, typer.Option(help="One text whose state is the vector.")] = None
    token: Annotated[str | None, typer.Option(help="A token, by its direction.")] = None
    without: Annotated[
        str | None, typer.Option(help="A text, or token, whose vector is taken away.")
    ] = None
    how: Annotated[
        str, typer.Option(help="Of contrasts: mean, or of pairs pca or pca_centred.")
    ] = "mean"
    site: Annotated[str, typer.Option(help="Where states are taken.")] = "resid_post"
    at: Annotated[str, typer.Option(help="At which position, as in an address.")] = "last"
    normalise: Annotated[bool, typer.Option("--normalise", help="Give it the length 1.")] = False


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(
        "steer",
        cls=Command,
        epilog=examples(
            "microtome steer nano --positive 'Berlin is in Germany' "
            "--negative 'Paris is in France' -o germany.safetensors",
            "microtome steer smollm2 --pairs moods.jsonl -o happy.gguf",
            "microtome steer gpt2 --token ' France' --without ' Germany' -o france.gguf",
        ),
    )(steer)
    app.command(
        "dose",
        cls=Command,
        epilog=examples(
            "microtome dose nano -e 'add(\"germany.safetensors\") L*.resid_post' "
            "-p 'Berlin is the capital of' --target ' Germany' --contrast ' France' -m logit_diff "
            "--over factor=-1,0.5,1 --neutral 'Sam went to the park.' -o out",
        ),
    )(dose)


@folded
def steer(
    model: ModelName,
    making: Making,
    shown: Shown,
    output: Annotated[
        Path, typer.Option("-o", "--out", help="The file: .safetensors, or .gguf for llama.cpp.")
    ],
    overwrite: Overwrite = False,
    dtype: Dtype = None,
) -> None:
    """Make a steering vector, and keep it in a file that edits can name."""
    _answering().steer(model, making, output, overwrite, dtype, shown)


@folded
def dose(
    question: Asking,
    shown: Shown,
    neutral: Annotated[
        list[str], typer.Option(help="A text that is to go on as it is; as often as wanted.")
    ] = [],  # noqa: B006  (typer reads the default, nothing changes it)
    output: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for figures and report.")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="Show the strongest doses that cost so many nats per token.")
    ] = 0.25,
    overwrite: Overwrite = False,
) -> None:
    """What doses of an edit gain on prompts, and cost at every token of neutral texts."""
    if question.config is None:
        early.check(question.model, question.edit, question.metric)
    _answering().dose(question, neutral, output, budget, overwrite, shown)


def _answering() -> ModuleType:
    """What answers: imported now, and it takes seconds."""
    return importlib.import_module("microtome.frontends.commands.steering")
