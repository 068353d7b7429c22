"""A text that grows: the model's own ``generate`` inside a session, with visits at every pass.

The first pass reads the prompt, each later one the token that was written last, and its keys and
values are in the model's cache; without a cache each pass reads all again. Hooks stay on from the
first pass to the last, and a `Now` says which tokens the pass at hand reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from microtome.errors import InertEditError, MicrotomeError
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.call import cache_name
from microtome.model.devices import onto
from microtome.model.placement import device_of
from microtome.passes.calling import call, failing_by_name
from microtome.passes.hooks import Visit, hooked, quiet
from microtome.passes.modes import Mode
from microtome.passes.session import Session, session

Read = tuple[int, int]
"""The first position that a pass reads, and the one behind its last."""


@dataclass
class Now:
    """Which tokens the pass at hand reads, of a text that grows.

    Attributes:
        prompt: how many tokens the prompt has.
        ids: all tokens up to the last one that this pass reads.
        start: the first position that it reads.
        passes: what each pass so far has read.
    """

    prompt: int
    ids: tuple[int, ...] = ()
    start: int = 0
    passes: list[Read] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The number of the token that comes of this pass, from 0."""
        return len(self.ids) - self.prompt

    @property
    def steps(self) -> range:
        """The steps whose tokens this pass reads: step 0 reads the prompt, step n token n."""
        return range(max(0, self.start - self.prompt + 1), self.step + 1)

    def span(self, step: int) -> Read:
        """The positions that are new in a step."""
        return (self.prompt + step - 1 if step else 0), self.prompt + step

    def read(self, ids: Sequence[int], start: int) -> None:
        """A pass reads these tokens, from a position on."""
        self.ids = (*self.ids[:start], *ids)
        self.start = start
        self.passes.append((start, len(self.ids)))


@dataclass(frozen=True, eq=False)
class Manner:
    """How `write` is to go on.

    Attributes:
        config: what comes of the model's own settings and of what is asked for.
        told: what ``generate`` is told of it.
        seed: of what is drawn.
        more: processors, criteria and a streamer of the caller's, as ``generate`` takes them.
    """

    config: GenerationConfig
    told: Mapping[str, Any]
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


def write(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    prompt: Sequence[int],
    manner: Manner,
    now: Now,
    visits: Sequence[Visit] = (),
    after: Callable[[], None] = lambda: None,
) -> tuple[tuple[int, ...], list[Float[Tensor, " vocab"]]]:
    """What a model writes behind a prompt, by its own ``generate``.

    Args:
        hf: the model.
        anatomy: its anatomy.
        prompt: the prompt's tokens.
        manner: how.
        now: is told at each pass what it reads.
        visits: are made in every pass.
        after: is called at the end of each pass.

    Returns:
        The tokens behind the prompt, and for each the logits that it was chosen by, before
        anything was done to them.

    Raises:
        MicrotomeError: the model fails, or reads other tokens than those that were written.
        InertEditError: a visit was not made once in every pass.
    """
    logits: list[Tensor] = []

    def see(view: Tensor) -> None:
        logits.append(view[0, -1].clone())
        after()

    reading = Visit((find_site("logits"), None), see)
    with session(hf, anatomy) as own, quiet(hf), _told(own, now):
        more = {name: _apart(name, one, own) for name, one in manner.more.items()}
        sampled = manner.config.do_sample
        drawing = own.within(_Seeded(own, manner.seed)) if sampled else nullcontext()
        with hooked(hf, anatomy, [*visits, reading]) as made, drawing:
            found = _generated(hf, prompt, {**manner.told, **more}, now)
        for visit in visits:
            if made[visit] != len(now.passes):
                site, layer = visit.place
                raise InertEditError(
                    f"The hook at {site} of layer {layer} fired {made[visit]} times in "
                    f"{len(now.passes)} passes: this model does not run that part as its family "
                    "does."
                )
    written = tuple(found[0, len(prompt) :].tolist())
    return written, logits[: len(written)]


