"""Turns: one session at a time on a model, in the order in which they were asked for.

Whose turn it is, is known per module, weakly: a model that is gone is forgotten, and a session
that died without giving its turn back has none. Nor has one whose thread was left behind when the
process was forked.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import Protocol

from torch import nn

PATIENCE = 0.2
"""Seconds after which one who waits looks whether the session before has died."""


class Holder(Protocol):
    """A session, as turns know it."""

    hf: nn.Module
    thread: int
    """The identifier of its thread."""
    call: threading.Lock
    """Held until it is called up, by whoever had the turn before."""

    @property
    def is_over(self) -> bool:
        """Whether it has no turn any more."""

    def abandon(self) -> None:
        """Be over at once, in a process that does not have its thread."""


class Turns:
    """Who has which model, and who waits for it."""

    def __init__(self) -> None:
        # Reentrant: a session may be collected, and give its turn back, while this is held.
        self.guard = threading.RLock()
        self._queues: weakref.WeakKeyDictionary[nn.Module, _Queue] = weakref.WeakKeyDictionary()
        self._knows_forks = False

    def holder(self, hf: nn.Module) -> Holder | None:
        """Who has a model now."""
        with self.guard:
            queue = self._queues.get(hf)
            return None if queue is None else queue.holder

    def take(self, new: Holder) -> None:
        """Wait until nobody has the model, and all who asked before have had it; then have it."""
        new.call.acquire()
        with self.guard:
            self._know_forks()
            queue = self._queues.setdefault(new.hf, _Queue())
            queue.waiting.append(weakref.ref(new))
        while True:
            with self.guard:
                if queue.holder is None and queue.next() is new:
                    queue.owner = queue.waiting.popleft()
                    new.call.acquire(blocking=False)  # called up just as it looked by itself
                    return
            new.call.acquire(timeout=PATIENCE)

    def is_awaited(self, owner: Holder) -> bool:
        """Whether anybody waits for the model of one who has it."""
        with self.guard:
            queue = self._queues.get(owner.hf)
            return queue is not None and queue.next() is not None

    def pass_on(self, owner: Holder) -> None:
        """Let all who wait by now have the model that somebody has, who then has it again."""
        with self.guard:
            self._queues[owner.hf].owner = None
            owner.call.release()
            self.give_back(owner)
        self.take(owner)

    def give_back(self, old: Holder) -> None:
        """Call up the next one, of a session that is over."""
        with self.guard:
            queue = self._queues.get(old.hf)
            after = None if queue is None or queue.holder is not None else queue.next()
            if after is not None and after.call.locked():
                after.call.release()

    def _know_forks(self) -> None:
        """From now on a process that is forked waits for no thread that it does not have."""
        if not self._knows_forks and hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.guard.acquire,
                after_in_parent=self.guard.release,
                after_in_child=self._begin_in_child,
            )
        self._knows_forks = True

    def _begin_in_child(self) -> None:
        """Only the thread that forked goes on."""
        try:
            for queue in self._queues.values():
                for known in (queue.owner, *queue.waiting):
                    holder = _living(known)
                    if holder is not None and holder.thread != threading.get_ident():
                        holder.abandon()
        finally:
            self.guard.release()


class _Queue:
    """Of one model: who has it, and those who wait."""

    def __init__(self) -> None:
        self.owner: weakref.ref[Holder] | None = None
        self.waiting: deque[weakref.ref[Holder]] = deque()

    @property
    def holder(self) -> Holder | None:
        return _living(self.owner)

    def next(self) -> Holder | None:
        """The first who still waits."""
        while self.waiting:
            first = _living(self.waiting[0])
            if first is not None:
                return first
            self.waiting.popleft()
        return None


def _living(known: weakref.ref[Holder] | None) -> Holder | None:
    holder = None if known is None else known()
    return None if holder is None or holder.is_over else holder
