"""What a study can be told: its parameters as published, and how they are read and fitted.

The same fields come from Python, from the command line and from a YAML file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from microtome.errors import ExperimentError, PromptError, StudyError, did_you_mean, listing
from microtome.language.sites import Dimensions
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts, prompt_of
from microtome.sheets import Sheet


@dataclass(frozen=True)
class IndexOf:
    """Marks a parameter as an index along an axis of the model, such as a layer."""

    axis: str


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


Layer = Annotated[int, BeforeValidator(_python), Field(strict=True, ge=0), IndexOf("layer")]
"""A layer, from 0. One that is asked for must exist; a published one that does not exist in a
smaller model becomes the layer at the same depth, and the report says so."""

Head = Annotated[int, BeforeValidator(_python), Field(strict=True, ge=0), IndexOf("head")]
"""A head, from 0, likewise."""

KvHead = Annotated[int, BeforeValidator(_python), Field(strict=True, ge=0), IndexOf("kv_head")]
"""A head of keys and values, from 0, likewise; several query heads may share one."""


class Adapted(NamedTuple):
    """A published index that does not exist here, and the one at the same depth that does."""

    name: str
    published: int
    of: int
    here: int
    of_here: int


def _prompts(given: Any) -> Any:
    """A path as it is; prompts, or mappings of their fields, as a tuple of prompts."""
    if given is None or isinstance(given, str | Path):
        return given
    if isinstance(given, Iterable) and not isinstance(given, Mapping):
        return tuple(_prompt(one) for one in given)
    raise ValueError("give the name of a .jsonl or .csv file, or a list of prompts")


def _prompt(given: Any) -> Prompt:
    if isinstance(given, Prompt):
        return given
    if isinstance(given, str):
        return Prompt(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{given!r} is no prompt: give its text, or its fields")
    return prompt_of(given)


OF_PROMPT = ("prompt", "target", "contrast", "donor", "roles")
"""The parameters that make one prompt."""


class Parameters(BaseModel):
    """What every study can be told. A study adds its own, with the published values as defaults.

    Attributes:
        model: what `load` takes; by default the published checkpoint.
        prompt, target, contrast, donor, roles: one prompt, as published.
        prompts: many prompts in its place: a file, or prompts; or a task whose words the model's
            tokenizer has, such as ``ioi:16``.
        lang: the report's language. It changes no number.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    model: str
    prompt: str
    target: str | None = None
    contrast: str | None = None
    donor: str | None = None
    roles: dict[str, Any] = {}
    prompts: Annotated[Path | tuple[Prompt, ...] | None, BeforeValidator(_prompts)] = None
    lang: Literal["en", "vi"] = "en"

    @classmethod
    def of(cls, study: str, given: Mapping[str, Any]) -> Self:
        """The published parameters with these in their place.

        Raises:
            StudyError: a parameter does not exist or has a wrong value; the message names it.
        """
        try:
            made = cls(**given)
        except ValidationError as error:
            raise StudyError(_in_words(study, cls, error)) from None
        both = [name for name in OF_PROMPT if name in given]
        if made.prompts is not None and both:
            raise StudyError(
                f"{study}: prompts= brings its own texts, targets, contrasts and donors, so "
                f"{listing(both)} cannot be given beside it."
            )
        return made

    def as_prompts(self) -> Prompts:
        """The prompts to run.

        Raises:
            PromptError: the file cannot be read.
        """
        if isinstance(self.prompts, Path):
            return Prompts.read(self.prompts)
        if self.prompts is not None:
            return Prompts(self.prompts)
        return Prompts([self.as_prompt()])

    def as_prompt(self) -> Prompt:
        """The one prompt that prompt, target, contrast, donor and roles make."""
        return Prompt(
            self.prompt,
            target=self.target,
            contrast=self.contrast,
            donor=self.donor,
            roles=self.roles,
        )

    def plain(self) -> dict[str, Any]:
        """All values in YAML's own types."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}

    def differences(self) -> dict[str, Any]:
        """Those that are not as published, in YAML's own types; model and language left out."""
        published = type(self)().plain()  # type: ignore[call-arg]  # every study has its defaults
        return {
            name: value
            for name, value in self.plain().items()
            if name not in ("model", "lang") and value != published[name]
        }

    def fit(
        self, study: str, model: str, dims: Dimensions, published: Dimensions
    ) -> tuple[Self, tuple[Adapted, ...]]:
        """The same for a model at hand, and what had to be changed for it.

        An index that was asked for must exist. A published one that does not, because this model
        is smaller than the published one, becomes the index at the same depth.

        Raises:
            StudyError: a layer or head that was asked for does not exist.
        """
        changes: dict[str, Any] = {}
        adapted = []
        for name, axis, value in self._indices():
            size = _size(dims, axis)
            if value < size:
                continue
            if name in self.model_fields_set:
                raise StudyError(
                    f"{study}: {name}={value} does not exist in {model}, which has {size} "
                    f"{axis}s: 0 … {size - 1}."
                )
            was = _size(published, axis)
            changes[name] = round(value * (size - 1) / (was - 1))
            adapted.append(Adapted(name, value, was, changes[name], size))
        return self.model_copy(update=changes), tuple(adapted)

    def _indices(self) -> Iterator[tuple[str, str, int]]:
        """Every index along an axis of the model: parameter, axis and value."""
        for name, info in type(self).model_fields.items():
            axis, value = _axis(info), getattr(self, name)
            if axis is not None:
                several = [value] if isinstance(value, int) else list(value)
                yield from ((name, axis, one) for one in several)


def read_config(path: str | Path) -> dict[str, Any]:
    """The fields of a YAML file, read as an experiment's are.

    Raises:
        StudyError: it cannot be read, is not YAML, or holds something other than named fields.
    """
    try:
        return dict(Sheet.read(path).fields)
    except ExperimentError as error:
        raise StudyError(str(error)) from None


def _size(dims: Dimensions, axis: str) -> int:
    return dims.n_layers if axis == "layer" else dims.size(axis)


def _axis(info: FieldInfo) -> str | None:
    """The axis that a parameter, its items or its keys are indices of."""
    inner = [part for kind in get_args(info.annotation) for part in get_args(kind)]
    marks = [m.axis for m in (*info.metadata, *inner) if isinstance(m, IndexOf)]
    return marks[0] if marks else None


def _plain(value: Any) -> Any:
    if isinstance(value, Prompt):
        return {name: _plain(one) for name, one in value.as_dict().items()}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _in_words(study: str, cls: type[Parameters], error: ValidationError) -> str:
    lines = []
    for one in error.errors(include_url=False):
        name = str(one["loc"][0]) if one["loc"] else ""
        if one["type"] == "extra_forbidden":
            known = list(cls.model_fields)
            lines.append(
                f"{study} has no parameter {name!r}; it has: {listing(known)}."
                f"{did_you_mean(name, known)}"
            )
            continue
        what = one["msg"].removeprefix("Value error, ").rstrip(".")
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, PromptError):
            what = str(cause).rstrip(".")
        line = f"{study}: {name}={one['input']!r} does not fit: {what[:1].lower()}{what[1:]}."
        if not lines or not lines[-1].startswith(f"{study}: {name}="):
            lines.append(line)
    return "\n".join(lines)
