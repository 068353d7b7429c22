"""Several prompts, in order; and from files."""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any, overload

from microtome.errors import PromptError, PromptWarning, did_you_mean, listing
from microtome.notebook import html_table
from microtome.prompts.files import rows_of
from microtome.prompts.prompt import TEXTS, Prompt, number
from microtome.prompts.tables import table_rows
from microtome.spoken import spoken

Given = Prompt | str | Sequence[int]
"""What stands for one prompt: itself, its text, or its tokens' ids."""

ROW = " A prompt of fields is Prompt(**fields)."
"""What is said where one is given."""

NUMBERS = (
    "In a table a target or contrast is a number, and that is a token's id, not a text. "
    'If the text is meant, as of a sum, make it one ("12"; frame.astype({"target": str})); if the '
    'id is, {"id": 12} says so.'
)
"""What is said where a row of a table has a number as its target."""

NEARLY = 0.82
"""How alike a name and a field's are where one is taken for the other, mistyped."""


@spoken
class Prompts(Sequence[Prompt]):
    """Several prompts, in order.

    >>> len(Prompts(["Berlin is", Prompt("Paris is", target=" in")]))
    2
    """

    def __init__(self, prompts: Iterable[Given]) -> None:
        self._prompts = tuple(map(_one, _several(prompts)))
        if not self._prompts:
            raise PromptError("There are no prompts.")

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Prompts: ...
    def __getitem__(self, index: int | slice) -> Prompt | Prompts:
        chosen = self._prompts[index]
        return chosen if isinstance(chosen, Prompt) else Prompts(chosen)

    def __len__(self) -> int:
        return len(self._prompts)

    def __repr__(self) -> str:
        return f"Prompts({list(self._prompts)!r})"

    def _repr_html_(self) -> str:
        """In a notebook: a row for each, with the fields that any of them has."""
        rows = [prompt.as_dict() for prompt in self._prompts]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return html_table(names, [[row.get(name, "") for name in names] for row in rows])

    @classmethod
    def of(cls, prompts: Given | Iterable[Given]) -> Prompts:
        """One prompt, a string, a list of token ids, or several of these, as `Prompts`.

        >>> Prompts.of([5, 7])
        Prompts([Prompt(ids=[5, 7])])
        """
        if isinstance(prompts, cls):
            return prompts
        several = listed(prompts)
        ids = [own for one in several if (own := number(_plain(one))) is not None]
        return cls([Prompt(ids=ids)] if ids and len(ids) == len(several) else several)

    @classmethod
    def read(cls, path: str | Path) -> Prompts:
        """Prompts from a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file.

        Columns and keys that are no field of a `Prompt` are kept as its ``meta``. What is empty in
        a CSV file, or ``null`` in JSON, counts as not given. In CSV ``roles`` holds a JSON object,
        and ``ids``, ``targets``, ``messages`` and the like a JSON list. A value keeps its leading
        space. Files are UTF-8, and CSV is parted by commas; see
        `microtome.prompts.files` for what is refused in them.

        Raises:
            PromptError: the file cannot be read; or a line lacks a field, has a wrong one, one
                twice, or one whose name is nearly that of a field.
        """
        return cls(of_row(row, where) for where, row in rows_of(path))


def of_row(row: Mapping[str, Any], where: str) -> Prompt:
    """The prompt of a row of a table, in which what is no field is its meta.

    Warns with `PromptWarning` where a text's target is a bare number, which may be a text too.

    Raises:
        PromptError: a field is wrong; the message begins with where the row stands.
    """
    try:
        found = prompt_of(_with_meta(row))
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from None
    numbers = [number(row.get(name)) for name in ("target", "contrast")]
    if found.ids is None and numbers != [None, None]:
        warnings.warn(NUMBERS, PromptWarning, stacklevel=2)
    return found


