"""Options of single commands, as objects: how a sweep is answered, how a figure looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from microtome.frontends.arguments import Overwrite


@dataclass(frozen=True)
class Answering:
    """How `sweep` answers, and where to."""

    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out",
            help="Folder for map and report; or a picture of the map: .svg, .pdf, .png, .html.",
        ),
    ] = None  # fmt: skip
    verify: Annotated[
        str | None, typer.Option(help="How many cells to recompute, or 'all'; 4 unless given.")
    ] = None
    screen: Annotated[
        str | None,
        typer.Option(help="bfloat16: the whole map in this type, then the strongest cells again."),
    ] = None
    refine: Annotated[
        str | None,
        typer.Option(
            help="How many cells a screen computes again, 64 unless given; of an approximate map "
            "how many more are exact, or until its bound is 'below 0.05'."
        ),
    ] = None
    method: Annotated[
        str | None,
        typer.Option(help="exact, or by gradients: atp, atp_star, ig, relp; of edges eap, eap_ig."),
    ] = None
    audit: Annotated[
        int | None,
        typer.Option(help="How many cells of an approximate map are exact; 64 unless given."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of the choice of cells to verify.")] = None
    window: Annotated[
        int | None, typer.Option(help="How many prompts are in memory at once; all unless given.")
    ] = None
    keep: Annotated[
        str | None,
        typer.Option(help="'aggregates': means over the prompts, not each prompt's cells."),
    ] = None
    workers: Annotated[
        str | None, typer.Option(help="Who computes: processes:2, ray, ray:auto,gpus=1.")
    ] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Looking:
    """How `figure` draws."""

    metric: Annotated[
        str | None, typer.Option("-m", "--metric", help="The first one measured, unless given.")
    ] = None
    at: Annotated[
        list[str],
        typer.Option(help="A coordinate of a dimension that is not drawn, such as pos=-1."),
    ] = field(default_factory=list)
    title: Annotated[str | None, typer.Option(help="Over the figure.")] = None
    size: Annotated[str | None, typer.Option(help="Pixels, such as 600x400.")] = None
    colors: Annotated[str | None, typer.Option(help="A colour scale, such as viridis.")] = None
    limit: Annotated[
        float | None, typer.Option(help="The effect at the ends of the colour scale.")
    ] = None
    only: Annotated[
        list[str],
        typer.Option(help="Some coordinates of a dimension alone, such as layer=19:24."),
    ] = field(default_factory=list)
    order: Annotated[
        list[str],
        typer.Option(help="A dimension sorted by the size of its effects, such as head."),
    ] = field(default_factory=list)
    label: Annotated[
        list[str], typer.Option(help="What a dimension is called, such as head='attention head'.")
    ] = field(default_factory=list)
