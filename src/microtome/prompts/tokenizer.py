"""What microtome asks of a tokenizer: its interface, so that nothing here has to load one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from microtome.errors import TokenError

TRIES = 100
"""How often a text is read whose tokenizer another thread may switch meanwhile."""


@runtime_checkable
class Tokenizer(Protocol):
    """A tokenizer as transformers' fast ones are."""

    @property
    def is_fast(self) -> bool:
        """Whether it says where its tokens stand in the text."""

    @property
    def mask_token(self) -> str | None:
        """How a mask is written."""

    @property
    def mask_token_id(self) -> int | None:
        """The mask's id."""

    @property
    def unk_token(self) -> str | None:
        """What an unknown word reads as."""

    @property
    def unk_token_id(self) -> int | None:
        """Its id."""

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that begins a text."""

    @property
    def eos_token_id(self) -> int | None:
        """That of the one that ends it."""

    @property
    def pad_token_id(self) -> int | None:
        """That of padding."""

    @property
    def all_special_ids(self) -> Sequence[int]:
        """The ids of the tokens that stand for no text, such as the one that begins every text."""

    @property
    def chat_template(self) -> Any:
        """How a chat is written as a text; None where it does not know."""

    def __call__(self, text: str | Sequence[str], /, **how: Any) -> Mapping[str, Any]:
        """A text's ``input_ids``, and where asked for its ``offset_mapping``; or of several."""

    def apply_chat_template(self, conversation: Any, /, **how: Any) -> Any:
        """A chat as a text, or as tokens."""

    def get_chat_template(self, chat_template: str | None, tools: Any, /) -> str:
        """The template by its name, or as it is given, or the one that is taken with tools."""

    def convert_ids_to_tokens(self, ids: int, /) -> str:
        """A token as the vocabulary writes it: ``▁the``."""

    def convert_tokens_to_ids(self, tokens: str, /) -> int | None:
        """The id of a token as the vocabulary writes it; of an unknown word, if none is."""

    def decode(self, token_ids: Sequence[int], /, **how: Any) -> str | list[str]:
        """What ids read as."""


def read(tokenizer: Tokenizer, text: str | Sequence[str], **how: Any) -> Mapping[str, Any]:
    """What a tokenizer makes of a text, or of several: whole, without padding.

    Raises:
        TokenError: it makes nothing of it, as one does that has no token for unknown words.
    """
    try:
        for _ in range(TRIES):
            # A tokenizer may have been saved with padding or truncation switched on.
            found = tokenizer(text, padding=False, truncation=False, verbose=False, **how)
            if _is_whole(found):
                return found
    except Exception as error:
        if type(error) is not Exception:  # tokenizers has no kind of its own
            raise
        raise TokenError(
            f"The tokenizer cannot read {text!r}: {error}. It has no token for what it does not "
            "know: use words of its vocabulary."
        ) from error
    raise TokenError(
        f"The tokenizer cuts {text!r} short, or pads it, whatever it is told: another thread uses "
        "it with truncation or padding meanwhile. Give each its own, copy.deepcopy(tokenizer)."
    )


def _is_whole(found: Mapping[str, Any]) -> bool:
    """Whether nothing was cut off or padded: a tokenizer has these switches for all its threads."""
    made = getattr(found, "encodings", None) or ()
    return all(not one.overflowing and 0 not in one.attention_mask for one in made)
