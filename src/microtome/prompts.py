"""Prompts: what the model reads, what it is expected to say, and names for its tokens.

A `Prompt` is text; `encode` turns it into the tokens of one model's tokenizer, as an `Encoded`.
Everything that can be wrong with a prompt is found there, before a model runs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from transformers import PreTrainedTokenizerBase

from microtome.errors import PromptError, TokenError, did_you_mean, listing

BUILT_IN = ("last", "mask")
"""Roles that prompts have by themselves."""

MASKS = ("[MASK]", "<mask>")
"""How the tokenizers of masked-language models write their mask."""

Place = str | int | tuple[str | int, str | int]
"""A role's place: a word, a position, or a pair of them, in the text and in the donor."""


@dataclass(frozen=True)
class Prompt:
    """A recipient text, with what belongs to it.

    Args:
        text: what the model reads.
        donor: the text whose activations `patch` puts into this one's run.
        target: the token whose prediction is measured, with its leading space (``" Germany"``);
            at a mask, which has its space in front of it, the space may be left out.
        contrast: the token that the target is compared with.
        roles: names of positions: ``{"subject": "Berlin"}`` makes ``@subject`` the last token of
            that word. A pair gives the place in the text and in the donor. ``last`` is built in,
            and ``mask`` in a masked-language model.

    >>> Prompt("Berlin is the capital of", target=" Germany", contrast=" France").target
    ' Germany'
    """

    text: str
    donor: str | None = field(default=None, kw_only=True)
    target: str | None = field(default=None, kw_only=True)
    contrast: str | None = field(default=None, kw_only=True)
    roles: Mapping[str, Place] = field(default_factory=dict, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        for name in ("text", "donor", "target", "contrast"):
            given = getattr(self, name)
            if not isinstance(given, str) and (given is not None or name == "text"):
                raise PromptError(f"A prompt's {name} must be text, not {given!r}.")
        for name in ("text", "donor"):
            given = getattr(self, name)
            if given is not None and not given.strip():
                raise PromptError(f"A prompt's {name} is empty: there is no token to run.")
        object.__setattr__(self, "roles", MappingProxyType(_roles(self.roles)))

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values, those that are set."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"roles": dict(self.roles)}
        return {name: value for name, value in values.items() if value not in (None, {})}

    def __reduce__(self) -> tuple[Callable[[], Prompt], tuple[()]]:
        # To copy and to pickle: the read-only view of the roles can do neither.
        return partial(Prompt, **self.as_dict()), ()


def _roles(given: object) -> dict[str, Place]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise PromptError(
            f"A prompt's roles are names with their places, {{'subject': 'Berlin'}}, not {given!r}."
        )
    for name in given:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or name in BUILT_IN:
            raise PromptError(
                f"{name!r} cannot be the name of a role: use letters, digits and _, "
                "and not 'last' or 'mask', which are always the last token and the mask."
            )
    return {name: _place(name, place) for name, place in given.items()}


def _place(role: str, given: object) -> Place:
    if isinstance(given, tuple | list) and len(given) == 2:
        return _spot(role, given[0]), _spot(role, given[1])
    return _spot(role, given)


def _spot(role: str, given: object) -> str | int:
    if isinstance(given, str):
        return given
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(given)
    raise PromptError(
        f"The place of role {role!r} is {given!r}; it can be a word, a whole number, or a pair of "
        "those, for the text and for its donor."
    )


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

        In a CSV file an empty field counts as not given and ``roles`` holds a JSON object. A
        value keeps its leading space.

        Raises:
            PromptError: the file cannot be read, or a line has unknown, missing or wrong fields.
        """
        path = Path(path)
        try:
            # The -sig is for the byte order mark that spreadsheets put in front.
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = list(_rows(path, stream))
        except OSError as error:
            raise PromptError(f"Cannot read prompts from {path}: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise PromptError(f"{path} is not UTF-8 text ({error}): save it as UTF-8.") from None
        except csv.Error as error:
            raise PromptError(f"{path} is not CSV ({error}).") from None
        if not rows:
            raise PromptError(f"{path} holds no prompts.")
        return cls(_prompt(row, f"{path}, line {line}") for line, row in rows)


def _rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".csv":
        reader = csv.DictReader(lines)
        for row in reader:
            number = reader.line_num  # Not the row's: a field may have several lines.
            if None in row:
                raise PromptError(f"{path}, line {number}: more values than the header has names.")
            given = {name: value for name, value in row.items() if value}
            if "roles" in given:
                given["roles"] = _json(given["roles"], f"{path}, line {number}")
            yield number, given
    elif path.suffix == ".jsonl":
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _json(line, f"{path}, line {number}")
    else:
        raise PromptError(f"{path}: prompts are read from .jsonl or .csv files.")


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{where}: not JSON ({error}).") from None
    if not isinstance(value, dict):
        raise PromptError(f"{where}: expected an object with a prompt's fields, found {value!r}.")
    return value


def _prompt(row: Mapping[str, Any], where: str) -> Prompt:
    try:
        return prompt_of(row)
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from None


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


# ---------------------------------------------------------------------------------------- encode


@dataclass(frozen=True)
class Tokens:
    """A text in one tokenizer's tokens: ids, what each reads as, and where it stands in the text.

    ``offsets`` are character ranges [start, end) of the text; ``places`` maps roles to places in
    this text. ``mask`` is how a masked-language model's tokenizer writes its mask (empty for other
    models), ``masks`` are the positions of masks.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    places: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    mask: str = ""
    masks: tuple[int, ...] = ()

    @classmethod
    def of_texts(cls, *pieces: str) -> Tokens:
        """Tokens made by hand, one per text, numbered from 0: for examples and tests."""
        ends = [len("".join(pieces[: n + 1])) for n in range(len(pieces))]
        starts = [0, *ends[:-1]]
        offsets = tuple(zip(starts, ends, strict=True))
        return cls("".join(pieces), tuple(range(len(pieces))), pieces, offsets)

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        return " ".join(f"{n}:{piece!r}" for n, piece in enumerate(self.pieces))

    @property
    def added(self) -> tuple[bool, ...]:
        """Which tokens the tokenizer added: they stand for no part of the text.

        >>> Tokens("a", (1, 5), ("<s>", "a"), ((0, 0), (0, 1))).added
        (True, False)
        """
        return tuple(start == stop for start, stop in self.offsets)

    def find(self, word: str) -> int:
        """The position of a word's last token.

        Raises:
            PromptError: the word is not in the text, or is there more than once.

        >>> Tokens.of_texts("Pine", "apple", " pizza").find("Pineapple")
        1
        """
        return self._tokens_of(word)[-1]

    def _tokens_of(self, word: str) -> range:
        """The positions of a word's tokens."""
        pattern = re.escape(word)
        pattern = (r"(?<!\w)" if word[:1].isalnum() else "") + pattern
        pattern += r"(?!\w)" if word[-1:].isalnum() else ""
        found = [self._between(*match.span()) for match in re.finditer(pattern, self.text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise PromptError(
                f"The word {word!r} is in the prompt {len(found)} times, at positions "
                f"{listing(place[-1] for place in found)}: give the position that you mean, or a "
                "role."
            )
        hint = did_you_mean(word, re.findall(r"\w+", self.text))
        raise PromptError(f"The word {word!r} is not in the prompt {self.text!r}.{hint}")

    def _between(self, first: int, end: int) -> range:
        """The positions of the tokens that stand for a stretch of the text."""
        own = [(n, *span) for n, span in enumerate(self.offsets) if not self.added[n]]
        last = max(n for n, start, _ in own if start < end)
        return range(min(n for n, _, stop in own if stop > first or n == last), last + 1)

    def extent(self, name: str) -> range:
        """The positions of a role's tokens: of its word, or the one that it is given as.

        Raises:
            PromptError: as `role`.

        >>> tokens = Tokens.of_texts("Pine", "apple", " pizza")
        >>> replace(tokens, places={"subject": "Pineapple"}).extent("subject")
        range(0, 2)
        """
        last = self.role(name)
        place = self.places.get(name)
        return self._tokens_of(place) if isinstance(place, str) else range(last, last + 1)

    def role(self, name: str) -> int:
        """The position of a role.

        Raises:
            PromptError: the prompt has no such role, or its place is not in the text.

        >>> Tokens.of_texts("Berlin", " is").role("last")
        1
        """
        if name == "last":
            return len(self.ids) - 1
        if name == "mask":
            return self._masked()
        if name not in self.places:
            known = [*(BUILT_IN if self.mask else ("last",)), *self.places]
            raise PromptError(
                f"The prompt {self.text!r} has no role {name!r}; roles: {listing(known)}. "
                f"A word is written in quotes: @{json.dumps(name)}.{did_you_mean(name, known)}"
            )
        place = self.places[name]
        if isinstance(place, str):
            return self.find(place)
        if not -len(self.ids) <= place < len(self.ids):
            raise PromptError(
                f"Role {name!r} is at position {place}, but {self.text!r} has {len(self)} tokens."
            )
        return place % len(self.ids)

    @property
    def predicted(self) -> tuple[int, ...]:
        """The positions whose predictions are worth a look: the masks, or the last token."""
        return self.masks or (len(self.ids) - 1,)

    @property
    def reading(self) -> int:
        """The position whose prediction is measured: the mask's, in a prompt that has one, or the
        last.

        Raises:
            PromptError: there are several masks.
        """
        return self._masked() if self.masks else len(self.ids) - 1

    def _masked(self) -> int:
        if len(self.masks) == 1:
            return self.masks[0]
        if self.masks:
            raise PromptError(
                f"The prompt {self.text!r} has {len(self.masks)} masks, at positions "
                f"{listing(self.masks)}, and only where there is one is it clear which is meant: "
                f"give the position, @{self.masks[0]}."
            )
        if self.mask:
            raise PromptError(
                f"The prompt {self.text!r} has no mask: write {self.mask} in the place of a word."
            )
        raise PromptError(
            f"The prompt {self.text!r} has no mask, as this model predicts the next token: only "
            "a masked-language model has the role 'mask'."
        )


@dataclass(frozen=True)
class Encoded:
    """A prompt in one model's tokens; ``target`` and ``contrast`` are token ids."""

    prompt: Prompt
    tokens: Tokens
    donor: Tokens | None
    target: int | None
    contrast: int | None


def encode(
    prompt: Prompt,
    tokenizer: PreTrainedTokenizerBase,
    n_positions: int | None = None,
    masked: bool = False,
) -> Encoded:
    """A prompt in the tokens of one tokenizer, for a masked-language model where ``masked``.

    Raises:
        PromptError: the text (or donor) is longer than ``n_positions`` tokens, a role's place is
            not in it, or it has another tokenizer's mask.
        TokenError: the target or the contrast is not one token.
    """
    own = {name: p[0] if isinstance(p, tuple) else p for name, p in prompt.roles.items()}
    mask = str(tokenizer.mask_token or "") if masked else ""
    tokens = _tokens(prompt.text, own, tokenizer, n_positions, mask)
    for role in prompt.roles:
        tokens.role(role)
    return Encoded(
        prompt=prompt,
        tokens=tokens,
        donor=_donor(prompt, tokens, tokenizer, n_positions),
        target=None if prompt.target is None else _answer(prompt.target, tokens, tokenizer),
        contrast=None if prompt.contrast is None else _answer(prompt.contrast, tokens, tokenizer),
    )


def _answer(text: str, tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of a target; at a mask that stands behind a space, of the token with that space."""
    before = tokens.text.partition(tokens.mask)[0] if tokens.masks else ""
    if before[-1:].isspace() and not text[:1].isspace():
        spaced = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
        if len(spaced) == 1 and spaced[0] != tokenizer.unk_token_id:
            return int(spaced[0])
    return token_id(text, tokenizer)


def _donor(
    prompt: Prompt, tokens: Tokens, tokenizer: PreTrainedTokenizerBase, n_positions: int | None
) -> Tokens | None:
    """The donor's tokens.

    A role with a pair of places has its own place in the donor. One with a single place keeps its
    position where the two texts are of one length, and is looked up as a word where they are not.
    """
    if prompt.donor is None:
        return None
    bare = _tokens(prompt.donor, {}, tokenizer, n_positions, tokens.mask)
    places: dict[str, str | int] = {}
    for role, place in prompt.roles.items():
        if isinstance(place, tuple):
            places[role] = place[1]
        else:
            places[role] = tokens.role(role) if len(bare) == len(tokens) else place
    return replace(bare, places=places)


def _tokens(
    text: str,
    places: Mapping[str, str | int],
    tokenizer: PreTrainedTokenizerBase,
    n_positions: int | None,
    mask: str = "",
) -> Tokens:
    if not tokenizer.is_fast:
        raise PromptError(
            f"{type(tokenizer).__name__} does not say where its tokens stand in the text; "
            "load the fast version of this tokenizer (a tokenizer.json)."
        )
    # A tokenizer may have been saved with padding or truncation switched on.
    plain = {"padding": False, "truncation": False, "verbose": False}
    coded = tokenizer(text, return_offsets_mapping=True, **plain)
    ids = tuple(coded["input_ids"])
    if not ids:
        raise PromptError(f"The tokenizer makes no token of {text!r}.")
    if n_positions is not None and len(ids) > n_positions:
        raise PromptError(
            f"The prompt has {len(ids)} tokens and the model takes {n_positions}: {text[:60]!r}…"
        )
    offsets = tuple((int(start), int(end)) for start, end in coded["offset_mapping"])
    masks = tuple(n for n, i in enumerate(ids) if mask and i == tokenizer.mask_token_id)
    other = next((name for name in MASKS if mask and not masks and name in text), None)
    if other is not None:
        raise PromptError(
            f"The prompt {text!r} has {other}, and this model's mask is {mask}: write that."
        )
    pieces = tuple(piece(i, tokenizer) for i in ids)
    return Tokens(text, ids, pieces, offsets, places, mask, masks)


def piece(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """What a token id reads as, leading space and all."""
    return str(tokenizer.decode([token], clean_up_tokenization_spaces=False))


def token_id(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of a text that is exactly one token.

    Raises:
        TokenError: it is none or several, and the message shows how it splits, and a near miss; or
            it is not in the vocabulary at all.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids == [tokenizer.unk_token_id] and text.strip() != tokenizer.unk_token:
        raise TokenError(
            f"{text!r} is not in the vocabulary: the tokenizer reads it as {tokenizer.unk_token}, "
            "like every word that it does not know."
        )
    if len(ids) == 1:
        return int(ids[0])
    split = listing(repr(piece(i, tokenizer)) for i in ids) or "nothing"
    other = text.lstrip() if text[:1] == " " else " " + text
    near = tokenizer(other, add_special_tokens=False)["input_ids"]
    hint = ""
    if len(near) == 1:
        space = "with a leading space" if other[:1] == " " else "without the leading space"
        hint = f" Did you mean {other!r} {space}?"
    raise TokenError(
        f"{text!r} is not one token: it splits into {len(ids)} ({split}), and a prediction is "
        f"measured on a single token.{hint}"
    )
