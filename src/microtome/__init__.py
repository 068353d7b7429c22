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
from microtome.model.load import load
from microtome.prompts import Prompt, Prompts
