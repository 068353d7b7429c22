"""Attention: patterns of a prompt, and what heads look at in rows of tokens that repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from microtome import stats
from microtome.amounts import many, whole_of
from microtome.errors import AddressError, EffectsError, PromptError, TokenError, listing, there_are
from microtome.figures.labels import escaped
from microtome.figures.matrix import matrix
from microtome.figures.patterns import pattern_grid
from microtome.figures.pictures import Drawn
from microtome.language.addresses import Address, parse
from microtome.language.selectors import Everything
from microtome.language.sites import site as find_site
from microtome.model.loaded import check_loaded
from microtome.notebook import html_table
from microtome.passes.hooks import Visit, forward, quiet
from microtome.passes.session import session
from microtome.passes.trace import Piece, ids_of, record
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Given
from microtome.prompts.resolve import regions
from microtome.readings.patterns import SCORES, Repeated, entropy, weighted
from microtome.spoken import spoken
from microtome.verbs.kept import labelled, numpy_of
from microtome.verbs.model import Model
from microtome.verbs.readout import check_prompt, recorded
from microtome.verbs.room import NUMBER, check_room

WEIGHTED = 3 * 8
"""Bytes of one of the ``weighted``, which are in float64, while they are put together: thrice."""

LEAST = 2
"""Tokens that a row has at least: behind the only one there is no other."""

LENGTH = 25
"""Tokens of a row that stands twice, unless that is said."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class Attention:
    """Attention weights of some prompts.

    Attributes:
        data: over ``prompt``, ``layer``, ``head``, ``q_pos``, ``k_pos``: ``pattern``, the weights;
            ``weighted``, those times the norm of what is moved (α ‖v W_O‖, in activations);
            ``entropy``, of each query's weights, in nats.
        encoded: the prompts in the model's tokens.
        provenance: what is needed to repeat it.
    """

    data: xr.Dataset
    encoded: tuple[Encoded, ...]
    provenance: Mapping[str, Any]

    def grid(self, prompt: int = 0, what: str = "pattern") -> Drawn:
        """All heads at once, a small map each: layers down, heads to the right.

        Args:
            prompt: which.
            what: ``"pattern"`` or ``"weighted"``.
        """
        array = self._of(prompt, what)
        title = "Attention, head by head" if what == "pattern" else "What attention moves, by head"
        return pattern_grid(array, title=title, note=self.encoded[prompt].prompt.shown)

    def figure(self, layer: int, head: int, prompt: int = 0, what: str = "pattern") -> Drawn:
        """One head: from which token (down) to which (right).

        Args:
            layer, head: which.
            prompt: which.
            what: ``"pattern"`` or ``"weighted"``.

        Raises:
            EffectsError: there is no such layer or head here.
        """
        array = self._of(prompt, what)
        for name, value in (("layer", layer), ("head", head)):
            if value not in array[name].values:
                raise EffectsError(
                    f"There is no {name} {value} here; there are: {listing(array[name].values)}."
                )
        unit = "weight" if what == "pattern" else "weight × norm"
        own = array.sel(layer=layer, head=head)
        note = escaped(self.encoded[prompt].prompt.shown)
        return Drawn(matrix(own, title=f"Attention of L{layer}.h{head}", unit=unit, note=note))

    def _of(self, prompt: int, what: str) -> xr.DataArray:
        check_prompt(prompt, len(self.encoded))
        if what not in ("pattern", "weighted"):
            raise EffectsError(f"what is 'pattern' or 'weighted', not {what!r}.")
        length = len(self.encoded[prompt].tokens)
        part = self.data[what].isel(prompt=prompt)
        return part.isel(q_pos=slice(0, length), k_pos=slice(0, length))

    def __repr__(self) -> str:
        sizes = listing(f"{name} {size}" for name, size in self.data.sizes.items())
        return f"<Attention: {sizes}>"


@spoken
def attention(
    model: Model, prompts: Given | Iterable[Given], address: str = "L*.pattern"
) -> Attention:
    """Attention weights, with what they move and how spread out they are.

    Args:
        model: from `load`.
        prompts: one or several; each runs by itself, unpadded.
        address: which layers and heads, such as ``"L5.pattern.h{0,3}"``; all positions.

    Raises:
        AddressError: it is of another site, of some positions, or names what is not there.
        MicrotomeError: it would not fit into the machine's memory; nothing ran.

    >>> import microtome as mt
    >>> seen = mt.attention(mt.load("nano"), "Berlin is the capital of", "L0:2.pattern")
    >>> seen.data["pattern"].dims
    ('prompt', 'layer', 'head', 'q_pos', 'k_pos')
    """
    check_loaded(model)
    asked = parse(address)
    if asked.site.name != "pattern" or set(asked.together().places) != {Everything()}:
        raise AddressError(
            f"{address}: attention is read whole, of layers and heads, such as L5.pattern.h3."
        )
    encoded = model.encode(prompts)
    _check_room(model, asked, encoded)
    with session(model.hf, model.anatomy), quiet(model.hf):
        seen = [_seen(model, asked, one) for one in encoded]
    dims = model.anatomy.dims
    arrays = {}
    for name in ("pattern", "weighted", "entropy"):
        axes = ("head", "q_pos") if name == "entropy" else ("head", "q_pos", "k_pos")
        arrays[name] = labelled(asked, dims, encoded, [own.pop(name) for own in seen], axes)
        if "layer" not in arrays[name].dims:
            arrays[name] = arrays[name].expand_dims("layer", 1)
    for name, unit in (("pattern", "weight"), ("weighted", "activation"), ("entropy", "nat")):
        arrays[name].attrs["unit"] = unit
    return Attention(xr.Dataset(arrays), encoded, recorded(model, encoded, address=str(asked)))


