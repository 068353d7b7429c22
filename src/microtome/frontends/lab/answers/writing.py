"""What a model writes under the edits of chosen cells, beside what it writes without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from microtome import Generation, Model, Prompt
from microtome.engines.observer import Observer, Silent, go_on
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
        kl: of the prediction with the edits from the one without, in nats.
        changed: values that the edits changed in the step; 0 where none was made in it.
    """

    token: str
    logprob: float
    clean_logprob: float
    instead: str
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
        ended: how the edited text ended: ``"eos"``, ``"steps"`` or ``"stopped"``.
    """

    prompt: str
    edited: str
    unedited: str
    tokens: tuple[Token, ...]
    plain: tuple[str, ...]
    ended: str


class Heard:
    """A streamer that tells an observer of each token, and stops where it wants no more."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self._has_begun = observer, False

    def put(self, tokens: Tensor) -> None:
        """The prompt comes first, then a token at a time.

        Raises:
            Cancelled: the observer wants no more.
        """
        if self._has_begun:
            self._observer.advanced(1)
        self._has_begun = True
        go_on(self._observer)

    def end(self) -> None:
        """There are no more."""


def tokens_of(edits: Sequence[str], steps: int) -> int:
    """How many tokens are written at most: both texts', or where nothing is edited the one's.

    >>> tokens_of(["zero L0.z"], 20), tokens_of([], 20)
    (40, 20)
    """
    return steps * (2 if edits else 1)


def written(
    model: Model,
    prompt: Prompt,
    edits: Sequence[str],
    steps: int,
    observer: Observer | None = None,
) -> Written:
    """Both texts, greedily, so that they part where the edits have them part.

    Each edit is made in every step that reads what it addresses; the finished text is read once
    more in one pass, and has to give the same logits.

    Args:
        model: from `load`; one that predicts the next token.
        prompt: what is written on.
        edits: texts without stars; none gives the unedited text twice.
        steps: tokens at most, to `MOST`.
        observer: is told of each token, and may cancel between two.

    Raises:
        MicrotomeError: the model fills in masks, or there are too many steps.
        AddressError, EditError, PromptError: an edit names what is not there, or has no meaning
            in a step in which it is to be made.
        Cancelled: the observer wants no more.
    """
    if not 1 <= steps <= MOST:
        raise MicrotomeError(f"Between 1 and {MOST} tokens are written here, not {steps}.")
    told = observer or Silent()

    def of(some: Sequence[str], verify: bool) -> Generation:
        return model.generate(
            prompt, some, steps, verify=verify, do_sample=False, streamer=Heard(told)
        )

    made = of(edits, True)[0]
    plain = of((), False)[0] if edits else made
    tokens = tuple(
        Token(
            row["token"],
            row["logprob"],
            row["clean_logprob"],
            row["clean_token"],
            row["kl"],
            row["changed"],
        )
        for row in made.table().to_dict("records")
    )
    text = made.encoded.tokens.text
    return Written(text, made.text, plain.text, tokens, plain.pieces, made.ended)
