"""The logit lens: what the unembedding makes of a state inside the model.

A state ``[…, d_model]`` goes through the final norm, with the statistics that it has itself, the
unembedding, and what the family does to logits (a soft cap, a scale), as what leaves the last block
does. So the last block's states give the model's own logits. A translator, where there is one,
comes first (the tuned lens).

After nostalgebraist, "interpreting GPT: the logit lens" (2020); the translators after Belrose et
al., "Eliciting latent predictions from transformers with the tuned lens" (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.errors import AddressError, MetricError, listing
from microtome.language.addresses import Address
from microtome.language.selectors import Everything
from microtome.language.sites import SITES, Dimensions
from microtome.model.anatomy import Anatomy
from microtome.prompts.encoding import Encoded
from microtome.readings.output import Outcome, Reading
from microtome.readings.registry import readings

ENTROPY = "entropy"
TOP_ID, TOP_PROB = "top_id", "top_prob"

HELD = 8
"""Numbers of float64 for each token of the vocabulary that a state's row holds at once."""

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
    """The metrics that are read off each state, by the names that a sweep's have.

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


def look(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    states: Float[Tensor, "pos *units d_model"],
    output: Float[Tensor, "pos vocab"],
    reading: Sequence[Reading],
    encoded: Encoded,
    top: int,
    at_once: int,
    translate: Translate | None = None,
) -> dict[str, Tensor]:
    """What some states of one layer say.

    Args:
        hf, anatomy: the model, in a session.
        states: at some positions.
        output: the model's own logits there.
        reading: the metrics.
        encoded: the prompt.
        top: how many of the most probable tokens.
        at_once: how many states are unembedded at a time.
        translate: of this layer, for the tuned lens.

    Returns:
        Name → values ``[pos, *units]``, float64: the metrics; ``entropy`` in nats; and over a last
        axis besides ``top_id`` and ``top_prob``, the most probable tokens.
    """
    rows = states.flatten(0, -2)
    alike = len(rows) // len(states)
    parts = [
        _look(
            unembedded(hf, anatomy, rows[first : first + at_once], translate),
            output[torch.arange(first, min(len(rows), first + at_once)) // alike],
            reading,
            encoded,
            top,
        )
        for first in range(0, len(rows), at_once)
    ]
    return {
        name: _shaped(torch.cat([part[name] for part in parts]), states.shape[:-1])
        for name in parts[0]
    }


def unembedded(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    rows: Float[Tensor, "row d_model"],
    translate: Translate | None = None,
) -> Float[Tensor, "row vocab"]:
    """The logits of some states; of those of all positions of a prompt by the model's kernels."""
    rows = rows if translate is None else translate(rows)
    return anatomy.unembed(hf, anatomy.final(hf, rows[None]))[0]


def _look(
    logits: Float[Tensor, "row vocab"],
    output: Float[Tensor, "row vocab"],
    reading: Sequence[Reading],
    encoded: Encoded,
    top: int,
) -> dict[str, Tensor]:
    seen, own = Outcome(logits), Outcome(output.to(logits.device))
    found = {str(one): one.value(seen, own, encoded) for one in reading}
    probs = seen.logprobs.exp()
    best = probs.topk(min(top, probs.shape[-1]))
    return {
        **found,
        ENTROPY: torch.special.entr(probs).sum(-1),
        TOP_ID: best.indices.double(),
        TOP_PROB: best.values,
    }


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
