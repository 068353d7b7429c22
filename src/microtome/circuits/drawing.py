"""Circuits to look at: the graph with its layers upwards, the matrix of edges, curve, pairs.

plotly figures like all others: in a notebook, as HTML, and as PNG, SVG and PDF without a browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from microtome.amounts import many
from microtome.circuits.auditing import layers_of
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.curve import Curve
from microtome.circuits.graph import INPUT, LOGITS, Graph, Numbers
from microtome.circuits.interaction import pairs_of
from microtome.circuits.scores import Scores
from microtome.errors import CircuitError
from microtome.figures import Drawn, points, style
from microtome.figures import matrix as matrix_of
from microtome.figures.heatmap import rings
from microtome.figures.mapped import WHY_EXACT
from microtome.spoken import spoken
from microtome.stats.samples import PROMPT
from microtome.texts import number

HELPS, HURTS, UNSCORED = "#b2182b", "#2166ac", "#7d7d7d"
SCORED = "red: helps, blue: hurts; the wider the stronger"
WIDTHS = (0.7, 1.4, 2.4, 3.8, 5.5)
"""Pixels of an edge, by how strong it is beside the strongest."""
STEPS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
"""Numbers of edges that the slider stops at."""
MOST_NAMES = 90
"""Nodes that have their names beside them."""
MOST_EDGES = 5000
"""Edges that a drawing has: more are no drawing, and a page of many megabytes."""
SMALL = 7
"""Pixels of a ring in a matrix, whose cells are small."""


@dataclass(frozen=True, eq=False)
class _Places:
    """Where nodes are: heads by their number, each MLP right of its layer's heads."""

    graph: Graph

    def of(self, node: int) -> tuple[float, float]:
        """To the right, and upwards."""
        graph = self.graph
        name = graph.nodes[node]
        middle = graph.n_heads / 2
        if name in (INPUT, LOGITS):
            return middle, -1.0 if name == INPUT else float(graph.n_layers)
        writer = graph.writers[node]
        assert writer.layer is not None, "heads and MLPs are in layers"
        if writer.head is None:
            return graph.n_heads + 0.5, writer.layer + (0.0 if graph.parallel else 0.4)
        return float(writer.head), float(writer.layer)


@spoken
def draw(circuit: Circuit, *, title: str | None = None) -> Drawn:
    """A circuit, drawn: layers upwards, heads at their numbers, edges by weight and sign.

    Red edges help, blue ones hurt, grey ones have no score; the wider the stronger. To hover over
    an edge tells its name and score. Where there are scores, the slider shows
    fewer: the strongest ones.

    Args:
        circuit: with scores or without.
        title: in the place of one that counts.

    Raises:
        CircuitError: it has no edge, or too many.
    """
    if not 0 < len(circuit) <= MOST_EDGES:
        raise CircuitError(
            f"A circuit of {many(len(circuit), 'edge')} is no drawing: between 1 and "
            f"{MOST_EDGES:,} are. Take the strongest, scores.circuit(200), or look at the "
            "matrix of edges."
        )
    graph = circuit.graph
    chosen = _strongest_first(circuit)
    scores = np.full(len(chosen), np.nan) if circuit.scores is None else circuit.scores[chosen]
    edges, nodes = many(len(circuit), "edge"), many(len(circuit.nodes), "node")
    name = title or f"Circuit of {edges} and {nodes}"
    made = style.figure(
        name, "" if circuit.scores is None else SCORED, "head", "layer",
        height=min(1400, 260 + 90 * graph.n_layers),
    )  # fmt: skip
    steps = () if circuit.scores is None else STEPS  # none is the stronger without scores
    sizes = [*(n for n in steps if n < len(chosen)), len(chosen)]
    shown = _edges(made, graph, chosen, scores, sizes)
    _nodes(made, circuit)
    _axes(made, graph)
    if len(sizes) > 1:
        made.update_layout(sliders=[_slider(sizes, shown, len(made.data))])
        made.update_layout(margin={"b": 110})
    return Drawn(made)


