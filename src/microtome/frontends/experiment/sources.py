"""Where an experiment's prompts come from: from itself, from a file, or from a task."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import BeforeValidator, Discriminator, PlainValidator, Tag, create_model

from microtome.errors import did_you_mean, glimpse, listing, there_are
from microtome.frontends.experiment.form import Form, at, path_of
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts, prompt_of, spelled
from microtome.tasks import TASKS
from microtome.verbs.model import Model

TEXTS = ("text", "donor", "target", "contrast")
ANSWERS = ("target", "contrast")
SETS = ("targets", "contrasts")
FIELDS = tuple(field.name for field in dataclasses.fields(Prompt))
EXPECTED = "expected prompts, {file: prompts.jsonl} or {task: {name: ioi, n: 64}}"


class Task(Form):
    """A task of `microtome.tasks` with its arguments, those that were given."""

    name: str
    arguments: Mapping[str, Any]

    def make(self, model: Model) -> Prompts:
        """Its prompts, in the words of the model's tokenizer."""
        return TASKS[self.name](**self.arguments, tokenizer=model.tokenizer)

    def plain(self) -> dict[str, Any]:
        """Its fields in YAML's own types."""
        return {"name": self.name, **self.arguments}


def _task(given: Any) -> Task:
    if isinstance(given, Task):
        return given
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping) or "name" not in given:
        raise ValueError(
            f"expected a task's name and arguments, {{name: ioi, n: 64}}, not {glimpse(given)}"
        )
    name = given["name"]
    if name not in TASKS:
        raise ValueError(f"no task is called {name!r}; {there_are(name, TASKS)}")
    checked = _arguments_of(name).model_validate(dict(given))
    known = checked.model_fields_set - {"name"}
    arguments = {key: _plain(getattr(checked, key)) for key in given if key in known}
    return Task(name=name, arguments=arguments)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@cache
def _arguments_of(name: str) -> type[Form]:
    """A form with the arguments that a task takes."""
    task = TASKS[name]
    hints = get_type_hints(task)
    fields: Any = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(task).parameters.values()
        if parameter.name != "tokenizer"
    }
    return create_model(f"Arguments of {name}", __base__=Form, name=str, **fields)


class FromTask(Form):
    """Prompts made by a task."""

    task: Annotated[Task, PlainValidator(_task)]

    def make(self, model: Model) -> Prompts:
        """The prompts, for this model."""
        return self.task.make(model)

    def plain(self) -> dict[str, Any]:
        """In YAML's own types."""
        return {"task": self.task.plain()}


class FromFile(Form):
    """Prompts in a file; its path is whole, so the experiment means the same from anywhere."""

    file: Annotated[Path, PlainValidator(lambda given: path_of(given).absolute())]

    def make(self, model: Model) -> Prompts:
        """The prompts, as they are in the file now."""
        return Prompts.read(self.file)

    def plain(self) -> dict[str, Any]:
        """In YAML's own types."""
        return {"file": str(self.file)}


def _prompt(given: Any) -> Prompt:
    if isinstance(given, Prompt):
        return given
    if isinstance(given, str):
        return Prompt(given)
    if not isinstance(given, Mapping):
        raise ValueError(
            f"expected a prompt's text or its fields, not {glimpse(given)}; in YAML, put "
            "text in quotes"
        )
    for name, value in given.items():
        if name not in FIELDS:
            raise at(name, f"a prompt has no such field; {there_are(name, FIELDS)}")
        if name in TEXTS and value is not None and not _is_text(name, value):
            also = ", or {id: 12} for a token's id" if name in ANSWERS else ""
            raise at(name, f"expected text, not {glimpse(value)}; in YAML, put it in quotes{also}.")
        if name in SETS and isinstance(value, Iterable):
            for one in value:
                if not _is_text("target", one):
                    text = (
                        f"expected texts, not {glimpse(one)}; in YAML, put it in quotes, or write "
                    )
                    raise at(name, text + "{id: 12} for a token's id.")
    return prompt_of(given)


def _is_text(name: str, value: Any) -> bool:
    """Whether a field is a text, or a token's id as such: a bare 12 may be meant as "12"."""
    return isinstance(value, str) or (name in ANSWERS and isinstance(value, Mapping))


Written = tuple[Annotated[Prompt, PlainValidator(_prompt)], ...]


def _several(given: Any) -> Any:
    """One prompt as a tuple of one, lists as tuples."""
    if isinstance(given, str | Prompt) or (
        isinstance(given, Mapping) and not {"text", "ids", "messages"}.isdisjoint(given)
    ):
        given = (given,)
    if isinstance(given, Mapping) and not {"file", "task"} & set(given):
        names = ("file", "task", *FIELDS)
        hints = [hint for name in given if (hint := did_you_mean(name, names))]
        raise ValueError(f"{EXPECTED}, not {dict(given)!r}.{listing(hints[:1])}")
    if isinstance(given, Iterable) and not isinstance(given, Mapping | Form):
        given = tuple(given)
        if not given:
            raise ValueError("there are no prompts")
    return given


def _kind(given: Any) -> str | None:
    if isinstance(given, tuple):
        return "<list>"
    if isinstance(given, FromFile) or (isinstance(given, Mapping) and "file" in given):
        return "<file>"
    if isinstance(given, FromTask) or (isinstance(given, Mapping) and "task" in given):
        return "<task>"
    return None


Source = Annotated[
    Annotated[Written, Tag("<list>")]
    | Annotated[FromFile, Tag("<file>")]
    | Annotated[FromTask, Tag("<task>")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message=EXPECTED,
    ),
    BeforeValidator(_several),
]
"""Prompts as an experiment names them."""


def make(source: tuple[Prompt, ...] | FromFile | FromTask, model: Model) -> Prompts:
    """The prompts that a source names, for a model."""
    return Prompts(source) if isinstance(source, tuple) else source.make(model)


def plain(source: tuple[Prompt, ...] | FromFile | FromTask) -> Any:
    """A source in YAML's own types."""
    if not isinstance(source, tuple):
        return source.plain()
    return [_fields(prompt) for prompt in source]


def _fields(prompt: Prompt) -> dict[str, Any]:
    fields = spelled(prompt.as_dict())
    if "roles" in fields:
        fields["roles"] = {name: _plain(place) for name, place in fields["roles"].items()}
    return fields
