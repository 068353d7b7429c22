"""The report of a circuit: how it is drawn, how faithful it is, and how both are repeated."""

from __future__ import annotations

import json

import pandas as pd
import xarray as xr

from microtome.circuits.circuit import Circuit
from microtome.circuits.curve import Curve
from microtome.circuits.drawing import MOST_EDGES, draw, draw_curve, draw_edges
from microtome.circuits.scores import Scores
from microtome.report.document import Document, Picture, Section, Snippet, Table
from microtome.texts import number

DRAWN = {"edge": 200, "node": 15}
"""How many of the strongest are drawn of scores."""
LISTED = 50
"""Edges of a table."""


def document_of_circuit(model: str, circuit: Circuit, found: xr.Dataset, command: str) -> Document:
    """The report of one circuit.

    Args:
        model: what it was loaded as.
        circuit: the circuit.
        found: from `faithfulness`.
        command: that repeats it.
    """
    parts = [_faithful(found), *_drawn(circuit)]
    return _document(model, f"A circuit of {len(circuit):,} edges", found, parts, command)


def document_of_curve(model: str, scores: Scores, curve: Curve, command: str) -> Document:
    """The report of scores: circuits of growing size.

    Args:
        model: what it was loaded as.
        scores: of edges or nodes.
        curve: of their circuits.
        command: that repeats it.
    """
    data = curve.data
    frame = pd.DataFrame(
        {
            "share": data["share"].values,
            "edges": data["edges"].values,
            **{name: data[name].values for name in ("faithfulness", "low", "high")},
        }
    )
    picture = Picture(
        "faithfulness", draw_curve(curve), "By what share of all edges, or of all nodes, is taken."
    )
    section = Section(
        "Faithfulness",
        (
            "1: the circuit does what the model does; 0: no more than with every edge ablated. CPR "
            f"is the area under it, {curve.cpr}; CMD the area of what is missing or too much, "
            f"{curve.cmd}. Intervals are over prompts.",
        ),
        (picture,),
        (Table("Sizes", frame),),
    )
    some = scores.circuit(min(DRAWN[scores.level], len(scores)))
    parts = [section, *_drawn(some)]
    if scores.level == "edge":
        matrix = Picture("edges", draw_edges(scores), "Each edge by itself.")
        parts.append(Section("All edges", (), (matrix,)))
    return _document(model, "Circuits of growing size", data, parts, command)


def _document(
    model: str, title: str, found: xr.Dataset, parts: list[Section], command: str
) -> Document:
    [metric] = found.attrs["metrics"]
    n = found.sizes["prompt"]
    return Document(
        title=f"{title}, {model}",
        question=f"How much of {metric} is left when every edge outside is ablated?",
        method=(
            "Every reader of the model (a head's queries, keys and values, an MLP, the final norm) "
            "has an input of its own. Over an edge outside of the circuit it gets what "
            f"'{found.attrs['ablation']}' says, over one inside what the circuit itself writes, in "
            f"one exact pass; over {number(n)} prompt{'s' if n != 1 else ''}."
        ),
        sections=tuple(parts),
        snippets=(Snippet("Again", command),),
        provenance=json.loads(found.attrs["provenance"]),
        n_prompts=n,
    )


def _faithful(found: xr.Dataset) -> Section:
    f, low, high = (float(found[name]) for name in ("faithfulness", "low", "high"))
    return Section(
        "Faithfulness",
        (
            f"{number(f)} (95 % interval {number(low)} … {number(high)}, over prompts): 1 would be "
            "what the model does, 0 no more than with every edge ablated.",
        ),
    )


def _drawn(circuit: Circuit) -> list[Section]:
    pictures = []
    if 0 < len(circuit) <= MOST_EDGES:
        caption = "Layers upwards, heads at their numbers; red edges help, blue ones hurt."
        pictures.append(Picture("circuit", draw(circuit), caption))
    frame = circuit.to_dataframe()
    if "score" in frame:
        frame = frame.reindex(frame["score"].abs().sort_values(ascending=False).index)
    shown = [name for name in ("edge", "writer", "reader", "part", "score") if name in frame]
    table = Table("Its strongest edges", frame[shown].head(LISTED))
    return [Section("The circuit", (), tuple(pictures), (table,))]
