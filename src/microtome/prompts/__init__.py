"""Prompts: texts, tokens, roles, alignment; where addresses land in them."""

from microtome.prompts.encoding import piece

__all__ = ["piece"]
