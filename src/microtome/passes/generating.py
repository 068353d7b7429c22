"""A text that grows: the model's own ``generate`` inside a session, with visits at every pass.

The first pass reads the prompt, each later one the token that was written last, and its keys and
values are in the model's cache; without a cache each pass reads all again. Hooks stay on from the
first pass to the last, and a `Now` says which tokens the pass at hand reads. Several texts may be
the rows of one batch (`microtome.passes.rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from traceback import walk_tb
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.generation import MaxLengthCriteria, StoppingCriteriaList, StopStringCriteria

from microtome.amounts import many
from microtome.errors import InertEditError, MicrotomeError, glimpse
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.call import cache_name
from microtome.model.devices import onto
from microtome.model.placement import device_of
from microtome.passes.calling import call, failing_by_name
from microtome.passes.hooks import Visit, hooked, quiet
from microtome.passes.modes import Mode
from microtome.passes.now import Now, Read
from microtome.passes.rows import Row, Rows, Streamer
from microtome.passes.session import Session, session

UNSAID = ("max_new_tokens", "return_dict_in_generate", "pad_token_id", "tokenizer")
"""What ``generate`` is told in any case."""


@dataclass(frozen=True, eq=False)
class Manner:
    """How `write` is to go on.

    Attributes:
        config: what comes of the model's own settings and of what is asked for.
        told: what ``generate`` is told of it.
        seed: of what is drawn, the same for each text.
        more: processors and criteria of the caller's, as ``generate`` takes them.
    """

    config: GenerationConfig
    told: Mapping[str, Any]
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


def write(
    hf: PreTrainedModel, anatomy: Anatomy, texts: Sequence[Row], manner: Manner
) -> list[tuple[int, ...]]:
    """What a model writes behind prompts, by its own ``generate``; several in one batch.

    Each row has, afterwards, the logits that its tokens were chosen by, before anything was done to
    them, and its `Now` what each pass has read.

    Args:
        hf: the model.
        anatomy: its anatomy.
        texts: prompts, with what is done in every pass that reads of them.
        manner: how.

    Returns:
        For each the tokens behind the prompt.

    Raises:
        MicrotomeError: the model fails, or reads other tokens than those that were written.
        InertEditError: a visit was not made once in every pass.
    """
    rows = Rows(texts)
    visits = rows.visits()
    reading = Visit((find_site("logits"), None), rows.see)
    with session(hf, anatomy) as own, quiet(hf), _told(own, rows):
        more = {name: _apart(name, one, own) for name, one in manner.more.items()}
        streamers = [_streaming(row.streamer, own) for row in texts]
        sampled = manner.config.do_sample
        drawing = own.within(_Seeded(own, manner.seed, rows)) if sampled else nullcontext()
        with hooked(hf, anatomy, [*visits, reading]) as made, drawing:
            found = _generated(hf, rows, _told_of(manner, more, rows, streamers))
        for visit in visits:
            if made[visit] != rows.passes:
                site, layer = visit.place
                raise InertEditError(
                    f"The hook at {site} of layer {layer} fired {many(made[visit], 'time')} in "
                    f"{many(rows.passes, 'pass')}: this model does not run that part as its family "
                    "does."
                )
    return rows.cut(found)


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
            first = now.prompt - 1 + sum(map(len, rows))
            rows.append(found[first - start :].clone())
    return torch.cat(rows)


def _generated(hf: PreTrainedModel, rows: Rows, told: Mapping[str, Any]) -> Int[Tensor, "row pos"]:
    """Prompts and texts, by the model's own ``generate``."""
    own = cast(Callable[..., Tensor], hf.generate)
    device = device_of(hf)
    with failing_by_name(hf), _refused_by_name(told):
        # Without a mask, tokens of the prompt that are the padding's would be left out.
        mask = onto(device, rows.mask)
        return own(input_ids=onto(device, rows.ids), attention_mask=mask, **told)


@contextmanager
def _refused_by_name(told: Mapping[str, Any]) -> Iterator[None]:
    """Within this block, an error of transformers' own loop says what was asked for."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, MicrotomeError) or not _is_of_settings(error):
            raise
        raise MicrotomeError(f"The model cannot generate so{_said(told)}: {error}") from error


def _is_of_settings(error: BaseException) -> bool:
    """Whether it arose in transformers' own loop, and neither in a model nor in anybody's code."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1]).startswith("transformers.generation.")


