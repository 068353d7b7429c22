"""Exclusive use of one model by one thread: what a session is, and what it puts on and takes off.

`microtome.passes.session` opens one. All that was put on comes off at the end of the block that put
it there, exceptions and interrupts included:

- what takes a thing off is written down before it is put on;
- signals wait while several things go on or come off;
- what comes off is inert first, then removed; a session that could not even close is known weakly
  by all that it left, and the next one on that model takes it off;
- every block of a session takes off what blocks inside it have left.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from microtome.errors import MicrotomeError
from microtome.model.anatomy import Anatomy
from microtome.model.modules import modules
from microtome.model.proved import check_apart
from microtome.model.wrappers import refuse_unseen
from microtome.passes.guests import (
    OURS,
    Act,
    Attend,
    Chooser,
    Guest,
    Hook,
    Side,
    Stateless,
    attend,
    chooser_of,
    forget_copies,
    guests_on,
    keeps_state,
)
from microtome.passes.modes import Mode, forget_modes
from microtome.passes.signals import undisturbed
from microtome.passes.turns import Turns

turns = Turns()


class _Opened(threading.local):
    """The sessions that are open in a thread, the innermost last, known weakly.

    And whether it lends them (`lending`).
    """

    def __init__(self) -> None:
        self.sessions: list[weakref.ref[Session]] = []
        self.lends = False


_opened = _Opened()


class Session:
    """Exclusive use of a model; `session` opens one.

    Attributes:
        hf: the model.
        anatomy: its anatomy.
        thread: the identifier of the thread that it is open in.
        prefix: what all modules of attention that are looked up call now; None: their own.
        shown: what single ones call, where there is no prefix.
        implementation: by name, what attention all modules look up now; None: their own.
        is_visited: whether an edit or a reading is at work in the middle of a pass.
    """

    def __init__(self, hf: PreTrainedModel, anatomy: Anatomy, token: Token) -> None:
        self.hf, self.anatomy = hf, anatomy
        self.thread = threading.get_ident()
        self.call = threading.Lock()
        self._token = weakref.ref(token)
        self._began = self._ended = False
        self.prefix: Attend | None = None
        self.shown: dict[nn.Module, Attend] = {}
        self.implementation: str | None = None
        self.is_visited = False
        self.blocks: list[list[Callable[[], None]]] = []
        self._always = 0
        self._parts: frozenset[int] = frozenset()
        self._grad = True

    def __repr__(self) -> str:
        state = "open" if self.is_open else "over" if self.is_over else "waiting"
        return f"<Session on {type(self.hf).__name__}, {state}>"

    # ------------------------------------------------------------------------ as its guests see it

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its ``with`` statement is gone.

        An interrupt may stop what that statement calls at its end before its first line.
        """
        return self._ended or self._token() is None

    @property
    def is_open(self) -> bool:
        """Whether it is; what it put on the model acts only then."""
        return self._began and not self.is_over

    @property
    def is_here(self) -> bool:
        """Whether it is open in the thread that asks."""
        return self.is_open and self.thread == threading.get_ident()

    def attention_of(self, module: nn.Module) -> Attend | None:
        """What is to be called in the place of a module's own attention function."""
        return self.prefix or self.shown.get(module)

    def name_for(self, module: nn.Module) -> str | None:
        """The name of the attention that a module is to look up, unless that is its own."""
        return self.implementation if self.attention_of(module) is None else OURS

    def abandon(self) -> None:
        """Be over at once: this process is a fork, and its thread is in another one."""
        self._ended = True

    # --------------------------------------------------------------------------------- its use

    @contextmanager
    def block(self) -> Iterator[None]:
        """What is put on the model within this block is off after it."""
        own: list[Callable[[], None]] = []
        try:
            self.blocks.append(own)
            yield
        finally:
            self.end(own)

    @contextmanager
    def within(self, mode: Mode) -> Iterator[None]:
        """Within this block a mode of torch's sees what is called in this thread."""
        with self.block():
            self.at_end(mode.take_off)
            mode.put_on()
            yield

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Within this block an edit or a reading is at work, and no other pass may begin."""
        self.is_visited = True
        try:
            yield
        finally:
            self.is_visited = False

    def hook(self, hooks: Iterable[tuple[nn.Module, Side, Act]]) -> None:
        """Put on forward hooks, in this order, until the end of the innermost block."""
        self._admit([Hook(self, *one) for one in hooks])

    def show(self, module: nn.Module, function: Attend) -> None:
        """Let a module of attention call this in the place of its own, likewise."""

        def undo() -> None:
            self.shown.pop(module, None)

        self.at_end(undo)
        self.shown[module] = function

    def resume_after(self, prefix: Attend) -> None:
        """Let all modules of attention call this in the place of their own, likewise."""

        def undo() -> None:
            self.prefix = None

        self.at_end(undo)
        self.prefix = prefix

    def choose(self, implementation: str) -> None:
        """Let the whole model run an attention implementation of transformers', likewise."""
        known = {id(module) for module in self.hf.modules() if chooser_of(module) is not None}
        owners = (module for module in self.hf.modules() if "config" in vars(module))
        self._admit([Chooser(self, one) for one in owners if id(one) not in known])

        def undo() -> None:
            self.implementation = None

        self.at_end(undo)
        self.implementation = implementation

    def at_end(self, undo: Callable[[], None]) -> None:
        """Do this at the end of the innermost block, whatever happens; it may be done twice."""
        self.blocks[-1].append(undo)

    @property
    def is_awaited(self) -> bool:
        """Whether it is lent, and another thread waits for the model.

        Not where this thread has another model as well, as who waits for this one may have that.
        """
        alone = all(one() in (None, self) for one in _opened.sessions)
        return _opened.lends and alone and turns.is_awaited(self)

    def give_way(self) -> None:
        """Between two steps: let those who wait have the model, if it is lent, and have it again.

        They wait on where more is on it than what is there all the time.
        """
        base, *inner = self.blocks
        if any(inner) or len(base) != self._always or not self.is_awaited:
            return
        undisturbed(partial(_undo, base))
        turns.pass_on(self)
        with turns.guard:
            parts = modules(self.hf)
            self._clear(parts)
            self._settle(parts)

    def has(self, module: nn.Module) -> bool:
        """Whether a module is a part of the model."""
        return id(module) in self._parts or any(part is module for part in modules(self.hf))

    def own_attention(self) -> str | None:
        """The name of the attention that the model itself has chosen."""
        chooser = chooser_of(self.hf)
        config = self.hf.config if chooser is None else chooser.own
        name: str | None = config._attn_implementation
        return name

    # ------------------------------------------------------------------------- opening and closing

    def _admit(self, guests: list[Guest], block: int = -1) -> None:
        if not guests:
            return

        def together() -> None:
            for guest in guests:
                self.blocks[block].append(guest.leave)
                guest.arrive()

        undisturbed(together)

    def open(self) -> None:
        """Take off what dead sessions have left, and put on what is there all the time."""
        refuse_unseen(self.hf)
        check_apart(self.hf, self.anatomy.family.blocks)
        self.anatomy.check_layers(self.hf)
        self.anatomy.check_words(self.hf)
        with turns.guard:
            parts = modules(self.hf)
            self._clear(parts)
            # By identity: a user's modules may be equal. To ask each of them takes milliseconds.
            self._parts = frozenset(map(id, parts))
            self._grad = torch.is_grad_enabled()
            self.blocks.append([])
            _opened.sessions.append(weakref.ref(self))
            self._began = True
            AttentionInterface.register(OURS, attend)  # the same each time
            undisturbed(forget_modes)
            self._settle(parts)

    def _clear(self, parts: Sequence[nn.Module]) -> None:
        for module in parts:
            for guest in [*guests_on(module)]:
                if guest.is_in_use:
                    raise MicrotomeError(_in_use(self.hf))
                guest.leave()
            forget_copies(module)

    def _settle(self, parts: Sequence[nn.Module]) -> None:
        self._admit([*self._choosers(), *self._stateless(parts)], 0)
        self._always = len(self.blocks[0])

    def _choosers(self) -> Iterator[Chooser]:
        if self.anatomy.family.looks_up:
            for layer in range(self.anatomy.dims.n_layers):
                yield Chooser(self, self.anatomy.attention(self.hf, layer))

    def _stateless(self, parts: Iterable[nn.Module]) -> Iterator[Stateless]:
        for module in filter(keeps_state, parts):
            guest = Stateless(self, module)
            if guest.fits:
                yield guest

    def end(self, block: list[Callable[[], None]]) -> None:
        """End a block and all inside it, unless one around it has done so."""
        if id(block) not in map(id, self.blocks):  # two that are empty are equal, not the same
            return
        if not block and block is self.blocks[-1]:  # nothing comes off that a signal could cut in
            self.blocks.pop()
            return

        def together() -> None:
            while self.blocks:
                last = self.blocks[-1]
                _undo(last)
                self.blocks.pop()
                if last is block:
                    return

        undisturbed(together)

    def close(self) -> None:
        """Take off all that was put on, and let others have the model."""
        self._ended = True  # from here on all that it put on is inert
        try:
            if self.blocks:
                self.end(self.blocks[0])
        finally:
            torch.set_grad_enabled(self._grad)  # an interrupt may have lost the end of a no_grad
            _opened.sessions = [one for one in _opened.sessions if one() not in (None, self)]
            turns.give_back(self)


