"""Whose code it is: that of a known package, or somebody's own."""

from __future__ import annotations

import functools
import sys
from types import FunctionType, MethodType
from typing import Any

KNOWN = (
    *("torch", "transformers", "accelerate", "peft", "microtome"),
    # Those that transformers unpacks weights with.
    *("bitsandbytes", "torchao", "optimum", "gptqmodel", "auto_gptq", "awq", "hqq", "eetq"),
    *("compressed_tensors", "fbgemm_gpu", "aqlm", "auto_round", "quark", "kernels"),
)
"""Packages whose modules and hooks take each position by itself, or are proved at load."""

BOUND = (MethodType, staticmethod, classmethod)
"""What holds a function as its ``__func__``."""


def is_known(function: Any) -> bool:
    """Whether a function, a callable object or a class is of a known package.

    A function has to be written there: `functools.wraps` gives it another's home.

    >>> from torch.nn.functional import silu
    >>> is_known(silu), is_known(print)
    (True, False)
    """
    function = bare(function)
    home = root(getattr(function, "__module__", None) or type(function).__module__)
    if home not in KNOWN or home == "microtome" or not isinstance(function, FunctionType):
        return home in KNOWN
    wrote = root(function.__globals__.get("__name__") or home)
    return wrote in KNOWN or wrote in sys.stdlib_module_names


def written(made: type, name: str) -> Any:
    """What a class has under a name, as it stands there or in the nearest base; None without.

    >>> written(bool, "__and__") is bool.__and__, written(bool, "no")
    (True, None)
    """
    return next((vars(base)[name] for base in made.__mro__ if name in vars(base)), None)


def name_of(function: Any) -> str:
    """What a function or a callable object is called where it was written."""
    function = bare(function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).replace(".<locals>", "")


def bare(function: Any) -> Any:
    """What is called in the end, where arguments were given beforehand, or an object or a class."""
    while True:
        function = uncompiled(function)
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, BOUND):
            function = function.__func__
        else:
            return function


def uncompiled(function: Any) -> Any:
    """What `torch.compiler.disable` was given, of what it makes, which computes the same."""
    while is_of_compiler(function) and function.__code__.co_qualname.startswith("DisableContext."):
        # Its attributes may be copies of another's: functools.wraps takes all.
        around = function.__code__.co_freevars
        if "fn" not in around:
            break
        function = function.__closure__[around.index("fn")].cell_contents
    return function


def is_of_compiler(function: Any) -> bool:
    """Whether it is a function that torch's compiler has written around another, or calls."""
    if not isinstance(function, FunctionType):
        return False
    return str(function.__globals__.get("__name__")).startswith("torch._dynamo")


def root(module: str) -> str:
    """The package of a module, by its name.

    >>> root("torch.nn.functional")
    'torch'
    """
    return module.partition(".")[0]
