"""Circuits: which edges of a model carry a behaviour, found, run alone, and judged; exactly."""

from microtome.circuits.ablations import ABLATIONS, Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import Graph
from microtome.circuits.running import run

__all__ = ["ABLATIONS", "Ablation", "Circuit", "Graph", "run"]
