"""What `Model.run` gives: logits, receipts, the activations that were asked for, top tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.amounts import many, whole_of
from microtome.edits import Edit
from microtome.edits.application import Receipt, intervene
from microtome.edits.sources import Sources
from microtome.errors import (
    AddressError,
    MetricError,
    MicrotomeError,
    PromptError,
    did_you_mean,
    glimpse,
    listing,
)
from microtome.language.addresses import Address, parse
from microtome.language.sites import Dimensions
from microtome.model.anatomy import Anatomy
from microtome.model.state import State
from microtome.notebook import html_line, html_table, html_tokens
from microtome.passes.hooks import forward
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.resolve import regions
from microtome.readings.output import Reading
from microtome.readings.registry import Asked, about, readings
from microtome.spoken import spoken
from microtome.texts import brief
from microtome.verbs.kept import labelled, readers
from microtome.verbs.room import NUMBER, check_room

SHOWN = 3
"""Prompts of a run that a notebook shows."""
TOP = 5
"""Tokens that it shows of each."""
OF_THE_MODEL = ("_hf", "_anatomy", "_state")
"""What of a run stays where the model is."""


class Receipts(tuple[Receipt, ...]):
    """Proofs of what the edits of a run did, prompt by prompt."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """In a notebook: a row for each."""
        names = [one.name for one in fields(Receipt)]
        rows = [[brief(one.edit), *(getattr(one, name) for name in names[1:])] for one in self]
        return html_table(names, rows) if rows else html_line("No edit, no receipt.")


@spoken
@dataclass(frozen=True, eq=False)
class Run:
    """One or several prompts, run with edits.

    Attributes:
        logits: ``[prompt, pos, vocab]``; NaN where a shorter prompt has no such position.
        receipts: one per edit and prompt, prompt by prompt.
    """

    logits: Float[Tensor, "prompt pos vocab"]
    receipts: Receipts
    encoded: tuple[Encoded, ...]
    _kept: Mapping[str, xr.DataArray]
    _hf: PreTrainedModel
    _anatomy: Anatomy
    _dims: Dimensions
    _tokenizer: PreTrainedTokenizerBase
    _state: State | None

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: all that a run can tell, the clean logits among it, and no model."""
        state = {**self.__dict__, "clean_logits": self.clean_logits}
        return {name: part for name, part in state.items() if name not in OF_THE_MODEL}

    def __iter__(self) -> Iterator[str]:
        """The addresses of what was kept."""
        return iter(self._kept)

    def __contains__(self, address: object) -> bool:
        """Whether an address was kept, however it is written."""
        with contextlib.suppress(AddressError):
            return isinstance(address, str) and str(parse(address)) in self._kept
        return False

    def keys(self) -> Sequence[str]:
        """The addresses of what was kept, so that ``dict(run)`` has it all."""
        return [*self]

    def __getitem__(self, address: str) -> xr.DataArray:
        """The activations kept under an address: ``[prompt, (layer,) *axes]`` with coordinates.

        Raises:
            AddressError: the address was not in ``keep``.
        """
        canonical = str(parse(address))
        if canonical not in self._kept:
            kept = listing(self._kept) or "nothing"
            hint = did_you_mean(canonical, self._kept)
            raise AddressError(f"{canonical} was not kept; keep= had {kept}.{hint}")
        return self._kept[canonical]

    def __repr__(self) -> str:
        return (
            f"<Run of {many(len(self.encoded), 'prompt')}; logits {list(self.logits.shape)}; "
            f"{many(len(self.receipts), 'receipt')}; kept: {listing(self._kept) or 'nothing'}>"
        )

    def _repr_html_(self) -> str:
        """In a notebook: the first prompts with what is predicted after them, and receipts."""
        made = [html_line(repr(self))]
        for number, one in enumerate(self.encoded[:SHOWN]):
            made.append(html_tokens(one.tokens.pieces))
            for place in one.tokens.predicted:
                top = self.top(TOP, prompt=number, position=place)
                made.append(html_table(tuple(top.columns), top.astype(object).values.tolist()))
        if self.receipts:
            made.append(self.receipts._repr_html_())
        return "".join(made)

    @cached_property
    def clean_logits(self) -> Float[Tensor, "prompt pos vocab"]:
        """The logits of the same prompts without edits; run when first asked for.

        Raises:
            MicrotomeError: the model is another by then.
        """
        if not self.receipts:
            return self.logits
        hf, anatomy = self._hf, self._anatomy
        with session(hf, anatomy):
            self._check_same()
            return stacked([forward(hf, anatomy, ids_of([e.tokens], hf)) for e in self.encoded])

    def _check_same(self) -> None:
        """Raise where the model would give the clean logits of another one."""
        if self._state is None:
            return
        which = self._state.difference(State.of(self._hf))
        if which:
            raise MicrotomeError(
                f"The model is another now than when this was run ({which}), and what it gives "
                "without the edits would be another's too. Run again; or ask for "
                "run.clean_logits before it is changed: what it was stays with the run."
            )

    def top(
        self, k: int = 10, prompt: int = 0, position: int | None = None, *, by: str = "edited"
    ) -> pd.DataFrame:
        """The k most probable tokens that come next, or that fill the mask, with edits and without.

        Args:
            k: how many.
            prompt: index of the prompt.
            position: after which token of that prompt (at which, in a masked-language model);
                negative counts from its end. The last or the mask unless given.
            by: ``"edited"``, the most probable ones with the edits; ``"clean"``, those without.

        Returns:
            A row per token, the most probable first: ``token``, ``id``, ``logit``, ``prob``
            (0 to 1), ``rank`` (1 is the top), and the same before the edits as
            ``clean_logit``, ``clean_prob``, ``clean_rank``.

        Raises:
            PromptError: there is no such prompt or position; or no position is given, and the
                prompt has several masks.
            MicrotomeError: ``by`` is another word, or a number is none.
        """
        k, prompt = whole_of(k, 0, "k"), whole_of(prompt, what="prompt")
        if by not in ("edited", "clean"):
            raise MicrotomeError(f"by is 'edited' or 'clean', not {by!r}.")
        if not -len(self.encoded) <= prompt < len(self.encoded):
            raise PromptError(f"There is no prompt {prompt}; there are {len(self.encoded)}.")
        tokens = self.encoded[prompt].tokens
        length = len(tokens)
        position = tokens.reading if position is None else whole_of(position, what="position")
        if not -length <= position < length:
            raise PromptError(
                f"Position {position} does not exist: the prompt has {many(length, 'token')}."
            )
        at = position % length
        after, before = self.logits[prompt, at], self.clean_logits[prompt, at]
        ids = (after if by == "edited" else before).topk(min(k, len(after))).indices
        columns: dict[str, object] = {
            "token": [piece(int(i), self._tokenizer) for i in ids],
            "id": ids.tolist(),
        }
        for prefix, row in (("", after), ("clean_", before)):
            row = row.double()
            columns[prefix + "logit"] = row[ids].tolist()
            columns[prefix + "prob"] = row.softmax(-1)[ids].tolist()
            columns[prefix + "rank"] = [int((row > row[i]).sum()) + 1 for i in ids]
        return pd.DataFrame(columns)

    def measure(self, metrics: str | Iterable[str]) -> pd.DataFrame:
        """Metrics on the output, with the edits and without, as a sweep measures them.

        Args:
            metrics: names such as ``"prob"``, ``"logit_diff"``, ``"prob(contrast)@3"``.

        Returns:
            A row per prompt and metric: ``prompt``, ``metric``, ``clean``, ``edited``, ``effect``
            (edited − clean; NaN of a token id, which has no difference).

        Raises:
            MetricError: it is one inside the model, the prompt lacks what it reads, or a target or
                contrast is of several tokens, which are read behind the text: sweep for those.
            AddressError: the prompt has no such position.

        >>> import microtome as mt
        >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
        >>> mt.load("nano").run(prompt).measure("rank")[["clean", "edited", "effect"]].values
        array([[1., 1., 0.]])
        """
        rows = []
        for reading in readings(metrics):
            for number, one in enumerate(self.encoded):
                rows.append((number, str(reading), *self._measured(reading, number, one)))
        table = pd.DataFrame(rows, columns=["prompt", "metric", "clean", "edited"])
        ids = [about(name).unit == "token id" for name in table["metric"]]
        return table.assign(effect=(table["edited"] - table["clean"]).mask(np.array(ids)))

    def _measured(self, reading: Asked, number: int, one: Encoded) -> tuple[float, float]:
        """A metric of one prompt: without the edits, and with them."""
        if not isinstance(reading, Reading):
            raise MetricError(
                f"{reading} is read inside the model, and a run has kept what keep= names: sweep "
                "for it, or read run[address]."
            )
        reading.check(one, self._dims)
        if any(isinstance(one.answer(field), tuple) for field in reading.fields):
            raise MetricError(
                f"{reading} is of several tokens behind {one.prompt.shown}, one after another, "
                "and a run reads the text alone: sweep for it, or give one token."
            )
        at = reading.position(one, self._dims)
        edited, clean = (x[number : number + 1, at] for x in (self.logits, self.clean_logits))
        without, under = (float(reading.measure(x, clean, one)) for x in (clean, edited))
        return without, under


