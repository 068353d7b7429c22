"""A text written under edits, by the model's own ``generate``; see `Model.generate`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.amounts import many, single, whole_of
from microtome.edits import Edit
from microtome.edits.growing import Growth, StepReceipt
from microtome.engines.judging import NOISIEST, SHARE, TIMES, Precision
from microtome.errors import EditError, MicrotomeError, PromptWarning, VerificationError, glimpse
from microtome.model.families.configs import rotary_of
from microtome.model.loaded import Loaded
from microtome.passes.generating import Manner, reread, write
from microtome.passes.now import Now, Read
from microtome.passes.rows import Row, Streamer
from microtome.passes.session import session
from microtome.passes.shaking import shaking
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.tokens import Tokens
from microtome.verbs.generation import Continuation, Generation
from microtome.verbs.writing import check_together, ends, manner_of, settings_of, streamers_of

When = str | Callable[[int], bool]
"""In which steps edits are made: a word, or a function of the step's number."""

WORDS: Mapping[str, Callable[[int], bool]] = {
    "all": lambda step: True,
    "prompt": lambda step: step == 0,
    "generated": lambda step: step > 0,
}
"""Words for `When`."""

FOLLOWING = ("dynamic", "longrope")
"""Rotary embeddings that turn keys otherwise in a longer text: what is in the cache stays as it
was turned, and one pass over the whole text is another computation."""

SEEDS = range(-(2**63), 2**64)
"""What a generator of PyTorch takes."""

SHAKES = 3
"""How many times the finished text is read with its stream rounded otherwise, where in doubt."""

SHAKEN = 2.0
"""How many times as far as that moves a step's logits the written ones may be off, in half
precision; in float32 and float64, where each logit is looked at by itself, `TIMES` as far."""

Rows = Float[Tensor, "step vocab"]


def generate(
    model: Loaded,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    steps: int,
    when: When,
    batch: int,
    seed: int,
    reference: Sequence[Tokens],
    verify: bool,
    asked: Mapping[str, Any],
) -> Generation:
    """What the model writes behind each prompt; see `Model.generate`."""
    steps, seed = _numbers(steps, seed)
    _check(model, encoded, steps)
    active = _active(when, steps)
    manner = manner_of(model.hf, model.tokenizer, steps, seed, asked)
    at_once = whole_of(batch, 1, "batch")
    if at_once > 1:
        _check_alone(model)
        check_together(manner.config)
    streamers = streamers_of(asked, len(encoded), at_once)
    texts: list[Continuation] = []
    with session(model.hf, model.anatomy):
        for first in range(0, len(encoded), at_once):
            writers = [
                _Writer(
                    model, encoded[n], edits, active, reference, manner, n, verify, streamers[n]
                )
                for n in range(first, min(len(encoded), first + at_once))
            ]
            rows = [writer.row for writer in writers]
            written = write(model.hf, model.anatomy, rows, manner)
            texts += [writer.text(own) for writer, own in zip(writers, written, strict=True)]
    together = {"batch": at_once} if at_once > 1 else {}
    return Generation(
        texts=tuple(texts),
        edits=tuple(map(str, edits)),
        when=when if isinstance(when, str) else getattr(when, "__qualname__", repr(when)),
        settings={**settings_of(manner.config, asked), **together, "seed": seed},
    )


