"""What the readings of a model share: how they are called, run and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microtome.errors import PromptError
from microtome.model.loaded import Loaded
from microtome.prompts.encoding import Encoded
from microtome.results import provenance


def recorded(model: Loaded, encoded: Sequence[Encoded], **spec: Any) -> dict[str, Any]:
    """What is needed to repeat a reading: model, versions, prompts, and what was asked."""
    return {
        "model": provenance.of_model(model),
        **provenance.of_machine(),
        "spec": {**spec, "prompts": [one.prompt.as_dict() for one in encoded]},
    }


def check_prompt(prompt: int, n: int) -> None:
    """Raise `PromptError` unless there is a prompt of this number."""
    if not -n <= prompt < n:
        raise PromptError(f"There is no prompt {prompt}; there are {n}.")
