"""`model.files` under the name that scripts of the first versions know it by."""

from microtome.model.files import nano_directory

__all__ = ["nano_directory"]
