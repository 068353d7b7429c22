"""Prompts: texts, tokens, roles, alignment, tasks; where addresses land in them."""

from microtome.prompts.encoding import piece

__all__ = ["piece"]
