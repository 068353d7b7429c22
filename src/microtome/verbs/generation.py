"""What `Model.generate` gives: texts that were written under edits, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from microtome.amounts import many
from microtome.edits.growing import StepReceipt
from microtome.errors import PromptError
from microtome.notebook import html_line, html_table, html_tokens
from microtome.prompts.encoding import Encoded
from microtome.spoken import spoken
from microtome.texts import brief

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Continuation:
    """What was written behind one prompt, and beside it what the model holds without the edits.

    All that is without edits is of the same text up to there: the question is always what the next
    token would be, not what another text would have been. Log probabilities are the model's own,
    in nats, before temperature, penalties or any other setting.

    Attributes:
        encoded: the prompt.
        ids: the tokens that were written, ``[step]``.
        pieces: what each reads as.
        text: what they read as together, without special tokens.
        ended: what ended it: ``"eos"``, a token that ends texts; ``"steps"``, all were written; or
            ``"stopped"``, a stop string, a time or a criterion.
        logprob: of each token, with the edits.
        clean_logprob: of the same token without them.
        likeliest, likeliest_logprob: the most probable token with the edits.
        clean_likeliest, clean_likeliest_logprob: the most probable token without them.
        clean_pieces: what each of these reads as.
        kl: KL divergence of the prediction with the edits from the one without, in nats, from 0.
        receipts: one per edit and step in which it was made.
        apart: the largest difference of any logit from those of one pass over the finished text,
            with the same edits; 0 where nobody looked.
    """

    encoded: Encoded
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    text: str
    ended: str
    logprob: Float[Numbers, " step"]
    clean_logprob: Float[Numbers, " step"]
    likeliest: Int[np.ndarray[Any, Any], " step"]
    likeliest_logprob: Float[Numbers, " step"]
    clean_likeliest: Int[np.ndarray[Any, Any], " step"]
    clean_likeliest_logprob: Float[Numbers, " step"]
    clean_pieces: tuple[str, ...]
    kl: Float[Numbers, " step"]
    receipts: tuple[StepReceipt, ...]
    apart: float

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        return self.text

    def table(self) -> pd.DataFrame:
        """A row for each token that was written.

        Returns:
            ``step``; ``position`` in the whole text; ``token`` and ``id``; its ``logprob`` with the
            edits and ``clean_logprob`` without; ``clean_token``, the most probable one without
            edits, its ``clean_id`` and its ``clean_token_logprob``; ``kl``; and of the edits made
            in the step the values ``changed`` and the ``norm`` of the change.
        """
        rows: dict[str, object] = {
            "step": range(len(self)),
            "position": [len(self.encoded.tokens) + step for step in range(len(self))],
            "token": self.pieces,
            "id": self.ids,
            "logprob": self.logprob,
            "clean_logprob": self.clean_logprob,
            "clean_token": self.clean_pieces,
            "clean_id": self.clean_likeliest,
            "clean_token_logprob": self.clean_likeliest_logprob,
            "kl": self.kl,
            "changed": [sum(one.changed for one in self._in(step)) for step in range(len(self))],
            "norm": [
                float(np.sqrt(sum(one.norm**2 for one in self._in(step))))
                for step in range(len(self))
            ],
        }
        return pd.DataFrame(rows)

    def _in(self, step: int) -> list[StepReceipt]:
        return [one for one in self.receipts if one.step == step]


@spoken
@dataclass(frozen=True, eq=False)
class Generation:
    """What a model wrote behind one or several prompts.

    Attributes:
        texts: one for each prompt.
        edits: their texts.
        when: in which steps they were made.
        settings: what decided the tokens, besides the model: those of its ``generation_config`` and
            those that were asked for, as far as they are not transformers' defaults; and the seed.
    """

    texts: tuple[Continuation, ...]
    edits: tuple[str, ...]
    when: str
    settings: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[Continuation]:
        return iter(self.texts)

    def __getitem__(self, prompt: int) -> Continuation:
        if not -len(self.texts) <= prompt < len(self.texts):
            raise PromptError(f"There is no prompt {prompt}; there are {len(self.texts)}.")
        return self.texts[prompt]

    @property
    def receipts(self) -> tuple[StepReceipt, ...]:
        """All receipts, prompt by prompt, step by step."""
        return tuple(one for text in self.texts for one in text.receipts)

    def table(self) -> pd.DataFrame:
        """`Continuation.table` of every prompt, one below the other, with its number in front."""
        each = []
        for number, one in enumerate(self.texts):
            table = one.table()
            table.insert(0, "prompt", number)
            each.append(table)
        return pd.concat(each, ignore_index=True)

    def __repr__(self) -> str:
        shown = ", ".join(repr(brief(one.text)) for one in self.texts[:3])
        more = ", …" if len(self.texts) > 3 else ""
        return f"<Generation of {many(len(self.texts), 'text')}: {shown}{more}>"

    def _repr_html_(self) -> str:
        """In a notebook: each prompt, what was written, and its first tokens."""
        made = [html_line(repr(self))]
        for one in self.texts[:3]:
            made.append(html_tokens((*one.encoded.tokens.pieces, *one.pieces)))
            table = one.table().astype(object)
            made.append(html_table(tuple(table.columns), table.values.tolist()))
        return "".join(made)