def _strongest_first(circuit: Circuit) -> Numbers:
    chosen: Numbers = np.flatnonzero(circuit.chosen)
    if circuit.scores is None:
        return chosen
    strength = np.nan_to_num(np.abs(circuit.scores[chosen]), nan=-1.0)
    return chosen[np.argsort(-strength, kind="stable")]


def _edges(
    made: go.Figure, graph: Graph, chosen: Numbers, scores: Array, sizes: Sequence[int]
) -> list[int]:
    """Draw edges; returns of each trace the size of the circuit from which on it is shown."""
    places, shown = _Places(graph), []
    strongest = np.nanmax(np.abs(scores)) if np.isfinite(scores).any() else 1.0
    wide = np.nan_to_num(np.abs(scores) / (strongest or 1.0), nan=0.05)
    width = np.minimum((np.sqrt(wide) * len(WIDTHS)).astype(int), len(WIDTHS) - 1)
    writers, readers = graph.ends[0][chosen], graph.node_of_reader[graph.ends[1][chosen]]
    bends = np.array([_bend(places, w, r) for w, r in zip(writers, readers, strict=True)])
    for before, size in zip((0, *sizes), sizes, strict=False):
        within = np.arange(before, size)
        for color, own in _by_sign(scores, within):
            for step in np.unique(width[own]).tolist():
                some = own[width[own] == step]
                lines = np.concatenate([bends[some], np.full((len(some), 1, 2), np.nan)], axis=1)
                made.add_scatter(
                    x=lines[..., 0].ravel(), y=lines[..., 1].ravel(), mode="lines",
                    line={"color": color, "width": WIDTHS[step]}, opacity=0.75, hoverinfo="skip",
                    showlegend=False,
                )  # fmt: skip
                shown.append(size)
        middle = bends[within, bends.shape[1] // 2]
        made.add_scatter(
            x=middle[:, 0], y=middle[:, 1], mode="markers", showlegend=False,
            marker={"size": 5, "color": "rgba(0,0,0,0)"},
            text=[_told(graph, chosen[n], scores[n], n) for n in within.tolist()],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        shown.append(size)
    return shown


def _bend(places: _Places, writer: int, reader: int) -> Array:
    """An edge as points of a curve, ``[point, 2]``; edges straight up lean a little aside."""
    (x0, y0), (x1, y1) = places.of(writer), places.of(reader)
    at = np.linspace(0, 1, 17)
    aside = 0.25 * np.sin(np.pi * at) * (1 if abs(x1 - x0) < 0.5 and y1 - y0 > 1 else 0)
    smooth = at * at * (3 - 2 * at)
    found: Array = np.stack([x0 + (x1 - x0) * smooth + aside, y0 + (y1 - y0) * at], axis=1)
    return found


def _by_sign(scores: Array, within: Numbers) -> list[tuple[str, Numbers]]:
    kinds = ((UNSCORED, np.isnan(scores)), (HELPS, scores > 0), (HURTS, scores <= 0))
    parts = ((color, within[of_kind[within]]) for color, of_kind in kinds)
    return [(color, own) for color, own in parts if len(own)]


def _told(graph: Graph, edge: int, score: float, rank: int) -> str:
    number = "" if np.isnan(score) else f"<br>score {score:+.4g}, number {rank + 1}"
    return (
        f"{graph.edges[edge]}{number}".replace("<q>", "&lt;q&gt;")
        .replace("<k>", "&lt;k&gt;")
        .replace("<v>", "&lt;v&gt;")
    )


def _nodes(made: go.Figure, circuit: Circuit) -> None:
    graph, places = circuit.graph, _Places(circuit.graph)
    numbers = [graph.nodes.index(name) for name in circuit.nodes]
    at = np.array([places.of(n) for n in numbers])
    reads = [int(circuit.mask[:, graph.node_of_reader == n].sum()) for n in numbers]
    writes = [int(circuit.mask[n].sum()) if n < len(graph.writers) else 0 for n in numbers]
    made.add_scatter(
        x=at[:, 0], y=at[:, 1], mode="markers", showlegend=False,
        marker={"size": 13, "color": "#f3c969"},
        text=[
            f"{graph.nodes[n]}<br>reads over {many(r, 'edge')}, is read over {w}"
            for n, r, w in zip(numbers, reads, writes, strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    if len(numbers) <= MOST_NAMES:
        for n, (x, y) in zip(numbers, at.tolist(), strict=True):
            made.add_annotation(
                x=x, y=y, text=graph.nodes[n], showarrow=False, xshift=11, xanchor="left",
                font={"size": 10, "color": style.LIGHT.layout.font.color},
            )  # fmt: skip


def _axes(made: go.Figure, graph: Graph) -> None:
    heads = list(range(graph.n_heads))
    made.update_xaxes(
        tickmode="array", tickvals=[*heads, graph.n_heads + 0.5],
        ticktext=[*map(str, heads), "MLP"], range=[-0.7, graph.n_heads + 1.3], showgrid=False,
    )  # fmt: skip
    layers = list(range(graph.n_layers))
    made.update_yaxes(
        tickmode="array", tickvals=[-1, *layers, graph.n_layers],
        ticktext=[INPUT, *map(str, layers), LOGITS], range=[-1.5, graph.n_layers + 0.5],
    )  # fmt: skip


def _slider(sizes: Sequence[int], shown: Sequence[int], traces: int) -> dict[str, object]:
    """How many of the edges are shown; nodes always are."""
    return {
        "active": len(sizes) - 1,
        "currentvalue": {"prefix": "strongest edges: "},
        "pad": {"t": 36},
        "steps": [
            {
                "method": "restyle",
                "label": f"{size:,}",
                "args": [
                    {"visible": [own <= size for own in shown] + [True] * (traces - len(shown))}
                ],
            }
            for size in sizes
        ],
    }


# ------------------------------------------------------------------------------------ the others


@spoken
def draw_edges(scores: Scores, *, title: str | None = None) -> Drawn:
    """All edges as a map of colours: what writes runs down, what reads to the right.

    A ring marks edges by gradients that were computed exactly.

    Raises:
        CircuitError: the scores are of nodes.
    """
    if scores.level != "edge":
        raise CircuitError("These are scores of nodes; a matrix of edges needs those of edges.")
    graph = scores.graph
    values = np.full(graph.exists.shape, np.nan)
    values[graph.ends] = scores.mean
    array = xr.DataArray(
        values,
        {"writer": [w.name for w in graph.writers], "reader": [r.name for r in graph.readers]},
        ("writer", "reader"),
    )
    attrs = scores.data.attrs
    made = matrix_of(
        array,
        title=title or f"Edges: how much worse {attrs['metric']} is without each",
        unit=str(scores.data["mean"].attrs["unit"]),
        diverging=True,
        note=f"{attrs['ablation']}; mean over {many(scores.data.sizes[PROMPT], 'prompt')}",
    )
    made.update_xaxes(tickangle=-45)
    _rings(made, scores)
    return Drawn(made)


def _rings(made: go.Figure, scores: Scores) -> None:
    """Rings at edges whose scores are exact, on some prompt at least."""
    if WHY_EXACT not in scores.data:
        return
    exact = (scores.data[WHY_EXACT].values > 0).any(axis=0)
    rows, columns = (ends[exact] for ends in scores.graph.ends)
    rings(made, columns, rows, scores.data.sizes[PROMPT] > 1, SMALL)


@spoken
def draw_audit(scores: Scores, *, title: str | None = None) -> Drawn:
    """Scores by gradients against exact ones, with the diagonal: a point for each exact cell.

    The colour is the layer of what reads (of nodes: of what writes); the logits are behind the last
    one, the input is in the first.

    Raises:
        CircuitError: the scores are exact, or were saved before exact cells were kept with them.
    """
    frame, metric = scores.exact_cells(), scores.data.attrs["metric"]
    audit, unit = scores.audit, str(scores.data["mean"].attrs["unit"])
    assert audit is not None, "scores with exact cells have one"
    shown = zip(frame["prompt"], frame[scores.level], strict=True)
    layers = layers_of(scores.graph, scores.level)
    made = points(
        frame["approximate"].to_numpy(),
        frame["exact"].to_numpy(),
        [f"prompt {prompt} {name}" for prompt, name in shown],
        x_title=f"approximate score on {metric}, {unit}",
        y_title=f"exact score, {unit}",
        title=title or f"{scores.data.attrs['method']} against exact {scores.level}s",
        identity=True,
        color=layers[frame["number"].to_numpy()],
        color_title="layer",
        note="" if audit["pearson"] is None else f"r = {number(audit['pearson'])}",
    )
    return Drawn(made)


@spoken
def draw_curve(curve: Curve, *, title: str = "Faithfulness by size") -> Drawn:
    """The faithfulness curve, with the area under it (CPR) and the one to the model (CMD).

    Sizes are on a logarithmic axis; the areas that the numbers are of are on a linear one.
    """
    shares = np.array(curve.shares) * 100
    f, low, high = (curve.data[name].values for name in ("faithfulness", "low", "high"))
    made = style.figure(
        title, f"CPR {curve.cpr}; CMD {curve.cmd}", "share of all edges, %",
        "faithfulness, (m(C) − m(∅)) / (m(full) − m(∅))", legend=True,
    )  # fmt: skip
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    made.add_scatter(x=shares, y=np.zeros_like(f), showlegend=False, **edge)
    made.add_scatter(
        x=shares, y=f, fill="tonexty", fillcolor="rgba(59,111,182,0.22)", name="under it: CPR",
        **edge,
    )  # fmt: skip
    made.add_scatter(
        x=shares, y=np.ones_like(f), fill="tonexty", fillcolor="rgba(209,73,91,0.22)",
        name="to the model: CMD", **edge,
    )  # fmt: skip
    made.add_scatter(
        x=shares, y=f, mode="lines+markers", name="faithfulness",
        line={"color": style.COLORS[0], "width": 2}, marker={"color": style.COLORS[0], "size": 6},
        customdata=np.stack([curve.data["edges"].values, low, high], -1),
        hovertemplate="%{x:g} %<br>f %{y:.4g}<br>95 %: %{customdata[1]:.4g} … "
        "%{customdata[2]:.4g}<br>%{customdata[0]:,} edges<extra></extra>",
    )  # fmt: skip
    there = np.isfinite(low) & np.isfinite(high)
    if there.any():
        made.add_scatter(
            x=shares[there], y=f[there], mode="markers", showlegend=False, hoverinfo="skip",
            marker={"color": style.COLORS[0], "size": 3},
            error_y={
                "array": np.maximum(high - f, 0)[there],
                "arrayminus": np.maximum(f - low, 0)[there],
                "color": style.COLORS[0],
                "thickness": 1,
            },
        )  # fmt: skip
    made.add_hline(y=1, line={"color": style.QUIET, "dash": "dash", "width": 1})
    made.add_hline(y=0, line={"color": style.QUIET, "width": 1})
    made.update_xaxes(type="log", tickvals=shares, ticktext=[f"{share:g}" for share in shares])
    return Drawn(made)


@spoken
def draw_interaction(pairs: xr.DataArray, *, title: str | None = None) -> Drawn:
    """Interactions as a map of colours: below 0 (blue) two parts are redundant for ``logit_diff``.

    Args:
        pairs: from `interaction`; several prompts are averaged.
        title: in the place of its own.
    """
    both = pairs_of(pairs)
    mean = pairs.mean(PROMPT) if PROMPT in pairs.dims else pairs
    own, other = [*both], [*both.values()]
    size = int(np.prod([mean.sizes[dim] for dim in own]))
    flat = mean.transpose(*own, *other).values.reshape(size, size)
    names = [".".join(f"{dim[0].upper()}{i}" for dim, i in zip(own, at, strict=True))
             for at in np.ndindex(*[mean.sizes[dim] for dim in own])]  # fmt: skip
    array = xr.DataArray(flat, {"one": names, "other": names}, ("one", "other"))
    made = matrix_of(
        array,
        title=title or f"Interaction, {pairs.attrs.get('about', '')}",
        unit="effect",
        diverging=True,
    )
    made.update_xaxes(tickangle=-45)
    return Drawn(made)
