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
from microtome.errors import MicrotomeError
from microtome.frontends.experiment import Experiment
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.results.effects import Effects, open_effects
from microtome.verbs.load import load
from microtome.verbs.model import Model
from microtome.verbs.run import Run
from microtome.verbs.sweep import sweep

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
