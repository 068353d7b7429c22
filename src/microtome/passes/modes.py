"""Torch's function modes in a session: put on its stack and taken off it, whatever comes between.

Such a mode sees each function of torch that is called in its thread. One that stayed behind would
see those of whoever comes next, so a mode is not entered by a ``with`` statement alone: an
interrupt may come when it is on the stack and nobody has been told to take it off. Torch itself
takes a mode off for as long as it is asked, and may put it back after its end: then it does
nothing any more, and goes with the next session.
"""

from __future__ import annotations

from typing import Any

from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from microtome.passes.signals import undisturbed


class Mode(TorchFunctionMode):
    """A mode that can be put on and taken off by itself, both more than once."""

    is_on = False

    def put_on(self) -> None:
        """Begin to see."""
        self.is_on = True
        undisturbed(lambda: _push_mode(self))  # type: ignore[no-untyped-call]

    def take_off(self) -> None:
        """See nothing more; modes that were put on later stay."""
        self.is_on = False
        undisturbed(forget_modes)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What a function of torch gives; while it is on, `see` says it."""
        return self.see(func, args, kwargs or {}) if self.is_on else func(*args, **(kwargs or {}))

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function of torch gives that was called while the mode is on."""
        return func(*args, **kwargs)


def forget_modes() -> None:
    """Take the modes that are on no more off this thread's stack."""
    kept = []
    while any(isinstance(one, Mode) and not one.is_on for one in stack()):
        top: TorchFunctionMode = _pop_mode()  # type: ignore[no-untyped-call]
        if not isinstance(top, Mode) or top.is_on:
            kept.append(top)
    for one in reversed(kept):
        _push_mode(one)  # type: ignore[no-untyped-call]


def stack() -> list[TorchFunctionMode]:
    """The modes of this thread, the last one on top."""
    found: list[TorchFunctionMode] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return found
