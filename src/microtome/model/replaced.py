"""Functions that somebody has put in the place of torch's or transformers' own.

A model's modules call functions by name, each time anew, so that another one in the place of
``modeling_llama.apply_rotary_pos_emb`` or of ``torch.nn.functional.silu`` acts in every model of
the process, and no module tells. So names that a model's code looks up are followed, from
``forward`` of its modules and from its attention function, through the files that compute
something. What is found under a name there is its own, or was put there. Methods of tensors, and
what a table holds, no name in the code tells: these are not seen.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from microtome.model.whose import bare, is_known, root

OWNERS = ("torch", "transformers")
"""Packages under whose names their own functions are expected."""

COMPUTING = (
    *(
        "torch.nn.",
        "transformers.models.",
        "transformers.integrations.",
        "transformers.activations",
    ),
    *("transformers.masking_utils", "transformers.modeling_layers"),
    *("transformers.modeling_rope_utils", "transformers.pytorch_utils"),
)
"""Modules whose functions are looked into for what they call in their turn."""

COMPILED = "_torchdynamo_orig_callable"
"""What `torch.compile` sets on what it makes of a function, which is called like that."""

Named = Iterator[tuple[str, Any]]
"""Dotted names, and what is found there."""


def replaced(attention: str, kinds: Iterable[type]) -> dict[str, Callable[..., Any]]:
    """What is not its own of all that a model's code looks up, by its dotted name.

    >>> replaced("sdpa", [nn.LayerNorm, nn.GELU])
    {}

    Args:
        attention: what the model's attention is called.
        kinds: the classes of its modules.
    """
    named = dict(_followed(attention, kinds))
    return {path: named[path] for path in sorted(named) if _is_another(path, named[path])}


def _followed(attention: str, kinds: Iterable[type]) -> Named:
    """All that a model's code looks up, once or more often."""
    tables = (AttentionInterface(), AttentionMaskInterface())
    left: list[tuple[type | None, Any]] = [(None, table.get(attention)) for table in tables]
    for kind in kinds:
        for path, forward in _methods(kind, ("forward",)):
            left.append((kind, forward))
            if is_known(forward):  # of another the model's additions tell, module by module
                yield path, forward
    seen = set[tuple[type | None, FunctionType]]()
    while left:
        of, function = left.pop()
        if not isinstance(function, FunctionType) or (of, function) in seen:
            continue
        seen.add((of, function))
        methods = [*_methods(of, _names(function.__code__))]
        functions = [*_functions(function)]
        yield from (*methods, *functions)
        left += [(of, one) for one in (*_closed_over(function), *(own for _, own in methods))]
        left += [(None, one) for _, one in functions if _computes(one)]


def _methods(kind: type | None, names: tuple[str, ...]) -> Named:
    """Of a class, those methods of these names that its libraries have written for it."""
    for name in names:
        for base in kind.__mro__ if kind else ():
            if name in vars(base):
                method = bare(vars(base)[name])
                if base is not nn.Module and isinstance(method, FunctionType) and _computes(base):
                    yield f"{base.__module__}.{base.__qualname__}.{name}", method
                break


def _functions(function: FunctionType) -> Named:
    """What a function looks up by name: in its own module, and in modules that it names there."""
    names, around = _names(function.__code__), function.__globals__
    modules = {str(around.get("__name__")): around}
    left = [*modules]
    while left:
        home = left.pop()
        for name in names:
            value = modules[home].get(name)
            if isinstance(value, ModuleType):
                if root(value.__name__) in OWNERS and value.__name__ not in modules:
                    modules[value.__name__] = vars(value)
                    left.append(value.__name__)
            elif root(home) in OWNERS and callable(value) and not isinstance(value, type):
                yield f"{home}.{name}", value


def _closed_over(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield bare(cell.cell_contents)
        except ValueError:  # it is filled later: by a class that names itself
            continue


@functools.lru_cache(2**14)
def _names(code: CodeType) -> tuple[str, ...]:
    """All names in a function's code, and in that of those inside it."""
    inside = [one for one in code.co_consts if isinstance(one, CodeType)]
    return tuple(dict.fromkeys((*code.co_names, *(n for one in inside for n in _names(one)))))


def _computes(value: object) -> bool:
    home = str(getattr(bare(value), "__module__", None))
    return home.startswith(COMPUTING) and not hasattr(value, COMPILED)


def _is_another(path: str, value: Any) -> bool:
    """Whether what is found under a name is somebody's, compiled, or called otherwise."""
    if isinstance(value, functools.partial) or hasattr(value, COMPILED):
        return True
    home = root(getattr(value, "__module__", None) or "")
    if home not in sys.stdlib_module_names and not is_known(value):
        return True
    if not isinstance(value, FunctionType | BuiltinFunctionType):
        return False  # an object of a library's, which has no name
    whole = value.__qualname__
    if isinstance(value, FunctionType) and "." in whole and "<locals>" not in whole:
        return not path.endswith(f".{whole}")
    # Some of torch's have a longer name, or other underscores.
    asked = path.rpartition(".")[2]
    return not value.__name__.replace("_", "").endswith(asked.replace("_", ""))
