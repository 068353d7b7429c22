"""What is expected behind a text, in tokens: what continues it there.

The tokens of a target are those of text and target together, minus those of the text. A tokenizer
may read the same letters otherwise at the beginning of a text, or behind a quote, than behind a
word. Where the text's own last tokens change when the target is written behind them, nothing
continues it in that sense: then it is the target alone, as it stands inside of a text, and that is
said.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from microtome.amounts import many
from microtome.errors import TokenError, end_of, listing
from microtome.prompts.tokenizer import Tokenizer, read
from microtome.prompts.tokens import Tokens
from microtome.prompts.words import goes_on, is_unspaced

Answer = int | tuple[int, ...] | frozenset[int]
"""What is measured: a token's id; several, one after another; or any of a set."""

Ids = tuple[int, ...]

Coded = tuple[Ids, tuple[int, ...]]
"""A text's tokens, and where in it each of them ends."""

QUOTES = "\"'`"
"""Signs that open as well as close."""

PAUSES = ",;:.!?"
"""Signs behind which a word mostly has a space in front."""

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a token reads as that is a part of a character."""

ANCHORS = ("\n", '"', "(", ".")
"""What a piece of text may stand behind, to be read as inside of a text."""


@dataclass(frozen=True, eq=False)
class Behind:
    """What may stand behind a text.

    Attributes:
        tokens: the text.
        tokenizer: its tokenizer.
        own: a text in tokens, without what the tokenizer adds behind it, written as this one is.
        n_vocab: how many tokens the model has; None: as many as anybody asks for.
        masked: the model fills masks, and nothing continues a text.
    """

    tokens: Tokens
    tokenizer: Tokenizer
    own: Callable[[str], Coded]
    n_vocab: int | None = None
    masked: bool = False

    def answer(self, given: str | int) -> tuple[Answer, str]:
        """The tokens of a target, and what should be said of them: mostly nothing.

        Raises:
            TokenError: it is no token, is unknown, or several where one can be measured.
        """
        if isinstance(given, int):
            check_ids([given], self.n_vocab, "the token's id")
            return given, ""
        if self.masked:
            return self._at_mask(given), ""
        ids, note = self._continuing(given)
        self._check_known(ids, given)
        return (ids[0] if len(ids) == 1 else ids), note

    def any_of(self, given: Sequence[str | int]) -> tuple[Answer, str]:
        """The same of a set of tokens.

        Raises:
            TokenError: besides, one of them is several tokens, or two are the same.
        """
        found: dict[int, str | int] = {}
        notes = []
        for one in given:
            answer, note = self.answer(one)
            notes.append(note)
            if not isinstance(answer, int):
                split = listing(self._pieces([*answer]))
                raise TokenError(
                    f"{one!r} is several tokens here ({split}), and of a set each is one token. "
                    "Give the first token of each, if that tells them apart; or measure them one "
                    "by one, target=…."
                )
            if answer in found:
                raise TokenError(f"{found[answer]!r} and {one!r} are the same token here.")
            found[answer] = one
        note = next(filter(None, notes), "")
        return (next(iter(found)) if len(found) == 1 else frozenset(found)), note

    # ------------------------------------------------------------------------------- behind a text

    def _continuing(self, text: str) -> tuple[Ids, str]:
        if not text:
            token_id(text, self.tokenizer)
        before = self.tokens.ids[: self.tokens.own.stop]
        own, ends = self._with("")
        if own != before:  # given as ids that no text has: none to continue
            ids = self._alone(text)
            if not ids:
                raise TokenError(
                    f"{text!r} is no token here: the tokenizer leaves all of it out. Give another "
                    "text, or a token's id."
                )
            return ids, ""
        whole, wider = self._with(text)
        continues = _is_continued((before, ends), (whole, wider))
        ids = whole[len(before) :] if continues else self._alone(text)
        if not ids:
            raise TokenError(
                f"{text!r} adds no token to {end_of(self.tokens.text)!r}: give what is said next."
            )
        note = ""
        if len(ids) > 1:
            spaced = self._coded(text)
            if not _takes_no_space(self.tokens.text[-1], text[0]) and self._is_spaced(spaced):
                return spaced, self._lacks_space(text, ids)
            note = self._spelled(text, ids) or self._near_miss(text, before, ids)
        note = note or self._unspaced(text, before, ids)
        return ids, note if continues else self._seam(text, before, whole, ids)

    def _with(self, text: str) -> Coded:
        """The tokens of both; none where the tokenizer cannot read them together."""
        try:
            return self.own(self.tokens.text + text)
        except TokenError:
            return (), ()

    def _is_spaced(self, ids: Ids) -> bool:
        """Whether it is one token, and the tokenizer put a space in front."""
        return len(ids) == 1 and piece(ids[0], self.tokenizer).startswith(" ")

    def _alone(self, text: str) -> Ids:
        """A text's tokens by itself, without the space that some tokenizers put in front of all."""
        plain = self._coded(text)
        if "".join(piece(token, self.tokenizer) for token in plain) == text:
            return plain
        for anchor in ANCHORS:
            try:
                before, whole = self._placed(anchor), self._placed(anchor + text)
            except TokenError:  # of a sign that the tokenizer does not have
                continue
            if _is_continued(before, whole) and len(whole[0]) > len(before[0]):
                return whole[0][len(before[0]) :]
        return plain

    def _coded(self, text: str) -> Ids:
        return self._placed(text)[0]

    def _placed(self, text: str) -> Coded:
        how = {"add_special_tokens": False, "return_offsets_mapping": True}
        coded = read(self.tokenizer, text, **how)
        return tuple(coded["input_ids"]), tuple(end for _, end in coded["offset_mapping"])

    def _seam(self, text: str, before: Ids, whole: Ids, alone: Ids) -> str:
        """What is said where a text's own tokens change, or cannot be read."""
        pairs = enumerate(zip(before[:-1], whole, strict=False))  # the last one is another anyway
        same = next((n for n, (one, other) in pairs if one != other), len(before) - 1)
        found = (
            "makes other tokens of the text's own end: "
            f"{listing(self._pieces(before[same:])) or 'nothing'} would become "
            f"{listing(self._pieces(whole[same:])) or 'nothing'}"
        )
        if not whole:
            found = "is nothing that the tokenizer can read"
        return (
            f"{text!r} behind {end_of(self.tokens.text)!r} {found}. Measured is {text!r} by "
            f"itself, {listing(self._pieces(alone))}, behind the text as it is: which the model "
            "may never have seen there. Is a space missing, or one too many; or should the text "
            "end earlier?"
        )

    def _lacks_space(self, text: str, ids: Ids) -> str:
        """What is said of a word that lacks its space, and by itself is one token with it."""
        return (
            f"{text!r} right behind {end_of(self.tokens.text)!r} is {many(len(ids), 'token')}, "
            f"{listing(self._pieces(ids))}, and by itself the tokenizer reads it as one, with a "
            f"space in front. Measured is that one: say so, {' ' + text!r}."
        )

    def _spelled(self, text: str, ids: Ids) -> str:
        """What is said of several tokens that a vocabulary has as the spelling of a single one."""
        token = self.tokenizer.convert_tokens_to_ids(text)
        if token is None or token == self.tokenizer.unk_token_id:
            return ""
        said = piece(token, self.tokenizer)
        if said == text or HALF in said:
            return ""
        return (
            f"{text!r} is how the vocabulary spells the token {said!r}, and as a text it is "
            f"{many(len(ids), 'token')}, {listing(self._pieces(ids))}, which are measured one "
            f"after another. If that token is meant, give {said!r}, or its id, {token}."
        )

    def _near_miss(self, text: str, before: Ids, ids: Ids) -> str:
        """What is said of several tokens, where with a space more or less it were one.

        Raises:
            TokenError: they would go on the text's last word, so that a space must be missing.
        """
        other = text.lstrip() if text[:1] == " " else " " + text
        whole = self._with(other)[0] if other.strip() else ()
        if len(whole) != len(before) + 1 or whole[:-1] != before:
            return ""
        if other[:1] == " " and _takes_no_space(self.tokens.text[-1], text[0]):
            return ""
        space = "with a leading space" if other[:1] == " " else "without the leading space"
        where, split = repr(end_of(self.tokens.text)), listing(self._pieces(ids))
        if goes_on(self.tokens.text[-1], text[0]):
            raise TokenError(
                f"{text!r} is not one token behind {where}: it would go on the last word there, "
                f"in {many(len(ids), 'piece')} ({split}). Did you mean {other!r} {space}?"
            )
        return (
            f"{text!r} is {many(len(ids), 'token')} behind {where}: {split}. They are measured one "
            f"after another. Did you mean {other!r} {space}, which is one?"
        )

    def _unspaced(self, text: str, before: Ids, ids: Ids) -> str:
        """What is said of a word right behind a word or a pause, which may lack its space.

        Of one token only where it is one with the space, too: else it is mostly the rest of a word.
        """
        last = self.tokens.text[-1]
        grows = last.isalpha() and goes_on(last, text[0])
        pauses = last in PAUSES and not is_unspaced(last, text[0])
        if not (text[0].isalpha() and (grows or pauses)):
            return ""
        whole, _ = self._with(f" {text}")
        spaced = len(whole) - len(before)
        if whole[: len(before)] != before or spaced < 1 or spaced > len(ids) == 1:
            return ""
        where = "goes on the last word there" if grows else "stands there without a space"
        return (
            f"{text!r} right behind {end_of(self.tokens.text)!r} {where}, and that is what is "
            f"measured. If a new word is meant, begin it with its space: {' ' + text!r}, which is "
            f"{'one token too' if spaced == 1 else many(spaced, 'token')}."
        )

    def _check_known(self, ids: Ids, text: str) -> None:
        unknown = self.tokenizer.unk_token
        if not self._is_known(ids) and (unknown is None or unknown not in text):
            raise _unknown(text, unknown)

    def _is_known(self, ids: Ids) -> bool:
        return self.tokenizer.unk_token_id not in ids

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        return [repr(piece(token, self.tokenizer)) for token in ids]

    def is_plain(self, given: str | int, answer: Answer) -> bool:
        """Whether a target is the one token that its text is by itself."""
        return self.masked or (isinstance(given, str) and self._coded(given) == (answer,))

    # ---------------------------------------------------------------------------------- at a mask

    def _at_mask(self, text: str) -> int:
        """The id of what fills a mask; of one that stands behind a space, with that space."""
        before = self.tokens.text.partition(self.tokens.mask)[0] if self.tokens.masks else ""
        if before[-1:].isspace() and not text[:1].isspace():
            spaced = self._coded(" " + text)
            if len(spaced) == 1 and spaced[0] != self.tokenizer.unk_token_id:
                return int(spaced[0])
        return token_id(text, self.tokenizer)


