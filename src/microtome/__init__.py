"""microtome: which part of a transformer causes this prediction?"""

from microtome import stats, studies, tasks
from microtome.edits import (
    Edit,
    add,
    apply,
    edit,
    knockout,
    mean,
    noise,
    patch,
    replace,
    scale,
    shuffle,
    zero,
)
from microtome.effects import Effects, open_effects
from microtome.errors import MicrotomeError
from microtome.experiment import Experiment
from microtome.model.load import load
from microtome.model.model import Model
from microtome.outcome import Run
from microtome.prompts import Prompt, Prompts
from microtome.sweep import sweep

__version__ = "0.1.0"

__all__ = [
    "Edit",
    "Effects",
    "Experiment",
    "MicrotomeError",
    "Model",
    "Prompt",
    "Prompts",
    "Run",
    "add",
    "apply",
    "edit",
    "knockout",
    "load",
    "mean",
    "noise",
    "open_effects",
    "patch",
    "replace",
    "scale",
    "shuffle",
    "stats",
    "studies",
    "sweep",
    "tasks",
    "zero",
]
