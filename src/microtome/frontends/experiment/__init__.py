"""Experiments as files: everything that a sweep or a circuit is told, in YAML or as fields."""

from microtome.frontends.experiment.circuit import CircuitExperiment
from microtome.frontends.experiment.experiment import Experiment

__all__ = ["CircuitExperiment", "Experiment"]