def _undo(block: list[Callable[[], None]]) -> None:
    """Do all that is to be done at the end of a block, the last first."""
    while block:
        block[-1]()
        block.pop()


class Token:
    """Held by a ``with`` statement as long as it lasts."""


def opened(of: nn.Module) -> Session:
    """The session that is open in this thread on a model, or on the one that a module is part of.

    Raises:
        MicrotomeError: there is none.
    """
    for known in reversed(_opened.sessions):
        found = known()
        if found is not None and found.is_here and found.has(of):
            return found
    raise MicrotomeError(
        "No session is open in this thread, and nothing touches a model without: "
        "with session(model.hf, model.anatomy): …"
    )


@contextmanager
def lending() -> Iterator[None]:
    """Within this block this thread lends its sessions: who waits for a model has it in between.

    Between two layers of a walk, or two cells of the reference path, other threads that ask for the
    model take their turn, and the sweep goes on after them. What a sweep gives is the same.
    """
    before = _opened.lends
    try:
        _opened.lends = True
        yield
    finally:
        _opened.lends = before


def _in_use(hf: nn.Module) -> str:
    return (
        f"Parts of this {type(hf).__name__} are in use by a session on another model that shares "
        "them. Let that one end first, or load the same Model object in both places: two sessions "
        "on one model take turns."
    )
