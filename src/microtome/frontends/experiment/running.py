"""A single run as a file: all that `Model.run` is told; and what every file of edits has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from microtome.frontends.experiment import sources
from microtome.frontends.experiment.fields import Count, Named, SomeEdits, text_that_reads_back
from microtome.frontends.experiment.form import Filed
from microtome.frontends.experiment.sources import Source
from microtome.prompts.prompts import Prompts
from microtome.sheets import dump
from microtome.verbs.model import Model
from microtome.verbs.run import Run


class Edited(Filed):
    """What every file has of prompts that are run under edits without stars.

    Attributes:
        model, prompts, reference: as an `Experiment` has them.
        edits: none, one or several, which are made together.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    model: Named
    prompts: Source
    edits: SomeEdits = ()
    reference: Source | None = None

    def of(self, model: Model | None) -> tuple[Model, Prompts, tuple[Any, ...]]:
        """The model, loaded unless it is given; the prompts and the reference in its words."""
        model = model or self.model.load()
        reference = () if self.reference is None else tuple(sources.make(self.reference, model))
        return model, sources.make(self.prompts, model), reference

    def to_yaml(self) -> str:
        """It as YAML, which reads back equal; fields at their defaults are left out.

        Raises:
            ExperimentError: an edit has no text that reads back (a function made on the spot).
        """
        fields = {
            **dict(self),
            "model": self.model.plain(),
            "prompts": sources.plain(self.prompts),
            "edits": [text_that_reads_back(one) for one in self.edits],
            "reference": None if self.reference is None else sources.plain(self.reference),
        }
        return dump(self._told(fields))


class Ran(Edited):
    """All that `Model.run` is told, checked.

    Attributes:
        top: how many tokens are shown.

    Raises:
        ExperimentError: a field is missing, unknown or wrong; the message names each that is.

    >>> asked = Ran(model="nano", prompts="Berlin is the capital of", edits="zero L0.z.h3")
    >>> asked.run().receipts[0].changed > 0, Ran.from_yaml(asked.to_yaml()) == asked
    (True, True)
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    top: Count = 10

    def run(self, model: Model | None = None) -> Run:
        """Run.

        Args:
            model: one that is loaded already, in the place of the file's.
        """
        model, prompts, reference = self.of(model)
        return model.run(prompts, self.edits, reference=reference)
