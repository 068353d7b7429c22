"""A prompt in the tokens of one model's tokenizer.

Everything that can be wrong with a prompt is found here, before a model runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from microtome.amounts import many
from microtome.errors import PromptError, TokenError
from microtome.prompts.answers import Answer, Behind, Ids, check_ids, piece, token_id
from microtome.prompts.chat import written
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokenizer import Tokenizer, read
from microtome.prompts.tokens import MASKS, Tokens
from microtome.prompts.turns import Message

Chat = tuple[Sequence[Message], Mapping[str, Any]]
"""The turns of a chat, and what its template is told besides."""

__all__ = ["Encoded", "encode", "piece", "token_id"]


@dataclass(frozen=True)
class Encoded:
    """A prompt in one model's tokens.

    Attributes:
        prompt: as it was given.
        tokens: its text.
        donor: its donor's.
        target: what is measured: a token's id; several ids, one after another; or a set of which
            any is meant.
        contrast: what that is compared with, likewise.
        notes: what should be said of these, where they may not be what was meant.
        is_plain: target and contrast are the tokens that their texts are by themselves.
        reads: what each token of these reads as.
    """

    prompt: Prompt
    tokens: Tokens
    donor: Tokens | None
    target: Answer | None
    contrast: Answer | None
    notes: tuple[str, ...] = ()
    is_plain: bool = True
    reads: Mapping[int, str] = field(default_factory=dict, hash=False, compare=False)

    def answer(self, name: str) -> Answer | None:
        """Its ``target`` or its ``contrast``."""
        return self.target if name == "target" else self.contrast

    def row(self, name: str) -> Ids:
        """The tokens of its ``target`` or ``contrast`` that come one after another; of one, one."""
        answer = self.answer(name)
        return answer if isinstance(answer, tuple) else ()

    def measured(self, name: str) -> str:
        """What of its ``target`` or ``contrast`` is measured, token by token; "" where nothing.

        >>> one = Encoded(Prompt("a"), Tokens.of_texts("a"), None, (1, 2), None, reads={1: " b"})
        >>> one.measured("target"), one.measured("contrast")
        ("' b' (1), then 2", '')
        """
        answer = self.answer(name)
        if answer is None:
            return ""
        if isinstance(answer, frozenset):
            return "any of " + ", ".join(map(self._shown, sorted(answer)))
        row = (answer,) if isinstance(answer, int) else answer
        return ", then ".join(map(self._shown, row))

    def _shown(self, token: int) -> str:
        return f"{self.reads[token]!r} ({token})" if token in self.reads else str(token)

    def forced(self, name: str) -> Encoded:
        """The same, with its target (or contrast) but for its last token said behind the text."""
        return replace(self, tokens=replace(self.tokens, forced=self.row(name)[:-1]))


def encode(
    prompt: Prompt,
    tokenizer: Tokenizer,
    n_positions: int | None = None,
    masked: bool = False,
    n_vocab: int | None = None,
) -> Encoded:
    """A prompt in the tokens of one tokenizer, for a masked-language model where ``masked``.

    Raises:
        PromptError: the text (or donor) is longer than ``n_positions`` tokens, a role's place is
            not in it, it has another tokenizer's mask, or it is a chat and there is no template.
        TokenError: the tokenizer cannot read the text; the target or the contrast is no token, or
            several where one can be measured; an id is none of ``n_vocab``.
    """
    own = {name: p[0] if isinstance(p, tuple) else p for name, p in prompt.roles.items()}
    mask = str(tokenizer.mask_token or "") if masked else ""
    reader = _Reader(tokenizer, n_positions, n_vocab, mask)
    chat = None if prompt.messages is None else (prompt.messages, prompt.chat_options)
    tokens = reader.tokens(prompt.text, prompt.ids, chat, own)
    for role in prompt.roles:
        tokens.role(role)
    plain = prompt.messages is None
    behind = Behind(
        tokens, tokenizer, lambda text: reader.code(text, plain).of_text, n_vocab, masked
    )
    answers = [_answer(behind, prompt, name, n_positions) for name in ("target", "contrast")]
    return Encoded(
        prompt=prompt,
        tokens=tokens,
        donor=_donor(prompt, tokens, reader),
        target=answers[0][0],
        contrast=answers[1][0],
        notes=tuple(note for _, note, _ in answers if note),
        is_plain=all(plain for _, _, plain in answers),
        reads={
            token: piece(token, tokenizer)
            for answer, _, _ in answers
            for token in ([answer] if isinstance(answer, int) else answer or ())
        },
    )


def _answer(
    behind: Behind, prompt: Prompt, name: str, n_positions: int | None
) -> tuple[Answer | None, str, bool]:
    """A prompt's target or contrast, what should be said of it, and whether it is plain."""
    one, several = getattr(prompt, name), getattr(prompt, f"{name}s")
    if several is not None:
        return *behind.any_of(several), False
    if one is None:
        return None, "", True
    answer, note = behind.answer(one)
    if isinstance(answer, tuple):
        length = len(behind.tokens) + len(answer) - 1
        if n_positions is not None and length > n_positions:
            raise TokenError(
                f"The {name} {one!r} is not one token but {len(answer)}, and with all but the last "
                f"of them the prompt is {many(length, 'token')} long; the model takes "
                f"{n_positions}."
            )
        if behind.tokens.own.stop < len(behind.tokens):
            raise TokenError(
                f"The {name} {one!r} is {many(len(answer), 'token')}, and the tokenizer closes "
                f"texts with {behind.tokens.pieces[-1]!r}, behind which nothing goes on: load it "
                "without, AutoTokenizer.from_pretrained(…, add_eos_token=False)."
            )
    both = (prompt.target, prompt.contrast)
    if isinstance(one, str) and " " + one in both:  # whoever gives both knows of the space
        note = ""
    return answer, note, behind.is_plain(one, answer)