def _numbers(steps: object, seed: object) -> tuple[int, int]:
    steps, seed = single(steps), single(seed)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise MicrotomeError(f"steps is how many tokens are written, from 1, not {glimpse(steps)}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed not in SEEDS:
        raise MicrotomeError(f"seed is a whole number of at most 64 bits, not {seed!r}.")
    return steps, seed


def _active(when: When, steps: int) -> list[bool]:
    """For each step whether edits are made in it."""
    chosen = WORDS.get(when) if isinstance(when, str) else when
    if not callable(chosen):
        words = " | ".join(map(repr, WORDS))
        raise EditError(f"when must be {words}, or a function of the step, not {glimpse(when)}.")
    return [bool(chosen(step)) for step in range(steps)]


def _check(model: Loaded, encoded: Sequence[Encoded], steps: int) -> None:
    if not model.anatomy.dims.causal or not model.hf.can_generate():
        raise MicrotomeError(
            f"{model.name!r} does not write: it fills in masks. Look at run(…).top(…) instead."
        )
    limit = model.anatomy.dims.n_positions
    for one in encoded:
        length = len(one.tokens) + steps - 1
        if limit is not None and length > limit:
            raise MicrotomeError(
                f"To write {many(steps, 'token')} behind {one.prompt.shown} the model would read "
                f"{length}, and it takes {limit}: say steps={max(1, steps - length + limit)}, or "
                "fewer."
            )


def _check_alone(model: Loaded) -> None:
    """Refuse a batch where a text would not be as it is alone.

    It may be turned as the longest one is, or an addition of somebody's sees padding and others.
    """
    if model.whole is not None:
        raise MicrotomeError(
            f"Several texts in one batch are padded, and {model.whole}: say batch=1."
        )
    if _follows(model):
        raise MicrotomeError(
            f"The rotary embedding of {model.name!r} follows the length of the text, in a batch "
            "that of the longest one: say batch=1, and each prompt is written by itself."
        )


def _follows(model: Loaded) -> bool:
    """Whether the model's rotary embedding follows the length of the text."""
    kinds = [one.get("rope_type") for one in rotary_of(model.hf.config.get_text_config())]
    return any(kind in FOLLOWING for kind in kinds)


@dataclass(eq=False)
class _Writer:
    """Has one text written, perhaps among others, and looks at what was written."""

    model: Loaded
    encoded: Encoded
    edits: Sequence[Edit]
    active: Sequence[bool]
    reference: Sequence[Tokens]
    manner: Manner
    number: int
    verify: bool
    streamer: Streamer | None

    def __post_init__(self) -> None:
        self._growth = self._grown()
        self._receipts: list[StepReceipt] = []
        now = Now(len(self.encoded.tokens))
        visits = [] if self._growth is None else [*self._growth.visits(now)]
        self.row = Row(self.encoded.tokens.ids, now, visits, self._prove, self.streamer)

    def text(self, ids: tuple[int, ...]) -> Continuation:
        """The text, with what is to be known of each token."""
        growth = self._growth
        # On some devices transformers asks a pass late whether a text has ended.
        receipts = [one for one in self._receipts if one.step < len(ids)]
        self._tell(receipts, len(ids))
        logits, passes = torch.stack(self.row.logits), self.row.now.passes[: len(ids)]
        again = self._again(ids, passes, growth) if growth is not None and self.verify else logits
        clean = self._again(ids, passes, None) if growth is not None or self.verify else logits
        shaken = (self._again(ids, passes, growth, seed) for seed in range(SHAKES))
        apart = self._compare(logits, clean if growth is None else again, clean, shaken)
        return self._made(ids, logits, logits if growth is None else clean, receipts, apart)

    def _prove(self) -> None:
        """Write down what was done in the step at hand."""
        if self._growth is not None:
            self._receipts.extend(self._growth.receipts(self.row.now.step, self.number))
            self._growth.forget()

    def _grown(self) -> Growth | None:
        if not self.edits:
            return None
        model = self.model
        return Growth(
            model.hf,
            model.anatomy,
            self.encoded,
            self.edits,
            self.active,
            self.reference,
            lambda token: piece(token, model.tokenizer),
        )

    def _tell(self, receipts: Sequence[StepReceipt], steps: int) -> None:
        """Warn of edits that had no step to be made in."""
        if self.edits and not receipts:
            warnings.warn(
                f"The text behind {self.encoded.prompt.shown} ended after "
                f"{many(steps, 'token')}, before "
                "any step in which the edits are made: nothing was edited.",
                PromptWarning,
                stacklevel=2,
            )

    def _again(
        self,
        ids: Sequence[int],
        passes: Sequence[Read],
        growth: Growth | None,
        seed: int | None = None,
    ) -> Rows:
        """The logits of the finished text, with edits or without; by a seed, rounded otherwise."""
        model, text = self.model, (*self.encoded.tokens.ids, *ids)[:-1]
        now = Now(len(self.encoded.tokens))
        visits = [] if growth is None else [*growth.visits(now)]
        if seed is not None:
            visits += shaking(model.anatomy, Precision.of_stream(model).eps, seed)
        # What somebody has added may do another thing to a text in one pass than to its parts.
        in_parts = _follows(self.model) or self.model.whole is not None
        whole = passes if in_parts else [(0, len(text))]
        found = reread(model.hf, model.anatomy, text, now, whole, visits)
        if growth is not None:
            growth.forget()
        return found

    def _compare(
        self, written: Rows, again: Rows, clean: Rows, shaken: Iterable[Rows] = ()
    ) -> float:
        """How far the logits are from those of the finished text.

        Args:
            written: those that were written by.
            again: those of the finished text, with the same edits.
            clean: without.
            shaken: as ``again``, each rounded otherwise; looked at in doubt.

        Raises:
            VerificationError: farther than rounding.
        """
        far = _values(written, again)
        if not bool(far.isfinite().all()):
            raise VerificationError(
                f"The logits behind {self.encoded.prompt.shown} are no numbers: what the edits "
                "leave overflows further on in the model. Take a smaller factor, or another edit."
            )
        precision = Precision.of_stream(self.model)
        if precision.promise is None:
            # What all logits have in common no probability sees, and in some steps it is little: a
            # share of that would be less than its own rounding.
            distance, times, share = _norms, SHAKEN, SHARE * _norms(again, clean)
            bound = NOISIEST * precision.eps * _centred(again).norm(dim=-1) + share
        else:
            distance, times, share = _values, TIMES, torch.zeros_like(far)
            finite = again[again.isfinite()].double()
            spread = float(finite.std()) if finite.numel() > 1 else 0.0
            bound = torch.full_like(far, precision.allows(spread))
        off = distance(written, again)
        if not bool((off <= bound).all()):
            moved = [times * distance(one, again) + share for one in shaken]
            bound = torch.stack([bound, *moved]).amax(0)
        if bool((off <= bound).all()):
            return float(far.max())
        worst = (off / bound).argmax()
        raise VerificationError(
            f"What was written behind {self.encoded.prompt.shown} is not what one pass over the "
            f"finished text gives with the same edits: logits differ by {off[worst]:.3g}, where "
            f"{bound[worst]:.3g} is rounding. verify=False looks at neither."
        )

    def _made(
        self,
        ids: tuple[int, ...],
        logits: Rows,
        clean: Rows,
        receipts: Sequence[StepReceipt],
        apart: float,
    ) -> Continuation:
        tokenizer = self.model.tokenizer
        logprobs, without = (rows.double().log_softmax(-1) for rows in (logits, clean))
        column = torch.tensor(ids, device=logits.device)[:, None]
        likeliest, bare = logprobs.max(-1), without.max(-1)
        each = (without.exp() * (without - logprobs)).masked_fill(without.isneginf(), 0.0)
        return Continuation(
            encoded=self.encoded,
            ids=ids,
            pieces=tuple(piece(one, tokenizer) for one in ids),
            text=self._text(ids),
            ended=self._ended(ids),
            logprob=_numpy(logprobs.gather(1, column)[:, 0]),
            clean_logprob=_numpy(without.gather(1, column)[:, 0]),
            likeliest=_numpy(likeliest.indices),
            likeliest_logprob=_numpy(likeliest.values),
            clean_likeliest=_numpy(bare.indices),
            clean_likeliest_logprob=_numpy(bare.values),
            clean_pieces=tuple(piece(int(one), tokenizer) for one in bare.indices),
            kl=_numpy(each.sum(-1).clamp(min=0)),
            receipts=tuple(receipts),
            apart=apart,
        )

    def _text(self, ids: Sequence[int]) -> str:
        """What the tokens read as behind the prompt: by themselves some lose their first space."""
        before = self.encoded.tokens.ids
        prompt, whole, alone = (
            str(self.model.tokenizer.decode(some, skip_special_tokens=True))
            for some in (before, (*before, *ids), ids)
        )
        return whole[len(prompt) :] if whole.startswith(prompt) else alone

    def _ended(self, ids: Sequence[int]) -> str:
        if ids[-1] in ends(self.manner.config):
            return "eos"
        return "steps" if len(ids) == len(self.active) else "stopped"


def _centred(logits: Rows) -> Rows:
    """Logits without their mean, in float64; those that are −∞ are none."""
    possible, exact = logits.isfinite(), logits.double()
    own = torch.where(possible, exact, 0.0)
    mean = own.sum(-1, keepdim=True) / possible.sum(-1, keepdim=True)
    return torch.where(possible, exact - mean, 0.0)


def _values(one: Rows, other: Rows) -> Float[Tensor, " step"]:
    """How far the farthest logit of each step is off; what is −∞ twice is not."""
    apart = torch.where(one == other, 0.0, one.double() - other.double())
    return apart.abs().amax(-1)


def _norms(one: Rows, other: Rows) -> Float[Tensor, " step"]:
    """How far all logits of each step together are off, without their mean."""
    apart: Tensor = (_centred(one) - _centred(other)).norm(dim=-1)
    return apart


def _numpy(values: Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = values.cpu().numpy()
    return found
