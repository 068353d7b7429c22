"""Prompts that are read a window at a time, so that there may be any number of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from microtome.amounts import single
from microtome.errors import PromptError, glimpse, listing
from microtome.prompts.chat import written
from microtome.prompts.files import rows_of
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Given, Prompts, of_row
from microtome.prompts.tables import Row, table_rows
from microtome.prompts.tokenizer import Tokenizer
from microtome.spoken import spoken

WINDOW = 512
"""Prompts that are in memory at once, unless told otherwise."""

Rows = Iterable[Given | Mapping[str, Any]]
Source = str | Path | Rows | Callable[[], Rows]
"""Where a stream comes from."""


@spoken
@dataclass(frozen=True)
class Stream:
    """Prompts that `sweep` reads, encodes, runs and forgets a window at a time.

    Within a window prompts of one length go together; results are in the order as given. The
    window is part of the question: prompts that are run together may differ from others in the
    last bits.

    Args:
        source: a ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file (a ``.json`` file is read at
            once); a Hugging Face dataset, a data frame, an Arrow table, or anything else that gives
            prompts, texts, or rows with a `Prompt`'s fields (others are kept as its ``meta``) one
            after another; or a function that returns such a thing, where it can be gone through
            once and the sweep may have to begin again.
        window: how many prompts are in memory at once; with workers, so many and the next so many.
        first: the number of its first prompt, where it is a part of a longer stream whose
            aggregates are put together afterwards (`Aggregates.merged`).

    Raises:
        PromptError: the window is less than one prompt; or a row is no prompt, once it is read.

    >>> [len(part) for part in Stream([{"text": "Berlin is"}, "Rome is", "Paris is"], 2).windows()]
    [2, 1]
    """

    source: Source
    window: int = WINDOW
    first: int = 0

    def __post_init__(self) -> None:
        for name in ("window", "first"):
            object.__setattr__(self, name, single(getattr(self, name)))
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 1:
            raise PromptError(f"window={self.window!r}: give how many prompts, at least 1.")
        if isinstance(self.first, bool) or not isinstance(self.first, int) or self.first < 0:
            raise PromptError(f"first={self.first!r}: give the number of the first prompt, from 0.")

    def __iter__(self) -> Iterator[Prompt]:
        return (_prompt(one, where) for where, one in self._rows())

    def windows(self) -> Iterator[Prompts]:
        """The prompts, so many at a time; the last window may have fewer."""
        prompts = iter(self)
        while some := list(islice(prompts, self.window)):
            yield Prompts(some)

    def count(self) -> int | None:
        """How many prompts there are, where that is known without using them up.

        Of a file by reading it once.
        """
        if isinstance(self.source, str | Path):
            return sum(1 for _ in rows_of(self.source))
        return len(self.source) if isinstance(self.source, Sized) else None

    def _rows(self) -> Iterator[tuple[str, Given | Mapping[str, Any]]]:
        source = self.source
        if isinstance(source, str | Path):
            return iter(rows_of(source))
        made = source() if callable(source) else source
        if isinstance(made, str | Path):
            return iter(rows_of(made))
        rows: Iterator[Row] | None = table_rows(made)
        if rows is not None:
            return rows
        if isinstance(made, Mapping):
            raise PromptError(
                f"A stream is of prompts one after another, and this is a {type(made).__name__} of "
                f"{listing(list(made)[:5])}: choose one of them, such as "
                f"{type(made).__name__.lower()}[{next(iter(made), 'train')!r}]."
            )
        if not isinstance(made, Iterable):
            raise PromptError(
                f"A stream is of prompts one after another, as in a list, not {glimpse(made)}."
            )
        return ((f"prompt {number}", one) for number, one in enumerate(made))


class Chain:
    """What prompts in their order are known by, however many: the digest of all so far.

    >>> one, other = Chain(), Chain()
    >>> one.add([Prompt("A"), Prompt("B")]), other.add([Prompt("A")]), other.add([Prompt("B")])
    (None, None, None)
    >>> one.digest == other.digest
    True
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._sha = hashlib.sha256()
        self._tokenizer = tokenizer
        self.prompts = 0

    @property
    def digest(self) -> str:
        """Of all that were added, in hexadecimal."""
        return self._sha.copy().hexdigest()

    def copy(self) -> Chain:
        """Another one of the same prompts, which stays as it is when this goes on."""
        found = Chain(self._tokenizer)
        found._sha, found.prompts = self._sha.copy(), self.prompts
        return found

    def add(self, prompts: Iterable[Prompt]) -> None:
        """Go on with these; chats by what the tokenizer's template makes of them, too."""
        for one in prompts:
            self._sha.update(json.dumps(one.as_dict(), sort_keys=True).encode() + b"\n")
            for chat in (one.messages, one.donor_messages):
                if chat is not None and self._tokenizer is not None:
                    text = written(chat, self._tokenizer, one.chat_options)
                    self._sha.update(json.dumps(text).encode() + b"\n")
            self.prompts += 1


def _prompt(given: Given | Mapping[str, Any], where: str) -> Prompt:
    return of_row(given, where) if isinstance(given, Mapping) else Prompts([given])[0]
