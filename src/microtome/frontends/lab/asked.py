"""What a map of the lab answers: a sweep of one prompt, with a name that its result is kept by."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from microtome import Prompt
from microtome.amounts import many
from microtome.errors import SweepError
from microtome.frontends.importing import imported
from microtome.frontends.lab.state import View

if TYPE_CHECKING:
    from microtome import Model


MOST_CELLS = 5_000_000
"""Cells of a map: whoever opens a link asks for one, and what is laid out has to fit in memory."""


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
        """A name of the question on this model: another model, another name."""
        told: dict[str, Any] = {
            "model": [self.model, known_as(model)],
            "prompt": self.prompt.as_dict(),
            "edit": self.edit,
            "metric": self.metric,
        }
        return _hashed(told)[:24]

    def check_size(self, model: Model) -> None:
        """Raise where it has more cells than a server is to hold, before they are laid out.

        Raises:
            SweepError: it is too large.
            MicrotomeError: it cannot be asked.
        """
        asking = imported("microtome.verbs.asking").asking
        question = asking(model, self.prompt, self.edit, metrics=self.metric, to_run=False)
        cells = math.prod(len(span) for span in question.ranges[0].values())
        if cells > MOST_CELLS:
            raise SweepError(
                f"{self.edit} has {many(cells, 'cell')} here, and a map of the lab at most "
                f"{MOST_CELLS:,}: put a number in the place of a star, or sweep it with "
                "'microtome sweep'."
            )


_KNOWN: WeakKeyDictionary[Model, str] = WeakKeyDictionary()


def known_as(model: Model) -> str:
    """What answers of a model are kept by: its weights, settings, types and tokenizer, hashed.

    Two models of the same weights may read other tokens, or compute otherwise. It is taken once of
    each that is loaded, as the lab changes none.
    """
    if model not in _KNOWN:
        provenance = imported("microtome.results.provenance")
        _KNOWN[model] = _hashed([provenance.of_model(model), model.modules_hash])
    return _KNOWN[model]


def _hashed(told: Any) -> str:
    written = json.dumps(told, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()


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
