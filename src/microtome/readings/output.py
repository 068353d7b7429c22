"""Metrics: numbers read off the logits of a cell; those inside the model are in `readings.inside`.

A metric is asked for by name, with the token that it is about and the position where it is read:
``prob`` (the target's, after the last token, or at the mask of a masked-language model's prompt),
``prob(contrast)``, ``loss@3``, ``logit_diff@subject``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.errors import AddressError, MetricError, listing
from microtome.language.addresses import Address
from microtome.language.sites import Dimensions
from microtome.prompts.answers import Answer
from microtome.prompts.encoding import Encoded
from microtome.prompts.resolve import regions
from microtome.readings.outcome import Outcome, Prediction


@dataclass(frozen=True)
class Metric:
    """A number read off logits.

    Attributes:
        about: what it is, in words.
        unit: its unit.
        range: its least and greatest value.
        direction: what a larger value means.
        reads: what a prompt must have for it: ``"token"``, ``"contrast"``.
        columns: it needs the logits of the prompt's own tokens only, not the whole vocabulary.
        compute: ``Prediction`` of some cells → one value per cell.
        logprobs: it reads `Outcome.logprobs`.
        undefined: it may be no number though all logits are numbers; it is absent there.
        holds: how many float64 numbers are held at once to compute it, for each token of the
            vocabulary, besides what `Outcome` keeps.
        flat: why its gradient at the clean run says nothing; empty where it does.
    """

    name: str
    about: str
    unit: str
    range: tuple[float, float]
    direction: str
    reads: tuple[str, ...]
    compute: Callable[[Prediction], Float[Tensor, " cell"]]
    columns: bool = False
    logprobs: bool = False
    holds: int = 0
    undefined: bool = False
    flat: str = ""


TOKEN_ID = "token id"
"""The unit of a metric that has no effects, since ids cannot be subtracted."""

_INF = float("inf")

_COUNTS = "it is a whole number, which small changes leave as it is"
_LEAST = "without edits it has its best value, so that its gradient there is 0"


def _of(answer: Answer | None, logs: Float[Tensor, "cell vocab"]) -> Tensor:
    """Of one token its column; of any of a set, the logarithm of what they sum up to."""
    if isinstance(answer, frozenset):
        return logs[:, sorted(answer)].logsumexp(-1)
    assert isinstance(answer, int), "several tokens are read one by one"
    return logs[:, answer]


def _logit(r: Prediction) -> Tensor:
    return _of(r.token, r.edited.exact)


def _logit_diff(r: Prediction) -> Tensor:
    difference: Tensor = _of(r.target, r.edited.exact) - _of(r.contrast, r.edited.exact)
    return difference


def _prob(r: Prediction) -> Tensor:
    return _of(r.token, r.edited.logprobs).exp()


def _logprob(r: Prediction) -> Tensor:
    return _of(r.token, r.edited.logprobs)


def _loss(r: Prediction) -> Tensor:
    return -_logprob(r)


def _rank(r: Prediction) -> Tensor:
    logits = r.edited.exact
    return (logits > _of(r.token, logits)[:, None]).sum(-1) + 1


def _top1(r: Prediction) -> Tensor:
    return r.edited.exact.argmax(-1)


def _kl(r: Prediction) -> Tensor:
    clean = r.clean.logprobs
    each = (clean - r.edited.logprobs).mul_(clean.exp())
    # A token that cannot be (its logit is −∞) adds nothing, whatever its logit becomes.
    divergence: Tensor = each.masked_fill_(clean == -_INF, 0.0).sum(-1)
    return divergence.clamp(min=0)  # below 0 is rounding


def _logit_corr(r: Prediction) -> Tensor:
    """Over the tokens that both predictions hold possible; NaN where one is constant over these."""
    logits, before = r.edited.exact, r.clean.exact
    possible = logits.isfinite() & before.isfinite()
    edited, clean = _centred(logits, possible), _centred(before, possible)
    correlation: Tensor = (edited * clean).sum(-1) / (edited.norm(dim=-1) * clean.norm(dim=-1))
    return correlation.clamp(-1, 1)  # beyond is rounding


def _centred(logits: Tensor, possible: Tensor) -> Tensor:
    """The possible tokens' logits without their mean, 0 at the others; all 0 where constant."""
    own = torch.where(possible, logits, 0.0)
    mean = own.sum(-1, keepdim=True) / possible.sum(-1, keepdim=True)
    highest = torch.where(possible, logits, -_INF).amax(-1, keepdim=True)
    lowest = torch.where(possible, logits, _INF).amin(-1, keepdim=True)
    # Constant is told exactly: rounding in the mean would leave a tiny vector with a direction.
    return torch.where(possible & (highest > lowest), logits - mean, 0.0)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        m.name: m
        for m in (
            Metric("logit", "the token's logit", "logit", (-_INF, _INF),
                   "more is likelier", ("token",), _logit, columns=True),
            Metric("logit_diff", "logit of the target − logit of the contrast (log probabilities, "
                   "where one of them is several tokens or a set)", "logit",
                   (-_INF, _INF), "above 0 the target wins", ("token", "contrast"), _logit_diff,
                   columns=True),
            Metric("prob", "the token's probability", "probability", (0, 1),
                   "more is likelier", ("token",), _prob, logprobs=True),
            Metric("logprob", "the token's log probability", "nat", (-_INF, 0),
                   "more is likelier", ("token",), _logprob, logprobs=True),
            Metric("loss", "−log probability of the token", "nat", (0, _INF),
                   "more is less likely", ("token",), _loss, logprobs=True),
            Metric("rank", "1 + the number of tokens with a larger logit", "rank", (1, _INF),
                   "1 is the top prediction", ("token",), _rank, holds=2, flat=_COUNTS),
            Metric("top1", "id of the most probable token", TOKEN_ID, (0, _INF),
                   "none", (), _top1, flat=_COUNTS),
            Metric("kl", "KL divergence of the edited prediction from the clean one", "nat",
                   (0, _INF), "0 is no change", (), _kl, logprobs=True, holds=1,
                   flat=_LEAST),
            Metric("next_loss", "−log probability of the text's own next token", "nat", (0, _INF),
                   "more is less likely", (), _loss, logprobs=True),
            Metric("logit_corr", "correlation of edited and clean logits over the vocabulary; none "
                   "where either is constant", "r",
                   (-1, 1), "1 is no change but of scale and shift", (), _logit_corr, holds=5,
                   undefined=True, flat=_LEAST),
        )
    }
)  # fmt: skip
"""Name → metric."""