def _said(told: Mapping[str, Any]) -> str:
    """The settings that were asked for, in words, in brackets."""
    settings = [
        f"{name}={glimpse(value)}" for name, value in told.items()
        if name not in UNSAID and not callable(value)
    ]  # fmt: skip
    return f" ({', '.join(settings)})" if settings else ""


def _told_of(
    manner: Manner, more: Mapping[str, Any], rows: Rows, streamers: Sequence[Streamer | None]
) -> dict[str, Any]:
    """What ``generate`` is told: of one text as it is; of several, that each is by itself."""
    told = {**manner.told, **more}
    if len(rows) == 1:
        return told if streamers[0] is None else {**told, "streamer": streamers[0]}
    strings = manner.config.stop_strings
    if strings is not None:  # of a loop of one's own, generate forgets the tokenizer
        ending = StopStringCriteria(told.pop("tokenizer"), strings)
        own = StoppingCriteriaList([*more.get("stopping_criteria", ()), ending])
        told |= {"stop_strings": None, "stopping_criteria": own}
    given = [*more.get("logits_processor", ()), *more.get("stopping_criteria", ())]
    loop = partial(rows.sample, streamers=streamers, given=given)
    return {**told, "custom_generate": loop}


def _row(hf: PreTrainedModel, ids: Sequence[int]) -> Int[Tensor, "1 pos"]:
    return onto(device_of(hf), np.array([ids], dtype=np.int64))


@contextmanager
def _told(own: Session, rows: Rows) -> Iterator[None]:
    """Within this block the rows know what every pass of the model reads.

    Raises:
        MicrotomeError: one reads something else than what comes next, or all from the beginning.
    """

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input_ids"]
        if not rows.read(given.tolist()):
            raise MicrotomeError(
                f"This {type(own.hf).__name__} does not write one token after another: a pass "
                f"reads {list(given.shape)} tokens, which are not those that come next. "
                "Choose no other way to generate than greedy or sampling."
            )

    with own.block():
        own.hook([(own.hf, "input", note)])
        yield


class _Seeded(Mode):
    """Draws come from generators of their own: the process's stays as it is, and its threads'.

    Each text has one. Its draws are those of a process that was seeded so (``torch.manual_seed``)
    before it began to write that text; those of a processor of the caller's too.
    """

    def __init__(self, own: Session, seed: int, rows: Rows) -> None:
        super().__init__()
        self.session, self.rows, device = own, rows, device_of(own.hf)
        self.generators = [torch.Generator(device).manual_seed(seed) for _ in range(len(rows))]

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of a mode; what is drawn comes from the generators."""
        if func is not torch.multinomial or not self.session.is_here:
            return func(*args, **kwargs)
        if len(self.rows) == 1 or self.rows.at is not None:
            return func(*args, **{"generator": self.generators[self.rows.at or 0], **kwargs})
        probs, *rest = args
        drawn = [
            func(row, *rest, **{"generator": own, **kwargs})
            for row, own in zip(probs.split(1), self.generators, strict=True)
        ]
        return torch.cat(drawn)


def _apart(name: str, given: Any, own: Session) -> Any:
    """What of a caller's own code runs between passes: no part of them, and it can begin none."""
    match name:
        case "logits_processor" | "stopping_criteria":
            # One of transformers' takes the place of generate's own of the same class; not of the
            # one that ends at steps=, which is held besides.
            return type(given)([one if _takes_place(one) else _Own(one, own) for one in given])
        case "prefix_allowed_tokens_fn":
            return _Own(given, own)
        case _:
            return given


def _takes_place(function: object) -> bool:
    """Whether it is transformers' own, which runs no model."""
    theirs = type(function).__module__.startswith("transformers.")
    return theirs and not isinstance(function, MaxLengthCriteria)


class _Own:
    """A function of the caller's."""

    def __init__(self, function: Callable[..., Any], own: Session) -> None:
        self._function, self._session = function, own

    def __call__(self, *args: Any) -> Any:
        with self._session.visit():
            return self._function(*args)


def _streaming(given: Streamer | None, own: Session) -> Streamer | None:
    return None if given is None else _Streamer(given, own)


class _Streamer:
    """A streamer of the caller's, in the form of transformers'."""

    def __init__(self, streamer: Streamer, own: Session) -> None:
        self._streamer, self._session = streamer, own

    def put(self, value: Tensor) -> None:
        """Tokens that are there: the prompt's, then one after another."""
        with self._session.visit():
            self._streamer.put(value)

    def end(self) -> None:
        """There are no more."""
        with self._session.visit():
            self._streamer.end()
