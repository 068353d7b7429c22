"""Kinds of fields that files have: a model by its name, edits, metrics, one thing or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from microtome.amounts import bytes_of, whole_of
from microtome.edits import Edit, as_edits
from microtome.errors import ExperimentError, glimpse
from microtome.frontends.experiment.form import Form, at, path_of, text_of
from microtome.plan.question import is_list, plain
from microtome.plan.verify import Verify
from microtome.readings.registry import readings
from microtome.verbs.load import load
from microtome.verbs.model import Model
from microtome.verbs.record import reads_back
from microtome.workers import workers_of

Text = Annotated[str, PlainValidator(text_of)]


class Checkpoint(Form):
    """A model by its name, and how it is loaded; see `load`.

    Attributes:
        name: ``nano``, a hub id, or a directory.
        revision: branch, tag or commit of a hub id.
        dtype: the type of the weights; the checkpoint's own by default.
        device: where to put them.
        attention: the attention implementation, such as ``eager``.
    """

    name: Text
    revision: Text | None = None
    dtype: Text | None = None
    device: Text | None = None
    attention: Text | None = None

    def load(self) -> Model:
        """The model."""
        more: dict[str, Any] = {}
        if self.attention is not None:
            more["attn_implementation"] = self.attention
        return load(self.name, revision=self.revision, dtype=self.dtype, device=self.device, **more)

    def plain(self) -> str | dict[str, str]:
        """In YAML's own types."""
        fields = {name: value for name, value in self if value is not None}
        return self.name if len(fields) == 1 else fields


def by_name(given: Any) -> Any:
    """A model's name as the fields of a checkpoint."""
    return {"name": str(given)} if isinstance(given, str | Path) else given


def edit_of(given: Any) -> Edit:
    """An edit, or the text of one."""
    if not isinstance(given, Edit | str):
        raise ValueError(
            f"expected an edit such as 'zero L5.z.h3', not {glimpse(given)}; in YAML, put "
            "a text that "
            "ends in a colon in quotes"
        )
    return as_edits(given)[0]


def metric_of(given: Any) -> str:
    """A metric, in its canonical text."""
    return str(readings(text_of(given))[0])


def several(given: Any) -> Any:
    """One thing as a tuple of one, a list as a tuple."""
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    found = tuple(given) if listed else (given,)
    if not found:
        raise ValueError("give at least one")
    return found


def some(given: Any) -> Any:
    """The same as `several`, or nothing."""
    return () if given in ((), []) else several(given)


def once(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Metrics, if none of them is given twice."""
    readings(metrics)
    return metrics


def parameters_of(given: Any) -> dict[str, list[Any]]:
    """Values for parameters of edits, by name, in YAML's own types."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"expected parameters with their values, {{factor: [0.1, 10]}}, not {glimpse(given)}"
        )
    found = {}
    for name, values in given.items():
        if not is_list(values):
            raise at(name, f"expected a list of values, at least one, not {values!r}.")
        found[str(name)] = [plain(value) for value in values]
        for value, own in zip(values, found[str(name)], strict=True):
            if isinstance(own, str) and not isinstance(value, str):
                raise at(
                    name, f"expected numbers, words or lists of numbers, not {glimpse(value)}."
                )
    return found


def verify_of(given: Any) -> int | Literal["all"]:
    """How many cells are verified."""
    return Verify.of(given).given


def workers_named(given: Any) -> str:
    """Workers by their name, as it was given."""
    name = text_of(given)
    workers_of(name)
    return name


def text_that_reads_back(one: Edit) -> str:
    """The text of an edit in a file.

    Raises:
        ExperimentError: it has none (a function made on the spot).
    """
    if reads_back(one):
        return str(one)
    raise ExperimentError(
        f"The edit '{one}' has a function made on the spot, which no text can bring back: put it "
        'in a module and name it, apply("package.module:function").'
    )


# -------------------------------------------------------------------------------------- the kinds

Whole = Annotated[int, PlainValidator(whole_of)]
Count = Annotated[int, PlainValidator(lambda given: whole_of(given, least=1))]
Bytes = Annotated[int, PlainValidator(bytes_of)]
Place = Annotated[Path, PlainValidator(path_of)]
Named = Annotated[Checkpoint, BeforeValidator(by_name)]
OneEdit = Annotated[Edit, PlainValidator(edit_of)]
Edits = Annotated[tuple[OneEdit, ...], BeforeValidator(several)]
SomeEdits = Annotated[tuple[OneEdit, ...], BeforeValidator(some)]
Metric = Annotated[str, PlainValidator(metric_of)]
Metrics = Annotated[tuple[Metric, ...], BeforeValidator(several), AfterValidator(once)]
Over = Annotated[dict[str, list[Any]], PlainValidator(parameters_of)]
Verified = Annotated[int | Literal["all"], PlainValidator(verify_of)]
Hired = Annotated[str, PlainValidator(workers_named)]