def _check_room(model: Model, address: Address, encoded: Sequence[Encoded]) -> None:
    """Raise where the weights of all prompts would not fit: each is as long as the longest."""
    found = regions(address.together(), model.anatomy.dims, encoded[0].tokens)
    heads = sum(len(region.indices[0]) for region in found)
    longest = max(len(one.tokens) for one in encoded)
    pairs = f"{longest:,} × {many(longest, 'token')}"
    shape = f"{many(len(encoded), 'prompt')} × {many(heads, 'head')} × {pairs}"
    number = model.hf.dtype.itemsize
    check_room(
        (max(NUMBER, number) + WEIGHTED) * len(encoded) * heads * longest**2,
        f"The attention of {shape}",
        "give a shorter text, fewer prompts, or fewer layers and heads (address='L5.pattern.h3')",
    )


def _seen(model: Model, address: Address, one: Encoded) -> dict[str, list[Tensor]]:
    """What a prompt's heads attend to: name → per layer ``[1, head, q_pos, …]``."""
    hf, anatomy = model.hf, model.anatomy
    pattern, values = find_site("pattern"), find_site("v")
    last = len(one.tokens) - 1
    found: dict[str, list[Tensor]] = {"pattern": [], "weighted": [], "entropy": []}
    where = regions(address.together(), anatomy.dims, one.tokens)
    places = [(site, region.layer) for region in where for site in (pattern, values)]
    kept = record(hf, anatomy, [one.tokens], [Piece(place, 0, last) for place in places])
    for region in where:
        layer = region.layer
        assert layer is not None, "attention is in layers"
        weights, v = kept[pattern, layer][0], anatomy.family.values(kept[values, layer], hf.config)
        v = v[0].repeat_interleave(anatomy.dims.n_heads // v.shape[2], dim=1)
        heads = [*region.indices[0]]
        out = anatomy.out_matrix(hf, layer, v)[heads]
        own = weights[heads]
        found["pattern"].append(own[None].cpu())
        found["weighted"].append(weighted(own, v[:, heads], out)[None].cpu())
        found["entropy"].append(entropy(own)[None].cpu())
    return found


# ------------------------------------------------------------------------------ repeated rows


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class HeadScores:
    """What every head looks at in rows of random tokens that stand twice.

    Attributes:
        data: over ``prompt``, ``layer``, ``head`` the scores by name, each 0 to 1 (see
            `microtome.readings.patterns.SCORES`).
        provenance: what is needed to repeat it.
    """

    data: xr.Dataset
    provenance: Mapping[str, Any]

    def table(self, score: str = "induction", k: int = 10) -> pd.DataFrame:
        """The k heads with the largest mean score.

        Returns:
            ``layer``, ``head``, ``score``, and the ends ``low`` and ``high`` of its 95 % interval
            over the rows (Student's t).
        """
        array = self._of(score)
        mean = array.mean("prompt")
        order = np.argsort(-mean.values, axis=None, kind="stable")
        order = order[: whole_of(k, 0, "k")]
        rows = []
        for layer, head in zip(*np.unravel_index(order, mean.shape), strict=True):
            own = stats.mean(array.isel(layer=layer, head=head).values)
            rows.append((int(layer), int(head), own.value, own.low, own.high))
        return pd.DataFrame(rows, columns=["layer", "head", "score", "low", "high"])

    def figure(self, score: str = "induction") -> Drawn:
        """The map of a score over layers and heads."""
        array = self._of(score)
        spec = self.provenance["spec"]
        rows = f"{many(spec['n'], 'row')} of {many(spec['length'], 'token')}"
        note = f"{SCORES[score].about}; mean over {rows}"
        title = score.replace("_", " ").capitalize()
        return Drawn(matrix(array.mean("prompt"), title=title, unit="weight", note=note))

    def _of(self, score: str) -> xr.DataArray:
        if score not in self.data:
            raise EffectsError(f"There is no score {score!r}; {there_are(score, SCORES)}")
        return self.data[score]

    def __repr__(self) -> str:
        shown = "\n".join(
            f"{name}\n{self.table(name, 3).to_string(index=False)}" for name in SCORES
        )
        return f"<HeadScores>\n{shown}"

    def _repr_html_(self) -> str:
        """In a notebook: the first heads of each score."""
        tables = {name: self.table(name, 3).astype(object) for name in SCORES}
        return "".join(
            html_table(tuple(table.columns), table.values.tolist(), name)
            for name, table in tables.items()
        )


@spoken
def head_scores(model: Model, n: int = 10, length: int | None = None, seed: int = 0) -> HeadScores:
    """Previous-token, duplicate-token and induction scores of every head.

    Rows of ordinary tokens drawn at random stand twice, behind what the tokenizer begins a text
    with. (TransformerLens' ``head_detector`` measures the same with other names: its
    ``previous_token_head``, ``duplicate_token_head``, ``induction_head``.)

    After Olsson et al., "In-context learning and induction heads" (2022).

    Args:
        model: from `load`.
        n: how many rows.
        length: tokens in a row; 25 unless given, or as many as the model has room and words for.
        seed: of their draw.

    Raises:
        PromptError: the model does not take so many tokens, or has too few.

    >>> import microtome as mt
    >>> scores = mt.head_scores(mt.load("nano"), n=2, length=8)
    >>> scores.data["induction"].sizes["head"]
    8
    """
    check_loaded(model)
    length = _usual(model) if length is None else whole_of(length, LEAST, "length")
    rows, where = _rows(model, whole_of(n, 1, "n"), length, seed)
    encoded = model.encode(rows)
    pattern, layers = find_site("pattern"), range(model.anatomy.dims.n_layers)
    found: dict[str, list[np.ndarray[Any, np.dtype[Any]]]] = {name: [] for name in SCORES}
    with session(model.hf, model.anatomy):
        for one in encoded:
            seen: dict[str, dict[int, Tensor]] = {name: {} for name in SCORES}
            visits = [Visit((pattern, layer), _scoring(layer, where, seen)) for layer in layers]
            forward(model.hf, model.anatomy, ids_of([one.tokens], model.hf), visits)
            for name, own in seen.items():
                found[name].append(numpy_of(torch.stack([own[layer] for layer in layers])))
    dims = ("prompt", "layer", "head")
    data = xr.Dataset({name: (dims, np.stack(values)) for name, values in found.items()})
    data = data.assign_coords({name: range(size) for name, size in data.sizes.items()})
    spec = {"n": n, "length": length, "seed": seed}
    return HeadScores(data, recorded(model, encoded, **spec))


def _scoring(
    layer: int, where: Repeated, into: Mapping[str, dict[int, Tensor]]
) -> Callable[[Tensor], None]:
    """What a pass does at a layer's weights: every score, kept."""

    def look(view: Tensor) -> None:
        for name, score in SCORES.items():
            into[name][layer] = score.measure(view[0], where)

    return look


def _rows(model: Model, n: int, length: int, seed: int) -> tuple[list[Prompt], Repeated]:
    """Texts in which a row of random tokens stands twice, and where."""
    before = _begun(model)
    usable = _ordinary(model)
    if len(usable) < length:
        raise PromptError(
            f"{model.name!r} has {many(len(usable), 'ordinary token')}, and a row of {length} "
            "different ones is asked for: give a smaller length."
        )
    rng = np.random.default_rng(whole_of(seed, 0, "seed"))
    rows: list[Prompt] = []
    for _ in range(n):
        row = rng.choice(usable, length, replace=False).tolist()
        rows.append(Prompt(ids=[*before, *row, *row]))
    return rows, Repeated(len(before), length)


def _ordinary(model: Model) -> list[int]:
    """Tokens that are not special."""
    special = set(model.tokenizer.all_special_ids)
    known = min(len(model.tokenizer), model.anatomy.dims.d_vocab)
    return [token for token in range(known) if token not in special]


def _begun(model: Model) -> list[int]:
    """What the tokenizer begins a text with."""
    try:
        plain = model.encode("a")[0].tokens
    except TokenError:  # of a tokenizer that knows its own words alone
        known = piece(_ordinary(model)[0], model.tokenizer)
        plain = model.encode(known)[0].tokens
    added = zip(plain.ids, plain.added, strict=True)
    return [token for token, _ in takewhile(lambda pair: pair[1], added)]


def _usual(model: Model) -> int:
    """How long a row is, unless that is said.

    Raises:
        PromptError: no row of two different tokens stands twice in what the model takes.
    """
    room, words = model.anatomy.dims.n_positions, len(_ordinary(model))
    most = LENGTH if room is None else min(LENGTH, (room - len(_begun(model))) // 2)
    if min(most, words) < LEAST:
        read = f"{model.name!r} takes {many(room, 'position')} and" if room else repr(model.name)
        raise PromptError(
            f"{read} has {many(words, 'ordinary token')}: no row of {LEAST} different ones stands "
            "twice in that, and of less there are no scores."
        )
    return min(most, words)
