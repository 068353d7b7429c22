"""What a map of the lab answers: a sweep of one prompt, with a name that its result is kept by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microtome import Prompt
from microtome.frontends.lab.state import View

if TYPE_CHECKING:
    from microtome import Model


@dataclass(frozen=True)
class Asked:
    """A sweep.

    Attributes:
        model: its name.
        prompt: what is run.
        edit: what is done in each cell, as text.
        metric: what is measured.

    >>> Asked.of(View(text="Berlin is", target=" in", edit="zero L*.z.h*")).metric
    'prob'
    """

    model: str
    prompt: Prompt
    edit: str
    metric: str

    @classmethod
    def of(cls, view: View) -> Asked:
        """What a view asks for.

        Raises:
            PromptError: its prompt is empty, or cannot be one.
        """
        return cls(view.model, prompt_of(view), view.edit, view.measured)

    def key(self, model: Model) -> str:
        """A name of the question on this model: other weights, another name."""
        told: dict[str, Any] = {
            "model": [self.model, model.weight_hash, str(model.dtype), str(model.device)],
            "prompt": self.prompt.as_dict(),
            "edit": self.edit,
            "metric": self.metric,
        }
        written = json.dumps(told, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(written.encode()).hexdigest()[:24]


def prompt_of(view: View) -> Prompt:
    """The prompt of a view, with what belongs to it.

    Raises:
        PromptError: it is empty, or cannot be one.

    >>> prompt_of(View(text="Berlin is", roles=(("city", 0),))).roles["city"]
    0
    """
    return Prompt(
        view.text,
        donor=view.donor or None,
        target=view.target or None,
        contrast=view.contrast or None,
        roles=dict(view.roles),
    )
