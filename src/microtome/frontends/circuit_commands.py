"""The commands about circuits; see `microtome.frontends.cli` for how they are answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from microtome.frontends.arguments import (
    Contrast,
    Donor,
    Dtype,
    Memory,
    ModelName,
    Overwrite,
    PromptFile,
    PromptText,
    ReferenceFile,
    Shown,
    Target,
    WorkersName,
    examples,
)
from microtome.frontends.folding import folded
from microtome.frontends.helping import Command, Group
from microtome.frontends.importing import imported

circuit_app = typer.Typer(
    cls=Group,
    help="Circuits: edges scored, found, judged and drawn, exactly.",
    no_args_is_help=True,
)


@dataclass(frozen=True)
class Trying:
    """What circuits are measured by."""

    prompts: PromptFile = None
    prompt: PromptText = field(default_factory=list)
    target: Target = None
    contrast: Contrast = None
    donor: Donor = None
    metric: Annotated[
        str | None, typer.Option("-m", "--metric", help="On the output, such as logit_diff or kl.")
    ] = None
    ablation: Annotated[
        str, typer.Option(help="What edges outside carry: patch (the donor's), zero or mean.")
    ] = "patch"
    reference: ReferenceFile = None
    memory: Memory = None
    dtype: Dtype = None
    workers: WorkersName = None


Result = Annotated[Path, typer.Option("-o", "--out", help="Where it goes.")]
Of = Annotated[Path, typer.Argument(help="A circuit (.json) or scores (.zarr).")]


@circuit_app.command(
    "score",
    cls=Command,
    epilog=examples(
        "microtome circuit score nano --prompts ioi:8 -o scores.zarr",
        "microtome circuit score nano --prompts ioi:8 --level node -o nodes.zarr",
    ),
)
@folded
def circuit_score(
    model: ModelName,
    trying: Trying,
    shown: Shown,
    output: Result,
    overwrite: Overwrite = False,
    level: Annotated[str, typer.Option(help="edge or node.")] = "edge",
    method: Annotated[
        str,
        typer.Option(
            help="exact: a cell each; removal: a circuit each; or by gradients, edges by eap, "
            "eap_ig, nodes by atp."
        ),
    ] = "exact",
    audit: Annotated[
        int, typer.Option(min=1, help="Of scores by gradients, how many are exact besides.")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Of the draw of these.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="A folder for what is done: the same again goes on there.")
    ] = None,
) -> None:
    """How much worse the model is without each edge, or each node."""
    how = {"level": level, "method": method, "audit": audit, "seed": seed}
    _answering().score(model, trying, how, keep, output, shown, overwrite)


@circuit_app.command(
    "find",
    cls=Command,
    epilog=examples(
        "microtome circuit find nano --scores scores.zarr -n 100 -o circuit.json",
        "microtome circuit find nano --by acdc --threshold 0.05 --prompts ioi:4 -o circuit.json",
        "microtome circuit find nano --by greedy --scores scores.zarr --start 300 -n 50 --every 10 "
        "--prompts ioi:4 -o circuit.json",
    ),
)
@folded
def circuit_find(
    model: ModelName,
    trying: Trying,
    shown: Shown,
    output: Result,
    overwrite: Overwrite = False,
    by: Annotated[str, typer.Option(help="top, greedy or acdc.")] = "top",
    scores: Annotated[Path | None, typer.Option(help="From 'circuit score'.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=0, help="How many edges.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Of scores; of acdc its τ.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Of greedy: how far the metric may move.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Of greedy: edges that go at a step.")] = 1,
    start: Annotated[
        int | None, typer.Option(help="Begin with so many of the strongest scores.")
    ] = None,
    order: Annotated[
        str, typer.Option(help="Of acdc: which writer is tried first, last or first, or a seed.")
    ] = "last",
    keep: Annotated[
        Path | None, typer.Option(help="A folder for what is done: the same again goes on there.")
    ] = None,
) -> None:
    """A circuit: by scores, or by a search in which every decision is exact."""
    how = {"by": by, "scores": scores, "n": n, "threshold": threshold, "tolerance": tolerance,
           "every": every, "start": start, "order": order, "keep": keep}  # fmt: skip
    _answering().find(model, trying, how, output, shown, overwrite)


@circuit_app.command(
    "evaluate",
    cls=Command,
    epilog=examples(
        "microtome circuit evaluate nano circuit.json --prompts ioi:32 -o out",
        "microtome circuit evaluate nano scores.zarr --prompts ioi:32 -o out",
    ),
)
@folded
def circuit_evaluate(
    model: ModelName,
    of: Of,
    trying: Trying,
    shown: Shown,
    output: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder for the report.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """How faithful a circuit is; of scores, the circuits of ten sizes, with CPR and CMD."""
    _answering().evaluate(model, of, trying, output, shown, overwrite)


@circuit_app.command(
    "run",
    cls=Command,
    epilog=examples("microtome circuit run --config circuit.yaml -o out/circuit"),
)
@folded
def circuit_run(
    config: Annotated[Path, typer.Option(help="A YAML file: what is scored, searched and judged.")],
    shown: Shown,
    output: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder, in the place of the file's out.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Scores, a search and what it is judged by, as a file says; goes on from where it was."""
    _answering().run(config, output, shown, overwrite)


@circuit_app.command(
    "draw",
    cls=Command,
    epilog=examples(
        "microtome circuit draw circuit.json -o circuit.html",
        "microtome circuit draw scores.zarr -n 200 -o circuit.svg",
        "microtome circuit draw scores.zarr --matrix -o edges.png",
    ),
)
@folded
def circuit_draw(
    of: Of,
    shown: Shown,
    output: Annotated[
        Path, typer.Option("-o", "--out", help="The picture: .svg, .pdf, .png or .html.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="Of scores, how many edges.")] = 100,
    matrix: Annotated[bool, typer.Option("--matrix", help="All edges as a map of colours.")] = (
        False
    ),
    overwrite: Overwrite = False,
) -> None:
    """A picture of a circuit, or of all edges."""
    _answering().draw(of, output, n, matrix, shown, overwrite)


def _answering() -> ModuleType:
    """What answers: imported now, and it takes seconds."""
    return imported("microtome.frontends.commands.circuits")
