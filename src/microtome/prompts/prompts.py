"""Several prompts, in order; and from files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, overload

from microtome.errors import PromptError, did_you_mean, listing
from microtome.prompts.files import rows_of
from microtome.prompts.prompt import Prompt

NEARLY = 0.82
"""How alike a name and a field's are where one is taken for the other, mistyped."""


class Prompts(Sequence[Prompt]):
    """Several prompts, in order.

    >>> len(Prompts(["Berlin is", Prompt("Paris is", target=" in")]))
    2
    """

    def __init__(self, prompts: Iterable[Prompt | str]) -> None:
        self._prompts = tuple(p if isinstance(p, Prompt) else Prompt(p) for p in prompts)
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

    @classmethod
    def of(cls, prompts: Prompt | str | Iterable[Prompt | str]) -> Prompts:
        """One prompt, a string or several of either, as `Prompts`."""
        if isinstance(prompts, cls):
            return prompts
        return cls([prompts] if isinstance(prompts, Prompt | str) else prompts)

    @classmethod
    def read(cls, path: str | Path) -> Prompts:
        """Prompts from a ``.jsonl`` or ``.csv`` file, with a `Prompt`'s fields as keys or columns.

        Columns and keys that are no field of a `Prompt` are kept as its ``meta``. In a CSV file an
        empty field counts as not given and ``roles`` holds a JSON object. A value keeps its leading
        space. Files are UTF-8; see `microtome.prompts.files` for what
        is refused in them.

        Raises:
            PromptError: the file cannot be read, or a line has missing or wrong fields, one of
                them twice, or one that is nearly the name of another.
        """
        return cls(_prompt(row, where) for where, row in rows_of(path))


def _prompt(row: Mapping[str, Any], where: str) -> Prompt:
    try:
        return prompt_of(_with_meta(row))
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from None


def _with_meta(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a file, in which what is no field of a prompt is its meta.

    Raises:
        PromptError: a name is none, or is nearly that of a field: it is mistyped.
    """
    known = [f.name for f in fields(Prompt)]
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
            hint = did_you_mean(str(name), known)
            raise PromptError(f"unknown field {name!r}; known: {listing(known)}.{hint}")
    if "text" not in row:
        raise PromptError("the field 'text' is missing.")
    return Prompt(**row)
