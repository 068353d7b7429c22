"""A text that is written under edits: all that `Model.generate` is told, as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator

from microtome.amounts import whole_of
from microtome.edits import Edit
from microtome.frontends.experiment import sources
from microtome.frontends.experiment.experiment import (
    Checkpoint,
    by_name,
    edit_of,
    some,
    text_that_reads_back,
)
from microtome.frontends.experiment.form import Filed, text_of
from microtome.frontends.experiment.sources import Source
from microtome.sheets import dump
from microtome.verbs.generation import Generation
from microtome.verbs.model import Model


class Written(Filed):
    """All that `Model.generate` is told, checked.

    Attributes:
        model, prompts, reference: as an `Experiment` has them.
        edits: none, one or several.
        steps, when, batch, seed, verify: as `Model.generate` takes them; ``when`` is a word.
        settings: transformers' settings, such as ``{do_sample: true, top_p: 0.9}``.

    Raises:
        ExperimentError: a field is missing, unknown or wrong; the message names each that is.

    >>> Written(model="nano", prompts="Berlin is the capital of", steps=2).run()[0].text
    ' Germany.'
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    model: Annotated[Checkpoint, BeforeValidator(by_name)]
    prompts: Source
    edits: Annotated[
        tuple[Annotated[Edit, PlainValidator(edit_of)], ...], BeforeValidator(some)
    ] = ()
    steps: Annotated[int, PlainValidator(lambda given: whole_of(given, least=1))] = 20
    when: Annotated[str, PlainValidator(text_of)] = "all"
    batch: Annotated[int, PlainValidator(lambda given: whole_of(given, least=1))] = 1
    seed: Annotated[int, PlainValidator(whole_of)] = 0
    settings: dict[str, Any] = Field(default={})
    reference: Source | None = None
    verify: bool = True

    def run(self, model: Model | None = None, **objects: Any) -> Generation:
        """Write.

        Args:
            model: one that is loaded already, in the place of the file's.
            **objects: such as a ``streamer``, which no file holds.
        """
        model = model or self.model.load()
        reference = () if self.reference is None else sources.make(self.reference, model)
        return model.generate(
            sources.make(self.prompts, model),
            self.edits,
            self.steps,
            self.when,
            batch=self.batch,
            seed=self.seed,
            reference=tuple(reference),
            verify=self.verify,
            **self.settings,
            **objects,
        )

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
        known = type(self).model_fields
        given = {name: value for name, value in fields.items() if value != known[name].default}
        return dump({name: value for name, value in given.items() if value != []})
