"""Arguments and options that several commands take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from microtome.readings.names import INSIDE, ON_OUTPUT

ModelName = Annotated[
    str, typer.Argument(help="nano (embedded), a hub id such as gpt2, or a local directory.")
]
METRIC_HELP = (
    f"One of {', '.join(ON_OUTPUT)}; or inside the model {', '.join(INSIDE)}, such as "
    "'std(L*.resid_post)'."
)
PromptText = Annotated[list[str], typer.Option("--prompt", "-p", help="What the model reads.")]
EditTexts = Annotated[
    list[str],
    typer.Option("--edit", "-e", help="Such as 'zero L5.z.h3'; given twice, both apply together."),
]
OptionalModel = Annotated[
    str | None,
    typer.Argument(help="nano (embedded), a hub id such as gpt2, or a local directory."),
]
Config = Annotated[
    Path | None,
    typer.Option(help="A YAML file with the same fields; an option goes before its field."),
]
Over = Annotated[
    list[str],
    typer.Option(help="Values for a parameter of the edits: factor=0.1,0.6,10 makes an axis."),
]
Metrics = Annotated[
    list[str], typer.Option("-m", "--metric", help=f"{METRIC_HELP} prob unless given.")
]
ReferenceFile = Annotated[
    Path | None,
    typer.Option(help='A .jsonl or .csv file of prompts that mean(over="prompts") averages.'),
]
Memory = Annotated[str | None, typer.Option(help="For the walk's batches: 2GiB, 500MB, bytes.")]
Dtype = Annotated[str | None, typer.Option(help="Of the weights: float32, float64, bfloat16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Device = Annotated[str | None, typer.Option(help="Where to put the weights: cpu, cuda:0.")]
Attention = Annotated[str | None, typer.Option(help="Attention implementation: sdpa, eager.")]
Engine = Annotated[str | None, typer.Option(help="auto, walk or reference.")]
Target = Annotated[str | None, typer.Option(help="Token to be predicted, space and all.")]
Contrast = Annotated[str | None, typer.Option(help="Token to compare the target with.")]
Donor = Annotated[str | None, typer.Option(help="Text whose activations 'patch' takes.")]
PromptFile = Annotated[
    Path | None, typer.Option("--prompts", help="A .jsonl or .csv file of prompts.")
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a result of another question in the folder.")
]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON, for programs.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no notes: the answer alone, and errors.")
]
Language = Annotated[str, typer.Option("--lang", help="en or vi.")]


@dataclass(frozen=True)
class Asking:
    """What `sweep` and `plan` both take: the question and the model."""

    model: OptionalModel = None
    edit: EditTexts = field(default_factory=list)
    prompt: PromptText = field(default_factory=list)
    target: Target = None
    contrast: Contrast = None
    donor: Donor = None
    prompts: PromptFile = None
    metric: Metrics = field(default_factory=list)
    over: Over = field(default_factory=list)
    reference: ReferenceFile = None
    engine: Engine = None
    memory: Memory = None
    dtype: Dtype = None
    revision: Revision = None
    device: Device = None
    attention: Attention = None
    config: Config = None


@dataclass(frozen=True)
class Shown:
    """How a command shows its answer."""

    json: Json = False
    quiet: Quiet = False


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"[cyan]{escape(x)}[/cyan]" for x in lines)
