"""The logit lens: what the unembedding makes of a state inside the model.

A state ``[…, d_model]`` goes through the final norm, with the statistics that it has itself, the
unembedding, and what the family does to logits (a soft cap, a scale), as what leaves the last block
does. So the last block's states give the model's own logits. A translator, where there is one,
comes first (the tuned lens).

After nostalgebraist, "interpreting GPT: the logit lens" (2020); the translators after Belrose et
al., "Eliciting latent predictions from transformers with the tuned lens" (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.errors import AddressError, MetricError, listing
from microtome.language.addresses import Address
from microtome.language.selectors import Everything
from microtome.language.sites import SITES, Dimensions
from microtome.model.anatomy import Anatomy
from microtome.prompts.encoding import Encoded
from microtome.readings.outcome import Outcome
from microtome.readings.output import Reading
from microtome.readings.registry import readings

ENTROPY = "entropy"
TOP_ID, TOP_PROB = "top_id", "top_prob"

HELD = 8
"""Numbers of float64 for each token of the vocabulary that a state's row holds at once."""

IN_CACHE = 2**22
"""Bytes of float64 for the logits that are looked at together: what processors keep near."""

Translate = Callable[[Tensor], Tensor]
"""States of a layer ``[…, d_model]`` → what takes their place before the final norm."""


def check_address(address: Address) -> None:
    """Raise `AddressError` unless an address names whole states of the stream's width."""
    axes = address.site.axes
    if axes[-1] != "d_model" or address.selectors[-1] != Everything():
        whole = listing(name for name, site in SITES.items() if site.axes[-1] == "d_model")
        raise AddressError(
            f"{address}: the lens unembeds whole vectors as wide as the residual stream, such as "
            f"L*.resid_post@*; sites that have them: {whole}."
        )


def asked(
    metrics: Sequence[str] | None, encoded: Sequence[Encoded], dims: Dimensions
) -> tuple[Reading, ...]:
    """The metrics that are read off each state, named as in a sweep.

    Unless given: ``kl``, from the model's own output, and where every prompt has one, probability
    and rank of the target and of the contrast.

    Raises:
        MetricError: one is not of a single position's logits; or is of an answer that a prompt
            does not have, or that is several tokens one after another.
    """
    found = readings(_usual(encoded) if metrics is None else metrics)
    of_output = tuple(one for one in found if isinstance(one, Reading) and one.at is None)
    if len(of_output) < len(found):
        raise MetricError(
            "The lens reads metrics of the output, such as prob or rank(contrast), at the positions"
            f" of its address; given: {listing(found)}."
        )
    for reading in of_output:
        for one in encoded:
            reading.check(one, dims)
            for field in reading.fields:
                if isinstance(one.answer(field), tuple):
                    raise MetricError(
                        f"The {field} of {one.prompt.shown} is several tokens, and a state says "
                        "one: give one token, such as its first."
                    )
    return of_output


Layer = tuple[Float[Tensor, "pos *units d_model"], Translate | None]
"""States of one layer at some positions, and what they go through first."""


