"""Which texts besides a prompt's own an edit needs the activations of."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.errors import EditError, PromptError
from microtome.language.operations import Operation, Source
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens


def others_of(edit: Operation, encoded: Encoded, reference: Sequence[Tokens]) -> Sequence[Tokens]:
    """The texts whose activations an edit of a prompt needs.

    Raises:
        PromptError: it needs a donor, and the prompt has none.
        EditError: it needs reference prompts, and there are fewer than two.
    """
    if edit.source is Source.DONOR:
        if encoded.donor is None:
            raise PromptError(
                f"{edit} takes activations from the prompt's donor, and {encoded.prompt.shown} "
                'has none: give Prompt(…, donor="…"), on the command line --donor.'
            )
        return [encoded.donor]
    if edit.source is Source.REFERENCE:
        if len(reference) < 2:
            raise EditError(
                f"{edit} needs at least two reference prompts: the mean over one prompt is the "
                "value itself. Give more prompts, or reference=[…]."
            )
        return reference
    return []