def run(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    tokenizer: PreTrainedTokenizerBase,
    encoded: tuple[Encoded, ...],
    edits: Sequence[Edit],
    keep: str | Iterable[str],
    reference: tuple[Encoded, ...],
) -> Run:
    """One full forward pass per prompt; see `Model.run`."""
    addresses = _addresses(keep)
    _check_room(hf, anatomy, encoded, addresses)
    sources = Sources(
        hf,
        anatomy,
        [(e, one) for e in edits for one in encoded],
        [one.tokens for one in reference],
    )
    logits, receipts = [], []
    kept: list[dict[str, list[Tensor]]] = []
    with session(hf, anatomy):
        state = State.of(hf) if edits else None
        for number, one in enumerate(encoded):
            kept.append({str(address): [] for address in addresses})
            visits = [
                visit
                for address in addresses
                for visit in readers(address, anatomy, one, kept[-1][str(address)].append)
            ]
            edited, proof = intervene(hf, anatomy, one, edits, sources, visits, prompt=number)
            logits.append(edited)
            receipts += proof
    named = {
        str(address): labelled(address, anatomy.dims, encoded, [k[str(address)] for k in kept])
        for address in addresses
    }
    proofs, dims = Receipts(receipts), anatomy.dims
    return Run(stacked(logits), proofs, encoded, named, hf, anatomy, dims, tokenizer, state)


