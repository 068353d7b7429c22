"""The command line: parse, call, write. What it does is what the Python functions do."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import transformers
import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microtome import Prompt, Prompts, load, studies
from microtome.edits import Source
from microtome.errors import MicrotomeError, OtherModelError, listing
from microtome.frontends.experiment.options import asked, checkpoint, values_of
from microtome.model.describe import described
from microtome.passes.raw import ABOUT, returned, table_of
from microtome.plan.plan import Plan
from microtome.prompts.alignment import SAME, aligned
from microtome.prompts.encoding import Encoded
from microtome.readings.inside import INSIDE
from microtome.readings.output import METRICS
from microtome.readings.registry import about
from microtome.report import texts_of

app = typer.Typer(
    help="Which part of a transformer causes this prediction?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
study_app = typer.Typer(help="Published experiments, claim by claim.", no_args_is_help=True)
app.add_typer(study_app, name="study")

out = Console()
err = Console(stderr=True)

ModelName = Annotated[
    str, typer.Argument(help="nano (embedded), a hub id such as gpt2, or a local directory.")
]
METRIC_HELP = (
    f"One of {', '.join(METRICS)}; or inside the model {', '.join(INSIDE)}, such as "
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


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"[cyan]{escape(x)}[/cyan]" for x in lines)


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
            _print(result.top(top, prompt=number, position=place))
    if result.receipts:
        out.print("\n[bold]Receipts[/bold]")
        _print(pd.DataFrame([vars(receipt) for receipt in result.receipts]))


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
    effects = experiment.run()
    out.print(repr(effects), highlight=False, markup=False)
    first = next((m for m in effects.metrics if about(m).unit != "token id"), None)
    if first is not None:
        out.print(f"\n[bold]Strongest effects on {escape(first)}[/bold]")
        _print(effects.top(10, first).drop(columns="text"))
    if effects.n_unchanged:
        out.print(
            f"\nIn {effects.n_unchanged:,} cells nothing changed: an effect of 0 says nothing."
        )
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
        _print_tokens(one, sorted(ways))
    axes = " × ".join(f"{axis.name} {len(axis.values)}" for axis in made.axes)
    rows = {
        "edits": "; ".join(map(str, edits)),
        "axes": axes,
        "padding": "none: every prompt is run by itself, its positions counted from 0",
        "cells": f"{len(made.cells):,}{_absent(made)}",
        "operations": f"{made.cost.flops / 1e9:,.1f} GFLOP, those of {made.cost.passes:,.1f} "
        f"forward passes (cell by cell: {made.cost.reference_passes:,} passes)",
        "memory besides the weights": f"about {made.cost.bytes / 2**20:,.1f} MiB",
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
        _print(table_of(returned(loaded)))
        out.print(ABOUT, highlight=False, markup=False)
    else:
        table = Table(show_header=False, box=None)
        for name, value in described(loaded.anatomy, loaded.hf.config).items():
            table.add_row(f"[bold]{name}[/bold]", escape(value))
        out.print(table)
        _print(loaded.sites().reset_index())


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
    ),
)
def study_run(
    name: Annotated[str | None, typer.Argument(help="See 'microtome study list'.")] = None,
    model: Annotated[
        str | None, typer.Option(help="nano, a hub id or a directory; default: as published.")
    ] = None,
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
) -> None:
    """Run a published experiment: sweeps, figures, claims with their measured values, a report."""
    fields = {"prompt": prompt, "target": target, "contrast": contrast, "donor": donor}
    fields |= {"prompts": None if prompts is None else str(prompts), "lang": lang, **_own(own)}
    given = {field: value for field, value in fields.items() if value is not None}
    if everything:
        _study_all(name, config, given, model, output)
        return
    chosen = studies.named(name, config)
    folder = output or Path("results") / chosen
    result = studies.run(chosen, model=model, out=folder, config=config, tell=_tell, **given)
    table = Table("claim", "measured", "verdict", title=escape(result.document.title))
    say = texts_of(result.document.lang)
    for finding in result.findings:
        verdict = say(f"verdicts.{finding.verdict}")
        table.add_row(*map(escape, (finding.claim, finding.measured, verdict)))
    out.print(table)
    out.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True, markup=False)


def _study_all(
    name: str | None,
    config: Path | None,
    given: dict[str, Any],
    model: str | None,
    output: Path | None,
) -> None:
    lang = given.pop("lang", "en")
    if name is not None or config is not None or given or model is None:
        raise MicrotomeError(
            "--all runs every study with its own published parameters, on one model: give "
            "--model, and besides it only --lang and -o."
        )
    folder = output or Path("results")
    done = studies.run_all(studies.STUDIES.values(), model, folder, lang, _tell)
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
        try:
            fields[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise MicrotomeError(f"--set {text}: the value is not YAML ({error}).") from None
    return fields


def _tell(line: str) -> None:
    err.print(line, style="dim", markup=False, highlight=False)


def main() -> None:
    """Run the command line; exit with 2 and one readable message for bad input."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        app()
    except MicrotomeError as error:
        err.print(f"[bold red]microtome:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)


# --------------------------------------------------------------------------------------- helpers


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


def _print_tokens(encoded: Encoded, alignments: Sequence[str]) -> None:
    """The prompt's tokens, and its donor's where one is used: below, or aligned token by token."""
    out.print(f"[bold]prompt[/bold]  {escape(str(encoded.tokens))}")
    added = [n for n, own in enumerate(encoded.tokens.added) if own]
    if added:
        out.print(f"        added by the tokenizer: {listing(added)}", highlight=False)
    if alignments and encoded.donor is not None:
        out.print(f"[bold]donor[/bold]   {escape(str(encoded.donor))}")
        for by in alignments:
            if by != SAME:
                out.print(f"[bold]aligned by {by}[/bold]  (prompt = donor)")
                shown = str(aligned(by, encoded.tokens, encoded.donor))
                out.print(shown, markup=False, highlight=False, soft_wrap=True)


def _absent(plan: Plan) -> str:
    if not plan.absent:
        return ""
    return f" ({plan.absent:,} more do not exist: {plan.why_absent})"


def _print(frame: pd.DataFrame) -> None:
    table = Table()
    columns = [[_shown(value) for value in frame[name]] for name in frame.columns]
    for name, cells in zip(frame.columns, columns, strict=True):
        # Headers and prose may take several lines; a token or a number must not be torn apart.
        table.add_column(
            str(name).replace("_", "\n", 1),
            justify="right" if pd.api.types.is_numeric_dtype(frame[name]) else "left",
            no_wrap=max(map(len, cells), default=0) <= 24,
        )
    for row in zip(*columns, strict=True):
        table.add_row(*map(escape, row))
    out.print(table)


def _shown(value: object) -> str:
    """A value in a table; a text in quotes where its white space would be lost."""
    if value is pd.NA:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and (not value or value != value.strip()):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
