"""Fields that are checked by pydantic, and its complaints in the words of the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from microtome.errors import ExperimentError, did_you_mean, glimpse, listing
from microtome.paths import at_home
from microtome.sheets import Sheet, Steps, spelled

AT = "at_a_field"
"""Kind of an error that a check of several fields finds in one of them."""
WORDS: Mapping[str, str] = {
    "int_type": "expected a whole number, not {input!r}",
    "string_type": "expected text, not {input!r}; in YAML, put it in quotes",
    "sequence_str": "expected a list, not {input!r}",
}
"""pydantic's kinds of error → what is said; others are said in its own words."""


class Form(BaseModel):
    """Named fields and no others."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, given: Any) -> Any:
        known = list(cls.model_fields)
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise ValueError(f"expected fields ({listing(known)}), not {glimpse(given)}")
        for name in given:
            if name not in known:
                text = f"there is no such field; there are: {listing(known)}."
                hint = did_you_mean(str(name), known)
                raise at(name, text + hint)
        return given


def at(field: object, text: str) -> PydanticCustomError:
    """The error that something is wrong with one of the fields that are checked together."""
    return PydanticCustomError(AT, "{text}", {"text": text, "field": str(field)})


class Root(Form):
    """A form whose complaints are `ExperimentError`s, with lines where its fields are a file's."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(
        cls, given: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            sheet: Sheet | None = info.context
            complaints = [_line(one, steps, sheet) for one, steps in _flat(error)]
            raise ExperimentError("\n".join(dict.fromkeys(complaints))) from None


class Filed(Root):
    """A form that may be a YAML file, and whose sources of prompts may lie beside it."""

    @classmethod
    def read(cls, path: str | Path, **instead: Any) -> Self:
        """What a YAML file describes.

        Args:
            path: the file. A file of prompts that it names is looked up beside it; ``out`` is
                where one runs.
            **instead: fields in the place of the file's own, each as a whole.

        Raises:
            ExperimentError: it cannot be read, or a field is missing, unknown or wrong; the
                message says in which line.
        """
        return cls._of(Sheet.read(path), at_home(path).parent, instead)

    @classmethod
    def from_yaml(cls, text: str, **instead: Any) -> Self:
        """What a YAML text describes; files are looked up where one runs."""
        return cls._of(Sheet.of(text), Path(), instead)

    @classmethod
    def _of(cls, sheet: Sheet, folder: Path, instead: Mapping[str, Any]) -> Self:
        fields = {name: _anchored(value, folder) for name, value in sheet.fields.items()}
        lines = {way: line for way, line in sheet.lines.items() if way[0] not in instead}
        known = Sheet(sheet.name, sheet.fields, lines)
        return cls.model_validate({**fields, **instead}, context=known)

    def _told(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Its fields in YAML's own types, without those that are empty or at their defaults."""
        known = type(self).model_fields
        return {
            name: value
            for name, value in fields.items()
            if value != known[name].default and value not in (None, {}, [])
        }


def _anchored(value: Any, folder: Path) -> Any:
    """A source of prompts with its file beside the experiment's."""
    if isinstance(value, Mapping) and isinstance(value.get("file"), str):
        return {**value, "file": str(folder / at_home(value["file"]))}
    return value


def _flat(error: ValidationError, before: Steps = ()) -> Iterator[tuple[ErrorDetails, Steps]]:
    """Every single error and the way to it; those of a form in a form among them."""
    for one in error.errors(include_url=False):
        # pydantic puts the kind of a field of several kinds into the way; ours are in < >.
        steps = before + tuple(step for step in one["loc"] if not str(step).startswith("<"))
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, ValidationError):
            yield from _flat(cause, steps)
        else:
            yield one, steps


def _line(one: ErrorDetails, steps: Steps, sheet: Sheet | None) -> str:
    context = one.get("ctx", {})
    if one["type"] == AT:
        steps = (*steps, str(context["field"]))
    if one["type"] == "missing":
        text = f"the field {steps[-1]!r} is missing"
        steps = steps[:-1]
    elif one["type"] in WORDS:
        text = WORDS[one["type"]].format(input=one["input"])
    else:
        text = str(context.get("error", one["msg"]))
    # A field that was given in the place of the file's own stands nowhere in it.
    from_file = sheet is not None and (not steps or steps[:1] in sheet.lines)
    place = sheet.place(steps) if sheet and from_file else spelled(steps)
    end = "" if text.endswith((".", "?")) else "."
    return f"{place or 'The experiment'}: {text}{end}"


# ------------------------------------------------------------------------------- kinds of values


def text_of(given: Any) -> str:
    """A text; a number or a truth value in its place is a YAML word without its quotes."""
    if not isinstance(given, str):
        raise ValueError(f"expected text, not {glimpse(given)}; in YAML, put it in quotes")
    if not given.strip():
        raise ValueError("the text is empty")
    return given


def path_of(given: Any) -> Path:
    """A path, or the text of one."""
    return at_home(given if isinstance(given, Path) else text_of(given))
