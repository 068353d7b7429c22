"""What questions drawn at random are held to: each kind asks the same in two ways.

A kind draws what it asks, notes that, and raises `WrongError` where two answers differ by more than
rounding. What microtome refuses to be asked is no fault, as long as both ways refuse it.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import xarray as xr

import microtome as mt
from faults.random_questions import (
    MEMORY,
    TOKENS,
    Question,
    address,
    edit,
    ids,
    prompt,
    prompts,
    question,
)
from microtome.circuits import Circuit, Graph
from microtome.errors import MicrotomeError, VerificationError
from oracles import circuits as by_hand
from oracles.families import ENCODERS, FAMILIES
from workers.inline import Inline

HALF = (torch.bfloat16, torch.bfloat16, torch.float16, torch.float32)
EXPERTS = ("mixtral", "qwen3_moe")
"""Whose routers choose other experts in another type, or for a little more."""
MOST = 400
"""Cells of a question."""
LITTLE = 0.01
"""How much an edit changes, where gradients say what comes of it."""
CORNERED = ("opt",)
"""Whose neurons' function has a corner: a hundredth of that comes over it a hundred times less."""
COUNTED = 8
"""By how many values what changed may differ: some changed by rounding alone, or a little more."""
TEMPLATE = (
    "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class WrongError(AssertionError):
    """Two answers to one question that differ."""


class RefusedError(Exception):
    """What cannot be asked."""


@dataclass(frozen=True)
class Models:
    """Where a kind's models come from.

    Attributes:
        of: a model of a family in a type; and whether that is rounded to, and computed in float64.
        names: the families.
        placed: a model of a family in float32 whose weights are on disk, and the same in memory.
    """

    of: Callable[[str, torch.dtype, bool], mt.Model]
    names: Sequence[str] = tuple(FAMILIES)
    placed: Callable[[str], tuple[mt.Model, mt.Model]] | None = None


@dataclass
class Round:
    """One question.

    Attributes:
        draw: what it is drawn with.
        models: whom it may be asked.
        told: what is asked, in words.
        name: the family of the model that was drawn last.
    """

    draw: Random
    models: Models
    told: list[str] = field(default_factory=list)
    name: str = ""

    def model(self, dtype: torch.dtype = torch.float64, but: Sequence[str] = ()) -> mt.Model:
        """A model of some family."""
        self.name = self.draw.choice([name for name in self.models.names if name not in but])
        self.told.append(f"{self.name}, {dtype}")
        return self.models.of(self.name, dtype, False)

    @property
    def rounding(self) -> float:
        """How far two ways may be apart in float64, for each unit of what is large."""
        return 1e-8 if FAMILIES[self.name].rounding < 1e-8 else 1e-4

    def asked(self, own: Question, model: mt.Model) -> Question:
        """A question, noted.

        Raises:
            RefusedError: it cannot be asked of the model, or has too many cells.
        """
        self.told.append(str(own))
        if self.first(lambda: own.cells(model)) > MOST:
            raise RefusedError("too many cells")
        return own

    def first(self, ask: Callable[[], Any]) -> Any:
        """The first answer.

        Raises:
            RefusedError: it cannot be asked.
        """
        try:
            return ask()
        except VerificationError:
            raise
        except MicrotomeError as error:
            raise RefusedError(f"{type(error).__name__}: {str(error)[:60]}") from error


def the_walk(own: Round) -> None:
    """The walk and the reference path; sometimes stored, or by workers."""
    model = own.model()
    asked = own.asked(question(own.draw, model), model)
    walked = own.first(lambda: asked.swept(model, engine="walk", verify=0))
    alike(walked, asked.swept(model, engine="reference", verify=0), own.rounding)
    match own.draw.randrange(8):
        case 0:
            with tempfile.TemporaryDirectory() as folder:
                kept = Path(folder) / "map.zarr"
                own.told.append("kept on disk")
                same(asked.swept(model, engine="walk", verify=0, out=kept), walked)
                same(mt.open_effects(kept), walked)
        case 1:
            own.told.append("by workers")
            same(asked.swept(model, engine="walk", verify=0, workers=Inline()), walked)
        case 2:
            own.told.append("in groups of prompts")
            for value, group in walked.groups("kind").items():
                some = [one for one in asked.prompts if one.meta["kind"] == value]
                more = dict(asked.more)
                if any("prompts" in edit for edit in asked.edits):  # a mean is of all of them
                    more.setdefault("reference", asked.prompts)
                alone = Question(some, asked.edits, asked.metrics, more)
                found = alone.swept(model, engine="walk", verify=0)
                # Of positions that only prompts of other groups have, nothing is there.
                there = {dim: found.data[dim].values for dim in found.data.dims if dim != "prompt"}
                alike(found, mt.Effects(group.data.sel(there)), own.rounding)


def streams(own: Round) -> None:
    """Prompts in windows and in a list; what is known of all, and of each put together."""
    model = own.model()
    asked = own.asked(question(own.draw, model, most=2), model)
    window = own.draw.randint(1, 2)
    own.told.append(f"in windows of {window}")
    whole = own.first(lambda: asked.swept(model, verify=0))
    given = mt.Stream(lambda: iter(asked.prompts), window=window)
    many = Question(given, asked.edits, asked.metrics, asked.more)
    alike(own.first(lambda: many.swept(model, verify=0)), whole, own.rounding)
    known = own.first(lambda: many.swept(model, verify=0, keep="aggregates"))
    for metric in whole.metrics:
        effects = whole.evidence(metric)
        mean, n = known.data[f"mean_{metric}"], effects.notnull().sum("prompt")
        near(f"n of {metric}", known.data[f"n_{metric}"], n, 0)
        near(f"mean of {metric}", mean.where(n > 0), effects.mean("prompt"), own.rounding)


def half_types(own: Round) -> None:
    """Verification in types of two bytes, and the walk no further from float64 than hooks are."""
    dtype = own.draw.choice(HALF)
    model = own.model(dtype)
    asked = own.asked(question(own.draw, model, most=2), model)
    own.first(lambda: asked.swept(model, verify=own.draw.choice(["all", 4])))
    if own.name in EXPERTS or asked.more.get("over"):
        return
    logs = Question(asked.prompts, asked.edits, ["logprob"], asked.more)
    walked, slow = (
        logs.swept(model, engine=engine, verify=0).delta("logprob").values
        for engine in ("walk", "reference")
    )
    exactly = own.models.of(own.name, dtype, True)
    exact = logs.swept(exactly, engine="reference", verify=0)
    truth = exact.delta("logprob").values
    size = max(1.0, float(np.nanmax(np.abs(truth))), float(np.abs(exact.clean("logprob")).max()))
    floor = 64 * torch.finfo(dtype).eps * size
    far, by_hooks = (float(np.nanmax(np.abs(one - truth))) for one in (walked, slow))
    if not far <= 4 * by_hooks + floor:
        raise WrongError(f"the walk is {far:g} from float64, hooks {by_hooks:g}, of {size:g}")


def circuits(own: Round) -> None:
    """Circuits: many in a pass, each alone, on the reference path, and now and then by hand."""
    model = own.model(but=ENCODERS)
    graph, given = Graph.of(model), prompts(own.draw, 2)
    share = own.draw.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    chosen = np.random.default_rng(own.draw.randrange(1000))
    some = [Circuit(graph, chosen.random(len(graph)) < share) for _ in range(3)]
    how: dict[str, Any] = {
        "ablation": own.draw.choice(["patch", "zero", "mean"]), "metrics": ["logit", "kl"],
        "memory": own.draw.choice(MEMORY), "progress": False,
    }  # fmt: skip
    own.told.append(f"{given}, circuits of {share:.0%}, {how}")
    found = own.first(lambda: mt.circuits.run(model, given, some, verify="all", **how))
    exact = 1e-4 if model.anatomy.family.inner else own.rounding
    for n, one in enumerate(some):
        alone = mt.circuits.run(model, given, one, verify=0, workers=Inline(), **how)
        for name in how["metrics"]:
            near(f"circuit {n}: {name}", alone[name], found[name][:, n], exact)
    if how["ablation"] == "mean" or own.draw.random() < 0.6:
        return
    own.told.append("by hand")
    [one, *_] = model.encode(given)
    oracle = by_hand.Circuits(model.hf, FAMILIES[own.name], one.tokens.ids)
    outside = by_hand.Circuits(model.hf, FAMILIES[own.name], one.donor.ids).written
    if how["ablation"] == "zero":
        outside = {writer: 0 * values for writer, values in oracle.written.items()}
    logit = oracle.run(set(some[0]), outside)[-1][one.target]
    near("by hand", found["logit"][0, 0], logit, exact)


def scores(own: Round) -> None:
    """Edges and nodes by cells, and by circuits without them; gradients of almost nothing."""
    model = own.model(but=ENCODERS)
    given = [prompt(own.draw, own.draw.choice([1, 3, 5])) for _ in range(own.draw.randint(1, 2))]
    level, metric = own.draw.choice(["edge", "node"]), own.draw.choice(["logit_diff", "loss"])
    ablation = own.draw.choice(["patch", "zero", "mean"])
    own.told.append(f"{given}, scores of each {level}, {metric}, {ablation}")
    found, other = (
        own.first(
            lambda method=method: mt.circuits.score(
                model, given, metric, level=level, method=method, ablation=ablation, progress=False
            )
        )
        for method in ("exact", "removal")
    )
    exact = 1e-4 if model.anatomy.family.inner else own.rounding
    near("scores", other.data["score"], found.data["score"], exact)


def gradients(own: Round) -> None:
    """Of an edit that changes little, gradients say what cells do; what is audited are cells."""
    model = own.model(but=EXPERTS)
    site = own.draw.choice(["z", "mlp_out", "resid_post", "q", "k", "v", "attn_out"])
    place, given = address(own.draw, model, 1, site), prompts(own.draw, 2)
    by = LITTLE / 100 if own.name in CORNERED else LITTLE
    little = {"factor": [1 - by, 1 + by]}
    edits, more = [f"scale(1) {place}"], {"over": little}
    asked = own.asked(Question(given, edits, ["logit_diff"], more), model)
    method = own.draw.choice(["atp", "ig(steps=3)"])
    own.told.append(method)
    found = own.first(lambda: asked.swept(model, method=method, audit=4))
    cells = asked.swept(model, verify=0).delta("logit_diff").values
    audited = found.data["why_exact"].values > 0
    near("audited", found.delta("logit_diff").values[audited], cells[audited], own.rounding)
    slopes, guessed = (
        (one[..., 1] - one[..., 0]) / 2 for one in (cells, found.approximate("logit_diff").values)
    )  # what is of second order is gone
    size = float(np.nanmax(np.abs(slopes), initial=0))
    near("a slope", guessed, slopes, 1e-2 * size + 1e-4 * by, relative=False)


def writing(own: Round) -> None:
    """Texts that are written together, padded on the left, and each alone."""
    model = own.model(but=ENCODERS)
    given = [prompt(own.draw, own.draw.choice([1, 2, 5, 8])) for _ in range(own.draw.randint(2, 3))]
    n = min(len(one.ids or ()) for one in given)
    edits = [
        edit(own.draw, model, n).replace("*", "0") for _ in range(own.draw.randint(1, 2))
    ]  # no map: one of each
    how: dict[str, Any] = {
        "steps": own.draw.randint(1, 4), "when": own.draw.choice(["all", "prompt", "generated"]),
        "do_sample": own.draw.random() < 0.3, "seed": own.draw.randrange(9),
    }  # fmt: skip
    own.told.append(f"{given}, {edits}, {how}")
    together = own.first(lambda: model.generate(given, edits, batch=len(given), **how))
    for number, (text, one) in enumerate(zip(together, given, strict=True)):
        more = {"reference": given} if any("prompts" in one for one in edits) else {}
        [alone] = model.generate(one, edits, **how, **more)
        if text.ids != alone.ids:
            raise WrongError(f"text {number} is {text.ids} together and {alone.ids} alone")
        for name in ("logprob", "clean_logprob", "kl"):
            near(f"text {number}: {name}", getattr(text, name), getattr(alone, name), own.rounding)


def threads(own: Round) -> None:
    """Two at once with one model, or one each, and both alone."""
    both: list[tuple[mt.Model, Question, mt.Effects]] = []
    for _ in range(2):
        model = both[0][0] if both and own.draw.random() < 0.5 else own.model()
        asked = own.asked(question(own.draw, model, most=2), model)
        both.append((model, asked, own.first(lambda m=model, q=asked: q.swept(m, verify=1))))
    found: dict[int, mt.Effects | BaseException] = {}

    def ask(n: int, model: mt.Model, asked: Question) -> None:
        try:
            found[n] = asked.swept(model, verify=1)
        except BaseException as error:
            found[n] = error

    running = [threading.Thread(target=ask, args=(n, *own[:2])) for n, own in enumerate(both)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    for n, (_, _, alone) in enumerate(both):
        now = found[n]
        if isinstance(now, BaseException):
            raise WrongError(f"beside another thread: {now!r}") from now
        same(now, alone)


def chats(own: Round) -> None:
    """A chat, and the tokens that its template makes."""
    model = own.model()
    tokenizer, draw = model.tokenizer, own.draw

    def said() -> list[dict[str, str]]:
        return [{"role": "user", "content": tokenizer.decode(ids(draw, draw.randint(1, 3)))}]

    one, other = said(), said()
    tokenizer.chat_template = TEMPLATE
    how = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    own_ids, donor_ids = (tokenizer.apply_chat_template(talk, **how) for talk in (one, other))
    answers = dict(zip(("target", "contrast"), draw.sample(TOKENS, 2), strict=True))
    asked = own.asked(question(draw, model, most=2), model)
    own.told.append(f"of {one}, donor {other}")
    plain, chat = (
        Question([given], asked.edits, asked.metrics, {"memory": asked.more["memory"]})
        for given in (
            mt.Prompt(ids=own_ids, donor_ids=donor_ids, **answers),
            mt.Prompt.chat(one, donor=other, **answers),
        )
    )
    same(own.first(lambda: plain.swept(model, verify=0)), chat.swept(model, verify=0))


def placements(own: Round) -> None:
    """Weights on disk, and in memory."""
    assert own.models.placed is not None
    own.name = own.draw.choice([name for name in own.models.names if name not in ENCODERS])
    placed, whole = own.models.placed(own.name)
    asked = own.asked(question(own.draw, whole, most=2), whole)
    own.told.append(f"{own.name}, its weights on disk")
    found = own.first(lambda: asked.swept(placed, verify=0))
    alike(found, asked.swept(whole, verify=0), 1e-4)


KINDS: Mapping[Callable[[Round], None], int] = {
    the_walk: 10, half_types: 5, circuits: 3, writing: 3, gradients: 2, scores: 1, streams: 1,
    threads: 1, chats: 1, placements: 1,
}  # fmt: skip
"""Kind → how often it is drawn."""


# ------------------------------------------------------------------------------- how far apart


def same(found: mt.Effects, wanted: mt.Effects) -> None:
    """Raise unless two results are equal to the bit."""
    try:
        one, other = (own.data.reset_coords(drop=True) for own in (found, wanted))
        xr.testing.assert_equal(one, other)
    except AssertionError as error:
        raise WrongError(f"not the same bits: {str(error)[:400]}") from error


def alike(found: mt.Effects, wanted: mt.Effects, rounding: float) -> None:
    """Raise where two results differ by more than rounding."""
    for name in map(str, wanted.data.data_vars):
        one, other = found.data[name].values, wanted.data[name].values
        if one.shape != other.shape:
            raise WrongError(f"{name}: of shape {one.shape} and {other.shape}")
        if name == "values_changed":
            near(name, one, other, COUNTED, relative=False)
        elif one.dtype.kind in "fi":
            near(name, one, other, rounding)


def near(name: str, found: Any, wanted: Any, rounding: float, relative: bool = True) -> None:
    """Raise where numbers differ by more than rounding, of the largest among them."""
    one, other = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        raise WrongError(f"{name}: absent in other cells")
    finite = np.abs(other[np.isfinite(other)])
    size = max(1.0, float(finite.max(initial=0))) if relative else 1.0
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isnan(one) | (one == other), 0, np.abs(one - other))
    if apart.max(initial=0) > rounding * size:
        where = np.unravel_index(apart.argmax(), apart.shape)
        raise WrongError(
            f"{name} at {tuple(map(int, where))}: {one[where]:.12g}, not {other[where]:.12g}"
        )
