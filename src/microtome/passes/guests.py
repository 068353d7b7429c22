"""What a session puts on a model's modules: hooks, choices of attention, states of their own.

Every thread that calls these modules meets them, so each asks first: unless its session is open
and the calling thread is the session's, it does nothing and the module is as it was. So another
thread's pass is the bare model's, whenever it began and ends; and what an interrupt may leave
behind is inert, until the next session on that module takes it off. A copy of a module, or a
pickle, has guests without a session, or none.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, cast

from torch import Tensor, nn

Attend = Callable[..., tuple[Tensor, None]]
"""An attention function, as transformers calls it: with the module, queries, keys and values."""

Side = Literal["input", "output"]
SIDES: tuple[Side, Side] = ("input", "output")

OURS = "microtome"
"""The name by which modules look our attention up."""


class Host(Protocol):
    """A session, as its guests know it."""

    @property
    def is_open(self) -> bool:
        """Whether it is, in whatever thread."""

    @property
    def is_here(self) -> bool:
        """Whether it is open in the thread that asks."""

    @property
    def is_visited(self) -> bool:
        """Whether an edit or a reading is at work: what it runs is no part of the pass."""

    def attention_of(self, module: nn.Module) -> Attend | None:
        """What is to be called in the place of a module's own attention function."""

    def name_for(self, module: nn.Module) -> str | None:
        """The name of the attention that a module is to look up, unless that is its own."""


class Guest:
    """Something on a module that acts for one session alone.

    It knows its session weakly: one that died without closing has guests that do nothing.
    """

    def __init__(self, host: Host, module: nn.Module) -> None:
        self._host: Callable[[], Host | None] = weakref.ref(host)
        self._module: nn.Module = module
        self.stays = True

    @property
    def host(self) -> Host | None:
        """Its session, where that is open in the calling thread."""
        host = self._host() if self.stays else None
        return host if host is not None and host.is_here else None

    @property
    def is_in_use(self) -> bool:
        """Whether its session is open, in whatever thread."""
        host = self._host() if self.stays else None
        return host is not None and host.is_open

    def arrive(self) -> None:
        """Put it on its module."""
        raise NotImplementedError

    def leave(self) -> None:
        """Take it off its module, as far as it is there: inert first, then gone."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------ hooks

Act = Callable[..., Any]
"""What a hook does, of ``(module, args, kwargs)`` or ``(module, args, output)``: torch's form."""


class Hook(Guest):
    """A forward hook, before a module (``input``) or after it (``output``)."""

    def __init__(self, host: Host, module: nn.Module, side: Side, act: Act) -> None:
        super().__init__(host, module)
        self._side = side
        self._act: Act = act

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        """What torch calls; None leaves all as it is."""
        # In another thread torch may call it without the keywords, if it comes off meanwhile.
        host = self.host
        return None if host is None or host.is_visited else self._act(module, args, *rest)

    def arrive(self) -> None:
        """Put it behind the hooks that are there."""
        if self._side == "input":
            self._module.register_forward_pre_hook(self, with_kwargs=True)
        else:
            self._module.register_forward_hook(self)

    def leave(self) -> None:
        """Take it off, and let go of what it held."""
        self.stays = False
        hooks, beside = _hooks_of(self._module, self._side)
        for number, hook in [*hooks.items()]:
            if hook is self:
                hooks.pop(number, None)
                beside.pop(number, None)
        self._act = _nothing

    def __reduce__(self) -> tuple[Callable[[], Act], tuple[()]]:
        return _inert, ()


def _hooks_of(module: nn.Module, side: Side) -> tuple[dict[int, Any], dict[int, bool]]:
    """A module's own hooks by number, and which of them get keywords."""
    if side == "input":
        return module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs
    return module._forward_hooks, module._forward_hooks_with_kwargs


def _nothing(*_: Any) -> None:
    """What a hook does that has left, or that was copied."""


def _inert() -> Act:
    return _nothing


# -------------------------------------------------------------------------- choices of attention


class Choice:
    """A module's configuration, with an answer of the session's own to which attention to run.

    In other threads, and for everything else, it is the configuration itself.
    """

    __slots__ = ("__guest", "__module", "__own")

    def __init__(self, guest: Guest, module: nn.Module, own: Any) -> None:
        for name, value in (("guest", guest), ("module", module), ("own", own)):
            object.__setattr__(self, f"_Choice__{name}", value)

    @property
    def _attn_implementation(self) -> str | None:
        host = self.__guest.host
        name = None if host is None else host.name_for(self.__module)
        return name or cast("str | None", self.__own._attn_implementation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__own, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__own, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__own, name)

    def __eq__(self, other: object) -> bool:
        return bool(self.__own == other)

    def __hash__(self) -> int:
        return hash(self.__own)

    def __repr__(self) -> str:
        return repr(self.__own)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _itself, (self.__own,)


def _itself(config: Any) -> Any:
    return config