def reread(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    ids: Sequence[int],
    now: Now,
    passes: Sequence[Read],
    visits: Sequence[Visit] = (),
) -> Float[Tensor, "step vocab"]:
    """The logits behind the prompt and behind each later token of a text that is there already.

    Args:
        hf: the model.
        anatomy: its anatomy.
        ids: the whole text.
        now: is told at each pass what it reads.
        passes: what each reads; one from the beginning of the text begins anew, and one pass of
            the whole text needs no cache.
        visits: are made in every pass.
    """
    rows: list[Tensor] = []
    cache: DynamicCache | None = None
    name = cache_name(hf)
    with session(hf, anatomy), quiet(hf), hooked(hf, anatomy, visits):
        for start, stop in passes:
            if start == 0:
                cache = None if len(passes) == 1 else DynamicCache(config=hf.config)
            now.read(ids[start:stop], start)
            keeping: dict[str, Any] = {"use_cache": cache is not None}
            if cache is not None:
                keeping[name] = cache
            found = call(hf, _row(hf, ids[start:stop]), **keeping).logits[0]
            first = now.prompt - 1 if len(passes) == 1 else stop - 1
            rows.append(found[first - start :].clone())
    return torch.cat(rows)


def _generated(
    hf: PreTrainedModel,
    prompt: Sequence[int],
    told: Mapping[str, Any],
    now: Now,
) -> Int[Tensor, "1 pos"]:
    """Prompt and text, by the model's own ``generate``."""
    own = cast(Callable[..., Tensor], hf.generate)
    ids = _row(hf, prompt)
    try:
        with failing_by_name(hf):
            # Without a mask, tokens of the prompt that are the padding's would be left out.
            return own(input_ids=ids, attention_mask=torch.ones_like(ids), **told)
    except ValueError as error:
        if now.passes or isinstance(error, MicrotomeError):
            raise
        raise MicrotomeError(f"The model cannot generate so: {error}") from error


def _row(hf: PreTrainedModel, ids: Sequence[int]) -> Int[Tensor, "1 pos"]:
    return onto(device_of(hf), np.array([ids], dtype=np.int64))


@contextmanager
def _told(own: Session, now: Now) -> Iterator[None]:
    """Within this block ``now`` knows what every pass of the model reads.

    Raises:
        MicrotomeError: one reads something else than what comes next, or all from the beginning.
    """

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input_ids"]
        ids = tuple(given[0].tolist())
        known = len(now.ids)
        start = known if len(ids) == 1 else 0
        length = known + 1 if known else now.prompt
        if len(given) != 1 or start + len(ids) != length:
            raise MicrotomeError(
                f"This {type(own.hf).__name__} does not write one token after another: a pass "
                f"reads {list(given.shape)} tokens where {length - start} come next. Choose no "
                "other way to generate than greedy or sampling."
            )
        now.read(ids, start)

    with own.block():
        own.hook([(own.hf, "input", note)])
        yield


class _Seeded(Mode):
    """Draws come from a generator of their own: the process's stays as it is, and its threads'.

    They are those of a process that was seeded so (``torch.manual_seed``) before it began.
    """

    def __init__(self, own: Session, seed: int) -> None:
        super().__init__()
        self.session = own
        self.generator = torch.Generator(device_of(own.hf)).manual_seed(seed)

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of a mode; what is drawn comes from the generator."""
        if func is torch.multinomial and self.session.is_here:
            kwargs = {"generator": self.generator, **kwargs}
        return func(*args, **kwargs)


def _apart(name: str, given: Any, own: Session) -> Any:
    """What of a caller's own code runs between passes: no part of them, and it can begin none."""
    match name:
        case "streamer":
            return _Streamer(given, own)
        case "logits_processor" | "stopping_criteria":
            # One of transformers' takes the place of generate's own of the same class.
            return type(given)([one if _is_theirs(one) else _Own(one, own) for one in given])
        case "prefix_allowed_tokens_fn":
            return _Own(given, own)
        case _:
            return given


def _is_theirs(function: object) -> bool:
    """Whether it is transformers' own, which runs no model."""
    return type(function).__module__.startswith("transformers.")


class _Own:
    """A function of the caller's."""

    def __init__(self, function: Callable[..., Any], own: Session) -> None:
        self._function, self._session = function, own

    def __call__(self, *args: Any) -> Any:
        with self._session.visit():
            return self._function(*args)


class _Streamer:
    """A streamer of the caller's, in the form of transformers'."""

    def __init__(self, streamer: Any, own: Session) -> None:
        self._streamer, self._session = streamer, own

    def put(self, value: Tensor) -> None:
        """Tokens that are there: the prompt's, then one after another."""
        with self._session.visit():
            self._streamer.put(value)

    def end(self) -> None:
        """There are no more."""
        with self._session.visit():
            self._streamer.end()