def _addresses(keep: str | Iterable[str]) -> list[Address]:
    """What is kept, each once.

    Raises:
        AddressError: it is no address, nor a list of some.
    """
    asked = [keep] if isinstance(keep, str) else keep
    if not isinstance(asked, Iterable):
        raise AddressError(
            f"keep= takes addresses, such as ['L5.z', 'L3.resid_post'], not {glimpse(keep)}."
        )
    return list(dict.fromkeys(map(parse, asked)))


def _check_room(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    encoded: Sequence[Encoded],
    addresses: Sequence[Address],
) -> None:
    """Raise where logits, and what is kept, would not fit.

    While they are put together, logits are there twice, and so is what is kept, one address's
    thrice; each prompt is as long as the longest. What is kept on a device comes to the machine.

    Raises:
        MicrotomeError: so it is.
    """
    if not encoded:
        return
    longest = max((one.tokens for one in encoded), key=len)
    named = [regions(one.together(), anatomy.dims, longest) for one in addresses]
    kept = [len(encoded) * sum(region.size for region in found) for found in named]
    logits = 2 * hf.dtype.itemsize * len(encoded) * len(longest) * anatomy.dims.d_vocab
    beside = f", and {many(sum(kept), 'number')} that are kept," if kept else ""
    here = NUMBER * (2 * sum(kept) + max(kept, default=0))
    what = (
        f"The logits of {many(len(encoded), 'text')} of up to {many(len(longest), 'token')}{beside}"
    )
    instead = "give shorter texts, fewer at a time, or keep less"
    if hf.device.type == "cuda":
        check_room(logits + hf.dtype.itemsize * sum(kept), what, instead, hf.device)
        check_room(here, what, instead)
    else:
        check_room(logits + here, what, instead)


def stacked(rows: Sequence[Float[Tensor, "1 _ vocab"]]) -> Float[Tensor, "prompt pos vocab"]:
    """Logits of prompts of different lengths as one tensor, NaN where there is no position."""
    longest = max(row.shape[1] for row in rows)
    if all(row.shape[1] == longest for row in rows):
        return torch.cat(list(rows))
    full = rows[0].new_full((len(rows), longest, rows[0].shape[2]), float("nan"))
    for number, row in enumerate(rows):
        full[number, : row.shape[1]] = row[0]
    return full