class Chooser(Guest):
    """Puts a `Choice` where a module has its configuration."""

    def __init__(self, host: Host, module: nn.Module) -> None:
        super().__init__(host, module)
        self.own = vars(module)["config"]
        self._choice = Choice(self, module, self.own)

    def arrive(self) -> None:
        """Put it there."""
        vars(self._module)["config"] = self._choice

    def leave(self) -> None:
        """Put the module's own configuration back."""
        self.stays = False
        if vars(self._module).get("config") is self._choice:
            vars(self._module)["config"] = self.own


def chooser_of(module: nn.Module) -> Chooser | None:
    """What a module's choice of attention was put on by, where there is one."""
    config = vars(module).get("config")
    return config._Choice__guest if type(config) is Choice else None


def attend(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """The one attention function of ours that transformers knows: the calling session's."""
    chooser = chooser_of(module)
    host = None if chooser is None else chooser.host
    function = None if host is None else host.attention_of(module)
    assert function is not None, "this name is answered only where there is a function"
    return function(module, *args, **kwargs)


# --------------------------------------------------------------------------- states of their own


class Stateless(Guest):
    """In the place of a module's ``forward``: each call begins with the module's state as loaded.

    Some modules keep state from pass to pass in buffers that are not saved: rotary embeddings
    that follow the length of the text (dynamic, longrope). A call of the session's runs on a copy
    that is made for it, so it neither finds what an earlier text left nor leaves anything, for
    another pass or another thread.
    """

    def __init__(self, host: Host, module: nn.Module) -> None:
        super().__init__(host, module)
        # Accelerate, which wraps it, has the module's own under another name.
        self._name = "_old_forward" if hasattr(module, "_hf_hook") else "forward"
        self._there = self._name in vars(module)
        self._own: Callable[..., Any] = getattr(module, self._name)

    @property
    def fits(self) -> bool:
        """Whether what it replaces is the class's own, and not something that somebody put there.

        That would run on the module that it knows, whichever it is called for.
        """
        return getattr(self._own, "__func__", None) is type(self._module).forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What torch calls as the module's ``forward``."""
        if self.host is None:
            return self._own(*args, **kwargs)
        return type(self._module).forward(as_loaded(self._module), *args, **kwargs)

    def arrive(self) -> None:
        """Put it there."""
        vars(self._module)[self._name] = self

    def leave(self) -> None:
        """Put back what was there."""
        self.stays = False
        if vars(self._module).get(self._name) is not self:
            return
        if self._there:
            vars(self._module)[self._name] = self._own
        else:
            vars(self._module).pop(self._name, None)

    def __reduce__(self) -> tuple[Callable[[nn.Module], Any], tuple[nn.Module]]:
        return _plain_forward, (self._module,)


def _plain_forward(module: nn.Module) -> Any:
    return type(module).forward.__get__(module)


def keeps_state(module: nn.Module) -> bool:
    """Whether a module may: it has buffers that are not saved, and no modules inside."""
    return bool(module._non_persistent_buffers_set) and not module._modules


def as_loaded(module: nn.Module) -> nn.Module:
    """A copy of a module, weights shared, buffers its own, in the state in which it was loaded.

    Its plain attributes and buffers are the module's. Only a rotary embedding that has followed
    longer texts goes back to its first frequencies, which it keeps, as on a module that has run
    none; so a model that came from somebody else's passes gives what a fresh one gives.
    """
    own = type(module).__new__(type(module))
    buffers = {name: None if x is None else x.clone() for name, x in module._buffers.items()}
    unsaved = {*module._non_persistent_buffers_set}
    vars(own).update(vars(module), _buffers=buffers, _non_persistent_buffers_set=unsaved)
    for prefix, first in _first_frequencies(own):
        buffers[f"{prefix}inv_freq"] = first
        vars(own)[f"{prefix}max_seq_len_cached"] = own.original_max_seq_len
    return own


def _first_frequencies(rotary: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of a dynamic rotary embedding, by the prefix of its names: one for each kind of layer.

    Other embeddings look their frequencies up for every text, or never change them.
    """
    kinds = getattr(rotary, "rope_type", "")
    by_layer = kinds if isinstance(kinds, dict) else {"": kinds}
    for layer, kind in by_layer.items():
        prefix = f"{layer}_" if layer else ""
        first = getattr(rotary, f"{prefix}original_inv_freq", None)
        if "dynamic" in str(kind) and isinstance(first, Tensor):
            yield prefix, first.to(getattr(rotary, f"{prefix}inv_freq"), copy=True)


def guests_on(module: nn.Module) -> Iterator[Guest]:
    """All that sessions have put on a module."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    yield from (hook for hook in hooks if isinstance(hook, Hook))
    chooser = chooser_of(module)
    if chooser is not None:
        yield chooser
    for name in ("forward", "_old_forward"):
        own = vars(module).get(name)
        if isinstance(own, Stateless):
            yield own


def forget_copies(module: nn.Module) -> None:
    """Take off the inert hooks that a copy made inside a session has."""
    for side in SIDES:
        hooks, beside = _hooks_of(module, side)
        for number, hook in [*hooks.items()]:
            if hook is _nothing:
                hooks.pop(number, None)
                beside.pop(number, None)
