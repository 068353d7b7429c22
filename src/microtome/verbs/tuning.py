"""Training the translators of the tuned lens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.amounts import many, single, whole_of
from microtome.errors import (
    AddressError,
    EffectsError,
    LoadError,
    MicrotomeError,
    PromptError,
    listing,
)
from microtome.language.sites import site as find_site
from microtome.model.loaded import check_loaded
from microtome.passes.hooks import quiet, refuse_inference
from microtome.passes.session import session
from microtome.passes.trace import Piece, record
from microtome.paths import settled
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompts import Given, listed
from microtome.readings.lens import unembedded
from microtome.readings.translators import CONFIG, Translators, check_folder
from microtome.results.hold import alone_in
from microtome.spoken import spoken
from microtome.verbs.model import Model
from microtome.verbs.record import added
from microtome.verbs.room import check_room

HELD_OUT = 8
"""Of so many texts one is kept apart, to measure on."""
LEFT = "left"
"""What is known of translators that are being trained: the blocks that are not yet."""
HIGHEST = 1e6
"""No rate is higher: what is learnt would be no numbers any more."""
LOGITS = 6
"""How many times logits are there, while one output is compared with another."""
ROWS = 256
"""States that are measured on at a time."""


@spoken
def train_translators(
    model: Model,
    texts: Iterable[Given],
    *,
    steps: int = 250,
    batch: int = 64,
    lr: float = 1e-3,
    blocks: Sequence[int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Translators:
    """Translators for the tuned lens: per block an affine map, trained on texts.

    The state that enters a block is translated, normed and unembedded; what is made small is
    KL(the model's own output ‖ that), by AdamW whose rate falls to nothing. The model's weights
    stay as they are. Every eighth text is kept apart, and the divergence on it, before and after,
    is in the result's ``about``. The first position of each text is left out: in many models its
    state is of another size than all others.

    After Belrose et al., "Eliciting latent predictions from transformers with the tuned lens"
    (2023), who use SGD with momentum and millions of tokens.

    Args:
        model: from `load`.
        texts: of the kind that will be read, at least two, of two tokens or more.
        steps: of training, for each block.
        batch: states in a step.
        lr: AdamW's first rate, of weights in units of the states' own size.
        blocks: which blocks' translators are trained; all unless given. The others change nothing.
        seed: of the order of the states.
        out: a folder that holds the blocks that are done, as `Translators.save` writes them: the
            same call goes on with what is there. Meanwhile the folder is nobody else's.
        overwrite: replace what it holds that was trained otherwise.
        tell: takes a line whenever a block is done.

    Raises:
        PromptError: there are too few texts.
        MicrotomeError: torch's inference mode is on, or the model was made in it; or somebody has
            added to what stands behind the last block; or training comes to numbers that are none.
        AddressError: there is no such block.
        LoadError: the folder holds others or damaged ones, somebody trains into it, or it cannot be
            written to.

    >>> import microtome as mt
    >>> texts = ["Berlin is the capital of Germany.", "Paris is the capital of France."]
    >>> made = mt.train_translators(mt.load("nano"), texts, steps=2, blocks=[3])
    >>> made.about["blocks"]
    [3]
    """
    check_loaded(model)
    steps, batch, seed = whole_of(steps, 1, "steps"), whole_of(batch, 1, "batch"), _seed(seed)
    rate = _rate(lr)
    if torch.is_inference_mode_enabled():
        raise MicrotomeError(
            "torch.inference_mode is on, in which there are no gradients to train by: leave the "
            "block (torch.no_grad() may stay)."
        )
    refuse_inference(model.hf)
    chosen = _chosen(blocks, model.anatomy.dims.n_layers)
    encoded = _encoded(model, texts)
    model.check_end("Translators are trained")
    _check_room(model, encoded, len(chosen), batch)
    folder = None if out is None else settled(out)
    with _alone_in(folder), session(model.hf, model.anatomy), quiet(model.hf):
        learnt, kept = _states(model, encoded, chosen)
        asked = {
            "model": model.name,
            "weight_hash": model.weight_hash,
            "modules": model.modules_hash,
            "added": added(model).get("added"),
            "steps": steps,
            "batch": batch,
            "lr": rate,
            "seed": seed,
            "states": len(learnt.final),
            "texts_hash": hashlib.sha256(
                repr([one.tokens.ids for one in encoded]).encode()
            ).hexdigest(),
        }
        training = _Training(model, asked, tuple(chosen), folder, tell)
        return training.done(training.begun(overwrite), learnt, kept)


def _rate(lr: object) -> float:
    """Raises: MicrotomeError: it is no rate."""
    lr = single(lr)
    rate = 0.0 if isinstance(lr, bool) or not isinstance(lr, Real) else float(lr)
    if not 0 < rate <= HIGHEST:
        raise MicrotomeError(f"lr={lr!r}: expected a number above 0, such as 0.001.")
    return rate


def _seed(given: object) -> int:
    """Raises: MicrotomeError: torch takes no such seed."""
    seed = whole_of(given, what="seed")
    if not -(1 << 63) <= seed < 1 << 64:
        raise MicrotomeError(f"seed={seed!r}: expected a whole number of at most 64 bits.")
    return seed


def _chosen(blocks: object, n: int) -> list[int]:
    """The blocks that are trained, of so many.

    Raises:
        AddressError: there is no such block.
    """
    if blocks is None:
        return [*range(n)]
    given = [*map(single, blocks)] if isinstance(blocks, Iterable) else []
    found = [int(one) for one in given if isinstance(one, Integral)]
    if not found or len(found) < len(given) or not all(-n <= one < n for one in found):
        raise AddressError(f"blocks={blocks!r}: there are {n}, from 0 to {n - 1}.")
    return [block % n for block in found]


@contextmanager
def _alone_in(folder: Path | None) -> Iterator[None]:
    """Within this block nobody else trains translators into a folder; None: into none.

    Raises:
        LoadError: somebody does, the system refuses, or the folder holds something else.
    """
    with ExitStack() as held:
        if folder is not None:
            check_folder(folder)
            try:
                held.enter_context(alone_in(folder))
            except EffectsError as error:
                raise LoadError(str(error)) from error
        yield


@dataclass(frozen=True, eq=False)
class _Training:
    """What is trained, and where it is kept.

    Attributes:
        asked: what decides it, besides the blocks; a folder that says the same is gone on with.
        blocks: to be trained, in this order.
        out: a folder that holds those that are done; None for none.
        tell: takes a line whenever a block is done.
    """

    model: Model
    asked: Mapping[str, Any]
    blocks: tuple[int, ...]
    out: Path | None
    tell: Callable[[str], None]

    def begun(self, overwrite: bool) -> Translators:
        """What the folder holds of these already; where there is nothing, translators of nothing.

        Raises:
            LoadError: it holds others.
        """
        nothing = Translators.nothing(self.model.anatomy.dims, self.model.hf)
        fresh = replace(nothing, about=self._about([], [], []))
        if self.out is None:
            return fresh
        if not (self.out / CONFIG).exists():
            return fresh
        try:
            there = Translators.load(self.out)
        except LoadError:
            if overwrite:
                return fresh
            raise
        told = {"modules": self.asked["modules"], **there.about}  # what older ones do not say
        own = all(told.get(name) == value for name, value in self.asked.items())
        if not own or not {*there.about["blocks"]} <= {*self.blocks}:
            if overwrite:
                return fresh
            raise LoadError(
                f"{self.out} holds translators that were trained differently, or on other states: "
                "name another folder, or overwrite=True (--overwrite)."
            )
        for block in there.about["blocks"]:
            nothing.weight[block], nothing.bias[block] = there.weight[block], there.bias[block]
        return replace(nothing, about=there.about)

    def done(self, made: Translators, learnt: _States, kept: _States) -> Translators:
        """All blocks trained; each is kept when it is."""
        names = "blocks", "kl_before", "kl_after"
        blocks, before, after = ([*made.about[name]] for name in names)
        recipe = _Recipe(*(self.asked[name] for name in ("steps", "batch", "lr", "seed")))
        for block in (one for one in self.blocks if one not in blocks):
            before.append(_divergence(self.model, made, block, kept))
            _train(self.model, made, block, learnt, recipe)
            if not (made.weight[block].isfinite().all() and made.bias[block].isfinite().all()):
                raise MicrotomeError(
                    f"The translator of block {block} has become numbers that are none: try a "
                    f"smaller rate than lr={recipe.lr}, or fewer steps."
                )
            after.append(_divergence(self.model, made, block, kept))
            blocks.append(block)
            made = replace(made, about=self._about(blocks, before, after))
            if self.out is not None:
                made.save(self.out)
            self.tell(
                f"block {block}: KL {before[-1]:.3f} → {after[-1]:.3f} nat on texts kept apart"
            )
        return replace(made, source=f"trained on {self.model.name}", is_saved=False)

    def _about(
        self, blocks: Sequence[int], before: Sequence[float], after: Sequence[float]
    ) -> dict[str, Any]:
        left = [block for block in self.blocks if block not in blocks]
        about = {**self.asked, "blocks": blocks, "kl_before": before, "kl_after": after}
        return {**about, LEFT: left} if left else about


def trained_in(folder: Path) -> str:
    """Which blocks a folder has translators of, in words, while others are still to be trained.

    >>> trained_in(Path("nowhere"))
    'nothing yet'
    """
    if not (folder / CONFIG).exists():
        return "nothing yet"
    about = Translators.load(folder).about
    done, left = (listing(about.get(name, ())) for name in ("blocks", LEFT))
    return f"translators of blocks {done}" + (f"; {left} are left" if left else "")


@dataclass(frozen=True, eq=False)
class _States:
    """States of some positions.

    Attributes:
        entering: block → ``[row, d_model]``.
        final: what leaves the last block at the same positions.
    """

    entering: dict[int, Float[Tensor, "row d_model"]]
    final: Float[Tensor, "row d_model"]


@dataclass(frozen=True)
class _Recipe:
    steps: int
    batch: int
    lr: float
    seed: int


def _encoded(model: Model, texts: Iterable[Given]) -> list[Encoded]:
    """Texts of several tokens.

    Raises:
        PromptError: there are too few.
    """
    if isinstance(texts, str):  # a list of its letters
        raise PromptError("Translators are trained on several texts: give a list of them.")
    encoded = [one for one in model.encode(listed(texts)) if len(one.tokens) > 1]
    if len(encoded) < 2:
        raise PromptError(
            f"Translators are trained on texts of several tokens, at least two; given: "
            f"{len(encoded)}."
        )
    return encoded


def _check_room(model: Model, encoded: Sequence[Encoded], blocks: int, batch: int) -> None:
    """Raise where the states would not fit: while they are put together, they are there twice.

    Besides, there are logits of some rows, several times.

    Raises:
        MicrotomeError: so it is.
    """
    dims, rows = model.anatomy.dims, sum(len(one.tokens) for one in encoded)
    states, logits = rows * (blocks + 1) * dims.d_model, max(batch, ROWS) * dims.d_vocab
    check_room(
        model.hf.dtype.itemsize * (2 * states + LOGITS * logits),
        f"The states of {many(rows, 'token')} before {many(blocks, 'block')}",
        "give fewer texts, or some blocks at a time (blocks=)",
        model.device,
    )


def _states(
    model: Model, encoded: Sequence[Encoded], blocks: Sequence[int]
) -> tuple[_States, _States]:
    """States to learn from, and of the texts that are kept apart."""
    places = [(find_site("resid_pre"), block) for block in blocks]
    last = find_site("final_in"), None
    parts: tuple[list[dict[Any, Tensor]], list[dict[Any, Tensor]]] = ([], [])
    with session(model.hf, model.anatomy):
        for number, one in enumerate(encoded):
            pieces = [Piece(place, 1, len(one.tokens) - 1) for place in (*places, last)]
            kept = record(model.hf, model.anatomy, [one.tokens], pieces)
            apart = number % HELD_OUT == HELD_OUT - 1 or number == len(encoded) - 1
            parts[apart].append(kept)
    learnt, held = (
        _States(
            {
                block: torch.cat([kept[place][0] for kept in some])
                for block, place in zip(blocks, places, strict=True)
            },
            torch.cat([kept[last][0] for kept in some]),
        )
        for some in parts
    )
    return learnt, held


def _train(model: Model, made: Translators, block: int, states: _States, recipe: _Recipe) -> None:
    """Put what is learnt into a block's translator."""
    entering = states.entering[block].to(made.weight.device)
    size = float(entering.double().norm(dim=-1).median()) or 1.0
    generator = torch.Generator("cpu").manual_seed(recipe.seed)
    # In units of the states' own size, so that one rate fits the blocks of every model.
    weight = torch.zeros_like(made.weight[block], requires_grad=True)
    bias = torch.zeros_like(made.bias[block], requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=recipe.lr, weight_decay=0.0)
    for step in range(recipe.steps):
        rows = torch.randint(len(entering), (recipe.batch,), generator=generator, device="cpu")
        rows = rows.to(entering.device)
        with torch.no_grad():
            own = _logprobs(model, states.final[rows])
        with torch.enable_grad():
            state = entering[rows].to(weight.dtype)
            moved = state + torch.nn.functional.linear(state, weight, bias * size)
            seen = _logprobs(model, moved.to(entering.dtype))
            loss = torch.nn.functional.kl_div(seen, own, reduction="batchmean", log_target=True)
        # Of these two alone: the model's weights get no gradients.
        weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 - step / recipe.steps)
        optimizer.step()
    made.weight[block] = weight.detach()
    made.bias[block] = bias.detach() * size


def _divergence(model: Model, made: Translators, block: int, states: _States) -> float:
    """Mean KL(output ‖ translated), in nats."""
    total = 0.0
    for rows in torch.split(torch.arange(len(states.final), device="cpu"), ROWS):
        own = _logprobs(model, states.final[rows])
        seen = _logprobs(model, made.translated(block, states.entering[block][rows]))
        total += float((own.exp() * (own - seen)).nansum())
    return total / len(states.final)


def _logprobs(model: Model, states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    logits = unembedded(model.hf, model.anatomy, states)
    return logits.float().log_softmax(-1)
