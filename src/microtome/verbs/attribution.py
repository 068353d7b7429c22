"""Direct logit attribution: what each head, MLP and bias adds to a logit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome import stats
from microtome.amounts import many, whole_of
from microtome.errors import AddressError, MetricError, MicrotomeError
from microtome.figures.matrix import matrix
from microtome.figures.pictures import Drawn
from microtome.model.loaded import check_loaded
from microtome.notebook import html_line, html_table
from microtome.passes.hooks import quiet
from microtome.passes.session import session
from microtome.passes.trace import record
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.prompts import Given
from microtome.readings.output import Reading
from microtome.readings.registry import readings
from microtome.readings.shares import (
    Logits,
    Routes,
    Shares,
    neurons,
    shares,
    tokens_written,
    wanted,
)
from microtome.spoken import spoken
from microtome.texts import number
from microtome.verbs.kept import numpy_of
from microtome.verbs.model import Model
from microtome.verbs.readout import check_prompt, recorded

OF_LAYERS = ("attn_bias", "mlp_out", "mlp_bias", "norm_bias")
ALONE = ("embed", "final_bias", "unembed_bias")
NAMES = {
    "embed": "embed",
    "head_out": "L{layer}.head_out.h{head}",
    "attn_bias": "L{layer}.attn_out, bias",
    "mlp_out": "L{layer}.mlp_out",
    "mlp_bias": "L{layer}.mlp_out, bias",
    "norm_bias": "L{layer}, bias of norms",
    "final_bias": "final norm, bias",
    "unembed_bias": "unembedding, bias",
}
"""Part → what it is called."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """What each writer adds to a logit, or to the difference of two, in logits.

    Attributes:
        data: over ``prompt``: ``logit``, the model's own, before a cap; ``embed``; ``head_out``
            (``layer``, ``head``); ``mlp_out``, ``attn_bias``, ``mlp_bias`` and ``norm_bias``
            (``layer``); ``final_bias``, ``unembed_bias``; and where asked for ``source``
            (``layer``, ``head``, ``pos``), each head's share by the token that it attends to, NaN
            where a shorter prompt has no such token.
        encoded: the prompts in the model's tokens.
        provenance: what is needed to repeat it.
    """

    data: xr.Dataset
    encoded: tuple[Encoded, ...]
    provenance: Mapping[str, Any]

    @property
    def total(self) -> xr.DataArray:
        """The sum of all shares, ``[prompt]``: ``logit``, but for rounding."""
        each = [self.data[name] for name in NAMES]
        summed = [one.sum([name for name in one.dims if name != "prompt"]) for one in each]
        parts = xr.concat(summed, "writer", coords="minimal", compat="override")
        return parts.sum("writer").rename("total")

    def table(self, k: int | None = None, prompt: int | None = None) -> pd.DataFrame:
        """A row per writer, the largest share first.

        Args:
            k: how many rows; all unless given.
            prompt: of one prompt; the mean over all unless given.

        Returns:
            ``writer``, ``share``; of the mean over several prompts also ``low`` and ``high``, the
            ends of its 95 % interval (Student's t).
        """
        rows = [*_each(self._of(prompt))]
        frame = pd.DataFrame({"writer": [name for name, _ in rows]})
        each = np.stack([values for _, values in rows])
        frame["share"] = each.mean(-1)
        if each.shape[-1] > 1:
            intervals = [stats.mean(values) for values in each]
            frame["low"] = [one.low for one in intervals]
            frame["high"] = [one.high for one in intervals]
        order = np.argsort(-np.abs(each.mean(-1)), kind="stable")
        shown = len(order) if k is None else whole_of(k, 0, "k")
        return frame.iloc[order[:shown]].reset_index(drop=True)

    def figure(self, prompt: int | None = None) -> Drawn:
        """The map of shares, layer by head, with the MLP and the biases beside the heads.

        Args:
            prompt: of one prompt; the mean over all unless given.
        """
        part = self._of(prompt).mean("prompt")
        biases = part["attn_bias"] + part["mlp_bias"] + part["norm_bias"]
        columns = [*map(str, part["head"].values), "MLP", "biases"]
        values = np.concatenate(
            [part["head_out"].values, part["mlp_out"].values[:, None], biases.values[:, None]],
            axis=1,
        )
        named = xr.DataArray(
            values,
            dims=("layer", "head"),
            coords={"layer": part["layer"].values, "head": columns},
        )
        metric = self.provenance["spec"]["metric"]
        before = float(part["embed"])
        after = float(part["final_bias"] + part["unembed_bias"])
        note = (
            f"{metric} {number(float(part['logit']))} = the map {_signed(before)} (embedding) "
            f"{_signed(after)} (biases behind the last layer)"
        )
        several = len(self.encoded) if prompt is None else 1
        whose = f", mean over {many(several, 'prompt')}" if several > 1 else ""
        made = matrix(
            named, title=f"What each part adds to {metric}{whose}", unit="logit", diverging=True,
            note=note,
        )  # fmt: skip
        return Drawn(made)

    def _of(self, prompt: int | None) -> xr.Dataset:
        if prompt is None:
            return self.data
        check_prompt(prompt, len(self.encoded))
        return self.data.isel(prompt=[prompt])

    def __repr__(self) -> str:
        metric = self.provenance["spec"]["metric"]
        return f"<Attribution of {metric}, {many(len(self.encoded), 'prompt')}>\n{self.table(10)}"

    def _repr_html_(self) -> str:
        """In a notebook: the largest shares."""
        table = self.table(10).astype(object)
        first = html_line(repr(self).partition("\n")[0])
        return first + html_table(tuple(table.columns), table.values.tolist())


@spoken
def attribute_logits(
    model: Model,
    prompts: Given | Iterable[Given],
    metric: str | None = None,
    *,
    sources: bool = False,
) -> Attribution:
    """What each writer adds to a logit by itself: direct logit attribution.

    At the position where the metric is read the residual stream is a sum; with the scale of the
    final norm held at what it was, so is the logit. Norms between a part and the stream, and of
    the stream itself, are held too. All shares sum to the logit before a soft cap. A bias of the
    values counts as its head's.

    A share is what a part writes in a run without edits, not what would happen without it: other
    parts read it, and the norm's scale would change. For that, sweep.

    After Elhage et al., "A mathematical framework for transformer circuits" (2021). What
    TransformerLens calls ``logit_attrs`` is the same on a model whose weights it has folded and
    centred, so that biases are in other places.

    Args:
        model: from `load`.
        prompts: with a target, and perhaps a contrast, of one token.
        metric: ``"logit"``, ``"logit_diff"`` or ``"logit(contrast)"``, perhaps at a position:
            ``"logit_diff@3"``. Unless given, ``logit_diff`` where all prompts have a contrast,
            else ``logit``.
        sources: each head's share by the token that it attends to, too. (Attention weights are
            computed in the open for that, which rounds differently.)

    Raises:
        MetricError: the metric is another, or a prompt lacks what it reads, or has several tokens.
        MicrotomeError: somebody has added to the model what may add to a logit too.

    >>> import microtome as mt
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    >>> found = mt.attribute_logits(mt.load("nano"), prompt)
    >>> abs(float((found.total - found.data["logit"])[0])) < 1e-4
    True
    """
    check_loaded(model)
    encoded = model.encode(prompts)
    reading = _metric(metric, encoded)
    hf, anatomy = model.hf, model.anatomy
    found = []
    with session(hf, anatomy), quiet(hf):
        for one in encoded:
            routes, logits = routes_of(model, one, reading, sources)
            found.append(shares(routes, logits, sources))
    record_ = recorded(model, encoded, metric=str(reading), sources=sources)
    return Attribution(_labelled(encoded, found), encoded, record_)


@spoken
def attribute_neurons(
    model: Model,
    prompts: Given | Iterable[Given],
    layer: int,
    metric: str | None = None,
    *,
    k: int = 10,
    tokens: int = 5,
) -> pd.DataFrame:
    """The neurons of a layer that add most to a logit, with the tokens that they promote.

    Args:
        model: from `load`.
        prompts: as in `attribute_logits`.
        layer: which; negative counts from the end.
        metric: as in `attribute_logits`.
        k: how many neurons of each prompt, those with the largest shares.
        tokens: how many tokens each is most for, and most against.

    Returns:
        ``prompt``, ``neuron``, ``activation``, ``share`` (logits), ``for``, ``against``: the tokens
        whose logits one unit of the neuron raises, and lowers, most.

    Raises:
        MetricError: as in `attribute_logits`.
        AddressError: there is no such layer, or its MLP has no neurons of its own.

    >>> import microtome as mt
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
    >>> mt.attribute_neurons(mt.load("nano"), prompt, -1, k=3).columns.tolist()
    ['prompt', 'neuron', 'activation', 'share', 'for', 'against']
    """
    check_loaded(model)
    encoded = model.encode(prompts)
    reading = _metric(metric, encoded)
    at = _layer(model, layer)
    rows = []
    with session(model.hf, model.anatomy), quiet(model.hf):
        for number_, one in enumerate(encoded):
            routes, logits = routes_of(model, one, reading)
            own = neurons(routes, at, logits)
            order = own.share.abs().topk(min(whole_of(k, 1, "k"), len(own.share))).indices
            written = tokens_written(
                routes, own.written[order] * 1.0, whole_of(tokens, 1, "tokens")
            )
            for index, (best, worst) in zip(order.tolist(), written, strict=True):
                rows.append(
                    {
                        "prompt": number_,
                        "neuron": index,
                        "activation": float(own.activation[index]),
                        "share": float(own.share[index]),
                        "for": [piece(token, model.tokenizer) for token in best],
                        "against": [piece(token, model.tokenizer) for token in worst],
                    }
                )
    return pd.DataFrame(rows)


def routes_of(
    model: Model, one: Encoded, reading: Reading, sources: bool = False
) -> tuple[Routes, Logits]:
    """A clean pass of a prompt, kept where a metric is read; and what the metric is of."""
    hf, anatomy = model.hf, model.anatomy
    if model.whole is not None:
        raise MicrotomeError(
            f"Shares are of the model's own parts, and {model.whole}. "
            "Take it off, or load the model anew."
        )
    place = reading.position(one, anatomy.dims)
    pieces = wanted(anatomy, place, len(one.tokens), sources)
    kept = record(hf, anatomy, [one.tokens], pieces)
    tokens = [one.answer(field) for field in reading.fields]
    [*ids] = [token for token in tokens if isinstance(token, int)]
    return Routes.of(hf, anatomy, kept), Logits(*ids)


def _signed(value: float) -> str:
    """A number that is added to others, with its sign."""
    return f"{'−' if value < 0 else '+'} {number(abs(value))}"


def _metric(metric: str | None, encoded: Sequence[Encoded]) -> Reading:
    if metric is None:
        both = all(one.contrast is not None for one in encoded)
        metric = "logit_diff" if both else "logit"
    [reading] = readings(metric)
    if not isinstance(reading, Reading) or reading.metric.name not in ("logit", "logit_diff"):
        raise MetricError(
            f"Shares sum to a logit, or to the difference of two, not to {metric}: ask for "
            "logit, logit(contrast) or logit_diff, perhaps at a position, logit_diff@3."
        )
    for one in encoded:
        for field in reading.fields:
            answer = one.answer(field)
            if not isinstance(answer, int):
                what = "none" if answer is None else "several tokens"
                raise MetricError(
                    f"Shares are of the logit of one token, and the {field} of {one.prompt.shown} "
                    f"is {what}: give Prompt(…, {field}=…) of one token."
                )
    return reading


def _layer(model: Model, layer: int) -> int:
    dims = model.anatomy.dims
    if model.anatomy.family.down_proj is None:
        why = dict(dims.lacks).get("mlp_post", "it has none")
        raise AddressError(f"{model.name!r} has no neurons to look at: {why}.")
    layer = whole_of(layer, what="layer")
    if not -dims.n_layers <= layer < dims.n_layers:
        raise AddressError(f"There is no layer {layer}; there are {dims.n_layers}, from 0.")
    return layer % dims.n_layers


def _labelled(encoded: Sequence[Encoded], found: Sequence[Shares]) -> xr.Dataset:
    """The shares of all prompts, with names."""
    named: dict[str, tuple[tuple[str, ...], Any]] = {
        name: (("prompt",), [getattr(one, name) for one in found]) for name in ("logit", *ALONE)
    }
    for name in OF_LAYERS:
        values = np.stack([numpy_of(getattr(one, name)) for one in found])
        named[name] = (("prompt", "layer"), values)
    heads = np.stack([numpy_of(one.head_out) for one in found])
    named["head_out"] = (("prompt", "layer", "head"), heads)
    coordinates: dict[str, Any] = {
        "prompt": range(len(found)),
        "layer": range(heads.shape[1]),
        "head": range(heads.shape[2]),
        "text": ("prompt", [one.tokens.text for one in encoded]),
    }
    if all(one.source is not None for one in found):
        longest = max(len(one.tokens) for one in encoded)
        source = np.full((*heads.shape, longest), np.nan)
        pieces = np.full((len(encoded), longest), "", dtype=object)
        for n, (one, own) in enumerate(zip(encoded, found, strict=True)):
            if own.source is None:
                raise MicrotomeError("Shares by source are there for all prompts or for none.")
            source[n, ..., : own.source.shape[-1]] = numpy_of(own.source)
            pieces[n, : len(one.tokens)] = one.tokens.pieces
        named["source"] = (("prompt", "layer", "head", "pos"), source)
        coordinates |= {"pos": range(longest), "token": (("prompt", "pos"), pieces)}
    made = xr.Dataset(named, coordinates)
    for array in made.data_vars.values():
        array.attrs["unit"] = "logit"
    return made


def _each(data: xr.Dataset) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float64]]]]:
    """Every writer's name, and its shares ``[prompt]``."""
    for name, called in NAMES.items():
        array = data[name].transpose("prompt", ...)
        if array.ndim == 1:
            yield called, array.values
        elif array.ndim == 2:
            for layer in range(array.shape[1]):
                yield called.format(layer=layer), array.values[:, layer]
        else:
            for layer, head in np.ndindex(*array.shape[1:]):
                yield called.format(layer=layer, head=head), array.values[:, layer, head]
