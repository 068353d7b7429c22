"""The session: exclusive use of one model by one thread, and the only way to touch a model.

While it is open, the thread that opened it may put hooks on the model's modules and attention
functions in their place, and no pass of its finds or leaves state in a module (`exclusive`). Other
threads that want a session on the same model wait for their turn; other models, and other threads'
bare calls of this one, see nothing of it. It ends with its ``with`` statement, even where an
interrupt stops what that calls at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import cast, overload

from torch import nn
from transformers import PreTrainedModel

from microtome.errors import MicrotomeError
from microtome.model.anatomy import Anatomy
from microtome.passes.exclusive import Session as Session
from microtome.passes.exclusive import Token, turns
from microtome.passes.exclusive import lending as lending
from microtome.passes.exclusive import opened as opened


class _Entered:
    """What one ``with session(…)`` has entered: a session, or a block of one that was open."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.block: list[Callable[[], None]] | None = None

    def leave(self) -> None:
        """End it; once more does no harm."""
        if self.session is not None and self.block is None:
            self.session.close()
        elif self.session is not None and self.block is not None:
            self.session.end(self.block)


class _Leave(partial[None]):
    """What a ``with`` statement calls at its end; it holds the statement's token.

    The call does not get the token. So where an interrupt stops it at its first line, and somebody
    keeps the traceback with its frames, as a notebook does, the token is gone all the same.
    """

    token: Token


class _Exit:
    """The ``__exit__`` of a stay."""

    @overload
    def __get__(self, stay: None, owner: type[_Stay]) -> Callable[..., None]: ...
    @overload
    def __get__(self, stay: _Stay, owner: type[_Stay]) -> _Leave: ...
    def __get__(self, stay: _Stay | None, owner: type[_Stay]) -> Callable[..., None]:
        if stay is None:  # so an `ExitStack` asks, and keeps the stay itself
            return lambda stay, *_: stay.entered.leave()
        leave = _Leave(_leave, stay.entered)
        leave.token = stay.token
        return leave


def _leave(entered: _Entered, *_: object) -> None:
    entered.leave()


class _Stay:
    """One ``with session(…)``: it opens a session, or is a block of one that is open already."""

    __exit__ = _Exit()

    def __init__(self, hf: PreTrainedModel, anatomy: Anatomy) -> None:
        self._of = hf, anatomy
        self.entered, self.token = _Entered(), Token()

    def __enter__(self) -> Session:
        (hf, anatomy), entered = self._of, self.entered
        try:
            holder = turns.holder(hf)
            if isinstance(holder, Session) and holder.is_here:
                if holder.is_visited:
                    raise MicrotomeError(_in_a_pass(hf))
                entered.block = []
                entered.session = holder
                holder.blocks.append(entered.block)
                return holder
            entered.session = new = Session(hf, anatomy, self.token)
            turns.take(new)
            new.open()
            return new  # not after the `try`: an interrupt may come here too
        except BaseException:
            entered.leave()
            raise


def session(hf: PreTrainedModel, anatomy: Anatomy) -> AbstractContextManager[Session]:
    """Exclusive use of a model within a ``with`` block.

    In a thread that has a session on this model already, the block is a part of that one. Another
    thread waits until it is over. Hold a session over several passes that belong together; it
    costs about as much as one look at each module.

    Raises:
        MicrotomeError: a part of the model is in use by a session on another model; or a function
            in an edit asks for it, in the middle of a pass.

    >>> from microtome import load
    >>> model = load("nano")
    >>> with session(model.hf, model.anatomy) as opened:
    ...     opened.is_open
    True
    >>> opened.is_open
    False
    """
    return cast(AbstractContextManager[Session], _Stay(hf, anatomy))


def _in_a_pass(hf: nn.Module) -> str:
    return (
        f"This {type(hf).__name__} is in the middle of a pass: a function in an edit "
        "cannot run the model that it edits. Run the model before, and let the function use what "
        "that gave; or load the model a second time."
    )
