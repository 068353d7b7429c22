"""What may not have been meant: prompts that can be used, and what to do if they are wrong.

Each check gives one complaint for all prompts of a call, or none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from microtome.errors import PromptWarning, listing
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens


def warn_of(
    encoded: Sequence[Encoded], masked: bool, made_for: int | None = None, stacklevel: int = 2
) -> None:
    """Warn with `PromptWarning` of what may not have been meant.

    Args:
        encoded: the prompts.
        masked: whether they are for a masked-language model.
        made_for: the longest text that the model was made for, where it takes longer ones too.
        stacklevel: as `warnings.warn` takes it, for the caller of this function.
    """
    for text in complaints(encoded, masked, made_for):
        warnings.warn(text, PromptWarning, stacklevel=stacklevel + 1)


def complaints(
    encoded: Sequence[Encoded], masked: bool, made_for: int | None = None
) -> Iterator[str]:
    """The warnings about some prompts, in words.

    >>> from microtome.prompts.prompt import Prompt
    >>> tokens = Tokens("a b", (0, 1), ("a", " b"), ((0, 1), (1, 3)))
    >>> one = Encoded(Prompt("a b"), tokens, donor=None, target=None, contrast=None)
    >>> [text[:42] for text in complaints([one], masked=False, made_for=1)]
    ['A text has 2 tokens, and the model was mad']
    """
    texts = [one.tokens for one in encoded]
    texts += [one.donor for one in encoded if one.donor is not None]
    closed = next((one.tokens for one in encoded if one.tokens.added[-1]), None)
    if closed is not None and not masked:
        yield _closing(closed)
    begun = next((one for one in texts if _begins_twice(one)), None)
    if begun is not None:
        yield _twice(begun)
    special = next((one for one in texts if _special(one, one is begun)), None)
    if special is not None:
        yield _typed(special, _special(special, special is begun))
    longest = max(texts, key=len)
    if made_for is not None and len(longest) > made_for:
        yield _long(longest, made_for)


def _closing(tokens: Tokens) -> str:
    end = -1 - next(n for n, added in enumerate(reversed(tokens.added)) if not added)
    return (
        f"The tokenizer puts {tokens.pieces[-1]!r} after every text, so the last position, where "
        "metrics are read, is that token, and not the end of the text. Load the tokenizer without "
        "it, AutoTokenizer.from_pretrained(…, add_eos_token=False), and give it to "
        f"load(…, tokenizer=…); or read metrics at the text's own end, such as prob@{end}."
    )


def _begins_twice(tokens: Tokens) -> bool:
    """The token that the tokenizer puts in front is written in the text once more."""
    first = next((n for n, added in enumerate(tokens.added) if not added), 0)
    return first in tokens.special and first > 0 and tokens.ids[first] == tokens.ids[first - 1]


def _twice(tokens: Tokens) -> str:
    own = next(n for n, added in enumerate(tokens.added) if not added)
    piece = tokens.pieces[own]
    return (
        f"A text begins with {piece!r}, and the tokenizer puts one in front, so that the model "
        f"reads it twice: {tokens.text[:60]!r}. Leave it out of the text (a chat template writes "
        f"it there), text.removeprefix({piece!r}); or load the tokenizer without it, "
        "AutoTokenizer.from_pretrained(…, add_bos_token=False), and give it to "
        "load(…, tokenizer=…)."
    )


def _special(tokens: Tokens, begun: bool) -> list[int]:
    """Special tokens that a text spells out: no masks, and not the one that was told of."""
    first = next((n for n, added in enumerate(tokens.added) if not added), 0)
    told = (*tokens.masks, *([first] if begun else []))
    return [n for n in tokens.special if n not in told]


def _typed(tokens: Tokens, at: Sequence[int]) -> str:
    pieces = listing(dict.fromkeys(repr(tokens.pieces[n]) for n in at))
    return (
        f"The text {tokens.text[:60]!r} has {pieces} in it, at positions {listing(at)}, which the "
        "tokenizer reads as a special token and not as these letters. If a token is meant, as "
        "between the turns of a chat, all is well; if the letters are meant, write them otherwise "
        f"({tokens.pieces[at[0]][:1]} {tokens.pieces[at[0]][1:]}) or load the tokenizer with "
        "AutoTokenizer.from_pretrained(…, split_special_tokens=True)."
    )


def _long(tokens: Tokens, made_for: int) -> str:
    return (
        f"A text has {len(tokens):,} tokens, and the model was made for up to {made_for:,} (its "
        "configuration's max_position_embeddings): it runs, and what it predicts beyond may mean "
        f"nothing. Shorten the text: {tokens.text[:60]!r}…"
    )
