"""microtome: which part of a transformer causes this prediction?"""

from microtome.edits import (
    Edit,
    add,
    apply,
    edit,
    mean,
    noise,
    patch,
    replace,
    scale,
    shuffle,
    zero,
)
from microtome.effects import Effects, open_effects
from microtome.model.load import load
from microtome.prompts import Prompt, Prompts
from microtome.sweep import sweep
