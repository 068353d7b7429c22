"""The report of a circuit: how it is drawn, how faithful it is, and how both are repeated."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from microtome.amounts import many
from microtome.circuits.circuit import Circuit
from microtome.circuits.curve import Curve
from microtome.circuits.drawing import MOST_EDGES, draw, draw_audit, draw_curve, draw_edges
from microtome.circuits.measures import worse
from microtome.circuits.scores import Scores
from microtome.figures.mapped import WHY_EXACT
from microtome.readings.registry import readings
from microtome.report.document import Document, Picture, Section, Snippet, Table
from microtome.report.method import how_good
from microtome.results.told import told_by
from microtome.texts import number

DRAWN = {"edge": 200, "node": 15}
"""How many of the strongest are drawn of scores."""
LISTED = 50
"""Edges of a table."""


def document_of_circuit(
    model: str, circuit: Circuit, found: xr.Dataset, command: str, scores: Scores | None = None
) -> Document:
    """The report of one circuit.

    Args:
        model: what it was loaded as.
        circuit: the circuit.
        found: from `faithfulness`.
        command: that repeats it.
        scores: that it was found by.
    """
    parts = [_faithful(found), *_drawn(circuit), *_audited(scores)]
    return _document(model, f"A circuit of {many(len(circuit), 'edge')}", found, parts, command)


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
        matrix = Picture("edges", draw_edges(scores), _each(scores))
        parts.append(Section("All edges", (), (matrix,)))
    parts += _audited(scores)
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
        provenance=told_by(found),
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


def _each(scores: Scores) -> str:
    exact = scores.audit is None
    return "Each edge by itself." + ("" if exact else " A ring: exact, on some prompt at least.")


def _audited(scores: Scores | None) -> list[Section]:
    """How good scores by gradients are, and which are exact."""
    audit = None if scores is None else scores.audit
    if scores is None or audit is None:
        return []
    attrs, level = scores.data.attrs, scores.level
    told = (
        f"Scores are those of {attrs['method']}, which is not exact. Of all {level}s on all "
        f"prompts, {audit['cells']:,} were computed exactly as well, by the circuit without each: "
        "the strongest by the approximation, and others drawn at random from all kinds, layers and "
        "sizes. A score is an effect, with the sign of what is lost."
    )
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    if WHY_EXACT in scores.data:
        frame = scores.exact_cells().drop(columns="number")
        caption = (
            f"Each point is a score that is exact: what {attrs['method']} says, and what it is."
        )
        pictures = (Picture("audit", draw_audit(scores), caption),)
        tables = (Table("What is exact", frame.head(LISTED), "The strongest first."),)
    return [
        Section("How good the approximation is", (told, how_good_are(scores)), pictures, tables)
    ]


def how_good_are(scores: Scores) -> str:
    """What exact scores say of those by gradients beside them; nothing of exact ones."""
    audit, [asked] = scores.audit, readings(scores.data.attrs["metric"])
    if audit is None:
        return ""
    worst, sign = audit["worst"], worse(asked)  # a score is an effect with the sign of what is lost
    sides = {side: sign * worst[side] for side in ("approximate", "exact")}
    unit = str(scores.data["mean"].attrs["unit"])
    told = " ".join(how_good({**audit, "worst": {**worst, **sides}}, unit))
    return f"On {asked}: {told}"


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
