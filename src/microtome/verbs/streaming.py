"""A sweep over a stream of prompts: window by window, each run, kept and forgotten."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from microtome.amounts import many
from microtome.edits import Edit, Source
from microtome.engines.assembled import Assembled
from microtome.engines.observer import Observer, observed
from microtome.errors import EffectsError, PromptError, SweepError, there_are
from microtome.language.sites import POSITIONS, counted
from microtome.model.loaded import Loaded
from microtome.plan.plan import Plan, make_plan
from microtome.prompts.prompts import Given, Prompts
from microtome.prompts.stream import Chain, Stream
from microtome.readings.inside import dimension_of
from microtome.readings.registry import Asked
from microtome.results import provenance
from microtome.results.aggregates import Aggregates, refuse_ids
from microtome.results.effects import Effects
from microtome.results.joined import joined
from microtome.results.labelled import label
from microtome.results.together import together, without_prompts
from microtome.results.told import telling, told_by
from microtome.results.windows import MemoryWindows, StoreWindows, Whole, Windows
from microtome.verbs.answer import Answer, Runner
from microtome.verbs.asking import asking
from microtome.verbs.options import Options
from microtome.verbs.overall import Begun, Extent, Overall
from microtome.verbs.record import identity, record, written

Keep = Literal["cells", "aggregates"]
KEEPS = ("cells", "aggregates")


@dataclass(frozen=True, eq=False)
class Streamed:
    """What is asked of every prompt of a stream.

    Attributes:
        model: the model.
        stream: the prompts.
        edits: what is done.
        asked: the metrics.
        over: values for parameters of the edits.
        reference: the prompts that a mean over prompts averages over.
        options: how it is answered.
        keep: ``"cells"`` of every prompt, or ``"aggregates"`` over all of them.
    """

    model: Loaded
    stream: Stream
    edits: Sequence[Edit]
    asked: Sequence[Asked]
    over: Mapping[str, Sequence[Any]] | None
    reference: Sequence[Given]
    options: Options
    keep: Keep
    _lengths: set[int] = field(default_factory=set)

    def _check(self) -> None:
        """Raise for what a stream cannot have.

        Raises:
            SweepError, EffectsError: there is something.
        """
        if self.options.screen is not None:
            raise SweepError(
                "screen= ranks the cells of one map, and a stream of prompts is a map for each "
                "window: leave it out, or give the prompts as a list."
            )
        if not self.reference and any(one.source is Source.REFERENCE for one in self.edits):
            raise SweepError(
                "A mean over prompts is over all of them, which a stream never has at once: "
                "give those to average over, reference=[…]."
            )
        if self.keep == "aggregates":
            refuse_ids(str(one) for one in self.asked)

    def plan(self, prompts: Prompts) -> Plan:
        """The plan of a window."""
        question = asking(
            self.model,
            prompts,
            self.edits,
            metrics=[str(one) for one in self.asked],
            over=self.over,
            reference=self.reference,
        )
        plan = make_plan(
            question, self.options.engine, self.options.budget(self.model), self.model.whole
        )
        self._check_alike(plan)
        return plan

    def _check_alike(self, plan: Plan) -> None:
        """Raise where cells at positions of prompts of several lengths would be counted as one."""
        inner = [dimension_of(name) for one in plan.question.gauges for name in one.dims]
        dims = [counted(axis.name) for axis in plan.axes] + inner
        if self.keep == "cells" or not set(dims) & set(POSITIONS):
            return
        self._lengths.update(plan.question.lengths)
        if len(self._lengths) > 1:
            raise SweepError(
                f"The map is over positions, and prompts have {min(self._lengths)} to "
                f"{many(max(self._lengths), 'token')}: position 3 of one is not position 3 of "
                "another, and aggregates would mix them. Address a role (@subject), or "
                "keep='cells'; their by_role() has aggregates: Aggregates.of(effects.by_role())."
            )

    def identity(self, plan: Plan) -> dict[str, Any]:
        """What decides the numbers, but for the prompts: see `record.identity`."""
        whole = identity(self.model, plan, self.options, bool(self.reference))
        spec = {**whole["spec"], "prompts": "a stream"}
        rest = {k: v for k, v in whole.items() if k not in ("tokens", "measured", "written")}
        others = plan.question.references if self.reference else ()
        rest |= written(one.tokens for one in others if one.prompt.messages)
        own = {"window": self.stream.window, "first": self.stream.first, "keep": self.keep}
        return {**rest, "spec": spec, **own}

    def run(
        self, out: str | Path | None, progress: bool | Observer, overwrite: bool, runner: Runner
    ) -> Effects | Aggregates:
        """Sweep every window.

        Raises:
            PromptError: there are no prompts, or one is none.
            MicrotomeError: as `sweep`.
        """
        self._check()
        first, windows = self._read()
        plan = self.plan(first)
        with closing(self._windows(out, plan, overwrite, runner)) as kept:
            if isinstance(kept, StoreWindows) and kept.finished:
                if kept.check(self._known_by(windows), overwrite):
                    return self._labelled(kept.open())
                first, windows = self._read()
            extent = Extent(plan, len(first), self.stream.count())
            with observed(progress, extent.cells, extent.units) as told:
                with provenance.held(self.model, kept.discard):
                    for note in kept.notes:
                        told.note(note)
                    overall = self._through(windows, extent, kept, told, overwrite, runner)
                data = self._finished(kept, overall)
        return self._labelled(data)

    def _read(self) -> tuple[Prompts, Iterator[Prompts]]:
        """The first window, and all of them from it on.

        Raises:
            PromptError: there are no prompts.
        """
        windows = self.stream.windows()
        first = next(windows, None)
        if first is None:
            raise PromptError(
                "There are no prompts in the stream; a generator can be gone through once only: "
                "give a function that makes it, Stream(lambda: …)."
            )
        return first, itertools.chain([first], windows)

    def _known_by(self, windows: Iterable[Prompts]) -> Chain:
        """What the prompts of all windows are known by."""
        chain = Chain(self.model.tokenizer)
        for prompts in windows:
            chain.add(prompts)
        return chain

    def _through(
        self,
        windows: Iterable[Prompts],
        extent: Extent,
        kept: Windows,
        told: Observer,
        overwrite: bool,
        runner: Runner,
    ) -> Overall:
        """Run the windows; from the first one again, where those that are there may be replaced."""
        try:
            return self._run(windows, extent, kept, told, runner)
        except _OthersError:
            if not overwrite:
                raise
        _, windows = self._read()  # before anything goes: a generator has none a second time
        kept.forget()
        return self._run(windows, extent, kept, told, runner)

    def _run(
        self,
        windows: Iterable[Prompts],
        extent: Extent,
        kept: Windows,
        told: Observer,
        runner: Runner,
    ) -> Overall:
        """Run the windows that are not there; the next one is made while workers are at one."""
        overall = Overall(told, extent, self.model)
        begun = self._begun(windows, extent.plan, kept, overall, runner)
        with closing(runner.ahead(begun)) as each:
            for one in each:
                overall.begin(one)
                self._answered(one, kept, runner)
                del one  # or it would be there while the next but one is made
        return overall

    def _begun(
        self,
        windows: Iterable[Prompts],
        first: Plan,
        kept: Windows,
        told: Overall,
        runner: Runner,
    ) -> Iterator[Begun]:
        """The windows that are not there, each as its units may begin.

        Raises:
            EffectsError: what is there is of other prompts.
        """
        chain, there = told.chain, kept.last
        for number, prompts in enumerate(windows):
            chain.add(prompts)
            if there is not None and number <= there.number:
                own = kept.whole(number)  # each by itself: another's may be in its place
                if own is not None and chain.digest != own.digest:
                    raise _others(own)
                told.skip(len(prompts))
                continue
            plan = first if number == 0 else self.plan(prompts)
            yield Begun.of(
                number,
                len(prompts),
                chain,
                Answer(plan, self.options, kept.sink(number, chain), told, runner),
            )
        if there is not None and chain.prompts < there.prompts:
            raise _others(there)

    def _answered(self, one: Begun, kept: Windows, runner: Runner) -> None:
        """Run a window, and keep what it gives."""
        measured, _ = one.answer.run()
        with runner.meanwhile():
            kept.keep(one.number, one.chain, self._window(one, measured, kept, runner))

    def _window(self, one: Begun, measured: Assembled, kept: Windows, runner: Runner) -> xr.Dataset:
        """What a window gave; with aggregates, what is known of all so far."""
        plan = one.answer.plan
        own = runner.located(
            record(self.model, plan, self.options, measured, None, bool(self.reference))
        )
        data = label(plan, self.model.tokenizer, measured)
        if self.keep == "cells":
            return telling(data, own)
        own = without_prompts(own)
        effects = Effects(telling(data, own))
        if one.number == 0:
            return Aggregates.of(effects, first=self.stream.first, seed=self.options.seed).data
        *_, before = kept.parts()
        found = Aggregates(before).extended(effects).data
        return telling(found, together(told_by(before), own))

    def _finished(self, kept: Windows, told: Overall) -> xr.Dataset:
        """The result over all prompts, put in its place."""
        told.finishing()
        parts = list(kept.parts())
        whole = reduce(together, map(told_by, parts))
        asked = whole["spec"]["prompts"]
        data = parts[0] if self.keep == "aggregates" else joined(parts, asked)
        of = {"window": self.stream.window, "n": told.chain.prompts, "sha256": told.chain.digest}
        data = telling(data, {**whole, "stream": of})
        kept.finish(data, told.chain)
        return data

    def _labelled(self, data: xr.Dataset) -> Effects | Aggregates:
        return Effects(data) if self.keep == "cells" else Aggregates(data)

    def _windows(
        self, out: str | Path | None, plan: Plan, overwrite: bool, runner: Runner
    ) -> Windows:
        """Where windows go: to a place, which is proved to take them, or to memory."""
        alone = self.keep == "aggregates"
        if out is None:
            return MemoryWindows(alone=alone)
        asked = runner.located(self.identity(plan))
        return StoreWindows(out, asked, alone=alone, overwrite=overwrite)


def check_keep(keep: str) -> str:
    """What is kept, as it was given.

    Raises:
        SweepError: it is nothing that can be.
    """
    if keep not in KEEPS:
        raise SweepError(f"keep={keep!r} does not exist; {there_are(keep, KEEPS)}")
    return keep


class _OthersError(EffectsError):
    """What is there is of other prompts."""


def _others(there: Whole) -> _OthersError:
    windows = there.number + 1
    which = f"The {many(windows, 'window')} that {'is' if windows == 1 else 'are'}"
    return _OthersError(
        f"{which} there already {'is' if windows == 1 else 'are'} of other prompts than the first "
        f"{many(there.prompts, 'prompt')} given. Give the same prompts in the same order, choose "
        "another place, or let it be replaced (overwrite)."
    )
