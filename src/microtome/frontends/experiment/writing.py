"""A text that is written under edits: all that `Model.generate` is told, as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from microtome.frontends.experiment.fields import Count, Text, Whole
from microtome.frontends.experiment.running import Edited
from microtome.verbs.generation import Generation
from microtome.verbs.model import Model


class Written(Edited):
    """All that `Model.generate` is told, checked.

    Attributes:
        steps, when, batch, seed, verify: as `Model.generate` takes them; ``when`` is a word.
        settings: transformers' settings, such as ``{do_sample: true, top_p: 0.9}``.

    Raises:
        ExperimentError: a field is missing, unknown or wrong; the message names each that is.

    >>> Written(model="nano", prompts="Berlin is the capital of", steps=2).run()[0].text
    ' Germany.'
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    steps: Count = 20
    when: Text = "all"
    batch: Count = 1
    seed: Whole = 0
    settings: dict[str, Any] = Field(default={})
    verify: bool = True

    def run(self, model: Model | None = None, **objects: Any) -> Generation:
        """Write.

        Args:
            model: one that is loaded already, in the place of the file's.
            **objects: such as a ``streamer``, which no file holds.
        """
        model, prompts, reference = self.of(model)
        return model.generate(
            prompts,
            self.edits,
            self.steps,
            self.when,
            batch=self.batch,
            seed=self.seed,
            reference=reference,
            verify=self.verify,
            **self.settings,
            **objects,
        )
