"""What code there is in memory: a hash that another function in any of its places changes.

Not of files: a function may have been replaced since they were read, and that is what counts.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor

from microtome.model.whose import KNOWN

PLAIN = str | bytes | int | float | complex | np.ndarray | Tensor | None
"""What is known by its value."""

FOLLOWED = ("torch", "transformers")
"""The packages whose modules are looked at for those that a model's own take functions from."""


def code_of(values: Iterable[object]) -> str:
    """sha256 of functions, and of what holds them, wherever they are defined, in hexadecimal.

    Of a class its methods, of a module its functions and classes, of a dataclass or a container
    what is in it; of a function its instructions, constants, defaults, and what it closes over.

    >>> code_of([len]) == code_of([len]) != code_of([max])
    True
    """
    digest, seen = hashlib.sha256(), dict[int, object]()
    for value in values:
        for word in _words(value, seen):
            digest.update(f"{word}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def known_by(value: object) -> str | None:
    """`code_of` a function or a class with all that it reads; None where that may be anything.

    Numbers, texts and arrays of its module count as they are now, and functions there as it does
    itself. Of installed packages the names do, as versions say the rest. Anything else may be
    another one the next time.

    >>> known_by(lambda x: 2 * x) == known_by(lambda x: 2 * x) != known_by(lambda x: 3 * x)
    True
    """
    found: dict[FunctionType | type, list[object]] = {}
    left = [value]
    while left:
        one = left.pop()
        if not isinstance(one, FunctionType | type):
            return None
        if one in found:
            continue
        found[one] = []
        for name, own in _read(one) if isinstance(one, FunctionType) else _made_of(one):
            home = own.__name__ if isinstance(own, ModuleType) else _home(own)
            if isinstance(own, PLAIN):
                found[one] += [name, own]
            elif home is not None and _is_installed(home):
                found[one] += [name, home]
            else:
                left.append(own)
    return code_of(found.items())


def modules_of(kinds: Iterable[type]) -> list[ModuleType]:
    """The Python modules that define classes, and those of which these have functions."""
    bases = {base for kind in kinds for base in kind.__mro__}
    own = {kind.__module__ for kind in bases if kind is not object}
    taken = {
        value.__module__
        for name in own
        for value in vars(sys.modules[name]).values()
        if isinstance(value, FunctionType) and value.__module__.partition(".")[0] in FOLLOWED
    }
    return [sys.modules[name] for name in sorted(own | taken) if name in sys.modules]


def modules_in(packages: Iterable[str]) -> list[ModuleType]:
    """The Python modules of packages that are in memory now."""
    heads = tuple(f"{package}." for package in packages)
    return [module for name, module in sorted(sys.modules.items()) if name.startswith(heads)]


def _words(value: object, seen: dict[int, object]) -> Iterator[str]:
    """What decides what a value does, in words; whatever was seen before has said its own.

    What was seen is kept, or another value might come to lie in its place and be taken for it.
    """
    if isinstance(value, str | bytes | int | float | complex | None):
        yield repr(value)
        return
    if id(value) in seen:
        return
    seen[id(value)] = value
    yield f"{type(value).__module__}.{type(value).__qualname__}"
    for part in _parts(value):
        yield from _words(part, seen)


def _parts(value: object) -> Iterator[object]:
    """What a value is made of, kind by kind: code, numbers, or other values."""
    match value:
        case ModuleType():
            yield from _members(value, (FunctionType, type))
        case type():
            yield value.__qualname__
            yield from _members(value, (FunctionType, staticmethod, classmethod, property))
        case FunctionType():
            yield value.__qualname__
            yield _instructions(value.__code__)
            yield value.__defaults__
            yield value.__kwdefaults__
            for cell in value.__closure__ or ():
                yield _content(cell)
        case staticmethod() | classmethod() | MethodType():
            yield value.__func__
        case property():
            yield value.fget
        case functools.partial():
            yield from (value.func, value.args, value.keywords)
        case Tensor():
            yield from (str(value.dtype), str(list(value.shape)), _sha_of(value))
        case np.ndarray():
            yield from (str(value.dtype), str(list(value.shape)), value.tobytes())
        case Mapping():
            for key in sorted(value, key=str):
                yield str(key)
                yield value[key]
        case list() | tuple():
            yield from value
        case _ if is_dataclass(value):
            yield from (getattr(value, part.name) for part in fields(value))
        case _:
            yield getattr(value, "__qualname__", "")


def _members(owner: ModuleType | type, kinds: tuple[type, ...]) -> Iterator[object]:
    """What a module or a class has of these kinds, each behind its name."""
    for name, own in sorted(vars(owner).items()):
        if isinstance(own, kinds):
            yield name
            yield own


def _instructions(code: CodeType) -> str:
    """What a function's code does, and that of the functions inside it; not where it stands."""
    return f"{code.co_code.hex()} {code.co_names} {list(map(_constant, code.co_consts))}"


def _constant(one: object) -> str:
    """A constant of a function's code; of a set, whose order differs between processes, sorted."""
    if isinstance(one, CodeType):
        return _instructions(one)
    return str(sorted(map(repr, one))) if isinstance(one, frozenset) else repr(one)


def _sha_of(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(raw.numpy().data).hexdigest()


def _content(cell: object) -> object:
    try:
        return getattr(cell, "cell_contents", None)
    except ValueError:  # it is filled later: by a class that names itself
        return None


def _read(function: FunctionType) -> Iterator[tuple[str, object]]:
    """What a function, and those inside it, look up by name; and its defaults."""
    own = function.__code__
    for name in sorted({name for code in _inside(own) for name in code.co_names}):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    yield from zip(own.co_freevars, map(_content, function.__closure__ or ()), strict=True)
    yield from ((f"default {n}", one) for n, one in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()


def _made_of(kind: type) -> Iterator[tuple[str, object]]:
    """A class's bases, its methods, and what it says by its value."""
    yield from ((f"base {n}", base) for n, base in enumerate(kind.__bases__))
    for name, value in sorted(vars(kind).items()):
        own = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(own, FunctionType) or (isinstance(own, PLAIN) and name[:2] != "__"):
            yield name, own


def _inside(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _inside(one)


def _home(value: object) -> str | None:
    """The module of a function or a class; None of anything else, whose class may have one."""
    is_code = isinstance(value, FunctionType | BuiltinFunctionType | type)
    return getattr(value, "__module__", None) if is_code else None


def _is_installed(module: str) -> bool:
    """Whether a module is one of Python's, or of an installed package: versions say all of it."""
    root = module.partition(".")[0]
    place = Path(getattr(sys.modules.get(root), "__file__", None) or "")
    known = root in KNOWN or root in sys.stdlib_module_names
    return known or "site-packages" in place.parts
