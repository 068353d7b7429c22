"""Steering vectors: made from contrasts, from one text, from a token; added, projected, clamped."""

from __future__ import annotations

from microtome.steering.making import contrast, of_text, of_token
from microtome.steering.vector import SteeringVector, open_vector

__all__ = ["SteeringVector", "contrast", "of_text", "of_token", "open_vector"]