TOKENS = ("target", "contrast")

ADDING_UP = ("prob", "logprob", "loss", "logit_diff")
"""Metrics of several tokens, and of any of a set: their log probabilities, or probabilities, add
up."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Reading:
    """A metric as asked for: of which of a prompt's tokens, and after which position.

    ``str(reading)`` is its canonical text and the variable's name in a result. ``at`` is None where
    no position was given: then it is the prompt's own (`Tokens.reading`).
    """

    inside: ClassVar[bool] = False

    metric: Metric
    of: str
    at: Address | None

    def __str__(self) -> str:
        of = "" if self.of == "target" else f"({self.of})"
        place = "" if self.at is None else f"@{self.at.places[0]}"
        return f"{self.metric.name}{of}" + ("@last" if place == "@-1" else place)

    def position(self, encoded: Encoded, dims: Dimensions) -> int:
        """The one position of a prompt where this is read.

        Raises:
            AddressError: it is none or several.
            PromptError: none was given, and the prompt has several masks.
        """
        if self.at is None:
            return encoded.tokens.reading
        [region] = regions(self.at, dims, encoded.tokens)
        if len(region.indices[0]) != 1:
            raise AddressError(f"{self}: a metric is read at one position, not at several.")
        return region.indices[0][0]

    @property
    def fields(self) -> tuple[str, ...]:
        """Which of a prompt's target and contrast it reads."""
        return tuple(self.of if needed == "token" else needed for needed in self.metric.reads)

    def check(self, encoded: Encoded, dims: Dimensions) -> None:
        """Raise unless the prompt has what this reads."""
        place = self.position(encoded, dims)
        for field in self.fields:
            answer = encoded.answer(field)
            if answer is None:
                raise MetricError(
                    f"The metric {self} needs a {field}, and the prompt "
                    f'{encoded.prompt.shown} has none: give Prompt(…, {field}=" …"), on the '
                    f"command line --{field}."
                )
            if isinstance(answer, int):
                continue
            kind = "several tokens" if isinstance(answer, tuple) else "any of a set of tokens"
            if self.metric.name not in ADDING_UP:
                raise MetricError(
                    f"The metric {self} is of one token, and the {field} of "
                    f"{encoded.prompt.shown} is not one token but {kind}, to which no "
                    f"{self.metric.name} belongs. "
                    f"Measure {listing(ADDING_UP)}, which add up; or give one token."
                )
            if isinstance(answer, tuple) and place != encoded.tokens.reading:
                raise MetricError(
                    f"The metric {self}: the {field} of {encoded.prompt.shown} is several tokens, "
                    "which are read one after another behind the whole text, not at another "
                    f"position. Leave @{place} out, or give one token."
                )

    def steps(self, field: str, n: int) -> tuple[Step, ...]:
        """The readings that several tokens of a target (or contrast) take, one for each."""
        return tuple(Step(METRICS["logprob"], field, None, number) for number in range(n))

    def together(self, logprobs: Mapping[str, Array]) -> Array:
        """Its value, of the log probabilities of all that a target or contrast says, by name."""
        found = logprobs[self.fields[0]]
        match self.metric.name:
            case "prob":
                return np.exp(found)
            case "loss":
                return -found
            case "logit_diff":
                with np.errstate(invalid="ignore"):  # of two that cannot be, it is no number
                    return found - logprobs["contrast"]
            case _:
                return found

    def noise_together(self, noise: Mapping[str, float], logprobs: Mapping[str, Array]) -> float:
        """The largest effect that may be noise, where log probabilities have so much of it."""
        heard = sum(noise[field] for field in self.fields)
        if self.metric.name != "prob":
            return heard
        likeliest = float(np.exp(np.nan_to_num(logprobs[self.fields[0]], nan=-np.inf)).max())
        with np.errstate(over="ignore"):
            return min(1.0, float(np.expm1(heard)) * likeliest)

    def measure(
        self,
        logits: Float[Tensor, "cell vocab"],
        clean: Float[Tensor, "1 vocab"],
        encoded: Encoded,
    ) -> Float[Tensor, " cell"]:
        """Its value in each cell, from the logits at its position, computed in float64."""
        return self.value(Outcome(logits), Outcome(clean), encoded)

    def value(self, edited: Outcome, clean: Outcome, encoded: Encoded) -> Float[Tensor, " cell"]:
        """The same, from what other metrics at this position are computed from as well."""
        found = self.metric.compute(
            Prediction(
                edited=edited,
                clean=clean,
                token=encoded.answer(self.of),
                target=encoded.target,
                contrast=encoded.contrast,
            )
        ).double()
        # A column of the vocabulary would keep all of it in memory: hence the copies.
        if self.metric.columns:  # what other tokens' logits are is nothing to it
            return found.clone()
        return found.masked_fill(edited.broken, float("nan"))