def _donor(prompt: Prompt, tokens: Tokens, reader: _Reader) -> Tokens | None:
    """The donor's tokens.

    A role with a pair of places has its own place in the donor. One with a single place keeps its
    position where the two texts are of one length, and is looked up as a word where they are not.
    """
    if not prompt.has_donor:
        return None
    turns = prompt.donor_messages
    chat = None if turns is None else (turns, prompt.chat_options)
    bare = reader.tokens(prompt.donor or "", prompt.donor_ids, chat, {})
    places: dict[str, str | int] = {}
    for role, place in prompt.roles.items():
        if isinstance(place, tuple):
            places[role] = place[1]
        else:
            places[role] = tokens.role(role) if len(bare) == len(tokens) else place
    return replace(bare, places=places)


@dataclass(frozen=True)
class _Coded:
    """What a tokenizer makes of a text; ``begun`` as in `Tokens`."""

    ids: Ids
    offsets: tuple[tuple[int, int], ...]
    added: tuple[bool, ...]
    begun: bool

    @property
    def of_text(self) -> tuple[Ids, tuple[int, ...]]:
        """The tokens, and where each ends, without what is added behind."""
        behind = next((n for n, own in enumerate(reversed(self.added)) if not own), 0)
        stop = len(self.ids) - behind
        return self.ids[:stop], tuple(end for _, end in self.offsets[:stop])


