"""`prompts.alignment` under the name that scripts of the first versions know it by."""

from microtome.prompts.alignment import Alignment, aligned

__all__ = ["Alignment", "aligned"]