def _is_continued(before: Coded, whole: Coded) -> bool:
    """Whether a text's tokens are the first of a longer one's, and stand for as much of it there.

    An unknown word that grows by what is written behind it is the same token still.
    """
    (ids, ends), own = before, len(before[0])
    return (whole[0][:own], whole[1][:own][-1:]) == (ids, ends[-1:])


def _takes_no_space(end: str, begin: str) -> bool:
    """Whether there is mostly no space between two signs.

    None behind a line break or an open bracket, nor in scripts that put none between words.
    """
    if is_unspaced(end, begin):
        return True
    return end.isspace() or end in QUOTES or unicodedata.category(end) in ("Ps", "Pi")


def check_ids(ids: Sequence[int], n_vocab: int | None, what: str) -> None:
    """Raise a `TokenError` where a model has no token of such an id."""
    beyond = [] if n_vocab is None else [one for one in ids if one >= n_vocab]
    if beyond and n_vocab:
        raise TokenError(
            f"{what} {beyond[0]} does not exist: the model has {many(n_vocab, 'token')}, 0 … "
            f"{n_vocab - 1:,}."
        )


def piece(token: int, tokenizer: Tokenizer) -> str:
    """What a token id reads as inside of a text, leading space and all.

    A decoder takes it for the beginning of a text, where some leave the space out.
    """
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    raw = str(tokenizer.convert_ids_to_tokens(token))
    spaces = len(raw) - len(raw.lstrip("▁"))
    if not spaces or text.startswith("▁"):
        return text
    return " " * spaces + text.lstrip(" ")


