"""A text in one tokenizer's tokens, with its words, roles and masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from microtome.amounts import many
from microtome.errors import PromptError, did_you_mean, listing
from microtome.prompts.prompt import BUILT_IN
from microtome.prompts.words import spans_of, words_of

MASKS = ("[MASK]", "<mask>")
"""How the tokenizers of masked-language models write their mask."""


@dataclass(frozen=True)
class Tokens:
    """A text in one tokenizer's tokens: ids, what each reads as, and where it stands in the text.

    ``offsets`` are character ranges [start, end) of the text; ``places`` maps roles to places in
    this text. ``mask`` is how a masked-language model's tokenizer writes its mask (empty for other
    models), ``masks`` are the positions of masks. ``special`` are those of special tokens
    that are written in the text, such as ``<|endoftext|>``: masks too, unknown words not. ``added``
    says which tokens the tokenizer added, such as ``<s>``: unless given, those without a place in
    the text. ``forced`` are ids that the model reads behind the text, as if it had said them; they
    have no positions that can be addressed, and are not counted. ``begun``: the token that begins
    every text is there once, and would have been twice: written in the text, or by the tokenizer.
    ``padded``: given as ids, with the tokenizer's padding at an end.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    places: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    mask: str = ""
    masks: tuple[int, ...] = ()
    special: tuple[int, ...] = ()
    added: tuple[bool, ...] = ()
    forced: tuple[int, ...] = ()
    begun: bool = False
    padded: bool = False

    def __post_init__(self) -> None:
        if not self.added:
            added = tuple(start == stop for start, stop in self.offsets)
            object.__setattr__(self, "added", added)

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
    def read(self) -> tuple[int, ...]:
        """All ids that the model reads: the text's, and those that are forced behind it."""
        return self.ids + self.forced

    @property
    def own(self) -> range:
        """The positions of the text's own tokens, without what is added in front and behind.

        >>> Tokens("a", (1, 5), ("<s>", "a"), ((0, 0), (0, 1))).own
        range(1, 2)
        """
        text = [n for n, added in enumerate(self.added) if not added]
        return range(text[0], text[-1] + 1) if text else range(0)

    def find(self, word: str) -> int:
        """The position of a word's last token.

        Raises:
            PromptError: the word is not in the text, is there more than once, or left out of it by
                the tokenizer.

        >>> Tokens.of_texts("Pine", "apple", " pizza").find("Pineapple")
        1
        """
        return self._tokens_of(word)[-1]

    def _tokens_of(self, word: str) -> range:
        """The positions of a word's tokens."""
        found = [self._between(*span) for span in spans_of(word, self.text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise PromptError(
                f"The word {word!r} is in the prompt {many(len(found), 'time')}, at positions "
                f"{listing(place[-1] for place in found)}: give the position that you mean, or a "
                "role."
            )
        hint = did_you_mean(word, [self.text[start:end] for start, end in words_of(self.text)])
        raise PromptError(f"The word {word!r} is not in the prompt {self.text!r}.{hint}")

    def _between(self, first: int, end: int) -> range:
        """The positions of the tokens that stand for a stretch of the text."""
        # Some stand for no part of the text: what is added, and a space that is put in front.
        own = [
            n for n, (start, stop) in enumerate(self.offsets) if max(start, first) < min(stop, end)
        ]
        if not own:
            raise PromptError(
                f"The tokenizer makes no token of {self.text[first:end]!r} in {self.text!r}: it "
                "leaves that out. Name another word, or a position."
            )
        return range(own[0], own[-1] + 1)

    def extent(self, name: str) -> range:
        """The positions of a role's tokens: of its word, or the one that it is given as.

        Raises:
            PromptError: as `role`.

        >>> from dataclasses import replace
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
                f"Role {name!r} is at position {place}, but {self.text!r} has "
                f"{many(len(self), 'token')}."
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
                f"The prompt {self.text!r} has {many(len(self.masks), 'mask')}, at positions "
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