def _with_meta(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a file, in which what is no field of a prompt is its meta.

    Raises:
        PromptError: a name is none, or is nearly that of a field: it is mistyped.
    """
    known = [f.name for f in fields(Prompt)]
    # None is a cell of a table that is empty, as JSON has it.
    row = {name: value for name, value in row.items() if name in known or value is not None}
    extra = {name: value for name, value in row.items() if name not in known}
    for name in extra:
        plain = name.strip().lower()
        if not plain or difflib.get_close_matches(plain, known, n=1, cutoff=NEARLY):
            hint = did_you_mean(plain, known)
            raise PromptError(
                f"unknown field {name!r}; known: {listing(known)}.{hint} What else is known of a "
                "prompt may have any other name."
            )
    given = row.get("meta") or {}
    if not extra or not isinstance(given, Mapping):
        return dict(row)
    for name in extra:
        if name in given:
            raise PromptError(f"{name!r} is given twice: by itself, and in 'meta'.")
    return {name: row[name] for name in row if name in known} | {"meta": {**given, **extra}}


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """The prompt that a row of fields describes.

    Raises:
        PromptError: a field is unknown, missing or wrong.

    >>> prompt_of({"text": "Berlin is", "target": " in"}).target
    ' in'
    """
    known = [f.name for f in fields(Prompt)]
    for name in row:
        if name not in known:
            hint = did_you_mean(name, known)
            raise PromptError(f"unknown field {name!r}; known: {listing(known)}.{hint}")
    if not set(TEXTS) & set(row):
        meta = row.get("meta")
        there = [*row, *(meta if isinstance(meta, Mapping) else ())]
        found = listing(repr(name) for name in there if name != "meta") or "nothing"
        raise PromptError(
            f"the field 'text' is missing. (Or 'ids', or 'messages'.) What is given: {found}."
        )
    return Prompt(**row)


def spelled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt's fields, with a token's id as ``{id: 12}``: a bare 12 may be meant as a text.

    >>> spelled({"text": "It is", "target": 12, "contrasts": [" a", 5]})
    {'text': 'It is', 'target': {'id': 12}, 'contrasts': [' a', {'id': 5}]}
    """
    found = dict(fields)
    for name in ("target", "contrast"):
        if name in found:
            found[name] = _spelled(found[name])
        if f"{name}s" in found:
            found[f"{name}s"] = [*map(_spelled, found[f"{name}s"])]
    return found


def _spelled(given: str | int) -> str | dict[str, int]:
    return {"id": given} if isinstance(given, int) else given


def listed(given: Given | Iterable[Given]) -> list[Given]:
    """One prompt or several as a list, which may be empty, as reference prompts may.

    Raises:
        PromptError: it is neither; or it is what a tokenizer gives, or a table, and would give
            names one after another.

    >>> listed("Berlin is"), listed(())
    (['Berlin is'], [])
    """
    return [given] if isinstance(given, Prompt | str) else list(_several(given))


def _several(given: Any) -> Iterator[Any]:
    """One prompt after another; what would give its letters, its bytes or its names is refused."""
    hint = ""
    if isinstance(given, Mapping):
        hint = ROW
        if "input_ids" in given:
            hint = " Give its tokens, […]['input_ids'], of texts without padding."
    elif table_rows(given) is not None:
        hint = " The rows of a table are prompts as Stream(table)."
    elif {*TEXTS} & {*_fields(given)}:
        hint = ROW
    elif hasattr(given, "keys") and not hasattr(given, "iloc"):  # a run, whose names are addresses
        hint = ""
    elif isinstance(given, PurePath):
        hint = " Those in a file are read by Prompts.read(path)."
    elif not isinstance(given, str | bytes):
        with contextlib.suppress(TypeError):  # what cannot be gone through is refused
            return iter(given)
    kind = "None" if given is None else type(given).__name__
    raise PromptError(
        "Prompts are a list of texts, of Prompt(…) or of token ids, or one of these by itself, not "
        f"{kind}.{hint}"
    )


def _fields(given: object) -> list[str]:
    """Names of fields: of a mapping, or of a row of a data frame; none where it is neither."""
    return [*map(str, given.keys())] if hasattr(given, "keys") else []


def _one(given: Any) -> Prompt:
    if isinstance(given, Prompt):
        return given
    if {*TEXTS} & {*_fields(given)}:
        raise PromptError(
            "A prompt of fields is Prompt(**fields), and the rows of a table are prompts as "
            f"Stream(rows); given is a {type(given).__name__} of {listing(_fields(given)[:5])}."
        )
    own = _plain(given)
    is_ids = isinstance(own, Sequence) and not isinstance(own, str | bytes) and own
    return Prompt(ids=own) if is_ids else Prompt(given)


def _plain(given: Any) -> Any:
    """What an array or a tensor holds, as lists and numbers."""
    return given.tolist() if hasattr(given, "tolist") else given
