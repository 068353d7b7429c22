"""Causal tracing: where, in a run that has forgotten its subject, the fact comes back.

The embeddings of the subject's tokens are corrupted with noise; one state of the clean run at a
time is put back; how much of the answer's probability comes back is the state's indirect effect.

After Meng, Bau, Andonian & Belinkov, "Locating and editing factual associations in GPT" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from microtome import stats
from microtome.amounts import many, whole_of
from microtome.edits import Edit, noise, patch
from microtome.engines.block import Array
from microtome.errors import EffectsError, MetricError, PromptError, listing, there_are
from microtome.figures.labels import escaped
from microtome.figures.matrix import matrix
from microtome.figures.pictures import Drawn
from microtome.language.addresses import parse
from microtome.language.sites import site as find_site
from microtome.model.loaded import check_loaded
from microtome.passes.hooks import forward
from microtome.passes.session import session
from microtome.passes.trace import Piece, ids_of, record
from microtome.paths import settled
from microtome.plan.verify import Verify
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Given
from microtome.readings.facts import HIDDEN, PARTS, parts_of
from microtome.spoken import spoken
from microtome.verbs.answer import Here
from microtome.verbs.asking import asking
from microtome.verbs.model import Model
from microtome.verbs.options import Options
from microtome.verbs.readout import check_prompt, recorded
from microtome.verbs.sweep import answered, sweep

SUBJECT = "subject"
"""The role that says what a fact is about."""
KINDS: Mapping[str, str] = {HIDDEN: "resid_post", "mlp": "mlp_out", "attention": "attn_out"}
"""What is put back → its site."""
WINDOW = 10
"""Layers of MLPs, or of attention, that are put back together."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class Traces:
    """How much of an answer's probability comes back, by what is put back and where.

    Attributes:
        data: ``prob``, over ``kind``, ``prompt``, ``layer``, ``pos`` and ``sample``: the answer's
            probability in the corrupted run with that state put back, NaN where a shorter prompt
            has no such position; ``corrupted``, over ``prompt`` and ``sample``, with nothing put
            back; ``clean``, over ``prompt``; beside each position its ``token`` and its ``part``,
            one of `microtome.readings.facts.PARTS`.
        encoded: the prompts in the model's tokens.
        provenance: what is needed to repeat it.
    """

    data: xr.Dataset
    encoded: tuple[Encoded, ...]
    provenance: Mapping[str, Any]

    @property
    def effect(self) -> xr.DataArray:
        """The indirect effect, ``[kind, prompt, layer, pos]``: probability that comes back."""
        return self.data["prob"].mean("sample") - self.data["corrupted"].mean("sample")

    @property
    def total(self) -> xr.DataArray:
        """What the noise took away, ``[prompt]``: clean minus corrupted."""
        return self.data["clean"] - self.data["corrupted"].mean("sample")

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps that were walked, which are those of the stores in ``out=``."""
        return tuple(map(str, self.data["kind"].values))

    def average(self) -> xr.Dataset:
        """The average indirect effect over facts, by part of the text.

        Of each fact the mean over the tokens of a part; then the mean over facts with its 95 %
        interval (Student's t), and over how many.

        Returns:
            ``effect``, ``low``, ``high`` and ``n`` over ``kind``, ``part`` and ``layer``.
        """
        effect, part = self.effect, self.data["part"]
        found: dict[str, list[Any]] = {name: [] for name in ("effect", "low", "high", "n")}
        for name in PARTS:
            own = effect.where(part == name).mean("pos").transpose("kind", "layer", "prompt")
            each = np.array([[_mean(row) for row in kind] for kind in own.values])
            for number, column in enumerate(found):
                found[column].append(each[..., number])
        dims = ("part", "kind", "layer")
        arrays = {name: (dims, np.stack(values)) for name, values in found.items()}
        coordinates = {"part": [*PARTS], "kind": effect["kind"], "layer": effect["layer"]}
        made = xr.Dataset(arrays, coordinates).transpose("kind", "part", "layer")
        return made.isel(part=(made["n"] > 0).any(["kind", "layer"]).values)

    def figure(self, kind: str = "hidden", prompt: int | None = None) -> Drawn:
        """The map of indirect effects: of one prompt token by token, or the average by part.

        Args:
            kind: ``"hidden"``, ``"mlp"`` or ``"attention"``, of those that were put back.
            prompt: which; the average over all unless given.

        Raises:
            EffectsError: this was not put back.
        """
        there = self.data["kind"].values.tolist()
        if kind not in there:
            raise EffectsError(f"There is no {kind!r} here; {there_are(kind, there)}")
        if prompt is None:
            shown = self.average()["effect"].sel(kind=kind)
            note = f"average indirect effect over {many(len(self.encoded), 'fact')}"
        else:
            check_prompt(prompt, len(self.encoded))
            one = self.encoded[prompt]
            shown = self.effect.sel(kind=kind).isel(prompt=prompt, pos=slice(0, len(one.tokens)))
            shown = shown.transpose("pos", "layer")
            note = escaped(one.prompt.shown)
        window = self.provenance["spec"]["window"]
        what = (
            "the hidden state" if kind == "hidden" else f"{many(window, 'layer')} of {_NAMES[kind]}"
        )
        title = f"Probability that comes back with {what}"
        return Drawn(matrix(shown, title=title, unit="probability", diverging=True, note=note))

    def __repr__(self) -> str:
        clean, corrupted = (float(self.data[n].mean()) for n in ("clean", "corrupted"))
        named = "fact" if len(self.encoded) == 1 else "facts"
        return (
            f"<Traces of {len(self.encoded)} {named}: {clean:.3g} clean, {corrupted:.3g} corrupted>"
        )


_NAMES = {"mlp": "MLPs", "attention": "attention"}


@spoken
def trace_facts(
    model: Model,
    facts: Given | Iterable[Given],
    *,
    kinds: Sequence[str] = tuple(KINDS),
    samples: int = 10,
    noise_std: float = 3.0,
    window: int = WINDOW,
    seed: int = 0,
    verify: Verify | int | str = 1,
    memory: int | str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Traces:
    """Where in the model a fact comes back, when its subject was made unreadable.

    Gaussian noise is added to the embeddings of the subject's tokens, the same samples in every
    cell. Then, position by position and layer by layer, the clean run's hidden state is put back,
    or what the MLPs or the attention of some layers around it add. A corrupted run is traced once
    for all cells of its sample: a cell enters it where something is put back, and starts at that
    position. A map's cells are walked together, and verified, as those of any sweep.

    After Meng et al., "Locating and editing factual associations in GPT" (2022). Differences from
    their code: the deviation that the noise is a multiple of is that of what enters block 0 at
    the subjects' tokens, so that learned positions count in it where a model has them; the answer
    is the prompt's target where it has one.

    Args:
        model: from `load`; one that predicts the next token.
        facts: prompts with the role ``subject``, a word or words of the text. Their answer is the
            target; where there is none, what the model itself says.
        kinds: what is put back: ``"hidden"``, ``"mlp"``, ``"attention"``.
        samples: of the noise.
        noise_std: the noise's standard deviation, in those of the subjects' embeddings.
        window: how many layers of MLPs, or of attention, are put back together.
        seed: of the first sample; the others follow.
        verify, memory: as `sweep` takes them, for the map of each kind.
        out: a folder for these maps, each a zarr store that `open_effects` opens, its effects held
            against the corrupted run: what is there already is not computed again.
        overwrite: replace what ``out`` holds of other questions.
        tell: takes a line whenever a map begins.

    Raises:
        PromptError: a fact has no subject, or the model fills in masks.
        MetricError: an answer is several tokens.

    >>> import microtome as mt
    >>> facts = mt.tasks.capitals(1, seed=1)
    >>> traces = mt.trace_facts(mt.load("nano"), facts, kinds=["hidden"], samples=2)
    >>> traces.effect.dims
    ('kind', 'prompt', 'layer', 'pos')
    """
    check_loaded(model)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise EffectsError(f"kinds are {listing(KINDS)}; given: {listing(kinds) or 'none'}.")
    encoded = _facts(model, facts)
    std = noise_std * spread_of(model, encoded)
    tracing = _Tracing(
        model,
        encoded,
        tuple(range(seed, seed + whole_of(samples, 1, "samples"))),
        std,
        whole_of(window, 1, "window"),
        Options.of("auto", verify, memory, None, None, 0),
        None if out is None else settled(out),
        overwrite,
        tell,
    )
    clean, corrupted = tracing.alone()
    probs = np.stack([tracing.restored(kind) for kind in kinds])
    spec = {"kinds": [*kinds], "samples": samples, "noise_std": noise_std, "std": std}
    record_ = recorded(model, encoded, **spec, window=window, seed=seed)
    return Traces(_together(encoded, kinds, clean, corrupted, probs), encoded, record_)


def spread_of(model: Model, encoded: Sequence[Encoded]) -> float:
    """The standard deviation of what enters block 0 at the subjects' tokens, over all of them."""
    embed = find_site("embed"), None
    rows = []
    for one in encoded:
        span = one.tokens.extent(SUBJECT)
        kept = record(model.hf, model.anatomy, [one.tokens], [Piece(embed, span[0], span[-1])])
        rows.append(kept[embed][0].double())
    return float(torch.cat(rows).std(correction=0))


@dataclass(frozen=True)
class _Tracing:
    """How facts are traced: each of their samples is a prompt whose runs are corrupted.

    Attributes:
        encoded: the facts.
        seeds: one for each sample of the noise.
        std: of the noise, in activations.
        window: how many layers go back together.
        options: how maps are answered.
        out: a folder for them; None for none.
        overwrite: whether what is there of other questions may go.
        tell: takes a line whenever a map begins.
    """

    model: Model
    encoded: Sequence[Encoded]
    seeds: tuple[int, ...]
    std: float
    window: int
    options: Options
    out: Path | None
    overwrite: bool
    tell: Callable[[str], None]

    def alone(self) -> tuple[Array, Array]:
        """The answers' probabilities, ``[fact]``, and in the corrupted runs, ``[fact, sample]``."""
        self.tell(f"runs of {many(len(self.encoded), 'fact')}, clean and corrupted")
        each = [
            sweep(
                self.model,
                one.prompt,
                self._noise(one),
                metrics=["prob"],
                over={"seed": self.seeds},
                verify=self.options.verify,
                memory=self.options.memory,
                progress=False,
            )
            for one in self.encoded
        ]
        clean = np.array([float(found.baseline("prob")[0]) for found in each])
        return clean, np.stack([found.data["prob"].values[0] for found in each])

    def restored(self, kind: str) -> Array:
        """The same with a state put back, in one map of all, ``[fact, layer, pos, sample]``."""
        restored = f"L*.{KINDS[kind]}@*"
        window = 1 if kind == HIDDEN else self.window
        about = "" if window == 1 else f", {many(window, 'layer')} together"
        self.tell(f"put back: {restored}{about}, in {many(len(self.seeds), 'sample')}")
        question = asking(
            self.model,
            [one.prompt for one in self.encoded for _ in self.seeds],
            patch(parse(restored)),
            metrics=["prob"],
            corruption=[(self._noise(one, n),) for one in self.encoded for n in self.seeds],
            window=window,
        )
        out = None if self.out is None else self.out / f"{kind}.zarr"
        here = Here(self.model)
        found = answered(
            self.model, question, self.options, here, out, False, self.overwrite, False
        )
        values: Array = found.data["prob"].values
        own = values.reshape(len(self.encoded), len(self.seeds), *values.shape[1:])
        return np.moveaxis(own, 1, -1)

    def _noise(self, one: Encoded, seed: int = 0) -> Edit:
        places = ",".join(map(str, one.tokens.extent(SUBJECT)))
        return noise(parse(f"embed@{{{places}}}"), std=self.std, how="add", seed=seed)


def _facts(model: Model, facts: Given | Iterable[Given]) -> tuple[Encoded, ...]:
    """Facts as prompts whose donor is their own text, and whose target is their answer."""
    if not model.anatomy.dims.causal:
        raise PromptError(
            f"{model.name!r} fills in masks: facts are traced where the next token is predicted."
        )
    given = model.encode(facts)
    for one in given:
        if SUBJECT not in one.tokens.places:
            raise PromptError(
                f"The fact {one.prompt.shown} has no subject: name its words as a role, "
                "Prompt(…, roles={'subject': 'Berlin'}), on the command line --subject."
            )
        if not isinstance(one.target, int | None):
            raise MetricError(
                f"The answer of {one.prompt.shown} is several tokens: give one token as its target."
            )
    with session(model.hf, model.anatomy):
        return model.encode([_its_own_donor(one, _answer(model, one)) for one in given])


def _answer(model: Model, one: Encoded) -> int:
    """A fact's target, or what the model says where it has none."""
    if isinstance(one.target, int):
        return one.target
    logits = forward(model.hf, model.anatomy, ids_of([one.tokens], model.hf))
    return int(logits[0, -1].argmax())


def _its_own_donor(one: Encoded, target: int) -> Prompt:
    """The same tokens as text and as donor, with roles by their places."""
    roles = {name: _places(one, name) for name in one.tokens.places}
    given = one.prompt
    if given.ids is None and given.messages is None:
        return replace(
            given, donor=given.text, donor_ids=None, target=target, targets=None, contrast=None,
            contrasts=None, roles=roles,
        )  # fmt: skip
    ids = one.tokens.ids
    return Prompt(ids=ids, donor_ids=ids, target=target, roles=roles)


def _places(one: Encoded, name: str) -> Any:
    """A role's place in this text alone, as in the donor, which is the same text."""
    place = one.tokens.places[name]
    return place, place


def _together(
    encoded: Sequence[Encoded], kinds: Sequence[str], clean: Array, corrupted: Array, probs: Array
) -> xr.Dataset:
    """All that was measured, with each token's text and part."""
    n_layers, longest, samples = probs.shape[2:]
    tokens, parts = (np.full((len(encoded), longest), "", dtype=object) for _ in range(2))
    for n, one in enumerate(encoded):
        length = len(one.tokens)
        tokens[n, :length] = one.tokens.pieces
        parts[n, :length] = parts_of(one.tokens.extent(SUBJECT), length)
    return xr.Dataset(
        {
            "prob": (("kind", "prompt", "layer", "pos", "sample"), probs),
            "corrupted": (("prompt", "sample"), corrupted),
            "clean": ("prompt", clean),
        },
        {
            "kind": [*kinds],
            "prompt": range(len(encoded)),
            "layer": range(n_layers),
            "pos": range(longest),
            "sample": range(samples),
            "text": ("prompt", [one.tokens.text for one in encoded]),
            "token": (("prompt", "pos"), tokens),
            "part": (("prompt", "pos"), parts),
        },
    )


def _mean(row: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float, int]:
    """A mean over facts, the ends of its interval, and over how many it is."""
    own = row[~np.isnan(row)]
    if not own.size:
        return np.nan, np.nan, np.nan, 0
    found = stats.mean(own)
    return found.value, found.low, found.high, int(own.size)
