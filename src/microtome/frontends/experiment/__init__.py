"""Experiments as files: everything that a sweep is told, in YAML or as fields, checked."""

from microtome.frontends.experiment.experiment import Experiment

__all__ = ["Experiment"]
