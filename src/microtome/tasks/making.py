"""What the tasks share: filled templates, whole words, and prompts that fit a tokenizer.

A task yields candidates in an order that its seed decides; `first_fitting` keeps the first n that
the tokenizer at hand can hold to the task's promises, so a smaller n gives the beginning of a
larger one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from string import Formatter

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from microtome.amounts import single
from microtome.errors import TaskError, TokenError, glimpse, listing
from microtome.model.files import nano_directory
from microtome.prompts.encoding import Encoded, encode, piece
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokenizer import read


def words(text: str) -> tuple[str, ...]:
    """A text cut at its white space."""
    return tuple(text.split())


def at_hand(tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """The tokenizer given, or by default that of the embedded model.

    Raises:
        TaskError: what is given is something else.
    """
    if tokenizer is None:
        return _nano_tokenizer()
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TaskError(
            f"A task is made for a tokenizer, and {type(tokenizer).__name__} is none: "
            "give tokenizer=model.tokenizer."
        )
    return tokenizer


@cache
def _nano_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(nano_directory())


_BEFORE = "a"


def inside(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of pieces of text as they are inside of one, behind a word.

    At the beginning of a text some tokenizers put a space in front. Where a piece makes other
    tokens of the word before it, or none that the tokenizer knows, it has none of its own.
    """
    together = [_BEFORE, *(_BEFORE + text for text in texts)]
    try:
        before, *whole = read(tokenizer, together, add_special_tokens=False)["input_ids"]
    except TokenError:  # of a single one of them
        before, *whole = (_read_or_none(text, tokenizer) for text in together)
    return [ids[len(before) :] if ids[: len(before)] == before else [] for ids in whole]


def _read_or_none(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    try:
        return list(read(tokenizer, text, add_special_tokens=False)["input_ids"])
    except TokenError:
        return []


def whole_words(candidates: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The words that are one token after a space, each once, in the order given."""
    different = list(dict.fromkeys(candidates))
    coded = inside([f" {word}" for word in different], tokenizer)
    return tuple(
        word
        for word, ids in zip(different, coded, strict=True)
        # The token has to read as the word: a tokenizer may have one token for all that it
        # does not know.
        if len(ids) == 1 and piece(ids[0], tokenizer).strip() == word
    )


@dataclass(frozen=True)
class Filled:
    """A template with its slots filled; ``ends`` is the character after each slot's word."""

    text: str
    ends: Mapping[str, int]

    @classmethod
    def of(cls, template: str, words: Mapping[str, str]) -> Filled:
        """A template filled with words by the names of its slots.

        >>> Filled.of("{capital} is in", {"capital": "Rome"})
        Filled(text='Rome is in', ends={'capital': 4})
        """
        text, ends = "", {}
        for before, slot, _, _ in Formatter().parse(template):
            text += before
            if slot is not None:
                text += words[slot]
                ends[slot] = len(text)
        return cls(text, ends)

    def place(self, slot: str) -> str:
        """The place of a slot's word as a prompt's role takes it.

        That is the shortest run of words which ends there and which the text has only once, so
        it means the same token in every tokenizer.

        >>> Filled.of("{A} saw {B}, and {B2} ran", {"A": "Ann", "B": "Ed", "B2": "Ed"}).place("B2")
        'and Ed'
        """
        end = self.ends[slot]
        for word in reversed([*re.finditer(r"\w+", self.text[:end])]):
            run = self.text[word.start() : end]
            if len(re.findall(rf"(?<!\w){re.escape(run)}(?!\w)", self.text)) == 1:
                return run
        raise TaskError(f"The word in {slot!r} has no place of its own in {self.text!r}.")


def slots(template: str) -> tuple[str, ...]:
    """The names of a template's slots, in order.

    Raises:
        TaskError: it is no template.

    >>> slots("{capital} is the capital of")
    ('capital',)
    """
    try:
        return tuple(slot for _, slot, _, _ in Formatter().parse(template) if slot is not None)
    except ValueError as error:
        raise TaskError(f"Cannot read the template {template!r}: {error}.") from None


def check_templates(
    templates: Sequence[str], required: Iterable[str], known: Iterable[str]
) -> None:
    """Raise a `TaskError` unless every template has the required slots and no unknown ones."""
    needed, allowed = set(required), {*required, *known}
    if not templates or isinstance(templates, str):
        raise TaskError(f"templates= is a list of at least one template, not {templates!r}.")
    for template in templates:
        found = slots(template)
        if not needed <= set(found) <= allowed or len(set(found)) < len(found):
            also = f" and may have {listing(sorted(allowed - needed))}" if allowed - needed else ""
            raise TaskError(
                f"The template {template!r} has the slots {listing(found) or 'none'}; it needs "
                f"each of {listing(sorted(needed))} once{also}."
            )


def first_fitting(
    candidates: Iterable[Prompt],
    n: int,
    tokenizer: PreTrainedTokenizerBase,
    also: Callable[[Encoded], bool] = lambda _: True,
) -> list[Prompt]:
    """The first n different candidates that a tokenizer fits; fewer where there are no more.

    A prompt fits when its roles are in it, target and contrast are one token each and not the
    same and continue the text, the donor is as long as the recipient, and ``also`` agrees.
    """
    found: dict[str, Prompt] = {}
    for candidate in candidates:
        if len(found) == n:
            break
        if candidate.text not in found and _fits(candidate, tokenizer, also):
            found[candidate.text] = candidate
    return list(found.values())


def _fits(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, also: Callable[[Encoded], bool]
) -> bool:
    try:
        encoded = encode(prompt, tokenizer)
    except TokenError:
        return False
    if encoded.notes:  # the model would never see the answer's tokens behind this text
        return False
    if encoded.donor is not None and len(encoded.donor) != len(encoded.tokens):
        return False
    answers = encoded.target, encoded.contrast
    if not all(isinstance(answer, int) for answer in answers):
        return False
    return encoded.target != encoded.contrast and also(encoded)


def numbers_of(n: int, seed: int) -> tuple[int, int]:
    """How many prompts, at least 1, and the seed of their draw: whole numbers of Python's own.

    Raises:
        TaskError: one of them is none. A draw goes by what its seed is written as.
    """
    n, seed = single(n), single(seed)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise TaskError(
            f"n is the number of prompts, a whole number of at least 1, not {glimpse(n)}."
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TaskError(f"seed is a whole number, by which the same prompts come, not {seed!r}.")
    return n, seed
