"""YAML as people mean it, and where each value of it stands.

PyYAML's safe loader follows YAML 1.1, where ``no`` is false, ``1e-3`` is text and ``1:30`` is
ninety, and where the second of two equal keys wins in silence. Here plain words and numbers are
read as YAML 1.2 reads them, a key given twice is refused, and every value knows its line, so that
whoever checks the values can say where the wrong one is. What would make a file mean something
else than it shows (anchors, tags of Python objects) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from microtome.errors import ExperimentError

Steps = tuple[str | int, ...]
"""The way to a value: names of fields and numbers of items, ``("prompts", 0, "text")``."""

_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_WORDS: tuple[tuple[str, str, list[str]], ...] = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)
"""Kind → the plain words that are read as it, and their first letters; any other word is text."""


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what either version of YAML would read as something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Anchors are not read, so none are written."""
        return True


# Each its own: PyYAML's are shared by all loaders and dumpers. The loader forgets what it knew.
_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {
    letter: list(known) for letter, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _letters in _WORDS:
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})\\Z"), _letters
        )


def _list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    short = all(isinstance(item, int | float) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # In any other style a line break reads back as a space, or as another kind of line break.
    breaks = set("\n\r\x85\u2028\u2029") & set(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if breaks else None)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)


@dataclass(frozen=True)
class Sheet:
    """The fields of a YAML file.

    Attributes:
        name: the file's, for messages.
        fields: what it holds.
        lines: where each value begins, by the way to it.
    """

    name: str
    fields: Mapping[str, Any]
    lines: Mapping[Steps, int] = field(default_factory=dict)

    def place(self, steps: Steps) -> str:
        """Where a value stands, in words; of one that is not there, where its owner does.

        >>> Sheet.of("seed: 1\\nprompts:\\n  - text: Hi\\n", "a.yaml").place(("prompts", 0, "text"))
        'a.yaml, line 3, prompts[0].text'
        """
        while steps and steps not in self.lines:
            steps = steps[:-1]
        return f"{self.name}, line {self.lines[steps]}, {spelled(steps)}" if steps else self.name

    @classmethod
    def read(cls, path: str | Path) -> Sheet:
        """The fields of a file.

        Raises:
            ExperimentError: it cannot be read, is not YAML, or gives a field twice.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ExperimentError(f"Cannot read {path}: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise ExperimentError(
                f"{path} is not UTF-8 text ({error}): save it as UTF-8."
            ) from None
        return cls.of(text, str(path))

    @classmethod
    def of(cls, text: str, name: str = "the YAML") -> Sheet:
        """The fields of a text.

        Raises:
            ExperimentError: it is not YAML, or gives a field twice.

        >>> dict(Sheet.of("engine: auto\\nover: {factor: [1e-3, 10]}").fields)
        {'engine': 'auto', 'over': {'factor': [0.001, 10]}}
        """
        lines: dict[Steps, int] = {}
        try:
            loader = _Loader(text)
            _refuse_anchors(loader, text, name)
            node = loader.get_single_node()
            found = None if node is None else _value(loader, node, (), lines, name)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
            raise ExperimentError(f"{name}{where}: not YAML: {error.problem}.") from None
        except yaml.YAMLError as error:
            raise ExperimentError(f"{name} is not YAML: {' '.join(str(error).split())}.") from None
        except (ValueError, LookupError, RecursionError) as error:
            raise ExperimentError(f"{name} cannot be read as YAML ({error}).") from None
        if not isinstance(found, dict):
            shown = "is empty" if found is None else f"holds {str(found)[:60]!r}"
            raise ExperimentError(f"{name} {shown}; expected fields, such as 'model: nano'.")
        return cls(name, found, lines)


def spelled(steps: Steps) -> str:
    """The way to a value as a text.

    >>> spelled(("prompts", 0, "text"))
    'prompts[0].text'
    """
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def dump(fields: Mapping[str, Any]) -> str:
    """Fields as YAML that reads back equal.

    >>> print(dump({"model": "nano", "edits": ["zero L*.z.h*"], "text": " no"}), end="")
    model: nano
    edits:
    - zero L*.z.h*
    text: ' no'
    """
    return str(
        yaml.dump(dict(fields), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    )


def _refuse_anchors(loader: _Loader, text: str, name: str) -> None:
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            line = event.start_mark.line + 1 if event.start_mark else "?"
            raise ExperimentError(
                f"{name}, line {line}: anchors and aliases (& and *) are not read. Write the "
                "value out; a text that begins with one of these signs goes in quotes."
            )


def _value(
    loader: _Loader, node: yaml.Node, steps: Steps, lines: dict[Steps, int], name: str
) -> Any:
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return dict(_pairs(loader, node, steps, lines, name))
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        found = []
        for number, item in enumerate(node.value):
            here = (*steps, number)
            lines[here] = item.start_mark.line + 1
            found.append(_value(loader, item, here, lines, name))
        return found
    return loader.construct_object(node, deep=True)


def _pairs(
    loader: _Loader, node: yaml.MappingNode, steps: Steps, lines: dict[Steps, int], name: str
) -> Iterator[tuple[str, Any]]:
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ExperimentError(f"{name}, line {line}: a field's name is a word.")
        here = (*steps, key.value)
        if here in lines:
            raise ExperimentError(
                f"{name}, line {line}: {spelled(here)!r} is given twice; first on line "
                f"{lines[here]}."
            )
        lines[here] = line
        yield key.value, _value(loader, value, here, lines, name)
