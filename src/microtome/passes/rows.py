"""Texts that grow as the rows of one batch, each as if it were alone.

Shorter prompts are padded on the left, behind a mask, and the model's own ``generate`` gives every
row the positions of its own text. Padding is nobody's: visits see a row from its first token on,
processors and criteria its own text, each row draws from a generator of its own and ends where it
would by itself. What is left of the other rows is rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    SuppressTokensAtBeginLogitsProcessor,
)

from microtome.errors import MicrotomeError
from microtome.language.sites import POSITIONS
from microtome.passes.hooks import Visit
from microtome.passes.now import Now

Process = Callable[..., Tensor]
"""A processor of scores, or a criterion of stopping, as transformers calls it."""

Part = tuple[Process, bool]
"""One of them, and whether it counts the padding in front of a row."""

COUNTING = (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
)
"""What ``generate`` makes for a length of the prompt, which in a batch is that of the longest.

Those that the caller made are for lengths of texts, and count no padding."""


@runtime_checkable
class Streamer(Protocol):
    """What takes tokens as they come, in the form of transformers'."""

    def put(self, value: Tensor) -> None:
        """Tokens that are there: the prompt's, then one after another."""

    def end(self) -> None:
        """There are no more."""


@dataclass(eq=False)
class Row:
    """A text that is written, perhaps among others.

    Attributes:
        prompt: its tokens.
        now: is told at each pass what it reads of this text.
        visits: are made in every pass that reads of it; at the same places in every row.
        after: is called at the end of each such pass.
        streamer: gets its tokens.
        logits: those that its tokens were chosen by, before anything was done to them.
        written: how many tokens it got until it ended; None: it goes on.
    """

    prompt: Sequence[int]
    now: Now
    visits: Sequence[Visit] = ()
    after: Callable[[], None] = lambda: None
    streamer: Streamer | None = None
    logits: list[Float[Tensor, " vocab"]] = field(default_factory=list)
    written: int | None = None


class Rows:
    """Texts that are written together.

    Attributes:
        passes: how many passes there were.
        at: the row whose scores a processor has, or whose text a criterion; None between them.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = [*rows]
        self._longest = max(len(row.prompt) for row in rows)
        self._pads = [self._longest - len(row.prompt) for row in rows]
        self.passes = 0
        self.at: int | None = None

    def __len__(self) -> int:
        return len(self._rows)

    # --------------------------------------------------------------------------------- the prompts

    @property
    def ids(self) -> Int[np.ndarray[Any, Any], "row pos"]:
        """The prompts, in front of shorter ones their own first token, which nothing attends to."""
        padded = [
            [row.prompt[0]] * pads + [*row.prompt]
            for row, pads in zip(self._rows, self._pads, strict=True)
        ]
        return np.array(padded, dtype=np.int64)

    @property
    def mask(self) -> Int[np.ndarray[Any, Any], "row pos"]:
        """1 where there is a token of a text, also where it is the one that pads others."""
        return (np.arange(self._longest) >= np.array(self._pads)[:, None]).astype(np.int64)

    # ---------------------------------------------------------------------------------- the passes

    def read(self, given: Sequence[Sequence[int]]) -> bool:
        """A pass reads these tokens.

        Returns:
            Whether they are what comes next, or everything from the beginning.
        """
        if len(given) != len(self):
            return False
        self.passes += 1  # also one behind the end of all, as where a device is asked late
        for number, row in self._going_on():
            known = len(row.now.ids)
            start = known if len(given[number]) == 1 else 0
            own = given[number] if start else given[number][self._pads[number] :]
            if start + len(own) != (known + 1 if known else row.now.prompt):
                return False
            row.now.read(own, start)
        return True

    def visits(self) -> list[Visit]:
        """One visit for what the rows do at one place, each in its own tokens."""
        if len(self) == 1:
            return [*self._rows[0].visits]
        together = zip(*(row.visits for row in self._rows), strict=True)
        return [self._shared(each) for each in together]

    def see(self, view: Float[Tensor, "row pos vocab"]) -> None:
        """The logits that the next tokens are chosen by.

        Raises:
            MicrotomeError: in a batch they are no numbers.
        """
        for number, row in self._going_on():
            if len(self) > 1 and bool(view[number, -1].isnan().any()):
                raise MicrotomeError(
                    "In a batch the logits of a text are no numbers: either what the edits leave "
                    "overflows, or transformers' own padding does, with this model in this type "
                    "(Bloom and Gemma 2 in float64). Say batch=1."
                )
            row.logits.append(view[number, -1].clone())
            row.after()

    def cut(self, found: Int[Tensor, "row pos"]) -> list[tuple[int, ...]]:
        """What each row has written, of all that there is now."""
        written = []
        for number, row in enumerate(self._rows):
            own = found[number, self._longest :].tolist()[: row.written]
            del row.logits[len(own) :]
            written.append(tuple(own))
        return written

    def _going_on(self) -> Iterator[tuple[int, Row]]:
        return ((n, row) for n, row in enumerate(self._rows) if row.written is None)

    def _shared(self, each: Sequence[Visit]) -> Visit:
        heads = [visit.heads[1] for visit in each if visit.heads is not None]
        return replace(
            each[0],
            act=partial(self._act, each),
            heads=(np.arange(len(self)), np.concatenate(heads)) if heads else None,
        )

    def _act(self, each: Sequence[Visit], view: Tensor) -> None:
        axes = each[0].place[0].axes
        for number, row in self._going_on():
            own = view[number : number + 1]
            for axis, name in enumerate(axes, 1):
                if name in POSITIONS:
                    since = 0 if name == "k_pos" else row.now.start
                    own, before = _last(own, axis, len(row.now.ids) - since)
                    if name == "q_pos":  # padding attends to nothing, which is no number
                        before.zero_()
            each[number].act(own)

    # ------------------------------------------------------------------------------ between passes

    def sample(
        self,
        hf: PreTrainedModel,
        input_ids: Int[Tensor, "row pos"],
        *,
        logits_processor: Sequence[Process],
        stopping_criteria: Sequence[Process],
        streamers: Sequence[Streamer | None],
        given: Sequence[Process],
        **more: Any,
    ) -> Int[Tensor, "row all"]:
        """Transformers' own loop, whose processors and criteria see each row by itself.

        Those that the caller has ``given`` do what they do alone.
        """
        streams = _Streams(self._rows, streamers)
        streams.begin()
        loop = cast(Callable[..., Tensor], type(hf)._sample)
        return loop(
            hf,
            input_ids,
            logits_processor=LogitsProcessorList([_Processing(self, logits_processor, given)]),
            stopping_criteria=StoppingCriteriaList([_Ending(self, stopping_criteria, given)]),
            streamer=streams,
            **more,
        )

    def processed(
        self, each: Sequence[Sequence[Part]], ids: Tensor, scores: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        """Scores of the next tokens as processors leave them, each row's its own."""
        made = [scores[number : number + 1] for number in range(len(scores))]
        for number, _ in self._going_on():
            with self._looked_at(number):
                for processor, padded in each[number]:
                    made[number] = processor(self._seen(ids, number, padded), made[number])
        return torch.cat(made)

    def ended(self, criteria: Sequence[Part], ids: Tensor, scores: Any) -> Bool[Tensor, " row"]:
        """Which rows have ended with the token that is the last one now, or before."""
        for number, row in self._going_on():
            with self._looked_at(number):
                over = [one(self._seen(ids, number, padded), scores) for one, padded in criteria]
            if any(map(bool, over)):  # each of one text: a tensor of one, or True
                row.written = ids.shape[1] - self._longest
        return torch.tensor([row.written is not None for row in self._rows], device=ids.device)

    @contextmanager
    def _looked_at(self, number: int) -> Iterator[None]:
        self.at = number
        try:
            yield
        finally:
            self.at = None

    def _seen(self, ids: Tensor, number: int, padded: bool) -> Int[Tensor, "1 pos"]:
        """What a processor or criterion sees of a row: its text, unless it counts padding."""
        return ids[number : number + 1, 0 if padded else self._pads[number] :]


