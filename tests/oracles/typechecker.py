"""What executes the package's annotations in the tests: beartype, on everything with a shape.

Only functions and dataclasses whose annotations mention a jaxtyping array are checked: that is
where an annotation is a claim about numbers. An edit's ``address: Address`` takes a text as well,
which is a conversion at the edge and not a mistake. Whatever else there is stays as it was, and as
fast: jaxtyping's own import hook wraps each function of a package, and tests took thrice as long.

What a check finds is decided by the types of what a function is given and gives, and by the types
and shapes of arrays in it; so each such combination is checked once, in every place where it comes.
That is a tenth of what all checks take, which were a seventh of what tests take.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

ARRAYS = ("Float[", "Int[", "Bool[", "Shaped[")
CONF = BeartypeConf(
    is_pep484_tower=True,  # an int counts as a float, as for mypy
    violation_type=TypeError,
)

checked: list[str] = []
"""The qualified names of what is checked: a test holds that shapes are really executed."""


def check(target: Any) -> Any:
    """A function that checks what it is given and gives; a dataclass that checks its fields."""
    checked.append(f"{target.__module__}.{target.__qualname__}")
    if isinstance(target, type):
        target.__init__ = _scoped(target.__init__)
        return target
    return _scoped(target)


def _scoped(function: FunctionType) -> Callable[..., Any]:
    """The names of axes mean one length within a call."""
    inner = beartype(conf=CONF)(function)
    if inspect.isgeneratorfunction(function):  # what it gives comes later, one after another
        return _within_a_call(inner)
    every = _within_a_call(inner)
    result = functools.cache(lambda: _within_a_call(beartype(conf=CONF)(_giving(function))))
    passed: set[int] = set()

    @functools.wraps(function)
    def scoped(*args, **kwargs):
        given = hash(kinds(args))
        if kwargs:
            given = hash((given, *kwargs, kinds(kwargs.values())))
        if given not in passed:
            found = every(*args, **kwargs)
            passed.update((given, hash((given, kind(found)))))
            return found
        found = function(*args, **kwargs)
        whole = hash((given, kind(found)))
        if whole not in passed:
            _held.result = found
            result()(*args, **kwargs)
            passed.add(whole)
        return found

    return scoped


def _within_a_call(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def within(*args, **kwargs):
        with jaxtyped("context"):
            return function(*args, **kwargs)

    return within


_held = threading.local()


def _giving(function: FunctionType) -> Callable[..., Any]:
    """A function with another's annotations, that gives what that one gave just now."""

    @functools.wraps(function)
    def giving(*args, **kwargs):
        return _held.result

    return giving


FEW = 8
"""Items of a list that are looked at; beartype itself looks at one, by chance."""


def kinds(values: Iterable[Any]) -> tuple[Hashable, ...]:
    """Of each value all that an annotation can tell from another's."""
    return tuple([_tellers[type(value)](value) for value in values])


def kind(value: Any) -> Hashable:
    """The same of one value."""
    return _tellers[type(value)](value)


class _Tellers(dict[type, Callable[[Any], Hashable]]):
    """What tells values of a class apart, by the class. All that is called asks for it."""

    def __missing__(self, own: type) -> Callable[[Any], Hashable]:
        self[own] = _teller(own)
        return self[own]


_tellers = _Tellers()


def _teller(own: type) -> Callable[[Any], Hashable]:
    """What tells values of a class apart: the class, where that is all."""
    if own in (list, tuple, set, frozenset):
        return lambda value: (own, len(value) > 0, *kinds(islice(value, FEW)))
    if own is dict:
        return lambda value: (own, *map(kinds, islice(value.items(), FEW)))
    if issubclass(own, torch.Tensor | np.ndarray):
        return lambda value: (own, value.dtype, value.shape)
    # Of a text or a class an annotation may name which.
    return (lambda value: value) if own is str or issubclass(own, type) else type


@contextmanager
def executed(package: str) -> Iterator[None]:
    """Within this block modules of a package are imported with their shapes checked."""
    finder = _Finder(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return spec
        if b"jaxtyping" in spec.loader.get_data(spec.loader.path):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Compiles a module with `check` put on what has shapes; its bytecode is never written."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        kinds = [*map(re.escape, ARRAYS), *(rf"{name}\b" for name in _aliases(tree))]
        for node in _defined_once(tree):
            if isinstance(node, ast.FunctionDef) and _has_shapes(_of_function(node), kinds):
                node.decorator_list.append(_decorator(node))  # innermost: it has the annotations
            elif isinstance(node, ast.ClassDef) and _has_shapes(_of_class(node), kinds):
                node.decorator_list.insert(0, _decorator(node))  # outermost: a dataclass by then
        return compile(tree, self.path, "exec", dont_inherit=True)


def _defined_once(tree: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    """Functions and classes, but for those inside functions.

    What is made anew at every call would be wrapped anew, and beartype keeps each for good, with
    all the tensors that it closes over.
    """
    for node in tree.body:
        yield node
        if isinstance(node, ast.ClassDef):
            yield from _defined_once(node)


def _of_function(node: ast.FunctionDef) -> list[ast.expr | None]:
    own = node.args
    single = [one for one in (own.vararg, own.kwarg) if one is not None]
    every = [*own.posonlyargs, *own.args, *own.kwonlyargs, *single]
    return [node.returns, *(one.annotation for one in every)]


def _of_class(node: ast.ClassDef) -> list[ast.expr | None]:
    """The fields of a dataclass; any other class has none."""
    if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return []
    return [one.annotation for one in node.body if isinstance(one, ast.AnnAssign)]


def _aliases(tree: ast.Module) -> list[str]:
    """Names that a module gives to arrays of some shape."""
    given = [node for node in tree.body if isinstance(node, ast.Assign)]
    return [
        target.id
        for node in given
        for target in node.targets
        if isinstance(target, ast.Name) and ast.unparse(node.value).startswith(ARRAYS)
    ]


def _has_shapes(annotations: Sequence[ast.expr | None], kinds: Sequence[str]) -> bool:
    """Whether some of these mention one of these patterns, at the start of a word."""
    texts = [ast.unparse(one) for one in annotations if one is not None]
    return any(re.search(rf"\b{kind}", text) for kind in kinds for text in texts)


def _decorator(of: ast.FunctionDef | ast.ClassDef) -> ast.expr:
    made = ast.parse(f"__import__({__name__!r}, fromlist=['check']).check", mode="eval").body
    for node in ast.walk(made):
        ast.copy_location(node, of)
    return made
