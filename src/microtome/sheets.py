"""YAML as people mean it, and where each value of it stands: the one reader of what users write.

Experiments, studies and values on the command line are read here. PyYAML's safe loader follows
YAML 1.1, where ``no`` is false, ``1e-3`` is text and ``1:30`` is ninety, and where the second of
two equal keys wins in silence. Here plain words and numbers are read as YAML 1.2 reads them, a key
given twice is refused, and every value knows its line, so that whoever checks the values can say
where the wrong one is. What would make a file mean something else than it shows (anchors, tags of
Python objects) is refused, and so is what is too large or too deep to be written by hand.

Numbers are decimal: ``17``, ``-0.5``, ``1e-3``. ``0o17``, ``0x1F``, ``017`` and ``1_000`` are read
differently by different readers of YAML; here they are text, which whoever expects a number
refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from microtome.errors import ExperimentError
from microtome.textfiles import read_text, shown

LARGEST = 2**24
"""Bytes of YAML that are read; many prompts go into a file of prompts, which is not limited so."""

DEEPEST = 64
"""How many lists and fields may lie in one another."""

Steps = tuple[str | int, ...]
"""The way to a value: names of fields and numbers of items, ``("prompts", 0, "text")``.

A field of a field may have a number for its name, such as a layer.
"""

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

_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", *(row[0] for row in _WORDS)))


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what either version of YAML would read as something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Anchors are not read, so none are written."""
        return True


class _FlowDumper(_Dumper):
    """The same, all on one line."""


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


def _in_line(dumper: yaml.SafeDumper, items: Any) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)
_FlowDumper.add_representer(list, _in_line)


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
            ExperimentError: it cannot be read, is no regular file, is not YAML, or gives a field
                twice.
        """
        return cls.of(read_text(path, ExperimentError, LARGEST), shown(path))

    @classmethod
    def of(cls, text: str, name: str = "the YAML") -> Sheet:
        """The fields of a text.

        Raises:
            ExperimentError: it is not YAML, or gives a field twice.

        >>> dict(Sheet.of("engine: auto\\nover: {factor: [1e-3, 10]}").fields)
        {'engine': 'auto', 'over': {'factor': [0.001, 10]}}
        """
        lines: dict[Steps, int] = {}
        found = _read(text, name, lines)
        if not isinstance(found, dict):
            empty = found is None
            told = "is empty" if empty else f"holds {str(found)[:60]!r}"
            raise ExperimentError(f"{name} {told}; expected fields, such as 'model: nano'.")
        for key in found:
            if not isinstance(key, str):
                here = f"{name}, line {lines[key,]}"
                raise ExperimentError(f"{here}: a field's name is a word, not {key}.")
        return cls(name, found, lines)


def value_of(text: str, name: str = "the YAML") -> Any:
    """One value, as it may stand in a file after its field's name: a word, a number, a list…

    Raises:
        ExperimentError: it is not YAML.

    >>> value_of("[1, no, 1e-3]")
    [1, 'no', 0.001]
    """
    return _read(text, name, {})


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


def flow(value: Any) -> str:
    """A value on one line, which `value_of` reads back equal.

    >>> flow({"factor": [0.5, 2], "how": "no"})
    "{factor: [0.5, 2], how: 'no'}"
    """
    # In a list, so that no document marker stands after it.
    text = yaml.dump(
        [value],
        Dumper=_FlowDumper,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=10**9,
    )
    return str(text).strip()[1:-1]


# ----------------------------------------------------------------------------------------- read


def _read(text: str, name: str, lines: dict[Steps, int]) -> Any:
    """What a text holds; where each value stands goes into ``lines``."""
    try:
        _check_events(text, name)
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, (), lines, name)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ExperimentError(
            f"{name}, line {line}: not YAML: the character {chr(error.character)!r} cannot stand "
            "in a text file."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise ExperimentError(f"{name}{where}: not YAML: {error.problem}.") from None


def _check_events(text: str, name: str) -> None:
    """Refuse anchors and depth before anything is built of them."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ExperimentError(
                f"{name}, line {_line_of(event)}: lists and fields lie in one another "
                f"{depth} deep; {DEEPEST} are read."
            )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ExperimentError(
                f"{name}, line {_line_of(event)}: anchors and aliases (& and *) are not read. "
                "Write the value out; a text that begins with one of these signs goes in quotes."
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
            lines[here] = _line_of(item)
            found.append(_value(loader, item, here, lines, name))
        return found
    if node.tag not in _PLAIN:
        raise ExperimentError(
            f"{name}, line {_line_of(node)}: the tag '{node.tag}' is not read: write a "
            "plain word, number, list or fields."
        )
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, LookupError) as error:  # a number of 5,000 digits, '!!bool maybe'
        raise ExperimentError(
            f"{name}, line {_line_of(node)}: cannot be read as YAML ({error})."
        ) from None


def _pairs(
    loader: _Loader, node: yaml.MappingNode, steps: Steps, lines: dict[Steps, int], name: str
) -> Iterator[tuple[str | int, Any]]:
    for key, value in node.value:
        line = _line_of(key)
        found = _value(loader, key, (), {}, name) if isinstance(key, yaml.ScalarNode) else None
        if not isinstance(found, str | int) or isinstance(found, bool):
            raise ExperimentError(f"{name}, line {line}: a field's name is a word.")
        here = (*steps, found)
        if here in lines:
            raise ExperimentError(
                f"{name}, line {line}: {spelled(here)!r} is given twice; first on line "
                f"{lines[here]}."
            )
        lines[here] = line
        yield found, _value(loader, value, here, lines, name)


def _line_of(found: yaml.Event | yaml.Node) -> int:
    """The line where a part of a text begins, counted from 1."""
    mark = found.start_mark
    return 1 if mark is None else mark.line + 1
