"""What may not have been meant: prompts that can be used, and what to do if they are wrong.

Each check gives one complaint for all prompts of a call, or none.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence

from microtome.amounts import many
from microtome.errors import PromptWarning, end_of, listing
from microtome.prompts.chat import begins_an_answer
from microtome.prompts.encoding import Encoded
from microtome.prompts.files import READERS
from microtome.prompts.tables import PARQUET
from microtome.prompts.tokens import Tokens
from microtome.prompts.turns import Message


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
    begun = next((one for one in texts if one.begun), None)
    if begun is not None:
        yield _begun(begun)
    padded = next((one for one in texts if one.padded), None)
    if padded is not None:
        yield _padded(padded)
    file = next((one.prompt.text for one in encoded if _names_a_file(one.prompt.text)), None)
    if file is not None:
        yield _file(file)
    typed = [one for one in _typed_texts(encoded) if _special(one)]
    if typed:
        yield _typed(typed[0], _special(typed[0]))
    ended = next(filter(None, map(_answered, encoded)), None)
    if ended is not None:
        yield _said(ended)
    asked = [one for one in encoded if (one.target, one.contrast) != (None, None)]
    blank = next((one for one in _typed_texts(asked) if _ends_in_a_space(one)), None)
    if blank is not None and not masked:
        yield _blank(blank)
    equal = next(filter(_asks_nothing, encoded), None)
    if equal is not None:
        yield _equal(equal)
    notes = dict.fromkeys(note for one in encoded for note in one.notes)
    if notes:
        more = f" (And {len(notes) - 1} more such targets.)" if len(notes) > 1 else ""
        yield next(iter(notes)) + more
    longest = max(texts, key=len)
    if made_for is not None and len(longest) > made_for:
        yield _long(longest, made_for)


def _names_a_file(text: str) -> bool:
    """Whether a text is the name of a file of prompts, which is there."""
    return text.lower().endswith((*READERS, PARQUET)) and os.path.isfile(text)


def _file(text: str) -> str:
    return (
        f"The prompt {text!r} is the name of a file, and is run as a text. The prompts in it are "
        f"Prompts.read({text!r}), on the command line --prompts."
    )


def _closing(tokens: Tokens) -> str:
    end = -1 - next(n for n, added in enumerate(reversed(tokens.added)) if not added)
    return (
        f"The tokenizer puts {tokens.pieces[-1]!r} after every text, so the last position, where "
        "metrics are read, is that token, and not the end of the text. Load the tokenizer without "
        "it, AutoTokenizer.from_pretrained(…, add_eos_token=False), and give it to "
        f"load(…, tokenizer=…); or read metrics at the text's own end, such as prob@{end}."
    )


def _begun(tokens: Tokens) -> str:
    piece = tokens.pieces[tokens.own.start]
    if tokens.own.start not in tokens.special:
        return (
            f"The tokenizer puts {tokens.pieces[0]!r} in front of every text twice (a fault that "
            "converted tokenizers have): the model reads it once. To have both, give ids=[…]."
        )
    return (
        f"A text begins with {piece!r}, which the tokenizer puts in front of every text: the model "
        f"reads it once, and not twice: {tokens.text[:60]!r}. Leave it out of the text, "
        f"text.removeprefix({piece!r}); a chat goes by Prompt.chat([…]), which needs no template "
        "by hand."
    )


def _padded(tokens: Tokens) -> str:
    return (
        f"The ids of {tokens.text[:60]!r}, {many(len(tokens), 'token')}, begin or end with the "
        "tokenizer's padding, which is read here like any other token: nothing is masked, and at "
        "the end the last position is padding. Give each prompt's own ids; they may be of any "
        "lengths."
    )


def _typed_texts(encoded: Sequence[Encoded]) -> Iterator[Tokens]:
    """The texts that somebody typed: not tokens given as such, nor what a template wrote."""
    for one in encoded:
        if one.prompt.text:
            yield one.tokens
        if one.donor is not None and one.prompt.donor is not None:
            yield one.donor


def _special(tokens: Tokens) -> list[int]:
    """Special tokens that a text spells out: no masks, and not the one that was told of."""
    told = (*tokens.masks, *([tokens.own.start] if tokens.begun else []))
    return [n for n in tokens.special if n not in told]


def _ends_in_a_space(tokens: Tokens) -> bool:
    """Whether a text ends in a space that is a token by itself, or the end of one."""
    return tokens.text.endswith(" ") and tokens.pieces[tokens.own.stop - 1].endswith(" ")


def _answered(one: Encoded) -> Message | None:
    """The last turn of a chat in which the model has answered already, in a prompt or its donor.

    Not where the template is told to begin no other answer behind it.
    """
    if not begins_an_answer(one.prompt.chat_options):
        return None
    for chat in (one.prompt.messages, one.prompt.donor_messages):
        if chat and chat[-1]["role"] == "assistant":
            return chat[-1]
    return None


def _said(turn: Message) -> str:
    said = end_of(str(turn.get("content")), 40)
    return (
        f"A chat ends in what the assistant says, {said!r}, and the model's template begins "
        "another answer behind it: that is where metrics are read. To go on with what it says, "
        "chat_options={'continue_final_message': True}."
    )


def _blank(tokens: Tokens) -> str:
    return (
        f"The text {end_of(tokens.text, 60)!r} ends in a space. Most tokenizers give a word the "
        "space before it, so that the model has seldom seen a space by itself there, and what it "
        f"predicts behind it is another thing: the last token is {tokens.pieces[-1]!r}. Leave the "
        "space out of the text, and begin the target with it."
    )


def _asks_nothing(one: Encoded) -> bool:
    """Whether a prompt's contrast is its target."""
    ways = [{way} if isinstance(way, int) else way for way in (one.target, one.contrast)]
    return one.target is not None and ways[0] == ways[1]


def _equal(one: Encoded) -> str:
    return (
        f"The target of {one.prompt.shown} is its contrast, too: {one.measured('target')}. Their "
        "logit difference is 0, and so is every effect on it, whatever is edited. Give another "
        "contrast, or none."
    )


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
        f"A text has {many(len(tokens), 'token')}, and the model was made for up to {made_for:,} "
        "(its configuration's max_position_embeddings): it runs, and what it predicts beyond may "
        f"mean nothing. Shorten the text: {tokens.text[:60]!r}…"
    )