@dataclass(frozen=True)
class _Reader:
    """A tokenizer, asked for what a model is to read of one prompt: the same text but once."""

    tokenizer: Tokenizer
    n_positions: int | None
    n_vocab: int | None
    mask: str
    known: dict[tuple[str, bool], _Coded] = field(default_factory=dict)

    def tokens(
        self,
        text: str,
        ids: Sequence[int] | None,
        chat: Chat | None,
        places: Mapping[str, str | int],
    ) -> Tokens:
        """A text, tokens or a chat as `Tokens`."""
        if not self.tokenizer.is_fast:
            raise PromptError(
                f"{type(self.tokenizer).__name__} does not say where its tokens stand in the text; "
                "load the fast version of this tokenizer (a tokenizer.json)."
            )
        if ids is not None:
            return self._given(tuple(ids), places)
        if chat is not None:
            text = written(chat[0], self.tokenizer, chat[1])
        coded = self.code(text, plain=chat is None)
        if not coded.ids:
            raise PromptError(f"The tokenizer makes no token of {text!r}.")
        return self._whole(text, coded, places)

    def code(self, text: str, plain: bool = True) -> _Coded:
        """A text's tokens; not ``plain``, it has all its special tokens written in it.

        What the tokenizer puts in front of a text is there once, even if the text has it too, or
        the tokenizer puts two.
        """
        if (text, plain) not in self.known:
            self.known[text, plain] = self._coded(text, plain)
        return self.known[text, plain]

    def _coded(self, text: str, plain: bool) -> _Coded:
        how = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        coded = read(self.tokenizer, text, add_special_tokens=plain, **how)
        ids = tuple(coded["input_ids"])
        offsets = tuple((int(start), int(end)) for start, end in coded["offset_mapping"])
        added = tuple(
            bool(special) and start == end
            for special, (start, end) in zip(coded["special_tokens_mask"], offsets, strict=True)
        )
        own = next((n for n, by_tokenizer in enumerate(added) if not by_tokenizer), 0)
        once = _once(ids, own, self._special)
        return _Coded(
            ids=tuple(ids[n] for n in once),
            offsets=tuple(offsets[n] for n in once),
            added=tuple(added[n] for n in once),
            begun=len(once) < len(ids),
        )

    @property
    def _special(self) -> set[int]:
        return set(self.tokenizer.all_special_ids)

    def _given(self, ids: Ids, places: Mapping[str, str | int]) -> Tokens:
        """Tokens that were given as such; what they read as stands one behind the other."""
        check_ids(ids, self.n_vocab, "The prompt's token")
        pieces = tuple(piece(token, self.tokenizer) for token in ids)
        ends = [0]
        for own in pieces:
            ends.append(ends[-1] + len(own))
        offsets = tuple(pairwise(ends))
        coded = _Coded(ids, offsets, (False,) * len(ids), begun=False)
        found = self._whole("".join(pieces), coded, places)
        return replace(found, padded=self._is_padded(ids))

    def _is_padded(self, ids: Ids) -> bool:
        """Whether tokens begin or end with padding: twice, where that is also a text's own end.

        That is what many pad with, on a tokenizer of their own (``pad_token = eos_token``).
        """
        own = self.tokenizer
        ends = own.bos_token_id, own.eos_token_id
        for pad in {own.pad_token_id, own.eos_token_id} - {None}:
            some = (pad,) * (2 if pad in ends else 1)
            if some in (ids[: len(some)], ids[-len(some) :]):
                return True
        return False

    def _whole(self, text: str, coded: _Coded, places: Mapping[str, str | int]) -> Tokens:
        ids, mask = coded.ids, self.mask
        if self.n_positions is not None and len(ids) > self.n_positions:
            raise PromptError(
                f"The prompt has {many(len(ids), 'token')} and the model takes {self.n_positions}: "
                f"{text[:60]!r}…"
            )
        masks = tuple(n for n, i in enumerate(ids) if mask and i == self.tokenizer.mask_token_id)
        other = next((name for name in MASKS if mask and not masks and name in text), None)
        if other is not None:
            raise PromptError(
                f"The prompt {text!r} has {other}, and this model's mask is {mask}: write that."
            )
        return Tokens(
            text=text,
            ids=ids,
            pieces=tuple(piece(i, self.tokenizer) for i in ids),
            offsets=coded.offsets,
            places=places,
            mask=mask,
            masks=masks,
            special=self._typed(text, coded),
            added=coded.added,
            begun=coded.begun,
        )

    def _typed(self, text: str, coded: _Coded) -> tuple[int, ...]:
        """The positions of special tokens that a text spells out."""
        special, unknown = self._special, self.tokenizer.unk_token_id
        return tuple(
            n
            for n, (i, (start, end)) in enumerate(zip(coded.ids, coded.offsets, strict=True))
            if i in special
            and start < end
            and (i != unknown or text[start:end].strip() == self.tokenizer.unk_token)
        )


def _once(ids: Ids, own: int, special: set[int]) -> list[int]:
    """Which tokens stay where those in front of a text, ``own`` in number, are there once."""
    kept = [*range(len(ids))]
    if not special.issuperset(ids[:own]):
        return kept
    while own and [ids[n] for n in kept[:own]] == [ids[n] for n in kept[own : 2 * own]]:
        del kept[:own]
    again = {n for n, after in pairwise(kept[: own + 1]) if ids[n] == ids[after]}
    return [n for n in kept if n not in again]
