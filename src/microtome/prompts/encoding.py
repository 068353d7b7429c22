"""A prompt in the tokens of one model's tokenizer.

Everything that can be wrong with a prompt is found here, before a model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from microtome.errors import PromptError, TokenError, listing
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokenizer import Tokenizer
from microtome.prompts.tokens import MASKS, Tokens


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
    tokenizer: Tokenizer,
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


def _answer(text: str, tokens: Tokens, tokenizer: Tokenizer) -> int:
    """The id of a target; at a mask that stands behind a space, of the token with that space."""
    before = tokens.text.partition(tokens.mask)[0] if tokens.masks else ""
    if before[-1:].isspace() and not text[:1].isspace():
        spaced = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
        if len(spaced) == 1 and spaced[0] != tokenizer.unk_token_id:
            return int(spaced[0])
    return token_id(text, tokenizer)


def _donor(
    prompt: Prompt, tokens: Tokens, tokenizer: Tokenizer, n_positions: int | None
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
    tokenizer: Tokenizer,
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
    typed = _typed(text, ids, offsets, tokenizer)
    other = next((name for name in MASKS if mask and not masks and name in text), None)
    if other is not None:
        raise PromptError(
            f"The prompt {text!r} has {other}, and this model's mask is {mask}: write that."
        )
    pieces = tuple(piece(i, tokenizer) for i in ids)
    return Tokens(text, ids, pieces, offsets, places, mask, masks, typed)


def _typed(
    text: str,
    ids: tuple[int, ...],
    offsets: tuple[tuple[int, int], ...],
    tokenizer: Tokenizer,
) -> tuple[int, ...]:
    """The positions of special tokens that a text spells out."""
    special = set(tokenizer.all_special_ids)
    unknown = tokenizer.unk_token_id
    return tuple(
        n
        for n, (i, (start, end)) in enumerate(zip(ids, offsets, strict=True))
        if i in special
        and start < end
        and (i != unknown or text[start:end].strip() == tokenizer.unk_token)
    )


def piece(token: int, tokenizer: Tokenizer) -> str:
    """What a token id reads as, leading space and all."""
    return str(tokenizer.decode([token], clean_up_tokenization_spaces=False))


def token_id(text: str, tokenizer: Tokenizer) -> int:
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
