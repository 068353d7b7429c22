"""What the model reads: a prompt in its tokens, while it is being typed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from microtome.errors import MicrotomeError
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.state import View
from microtome.prompts.encoding import Encoded, encode
from microtome.prompts.prompt import Prompt
from microtome.prompts.warnings import complaints

if TYPE_CHECKING:
    from microtome import Model


@dataclass(frozen=True)
class Token:
    """A token of the prompt.

    Attributes:
        position: its number, from 0.
        text: what it reads as.
        donor: what stands there in the donor; None where there is nothing.
        roles: the names that it has.
        added: whether the tokenizer put it there.
    """

    position: int
    text: str
    donor: str | None = None
    roles: tuple[str, ...] = ()
    added: bool = False

    @property
    def differs(self) -> bool:
        """Whether something else stands there in the donor."""
        return self.donor is not None and self.donor != self.text


@dataclass(frozen=True)
class Reading:
    """A prompt as a model reads it.

    Attributes:
        tokens: of the text.
        has_donor: whether there is one that can be read.
        donor: its tokens, where it has not as many as the text: they stand side by side then.
        target: what of the target is measured, token by token; "" where there is none.
        contrast: the same of the contrast.
        problems: what is wrong.
        notes: what may not have been meant.
    """

    tokens: tuple[Token, ...] = ()
    has_donor: bool = False
    donor: tuple[str, ...] = ()
    target: str = ""
    contrast: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(model: Model, view: View) -> Reading:
    """A view's prompt as a model reads it; what is wrong with a part does not hide the others."""
    if not view.text.strip():
        return Reading()
    problems: list[str] = []
    whole = _whole(model, view, problems)
    if whole is None:
        return Reading(problems=tuple(problems))
    donor = whole.donor.pieces if whole.donor is not None else ()
    together = len(donor) == len(whole.tokens)
    names = _roles(whole)
    tokens = tuple(
        Token(n, text, donor[n] if together else None, names.get(n, ()), whole.tokens.added[n])
        for n, text in enumerate(whole.tokens.pieces)
    )
    return Reading(
        tokens=tokens,
        has_donor=bool(donor),
        donor=() if together else donor,
        target=whole.measured("target"),
        contrast=whole.measured("contrast"),
        problems=tuple(problems),
        notes=tuple(complaints([whole], not model.anatomy.dims.causal)),
    )


def encoded(model: Model, prompt: Prompt) -> Encoded:
    """A prompt in a model's tokens.

    Raises:
        PromptError, TokenError: something is wrong with it.
    """
    dims = model.anatomy.dims
    return encode(prompt, model.tokenizer, dims.n_positions, not dims.causal, dims.d_vocab)


def _whole(model: Model, view: View, problems: list[str]) -> Encoded | None:
    """As much of a prompt as can be read; why not more is among the problems."""
    try:
        return encoded(model, prompt_of(view))
    except MicrotomeError as error:
        problems.append(str(error))
    good = View(text=view.text)
    for part in ("donor", "roles", "target", "contrast"):
        more = replace(good, **{part: getattr(view, part)})
        with contextlib.suppress(MicrotomeError):
            encoded(model, prompt_of(more))
            good = more
    with contextlib.suppress(MicrotomeError):
        return encoded(model, prompt_of(good))
    return None


def _roles(one: Encoded) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for name in one.tokens.places:
        at = one.tokens.role(name)
        found[at] = (*found.get(at, ()), name)
    return found