def token_id(text: str, tokenizer: Tokenizer) -> int:
    """The id of a text that is exactly one token by itself.

    Raises:
        TokenError: it is none or several, and the message shows how it splits, and a near miss; or
            it is not in the vocabulary at all.
    """
    ids = read(tokenizer, text, add_special_tokens=False)["input_ids"]
    if ids == [tokenizer.unk_token_id] and text.strip() != tokenizer.unk_token:
        raise _unknown(text, tokenizer.unk_token)
    if len(ids) == 1:
        return int(ids[0])
    split = listing(repr(piece(i, tokenizer)) for i in ids) or "nothing"
    other = text.lstrip() if text[:1] == " " else " " + text
    near = read(tokenizer, other, add_special_tokens=False)["input_ids"]
    hint = ""
    if text and len(near) == 1:
        space = "with a leading space" if other[:1] == " " else "without the leading space"
        hint = f" Did you mean {other!r} {space}?"
    raise TokenError(
        f"{text!r} is not one token: it splits into {len(ids)} ({split}), and a prediction is "
        f"measured on a single token.{hint}"
    )


def _unknown(text: str, unknown: str | None) -> TokenError:
    return TokenError(
        f"{text!r} is not in the vocabulary: the tokenizer reads it as {unknown}, like every word "
        "that it does not know."
    )