def _last(x: Tensor, axis: int, n: int) -> tuple[Tensor, Tensor]:
    """The last entries along an axis, as many as there are of so many, and those before them."""
    size = x.shape[axis]
    own = min(n, size)
    return x.narrow(axis, size - own, own), x.narrow(axis, 0, size - own)


class _Processing(LogitsProcessor):  # type: ignore[misc]
    """All processors, row by row."""

    def __init__(self, rows: Rows, processors: Sequence[Process], given: Sequence[Process]) -> None:
        self._rows = rows
        # A copy for each: one of a watermark remembers the text that it goes along with.
        self._each = [
            [(copy(_of_one(one, given)), _counts(one, given)) for one in processors]
            for _ in range(len(rows))
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._rows.processed(self._each, input_ids, scores)


class _Ending(StoppingCriteria):  # type: ignore[misc]
    """All criteria, row by row."""

    def __init__(self, rows: Rows, criteria: Sequence[Process], given: Sequence[Process]) -> None:
        self._rows = rows
        self._each = [(one, _counts(one, given)) for one in criteria]

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return self._rows.ended(self._each, input_ids, scores)


def _counts(one: Process, given: Sequence[Process]) -> bool:
    """Whether a processor or criterion is made for the length of the padded row."""
    return isinstance(one, COUNTING) and not _is_among(one, given)


def _of_one(processor: Process, given: Sequence[Process]) -> Process:
    """A processor of one text, of one that knows where the padding of all rows is."""
    if isinstance(processor, RepetitionPenaltyLogitsProcessor) and not _is_among(processor, given):
        own: Process = RepetitionPenaltyLogitsProcessor(processor.penalty)
        return own
    return processor


def _is_among(one: Process, given: Sequence[Process]) -> bool:
    return any(one is other for other in given)


class _Streams:
    """A streamer for each row, in the form of one for all."""

    def __init__(self, rows: Sequence[Row], streamers: Sequence[Streamer | None]) -> None:
        self._open = {n: one for n, one in enumerate(streamers) if one is not None}
        self._rows, self._n = rows, 0

    def begin(self) -> None:
        """The prompts are there."""
        for number, streamer in self._open.items():
            streamer.put(torch.tensor([[*self._rows[number].prompt]], device="cpu"))

    def put(self, value: Int[Tensor, " row"]) -> None:
        """The next token of every row, of which some may have ended with an earlier one."""
        self._n += 1
        for number, streamer in [*self._open.items()]:
            written = self._rows[number].written
            if written is None or written >= self._n:
                streamer.put(value[number : number + 1])
            if written is not None and written <= self._n:
                self._open.pop(number).end()

    def end(self) -> None:
        """There are no more."""
        while self._open:
            self._open.popitem()[1].end()
