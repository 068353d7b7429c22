"""What parts of one result have in common, and what may be another in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from microtome.model.published import HARMLESS

SAME = (
    "weight_hash", "buffer_hash", "architecture", "dtype", "dtypes", "quantization", "additions",
    "adapters",
)  # fmt: skip
"""Of a model's record, what decides more than the last bits of a number."""

OWN = ("device", "device_map", "attention")
"""And what decides those: each part may have its own."""

EXACT = "exact"


def asked(told: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same where prompts are counted together, of a result's provenance.

    The question, but for the prompts; the weights, and what is computed with them; what makes
    tokens of texts and texts of chats; and whether cells are exact, or by which method they are
    not.
    """
    model = told.get("model", {})
    screen = told.get("screen")
    return {
        "spec": {name: one for name, one in told.get("spec", {}).items() if name != "prompts"},
        "model": {name: model.get(name) for name in SAME},
        "loaded with": _deciding(model),
        "tokenizer": model.get("tokenizer", {}).get("hash"),
        "chat_template": told.get("chat_template"),
        "method": told.get("method", EXACT),
        "screen": None if screen is None else screen["dtype"],
        "microtome": told.get("versions", {}).get("microtome"),
    }


def circumstances(told: Mapping[str, Any]) -> dict[str, Any]:
    """What may be another in each part, as it decides rounding alone: where and by what it ran."""
    model = told.get("model", {})
    found = {name: model[name] for name in OWN if model.get(name)}
    return found | {name: told[name] for name in ("versions", "modes") if name in told}


def _deciding(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a model was loaded with, as far as they may make another one of it."""
    known = {*HARMLESS, "tokenizer"}  # which is known by its hash
    return {name: one for name, one in model.get("asked", {}).items() if name not in known}