@dataclass(frozen=True)
class Step(Reading):
    """The log probability of one of several tokens, behind the text and the tokens before it.

    What is said before it is forced on the model (`Tokens.forced`). A prompt that has fewer tokens
    to say has nothing to add: 0.
    """

    number: int = 0

    def __str__(self) -> str:
        return f"logprob({self.of}, token {self.number})"

    def position(self, encoded: Encoded, dims: Dimensions) -> int:
        """Where it is read: behind the text, or beyond."""
        return encoded.tokens.reading + min(self.number, max(0, len(encoded.row(self.of)) - 1))

    def value(self, edited: Outcome, clean: Outcome, encoded: Encoded) -> Float[Tensor, " cell"]:
        """As of any reading."""
        row = encoded.row(self.of)
        token = row[self.number] if self.number < len(row) else encoded.answer(self.of)
        if self.number and self.number >= len(row):
            return torch.zeros_like(edited.exact[:, 0])
        found = _of(token, edited.logprobs)
        return found.masked_fill(edited.broken, float("nan"))


NEXT = "next_loss"
"""The metric of what the text itself goes on with."""

_ANY = Dimensions(1, 1, 1, 1, 1, 1, 1)
"""Where a text's positions are depends on no size of a model."""


@dataclass(frozen=True)
class Onward(Reading):
    """A metric of the token that the text itself has behind the position where it is read."""

    def check(self, encoded: Encoded, dims: Dimensions) -> None:
        """Raise unless there is one."""
        if self.at is None or self.position(encoded, dims) >= len(encoded.tokens) - 1:
            n = len(encoded.tokens)
            raise MetricError(
                f"The metric {self} is of the text's own next token, and behind the last one there "
                f"is none: read it at a position before, {NEXT}@0"
                + (f" … {NEXT}@{n - 2}." if n > 2 else ".")
            )

    def value(self, edited: Outcome, clean: Outcome, encoded: Encoded) -> Float[Tensor, " cell"]:
        """As of any reading."""
        token = encoded.tokens.ids[1 + self.position(encoded, _ANY)]
        prediction = Prediction(edited, clean, token, encoded.target, encoded.contrast)
        return self.metric.compute(prediction).double().masked_fill(edited.broken, float("nan"))
