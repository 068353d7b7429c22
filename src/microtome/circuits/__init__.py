"""Circuits: which edges of a model carry a behaviour, found, run alone, and judged; exactly."""

from microtome.circuits.ablations import ABLATIONS, Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.criteria import completeness, minimality, parts_of
from microtome.circuits.curve import SIZES, Curve, cmd, cpr, curve
from microtome.circuits.discovery import acdc, greedy, top
from microtome.circuits.drawing import (
    draw,
    draw_audit,
    draw_curve,
    draw_edges,
    draw_interaction,
)
from microtome.circuits.faithfulness import faithfulness
from microtome.circuits.graph import Graph
from microtome.circuits.interaction import interaction
from microtome.circuits.methods import METHODS, Exact, Method, Removal
from microtome.circuits.running import run
from microtome.circuits.scores import Scores, open_scores, score
from microtome.circuits.search import Found

__all__ = [
    "ABLATIONS",
    "METHODS",
    "SIZES",
    "Ablation",
    "Circuit",
    "Curve",
    "Exact",
    "Found",
    "Graph",
    "Method",
    "Removal",
    "Scores",
    "acdc",
    "cmd",
    "completeness",
    "cpr",
    "curve",
    "draw",
    "draw_audit",
    "draw_curve",
    "draw_edges",
    "draw_interaction",
    "faithfulness",
    "greedy",
    "interaction",
    "minimality",
    "open_scores",
    "parts_of",
    "run",
    "score",
    "top",
]
