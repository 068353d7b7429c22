"""The command line: what can be asked. The answers are in `microtome.frontends.commands`.

A command is declared here with nothing but names, and what answers it, torch and all, is imported
when it is called: help and refusals come at once.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

import microtome
from microtome.frontends import early, lab_command, reading_commands, steering_commands
from microtome.frontends.arguments import (
    Asking,
    ChatOptions,
    Config,
    Donor,
    Dtype,
    EditTexts,
    ModelName,
    OptionalModel,
    Overwrite,
    PromptText,
    Shown,
    Writing,
    chat_of,
    examples,
)
from microtome.frontends.circuit_commands import circuit_app
from microtome.frontends.folding import folded
from microtome.frontends.guard import guarded
from microtome.frontends.helping import Command, Group
from microtome.frontends.importing import imported
from microtome.frontends.looks import Answering, Looking
from microtome.frontends.shown import out as out
from microtome.frontends.study_commands import study_app

app = typer.Typer(
    cls=Group,
    help="Which part of a transformer causes this prediction?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(study_app, name="study")
app.add_typer(circuit_app, name="circuit")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"microtome {microtome.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Which part of a transformer causes this prediction?"""


@app.command(
    cls=Command,
    epilog=examples(
        "microtome run nano -p 'Berlin is the capital of' -e 'zero L:.mlp_out@-1'",
        "microtome run gpt2 -p 'Berlin is the capital of' -e 'scale(0.6) L2.resid_post'",
        "microtome run bert-base-uncased -p 'Berlin is the [MASK] of Germany' "
        "-e 'zero L5.z.h3@mask'",
        "microtome run --config run.yaml",
    ),
)
@folded
def run(
    shown: Shown,
    model: OptionalModel = None,
    prompt: PromptText = [],  # noqa: B006
    edit: EditTexts = [],  # noqa: B006  (typer reads the default, nothing changes it)
    donor: Donor = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many tokens to show; 10 unless given.")
    ] = None,
    config: Config = None,
) -> None:
    """The most probable next tokens, or those at the mask, with edits and without; receipts."""
    early.check(model, edit)
    _answering("running").run(model, prompt, edit, donor, top, config, shown)


@app.command(
    cls=Command,
    epilog=examples(
        "microtome generate nano -p 'Berlin is the capital of' -e 'zero L:.attn_out@last'",
        "microtome generate smollm2 --chat -p 'How was your day?' "
        "-e 'add(\"joy.safetensors\", factor=2) L12.resid_post'",
    ),
)
@folded
def generate(
    writing: Writing,
    shown: Shown,
    model: OptionalModel = None,
    prompt: PromptText = [],  # noqa: B006
    edit: EditTexts = [],  # noqa: B006
    donor: Donor = None,
) -> None:
    """Write behind prompts under edits: each token with what it would have been without them."""
    early.check(model, edit)
    _answering("generating").generate(model, prompt, edit, donor, writing, shown)


@app.command(
    "sweep",
    cls=Command,
    epilog=examples(
        "microtome sweep nano -p 'Berlin is the capital of' --target ' Germany' "
        "-e 'zero L*.z.h*' -m prob -o out",
        "microtome sweep gpt2 --prompts prompts.jsonl -e 'patch L*.z.h*@-1' -m logit_diff -o out",
        "microtome sweep nano -p 'Berlin is the capital of' --target ' Germany' "
        "-e 'scale(1) L*.resid_post' --over factor=0.1,0.6,10 -o out",
        "microtome sweep --config experiment.yaml -o out",
    ),
)
@folded
def sweep_command(question: Asking, answering: Answering, shown: Shown) -> None:
    """Every cell that the stars of an address span: a map, figures and a report."""
    _check(question)
    _answering("sweeping").sweep(question, answering, shown)


@app.command(
    cls=Command,
    epilog=examples(
        "microtome plan nano -p 'Berlin is the capital of' -e 'zero L*.z.h*@*'",
        "microtome plan --config experiment.yaml",
    ),
)
@folded
def plan(question: Asking, shown: Shown) -> None:
    """Cells, cost, seconds and memory of a sweep, and its tokens; nothing of it is run."""
    _check(question)
    _answering("planning").plan(question, shown)


@app.command(
    "chat-prompt",
    cls=Command,
    epilog=examples(
        "microtome chat-prompt smollm2 -p 'Is a whale a fish?'",
        "microtome chat-prompt smollm2 --system 'Answer yes or no.' -p 'Is a whale a fish?'",
    ),
)
@folded
def chat_prompt(
    model: ModelName,
    prompt: Annotated[
        list[str],
        typer.Option(
            "--prompt", "-p", help="What the user says; given again, after the answer before."
        ),
    ],
    shown: Shown,
    system: Annotated[str | None, typer.Option(help="What the system is told first.")] = None,
    answer: Annotated[
        list[str], typer.Option(help="What the assistant said; once after each -p but the last.")
    ] = [],  # noqa: B006
    chat_option: ChatOptions = [],  # noqa: B006
) -> None:
    """What the model's chat template makes of a chat: the text, its tokens, and its messages."""
    messages = chat_of(prompt, answer, system)
    _answering("chatting").chat(model, messages, chat_option, shown)


@app.command(
    "card",
    cls=Command,
    epilog=examples("microtome card nano", "microtome card smollm2 -n 50 --json"),
)
@folded
def card(
    model: ModelName,
    shown: Shown,
    n: Annotated[int, typer.Option("-n", min=2, help="How many prompts of each task.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the prompts' draw.")] = 0,
    dtype: Dtype = None,
) -> None:
    """What a model can do of the tasks: accuracy and logit difference, with intervals."""
    _answering("rating").rate(model, n, seed, dtype, shown)


@app.command(cls=Command, epilog=examples("microtome sites nano", "microtome sites nano --raw"))
@folded
def sites(
    model: ModelName,
    shown: Shown,
    raw: Annotated[
        bool, typer.Option("--raw", help="What its modules return instead: tensors or tuples.")
    ] = False,
) -> None:
    """A model's anatomy, and what can be addressed in it, with sizes and modules."""
    _answering("listing_sites").sites(model, raw, shown)


@app.command(
    cls=Command,
    epilog=examples(
        "microtome figure out -o map.svg",
        "microtome figure out -m prob -o map.pdf --at pos=-1 --title 'Heads' --size 600x400",
    ),
)
@folded
def figure(
    result: Annotated[
        Path, typer.Argument(help="What a sweep left: its folder, or the .zarr in it.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--out", help="The picture: .svg, .pdf, .png or .html.")
    ],
    looking: Looking,
    shown: Shown,
    overwrite: Overwrite = False,
) -> None:
    """Draw the map of a result that is there, as a picture for a paper."""
    _answering("drawing").draw(result, output, looking, shown, overwrite)


reading_commands.add_to(app)
steering_commands.add_to(app)
lab_command.add_to(app)


def main() -> None:
    """Run the command line; see `guard` for how it ends."""
    guarded(lambda: app(prog_name="microtome"))


def _check(question: Asking) -> None:
    """Refuse what can be refused at once; a file of the experiment is read with its lines."""
    if question.config is None:
        early.check(question.model, question.edit, question.metric)


def _answering(name: str) -> ModuleType:
    """The module that answers a command: imported now, and it takes seconds."""
    return imported(f"microtome.frontends.commands.{name}")
