"""microtome: which part of a transformer causes this prediction?

Names are resolved when they are first asked for, so importing takes no time and has no effects.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from microtome import circuits as circuits
    from microtome import stats as stats
    from microtome import steering as steering
    from microtome import studies as studies
    from microtome import tasks as tasks
    from microtome import workers as workers
    from microtome.edits import Edit as Edit
    from microtome.edits import add as add
    from microtome.edits import apply as apply
    from microtome.edits import clamp as clamp
    from microtome.edits import edit as edit
    from microtome.edits import knockout as knockout
    from microtome.edits import mean as mean
    from microtome.edits import noise as noise
    from microtome.edits import patch as patch
    from microtome.edits import project as project
    from microtome.edits import replace as replace
    from microtome.edits import scale as scale
    from microtome.edits import shuffle as shuffle
    from microtome.edits import zero as zero
    from microtome.engines.approximate.atp import AtP as AtP
    from microtome.engines.approximate.atp_star import AtPStar as AtPStar
    from microtome.engines.approximate.eap import EAP as EAP
    from microtome.engines.approximate.eap import EAPIG as EAPIG
    from microtome.engines.approximate.integrated import IG as IG
    from microtome.engines.approximate.integrated import GradientNorms as GradientNorms
    from microtome.engines.approximate.relp import RelP as RelP
    from microtome.engines.observer import Observer as Observer
    from microtome.errors import Cancelled as Cancelled
    from microtome.errors import MicrotomeError as MicrotomeError
    from microtome.frontends.experiment import CircuitExperiment as CircuitExperiment
    from microtome.frontends.experiment import Experiment as Experiment
    from microtome.frontends.live import Live as Live
    from microtome.frontends.live import live as live
    from microtome.language.edges import edge as edge
    from microtome.model.watching import watching as watching
    from microtome.plan.audit import Audit as Audit
    from microtome.plan.verify import Verify as Verify
    from microtome.prompts.prompt import Prompt as Prompt
    from microtome.prompts.prompts import Prompts as Prompts
    from microtome.prompts.stream import Stream as Stream
    from microtome.readings.translators import Translators as Translators
    from microtome.results.aggregates import Aggregates as Aggregates
    from microtome.results.aggregates import open_aggregates as open_aggregates
    from microtome.results.effects import Effects as Effects
    from microtome.results.opening import open_effects as open_effects
    from microtome.steering.vector import SteeringVector as SteeringVector
    from microtome.verbs.attention import Attention as Attention
    from microtome.verbs.attention import HeadScores as HeadScores
    from microtome.verbs.attention import attention as attention
    from microtome.verbs.attention import head_scores as head_scores
    from microtome.verbs.attribution import Attribution as Attribution
    from microtome.verbs.attribution import attribute_logits as attribute_logits
    from microtome.verbs.attribution import attribute_neurons as attribute_neurons
    from microtome.verbs.dose import Dose as Dose
    from microtome.verbs.dose import dose as dose
    from microtome.verbs.edges import edges as edges
    from microtome.verbs.generation import Generation as Generation
    from microtome.verbs.head_card import HeadCard as HeadCard
    from microtome.verbs.head_card import head_card as head_card
    from microtome.verbs.head_circuit import HeadCircuit as HeadCircuit
    from microtome.verbs.head_circuit import head_circuit as head_circuit
    from microtome.verbs.lens import Lens as Lens
    from microtome.verbs.lens import lens as lens
    from microtome.verbs.load import load as load
    from microtome.verbs.model import Model as Model
    from microtome.verbs.options import Screen as Screen
    from microtome.verbs.run import Run as Run
    from microtome.verbs.sweep import sweep as sweep
    from microtome.verbs.tracing import Traces as Traces
    from microtome.verbs.tracing import trace_facts as trace_facts
    from microtome.verbs.tuning import train_translators as train_translators

__version__ = "0.1.0"

_HOMES = {
    "Aggregates": "results.aggregates",
    "AtP": "engines.approximate.atp",
    "AtPStar": "engines.approximate.atp_star",
    "Attention": "verbs.attention",
    "Attribution": "verbs.attribution",
    "Audit": "plan.audit",
    "Cancelled": "errors",
    "Dose": "verbs.dose",
    "EAP": "engines.approximate.eap",
    "EAPIG": "engines.approximate.eap",
    "Edit": "edits",
    "Effects": "results.effects",
    "CircuitExperiment": "frontends.experiment",
    "Experiment": "frontends.experiment",
    "Generation": "verbs.generation",
    "GradientNorms": "engines.approximate.integrated",
    "HeadCard": "verbs.head_card",
    "HeadCircuit": "verbs.head_circuit",
    "HeadScores": "verbs.attention",
    "IG": "engines.approximate.integrated",
    "Lens": "verbs.lens",
    "Live": "frontends.live",
    "MicrotomeError": "errors",
    "Model": "verbs.model",
    "Observer": "engines.observer",
    "Prompt": "prompts.prompt",
    "Prompts": "prompts.prompts",
    "RelP": "engines.approximate.relp",
    "Run": "verbs.run",
    "Screen": "verbs.options",
    "SteeringVector": "steering.vector",
    "Stream": "prompts.stream",
    "Traces": "verbs.tracing",
    "Translators": "readings.translators",
    "Verify": "plan.verify",
    "add": "edits",
    "apply": "edits",
    "attention": "verbs.attention",
    "attribute_logits": "verbs.attribution",
    "attribute_neurons": "verbs.attribution",
    "clamp": "edits",
    "dose": "verbs.dose",
    "edge": "language.edges",
    "edges": "verbs.edges",
    "edit": "edits",
    "head_card": "verbs.head_card",
    "head_circuit": "verbs.head_circuit",
    "head_scores": "verbs.attention",
    "knockout": "edits",
    "lens": "verbs.lens",
    "live": "frontends.live",
    "load": "verbs.load",
    "mean": "edits",
    "noise": "edits",
    "open_aggregates": "results.aggregates",
    "open_effects": "results.opening",
    "patch": "edits",
    "project": "edits",
    "replace": "edits",
    "scale": "edits",
    "shuffle": "edits",
    "sweep": "verbs.sweep",
    "trace_facts": "verbs.tracing",
    "train_translators": "verbs.tuning",
    "watching": "model.watching",
    "zero": "edits",
}
"""Public name → the module that has it."""

__all__ = sorted([*_HOMES, "circuits", "stats", "steering", "studies", "tasks", "workers"])


def __getattr__(name: str) -> object:
    """A public name, or a module of the package."""
    if name in _HOMES:
        found: object = getattr(importlib.import_module(f"microtome.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"microtome.{name}") is not None:
        return importlib.import_module(f"microtome.{name}")
    habits = importlib.import_module("microtome.language.habits")
    raise AttributeError(f"module 'microtome' has no attribute {name!r}{habits.here(name)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
