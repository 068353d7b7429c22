"""The command line: parse, call, write. What it does is what the Python functions do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import transformers
import typer
from rich.markup import escape
from rich.table import Table

from microtome import Prompt, Prompts, load
from microtome.edits import Source
from microtome.errors import MicrotomeError
from microtome.frontends.arguments import (
    Attention,
    Config,
    Contrast,
    Device,
    Donor,
    Dtype,
    EditTexts,
    Engine,
    Memory,
    Metrics,
    ModelName,
    OptionalModel,
    Over,
    Overwrite,
    PromptFile,
    PromptText,
    ReferenceFile,
    Revision,
    Target,
    examples,
)
from microtome.frontends.experiment.options import asked, checkpoint, values_of
from microtome.frontends.guard import guarded, writing_to
from microtome.frontends.shown import absent, out, print_table, print_tokens
from microtome.frontends.strongest import print_effects
from microtome.frontends.study_commands import study_app
from microtome.model.describe import described
from microtome.passes.raw import ABOUT, returned, table_of
from microtome.readings.registry import about

app = typer.Typer(
    help="Which part of a transformer causes this prediction?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(study_app, name="study")


@app.command(
    epilog=examples(
        "microtome run nano -p 'Berlin is the capital of' -e 'zero L:.mlp_out@-1'",
        "microtome run gpt2 -p 'Berlin is the capital of' -e 'scale(0.6) L2.resid_post'",
        "microtome run bert-base-uncased -p 'Berlin is the [MASK] of Germany' "
        "-e 'zero L5.z.h3@mask'",
    )
)
def run(
    model: ModelName,
    prompt: PromptText,
    edit: EditTexts = [],  # noqa: B006  (typer reads the default, nothing changes it)
    donor: Donor = None,
    top: Annotated[int, typer.Option(min=1, help="How many tokens to show.")] = 10,
) -> None:
    """The most probable next tokens, or those at the mask, with edits and without; receipts."""
    loaded = load(model)
    given = [Prompt(text, donor=donor) for text in prompt]
    result = loaded.run(given, edits=edit)
    for number, one in enumerate(result.encoded):
        out.print(f"\n[bold]Prompt[/bold]  {escape(str(one.tokens))}")
        for place in one.tokens.predicted:
            if one.tokens.masks:
                out.print(f"[bold]For[/bold] {escape(one.tokens.mask)} at position {place}")
            print_table(result.top(top, prompt=number, position=place))
    if result.receipts:
        out.print("\n[bold]Receipts[/bold]")
        print_table(pd.DataFrame([vars(receipt) for receipt in result.receipts]))


@app.command(
    "sweep",
    epilog=examples(
        "microtome sweep nano -p 'Berlin is the capital of' --target ' Germany' "
        "-e 'zero L*.z.h*' -m prob -o out",
        "microtome sweep gpt2 --prompts prompts.jsonl -e 'patch L*.z.h*@-1' -m logit_diff -o out",
        "microtome sweep nano -p 'Berlin is the capital of' --target ' Germany' "
        "-e 'scale(1) L*.resid_post' --over factor=0.1,0.6,10 -o out",
        "microtome sweep --config experiment.yaml -o out",
    ),
)
def sweep_command(
    model: OptionalModel = None,
    edit: EditTexts = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for map and report.")
    ] = None,
    prompt: PromptText = [],  # noqa: B006
    metric: Metrics = [],  # noqa: B006
    target: Target = None,
    contrast: Contrast = None,
    donor: Donor = None,
    prompts: PromptFile = None,
    over: Over = [],  # noqa: B006
    reference: ReferenceFile = None,
    engine: Engine = None,
    verify: Annotated[
        str | None, typer.Option(help="How many cells to recompute, or 'all'; 4 unless given.")
    ] = None,
    memory: Memory = None,
    screen: Annotated[
        str | None,
        typer.Option(help="bfloat16: the whole map in this type, then the strongest cells again."),
    ] = None,
    refine: Annotated[
        int | None, typer.Option(help="How many cells a screen computes again; 64 unless given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the choice of cells to verify.")] = None,
    dtype: Dtype = None,
    revision: Revision = None,
    device: Device = None,
    attention: Attention = None,
    config: Config = None,
    overwrite: Overwrite = False,
) -> None:
    """Every cell that the stars of an address span: a map, figures and a report."""
    experiment = asked(
        config,
        {
            "model": checkpoint(model, dtype, revision, device, attention),
            "prompts": _given_prompts(config, prompt, prompts, target, contrast, donor),
            "edits": edit,
            "metrics": metric or (None if config else ["prob"]),
            "over": values_of(over),
            "reference": Prompts.read(reference) if reference else None,
            "engine": engine,
            "verify": verify,
            "memory": memory,
            "screen": screen,
            "refine": refine,
            "seed": seed,
            "out": output,
        },
    )
    if experiment.out is None:
        raise MicrotomeError("Say where map and report go: -o DIR.")
    with writing_to(experiment.out):
        effects = experiment.run(overwrite=overwrite)
    out.print(repr(effects), highlight=False, markup=False)
    first = next((m for m in effects.metrics if about(m).unit != "token id"), None)
    if first is not None:
        print_effects(effects, first)
    out.print(f"\nReport: {experiment.out / 'report.html'}", soft_wrap=True, markup=False)


@app.command(
    epilog=examples(
        "microtome plan nano -p 'Berlin is the capital of' -e 'zero L*.z.h*@*'",
        "microtome plan --config experiment.yaml",
    )
)
def plan(
    model: OptionalModel = None,
    edit: EditTexts = [],  # noqa: B006
    prompt: PromptText = [],  # noqa: B006
    target: Target = None,
    contrast: Contrast = None,
    donor: Donor = None,
    prompts: PromptFile = None,
    metric: Metrics = [],  # noqa: B006
    over: Over = [],  # noqa: B006
    reference: ReferenceFile = None,
    memory: Memory = None,
    engine: Engine = None,
    dtype: Dtype = None,
    revision: Revision = None,
    device: Device = None,
    attention: Attention = None,
    config: Config = None,
) -> None:
    """Tokens with their positions, cells, cost and memory of a sweep; nothing of it is run."""
    experiment = asked(
        config,
        {
            "model": checkpoint(model, dtype, revision, device, attention),
            "prompts": _given_prompts(config, prompt, prompts, target, contrast, donor),
            "edits": edit,
            "metrics": metric or (None if config else ["prob"]),
            "over": values_of(over),
            "reference": Prompts.read(reference) if reference else None,
            "memory": memory,
            "engine": engine,
        },
    )
    loaded = experiment.load()
    encoded = loaded.encode(experiment.prompts_for(loaded))
    edits = experiment.edits
    made = experiment.plan(loaded)
    ways = {e.alignment for es in made.cells.edits for e in es if e.source is Source.DONOR}
    for one in encoded:
        print_tokens(one, sorted(ways))
    axes = " × ".join(f"{axis.name} {len(axis.values)}" for axis in made.axes)
    rows = {
        "edits": "; ".join(map(str, edits)),
        "axes": axes,
        "padding": "none: every prompt is run by itself, its positions counted from 0",
        "cells": f"{len(made.cells):,}{absent(made)}",
        "operations": f"{made.cost.flops / 1e9:,.1f} GFLOP, those of {made.cost.passes:,.1f} "
        f"forward passes (cell by cell: {made.cost.reference_passes:,} passes)",
        "memory besides the weights": f"about {made.cost.bytes / 2**20:,.1f} MiB",
        "memory for results": f"about {made.cost.result_bytes / 2**20:,.1f} MiB",
        "engine": f"{made.choice.engine}: {made.choice.why}",
    }
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    out.print(table)


@app.command(epilog=examples("microtome sites nano", "microtome sites nano --raw"))
def sites(
    model: ModelName,
    raw: Annotated[
        bool, typer.Option("--raw", help="What its modules return instead: tensors or tuples.")
    ] = False,
) -> None:
    """A model's anatomy, and what can be addressed in it, with sizes and modules."""
    loaded = load(model)
    out.print(repr(loaded), highlight=False, markup=False)
    if raw:
        out.print(f"transformers {transformers.__version__}", highlight=False)
        print_table(table_of(returned(loaded)))
        out.print(ABOUT, highlight=False, markup=False)
    else:
        table = Table(show_header=False, box=None)
        for name, value in described(loaded.anatomy, loaded.hf.config).items():
            table.add_row(f"[bold]{name}[/bold]", escape(value))
        out.print(table)
        print_table(loaded.sites().reset_index())


def main() -> None:
    """Run the command line; see `guard` for how it ends."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    guarded(lambda: app(prog_name="microtome"))


def _prompts(
    texts: list[str],
    file: Path | None,
    target: str | None,
    contrast: str | None,
    donor: str | None,
) -> Prompts:
    if bool(texts) == (file is not None):
        raise MicrotomeError("Give the prompt with -p TEXT, or several with --prompts FILE.")
    if file is None:
        made = (Prompt(text, donor=donor, target=target, contrast=contrast) for text in texts)
        return Prompts(made)
    if donor is not None or target is not None or contrast is not None:
        raise MicrotomeError(
            "With --prompts, target, contrast and donor stand in the file, one for each prompt."
        )
    return Prompts.read(file)


def _given_prompts(
    config: Path | None,
    texts: list[str],
    file: Path | None,
    target: str | None,
    contrast: str | None,
    donor: str | None,
) -> Prompts | None:
    """The prompts of the options; None where a file of the experiment names its own."""
    if config is not None and not any((texts, file, target, contrast, donor)):
        return None
    return _prompts(texts, file, target, contrast, donor)
