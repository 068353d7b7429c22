"""What a model writes under the edits of chosen cells, beside what it writes without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microtome import Model, Prompt
from microtome.errors import MicrotomeError

MOST = 200
"""Tokens that a page asks for at most."""


@dataclass(frozen=True)
class Token:
    """A token that was written under edits.

    Attributes:
        token: its text.
        logprob, clean_logprob: its log probability with the edits and without, in nats.
        instead: the most probable token without the edits, behind the same text.
        instead_logprob: that one's, without the edits.
        kl: of the prediction with the edits from the one without, in nats.
        changed: values that the edits changed in the step; 0 where none was made in it.
    """

    token: str
    logprob: float
    clean_logprob: float
    instead: str
    instead_logprob: float
    kl: float
    changed: int


@dataclass(frozen=True)
class Written:
    """Two texts behind one prompt.

    Attributes:
        prompt: the text.
        edited: what is written under the edits.
        unedited: what is written without.
        tokens: the edited text, token by token.
        plain: the unedited text's tokens.
        ended, plain_ended: ``"eos"``, ``"steps"`` or ``"stopped"``.
    """

    prompt: str
    edited: str
    unedited: str
    tokens: tuple[Token, ...]
    plain: tuple[str, ...]
    ended: str
    plain_ended: str


def written(model: Model, prompt: Prompt, edits: Sequence[str], steps: int) -> Written:
    """Both texts, greedily, so that they part where the edits have them part.

    Each edit is made in every step that reads what it addresses; the finished text is read once
    more in one pass, and has to give the same logits.

    Args:
        model: from `load`; one that predicts the next token.
        prompt: what is written on.
        edits: texts without stars; none gives the unedited text twice.
        steps: tokens at most, to `MOST`.

    Raises:
        MicrotomeError: the model fills in masks, or there are too many steps.
        AddressError, EditError, PromptError: an edit names what is not there, or has no meaning
            in a step in which it is to be made.
    """
    if not 1 <= steps <= MOST:
        raise MicrotomeError(f"Between 1 and {MOST} tokens are written here, not {steps}.")
    made = model.generate(prompt, edits, steps, do_sample=False)[0]
    plain = made
    if edits:
        plain = model.generate(prompt, (), steps, verify=False, do_sample=False)[0]
    tokens = tuple(
        Token(
            row["token"],
            row["logprob"],
            row["clean_logprob"],
            row["clean_token"],
            row["clean_token_logprob"],
            row["kl"],
            row["changed"],
        )
        for row in made.table().to_dict("records")
    )
    text = made.encoded.tokens.text
    return Written(text, made.text, plain.text, tokens, plain.pieces, made.ended, plain.ended)