def look(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    layers: Sequence[Layer],
    output: Float[Tensor, "pos vocab"],
    reading: Sequence[Reading],
    encoded: Encoded,
    top: int,
    at_once: int,
) -> dict[str, Tensor]:
    """What some states say.

    Args:
        hf, anatomy: the model, in a session.
        layers: states at some positions, the same in each layer, with what translates them for the
            tuned lens.
        output: the model's own logits there.
        reading: the metrics.
        encoded: the prompt.
        top: how many of the most probable tokens.
        at_once: how many states are unembedded at a time.

    Returns:
        Name → values ``[layer, pos, *units]``, float64: the metrics; ``entropy`` in nats; and over
        a last axis besides ``top_id`` and ``top_prob``, the most probable tokens.
    """
    own, size = Outcome(output), max(1, IN_CACHE // (8 * output.shape[-1]))
    shape = len(layers), *layers[0][0].shape[:-1]
    found: dict[str, Tensor] = {}
    first = 0
    for positions, logits in _portions(_unembedded(hf, anatomy, layers, at_once), size):
        for name, values in _look(logits, own.at(positions), reading, encoded, top).items():
            # In its place at once: small results among large ones keep freed memory in pieces.
            found.setdefault(name, values.new_empty(math.prod(shape), *values.shape[1:]))
            found[name][first : first + len(values)] = values
        first += len(positions)
    return {name: _shaped(values, shape) for name, values in found.items()}


Rows = tuple[Int[Tensor, " row"], Float[Tensor, "row vocab"]]
"""Logits, and which of the positions that are looked at each is of."""


def _unembedded(
    hf: PreTrainedModel, anatomy: Anatomy, layers: Sequence[Layer], at_once: int
) -> Iterator[Rows]:
    """The logits of all states; the last layer's apart, as the model has its own, to the bit."""
    for some in (layers[:-1], layers[-1:]):
        if not some:
            continue
        states = [_translated(own, translate) for own, translate in some]
        rows = torch.cat([own.flatten(0, -2).to(states[0].device) for own in states])
        places = torch.arange(len(states[0]), device=rows.device)
        each = len(rows) // len(places) // len(states)
        positions = places.repeat_interleave(each).repeat(len(states))
        for first in range(0, len(rows), at_once):
            logits = unembedded(hf, anatomy, rows[first : first + at_once])
            yield positions[first : first + at_once].to(logits.device), logits


def _translated(states: Tensor, translate: Translate | None) -> Tensor:
    return states if translate is None else translate(states)


def _portions(rows: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same, about so many at a time."""
    held: list[Rows] = []
    for positions, logits in rows:
        for part in zip(torch.split(positions, size), torch.split(logits, size), strict=True):
            if sum(len(own) for own, _ in held) + len(part[0]) > size:
                yield from _joined(held)
                held = []
            held.append(part)
    yield from _joined(held)


def _joined(held: Sequence[Rows]) -> Iterator[Rows]:
    if held:
        positions, logits = zip(*held, strict=True)
        yield torch.cat(positions), torch.cat(logits)


def unembedded(
    hf: PreTrainedModel, anatomy: Anatomy, rows: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row vocab"]:
    """The logits of some states; of those of all positions of a prompt by the model's kernels."""
    return anatomy.unembed(hf, anatomy.final(hf, rows[None]))[0]


def _look(
    logits: Float[Tensor, "row vocab"],
    own: Outcome,
    reading: Sequence[Reading],
    encoded: Encoded,
    top: int,
) -> dict[str, Tensor]:
    seen = Outcome(logits)
    found = {str(one): one.value(seen, own, encoded) for one in reading}
    best = logits.topk(min(top, logits.shape[-1])).indices
    return {
        **found,
        ENTROPY: _entropy(seen.logprobs),
        TOP_ID: best.double(),
        TOP_PROB: seen.logprobs.gather(1, best).exp(),
    }


def _entropy(logprobs: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """Of each row, in nats; a token that cannot be adds nothing."""
    finite = logprobs.clamp(min=torch.finfo(logprobs.dtype).min)
    entropy: Tensor = -(logprobs.exp() * finite).sum(-1)
    return entropy.clamp(min=0)  # below 0 is rounding


def _shaped(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows at their places."""
    return rows.view(*shape, *rows.shape[1:])


def _usual(encoded: Sequence[Encoded]) -> tuple[str, ...]:
    named = ["kl"]
    for field, of in (("target", ""), ("contrast", "(contrast)")):
        answers = [one.answer(field) for one in encoded]
        if all(answer is not None for answer in answers):
            named.append(f"prob{of}")
            if all(isinstance(answer, int) for answer in answers):
                named.append(f"rank{of}")
    return tuple(named)
