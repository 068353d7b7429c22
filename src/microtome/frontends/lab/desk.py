"""The desk: which models there are, and those that are loaded, shared by all browsers."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import microtome as mt
from microtome.errors import LoadError, MicrotomeError, listing
from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as
from microtome.frontends.lab.reading import encoded
from microtome.model.smollm2 import SMOLLM2, installed

if TYPE_CHECKING:
    from microtome import Model, Prompt

NANO = "nano"

RETRY = 5.0
"""Seconds after which a model that could not be loaded is tried again where one looks at it."""

PACED = 400
"""Letters on which a model's pace is measured: whoever opens a link with a long text has not asked
for a pass over it."""

Load = Callable[[str], "Model"]


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen.

    Attributes:
        name: as `mt.load` takes it.
        lacks: why it cannot be loaded here; "" where it can.
    """

    name: str
    lacks: str = ""


@dataclass(frozen=True)
class Loading:
    """How far a model is.

    Attributes:
        state: ``"loading"``, ``"ready"`` or ``"failed"``.
        seconds: since it was asked for, or how long it took.
        why: what is wrong, where it failed.
    """

    state: str
    seconds: float
    why: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether it can be used."""
        return self.state == "ready"


class Desk:
    """Models by name, each loaded once, in a thread of its own; few are kept.

    Args:
        names: those that somebody named; nano, and smollm2, are offered besides.
        typed: whether other names and paths may be named on the page: only where whoever does sits
            at the machine. An address alone loads none: anybody can write one.
        load: what loads one, `mt.load` unless given.
        most: how many are kept.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        typed: bool = False,
        load: Load | None = None,
        most: int = 3,
    ) -> None:
        self.offers = tuple(map(_offer, dict.fromkeys([*names, NANO, SMOLLM2])))
        self.typed = typed
        self._named: set[str] = set()
        self._load = load or _loaded
        self._most = most
        self._guard, self._pacing = threading.Lock(), threading.Lock()
        self._futures: OrderedDict[str, Future[Model]] = OrderedDict()
        self._times: dict[str, tuple[float, float | None]] = {}
        self._paces: dict[str, float] = {}

    @property
    def default(self) -> str:
        """The model of a page that names none."""
        return self.offers[0].name

    def name(self, name: str) -> None:
        """Take on a model that somebody typed, where that may be."""
        if self.typed and name.strip():
            self._named.add(name)

    def state(self, name: str) -> Loading:
        """How far a model is, which begins to be loaded now if it was not."""
        try:
            future = self._future(name, self._may_try_again(name))
        except LoadError as error:
            return Loading("failed", 0.0, str(error))
        began, took = self._times[name]
        if not future.done():
            return Loading("loading", time.monotonic() - began)
        wrong = future.exception()
        return Loading("ready" if wrong is None else "failed", took or 0.0, _said(wrong))

    def model(self, name: str) -> Model:
        """A model, once it is loaded.

        Raises:
            LoadError: it may not be asked for, or it cannot be loaded.
        """
        return self._future(name).result()

    def loaded(self, name: str) -> Model | None:
        """A model if it is loaded already; it begins to be where it was not."""
        return self.model(name) if self.state(name).is_ready else None

    def pace(self, name: str, prompt: Prompt) -> float:
        """Seconds that a token takes on its way through a model, about; measured once.

        Args:
            name: of the model, which is loaded.
            prompt: what it is measured on, the first time; its beginning, where it is long.
        """
        model = self.model(name)
        if name in self._paces:
            return self._paces[name]
        with self._pacing:  # of several at once each would measure how long it waits
            if name not in self._paces:
                beginning = prompt.text[:PACED]
                brief = mt.Prompt(beginning if beginning.strip() else prompt.text)
                tokens = len(encoded(model, brief).tokens)
                model.run(brief)  # the first pass of a process is slower
                began = time.perf_counter()
                model.run(brief)
                self._paces[name] = (time.perf_counter() - began) / tokens
            return self._paces[name]

    def close(self, patience: float = 20.0) -> None:
        """Wait for what is on its way: a thread that loads takes a process down that ends."""
        with self._guard:
            coming = list(self._futures.values())
        wait(coming, patience)

    def _may_try_again(self, name: str) -> bool:
        """Whether a model that failed did so a while ago: whoever only looks does not load."""
        began, took = self._times.get(name, (0.0, None))
        return took is not None and time.monotonic() - began - took > RETRY

    def _future(self, name: str, again: bool = True) -> Future[Model]:
        with self._guard:
            if name in self._futures and not (again and _failed(self._futures[name])):
                self._futures.move_to_end(name)
                return self._futures[name]
            self._check(name)
            future: Future[Model] = Future()
            self._futures[name] = future
            self._times[name] = time.monotonic(), None
            self._forget()
        threading.Thread(target=self._fill, args=(name, future), daemon=True).start()
        return future

    def _fill(self, name: str, future: Future[Model]) -> None:
        began = time.monotonic()
        try:
            model = self._load(name)
        except BaseException as error:  # whoever waits for it is told
            self._times[name] = began, time.monotonic() - began
            future.set_exception(error)
        else:
            self._times[name] = began, time.monotonic() - began
            future.set_result(model)

    def _check(self, name: str) -> None:
        """Raise `LoadError` for a model that may not be asked for."""
        offer = next((one for one in self.offers if one.name == name), None)
        if offer is not None and offer.lacks:
            raise LoadError(offer.lacks)
        if offer is None and name not in self._named:
            others = (
                "Another is loaded once it is typed under its list."
                if self.typed
                else "Others are named when the lab is started: microtome lab NAME."
            )
            known = listing(one.name for one in self.offers)
            raise LoadError(f"{name!r} is not offered here; models: {known}. {others}")

    def _forget(self) -> None:
        """Let go of the models that were not asked for the longest."""
        idle = [name for name, one in self._futures.items() if one.done()]
        for name in idle[: max(0, len(self._futures) - self._most)]:
            del self._futures[name]


_importing = threading.Lock()


def _loaded(name: str) -> Model:
    """A model, once all that computes is imported.

    It takes seconds, which the page does not wait for; and of several threads that import the same
    packages at once, one may find half of one.
    """
    with _importing:
        for public in set(mt.__all__) - {"studies"}:
            getattr(mt, public)
        imported("microtome.report")
    model = mt.load(name)
    known_as(model)  # now, as it takes a second or two: results go by it
    return model


def _offer(name: str) -> Offer:
    if name != SMOLLM2:
        return Offer(name)
    try:
        installed()
    except LoadError as error:
        return Offer(name, str(error))
    return Offer(name)


def _failed(future: Future[Model]) -> bool:
    return future.done() and future.exception() is not None


def _said(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if isinstance(error, MicrotomeError) else f"{type(error).__name__}: {error}"
