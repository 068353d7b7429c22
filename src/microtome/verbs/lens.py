"""The logit lens and the tuned lens, over layers and positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from microtome.amounts import bytes_of, whole_of
from microtome.edits import Edit, as_edits
from microtome.edits.application import intervene
from microtome.edits.sources import Sources
from microtome.errors import EffectsError, listing
from microtome.figures.pictures import Drawn
from microtome.figures.tokens import token_map
from microtome.language.addresses import Address, parse
from microtome.model.devices import numbers
from microtome.model.loaded import check_loaded
from microtome.notebook import html_line, html_table
from microtome.passes.hooks import quiet
from microtome.passes.session import session
from microtome.plan.memory.budget import DEFAULT_MEMORY
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.prompts import Given, listed
from microtome.prompts.resolve import regions
from microtome.readings import lens as seeing
from microtome.readings.output import METRICS, Reading
from microtome.readings.translators import Translators
from microtome.spoken import spoken
from microtome.verbs.kept import labelled, numpy_of, padded, readers
from microtome.verbs.model import Model
from microtome.verbs.picking import picked
from microtome.verbs.readout import check_prompt, recorded

TOP = "top"
"""The dimension of the most probable tokens, the first of them 0."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class Lens:
    """What states inside a model say, layer by layer and token by token.

    Attributes:
        data: over ``prompt``, ``layer``, ``pos`` (and ``head``), NaN where a shorter prompt has no
            such position: the metrics by name; ``entropy``, in nats; ``top_token``, ``top_id`` and
            ``top_prob`` over ``top`` besides, the most probable token first.
        encoded: the prompts in the model's tokens.
        provenance: what is needed to repeat it.
    """

    data: xr.Dataset
    encoded: tuple[Encoded, ...]
    provenance: Mapping[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what was read as one number of each state."""
        return tuple(str(name) for name, one in self.data.items() if TOP not in one.dims)

    def table(self, prompt: int = 0, **at: int) -> pd.DataFrame:
        """A row per state: its coordinates, its first token with its probability, the metrics.

        Args:
            prompt: which.
            **at: a coordinate for a dimension, such as ``pos=-1``; negative counts from the end.
        """
        part = self._of(prompt, at)
        first = part.isel({TOP: 0}).drop_vars(["top_id", "text"], errors="ignore")
        rows = first if first.sizes else first.expand_dims("state")  # of one state there is none
        frame = rows.to_dataframe().reset_index()
        frame = frame.drop(columns=["prompt", "state"], errors="ignore")
        return frame.dropna(subset=["top_prob"]).reset_index(drop=True)

    def figure(self, metric: str = "top_prob", prompt: int = 0, **at: int) -> Drawn:
        """The map of one prompt, layer by position, with the most probable token in each cell.

        Args:
            metric: what colours it: ``"top_prob"``, ``"entropy"`` or one of the metrics.
            prompt: which.
            **at: a coordinate for each dimension that is not to be drawn, such as ``pos=-1``.

        Raises:
            EffectsError: there is no such metric, dimension or coordinate, or not two dimensions
                are left.
        """
        part = self._of(prompt, at)
        words = part["top_token"].isel({TOP: 0})
        values = picked(part, metric).isel({TOP: 0}, missing_dims="ignore")
        name = self.provenance["spec"]["address"]
        kind = "Tuned lens" if self.provenance["spec"]["tuned"] else "Logit lens"
        return token_map(
            values,
            words,
            title=f"{kind} at {name}",
            unit=str(values.attrs.get("unit", metric)),
            note=self.encoded[prompt].prompt.shown,
        )

    def _of(self, prompt: int, at: Mapping[str, int]) -> xr.Dataset:
        check_prompt(prompt, len(self.encoded))
        part = self.data.isel(prompt=prompt)
        there = part["top_prob"].isel({TOP: 0}).notnull()
        if "pos" in part.dims:  # without those that only longer prompts have
            own = there.any([name for name in there.dims if name != "pos"])
            part = part.isel(pos=own.values.nonzero()[0])
        unknown = at.keys() - set(map(str, there.dims))
        if unknown:
            raise EffectsError(
                f"There is no dimension {unknown.pop()!r} to pick from; there are: "
                f"{listing(part['entropy'].dims)}."
            )
        return part.isel(dict(at))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.data.sizes.items())
        return f"<Lens at {self.provenance['spec']['address']}: {sizes}>"

    def _repr_html_(self) -> str:
        """In a notebook: what the states of the first prompt say."""
        table = self.table().astype(object)
        return html_line(repr(self)) + html_table(tuple(table.columns), table.values.tolist())


@spoken
def lens(
    model: Model,
    prompts: Given | Iterable[Given],
    address: str = "L*.resid_post@*",
    *,
    edits: Edit | str | Iterable[Edit | str] = (),
    metrics: Sequence[str] | None = None,
    top: int = 5,
    tuned: Translators | str | Path | None = None,
    memory: int | str | None = None,
    reference: Iterable[Given] = (),
) -> Lens:
    """What each layer's state would have the model say: the logit lens.

    Every state goes through the final norm with the statistics that it has itself, the unembedding,
    and what the model does to logits; so the last row of ``L*.resid_post`` is the model's own
    output. ``L*.head_out`` and ``L*.mlp_out`` are read by the same rule, each part by itself. (What
    a part adds to the output is another question: see `attribute_logits`.)

    After nostalgebraist, "interpreting GPT: the logit lens" (2020). TransformerLens'
    ``accumulated_resid`` with ``apply_ln`` instead uses the statistics of the *last* state.

    Args:
        model: from `load`.
        prompts: one or several; each runs by itself, unpadded.
        address: of states as wide as the residual stream; stars and ``:`` are the same here.
        edits: applied to the run whose states are read.
        metrics: of the output, named as in a sweep; ``kl`` is KL(this run's own output ‖ what the
            state predicts). Unless given, that one, and probability and rank of the target and the
            contrast, where all prompts have them.
        top: how many of the most probable tokens are kept.
        tuned: translators, for the tuned lens; or the folder that they were saved in.
        memory: bytes for logits besides those of one prompt, or a text such as ``"500MB"``; 2 GiB
            unless given.
        reference: the prompts that `mean(over="prompts")` averages over.

    Returns:
        The tokens and numbers, ``[prompt, layer, pos, …]``.

    Raises:
        AddressError, EditError, PromptError, MetricError: something names what is not there.
        LoadError: translators cannot be read.
        MicrotomeError: somebody has added to what stands behind the last block.

    >>> import microtome as mt
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
    >>> seen = mt.lens(mt.load("nano"), prompt)
    >>> seen.data["top_token"].isel(prompt=0, layer=-1, pos=-1, top=0).item()
    ' Germany'
    """
    check_loaded(model)
    encoded = model.encode(prompts)
    asked, made = parse(address), as_edits(edits)
    dims = model.anatomy.dims
    seeing.check_address(asked)
    reading = seeing.asked(metrics, encoded, dims)
    if isinstance(tuned, str | Path):
        tuned = Translators.load(tuned)
    if tuned is not None:
        tuned.check(asked, dims)
    budget = DEFAULT_MEMORY if memory is None else bytes_of(memory, what="memory")
    at_once = max(1, budget // (8 * seeing.HELD * dims.d_vocab))
    model.check_end("The lens reads states")
    looking = _Looking(model, asked, reading, whole_of(top, 1, "top"), at_once, tuned)
    others = listed(reference)
    references = model.encode(others) if others else encoded
    sources = Sources(
        model.hf,
        model.anatomy,
        [(edit, one) for edit in made for one in encoded],
        [one.tokens for one in references],
    )
    with session(model.hf, model.anatomy), quiet(model.hf):
        seen = [looking.at(one, made, sources) for one in encoded]
    spec: dict[str, Any] = {"address": str(asked), "edits": [*map(str, made)], "top": top}
    spec["reference"] = [one.prompt.as_dict() for one in references] if others else []
    spec["tuned"] = None if tuned is None else tuned.source
    if tuned is not None and not tuned.is_saved:
        spec["tuned_in_memory"] = True
    record = recorded(model, encoded, **spec, metrics=[str(r) for r in reading])
    return Lens(_together(model, asked, encoded, seen, reading), encoded, record)


@dataclass(frozen=True, eq=False)
class _Looking:
    """What is looked at in each prompt, and how."""

    model: Model
    address: Address
    reading: Sequence[Reading]
    top: int
    at_once: int
    tuned: Translators | None

    def at(self, one: Encoded, edits: Sequence[Edit], sources: Sources) -> dict[str, Tensor]:
        """What the states of one prompt say: name → ``[layer, pos, …]``."""
        hf, anatomy = self.model.hf, self.model.anatomy
        states: list[Tensor] = []
        visits = readers(self.address, anatomy, one, states.append)
        output, _ = intervene(hf, anatomy, one, edits, sources, visits)
        where = regions(self.address.together(), anatomy.dims, one.tokens)
        layers = [
            (state[0], None if self.tuned is None else self.tuned.of(region.site, region.layer))
            for region, state in zip(where, states, strict=True)
        ]
        own = output[0][numbers(output.device, where[0].indices[0])]
        return seeing.look(hf, anatomy, layers, own, self.reading, one, self.top, self.at_once)


def _together(
    model: Model,
    address: Address,
    encoded: Sequence[Encoded],
    seen: Sequence[Mapping[str, Tensor]],
    reading: Sequence[Reading],
) -> xr.Dataset:
    axes, dims = address.site.axes[:-1], model.anatomy.dims
    places = labelled(address, dims, encoded, [[own[seeing.ENTROPY]] for own in seen], axes)
    units = {str(one): METRICS[one.metric.name].unit for one in reading}
    units |= {seeing.ENTROPY: "nat", seeing.TOP_PROB: "probability"}
    data: dict[str, tuple[Any, ...]] = {}
    for name in seen[0]:
        values = padded([numpy_of(own[name]) for own in seen])
        values = values if "layer" in places.dims else values[:, 0]
        over = (*places.dims, TOP) if name in (seeing.TOP_ID, seeing.TOP_PROB) else places.dims
        data[name] = over, values, {"unit": units[name]} if name in units else {}
    over, ids, _ = data[seeing.TOP_ID]
    ids = np.nan_to_num(ids, nan=-1).astype(np.int64)
    known, places_of = np.unique(ids, return_inverse=True)
    texts = [piece(int(n), model.tokenizer) if n >= 0 else "" for n in known]
    words = np.array(texts, dtype=object)[places_of.reshape(ids.shape)]
    data |= {seeing.TOP_ID: (over, ids), "top_token": (over, words)}
    return xr.Dataset(data, places.coords)
