"""Circuits: which edges of a model carry a behaviour, found, run alone, and judged; exactly."""

from microtome.circuits.ablations import ABLATIONS, Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import Graph
from microtome.circuits.methods import METHODS, Exact, Method, Removal
from microtome.circuits.running import run
from microtome.circuits.scores import Scores, open_scores, score

__all__ = [
    "ABLATIONS",
    "METHODS",
    "Ablation",
    "Circuit",
    "Exact",
    "Graph",
    "Method",
    "Removal",
    "Scores",
    "open_scores",
    "run",
    "score",
]
