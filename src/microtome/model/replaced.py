"""Functions that somebody has put in the place of torch's or transformers' own.

A model's modules call functions by name, each time anew, so that another one in the place of
``modeling_llama.apply_rotary_pos_emb`` or of ``torch.nn.functional.silu`` acts in every model of
the process, and no module tells. So names that a model's code looks up are followed, from
``forward`` of its modules and from its attention function, through the files that compute
something. What is found under a name there is its own, or was put there. Methods of tensors, and
what a table holds, no name in the code tells: these are not seen.
"""

from __future__ import annotations

import dis
import functools
import operator
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from microtome.model.whose import bare, is_known, is_of_compiler, root, uncompiled

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

REMEMBERED = 32
"""Of so many kinds of model it is kept what was looked up."""

NOTHING = object()
"""Stands where nothing is."""

_looked: OrderedDict[tuple[str, tuple[type, ...]], tuple[Looks, dict[str, Callable[..., Any]]]] = (
    OrderedDict()
)


class Looks:
    """What was looked up under which names; where all of it is still there, so is what came of it.

    The same code looks up the same names, in the same order, as long as each gives the same.
    """

    def __init__(self) -> None:
        # Three lists, since some thousand are asked for again at every sweep.
        self._getters: list[Callable[[str, Any], Any]] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self._code: list[tuple[FunctionType, CodeType, tuple[object, ...]]] = []

    def up(self, place: Mapping[str, Any], name: str) -> Any:
        """What is there under a name, or `NOTHING`."""
        value = place.get(name, NOTHING)
        self._getters.append(place.get)
        self._names.append(name)
        self._values.append(value)
        return value

    def into(self, function: FunctionType) -> tuple[tuple[str, ...], tuple[object, ...]]:
        """The names in a function's code, and what it has from around it: both may change."""
        code, closed = function.__code__, _closed_over(function)
        self._code.append((function, code, closed))
        return _names(code), closed

    def hold(self) -> bool:
        """Whether all of it is as it was."""
        values = map(operator.call, self._getters, self._names, repeat(NOTHING))
        return all(map(operator.is_, values, self._values)) and all(
            function.__code__ is code
            and (
                (function.__closure__ is None and not closed)
                or _are(_closed_over(function), closed)
            )
            for function, code, closed in self._code
        )


def replaced(attention: str, kinds: Iterable[type]) -> dict[str, Callable[..., Any]]:
    """What is not its own of all that a model's code looks up, by its dotted name.

    >>> replaced("sdpa", [nn.LayerNorm, nn.GELU])
    {}

    Args:
        attention: what the model's attention is called.
        kinds: the classes of its modules.
    """
    asked = attention, tuple(kinds)
    known = _looked.get(asked)
    if known is not None and known[0].hold():
        return dict(known[1])
    looks = Looks()
    named = dict(_followed(*asked, looks))
    found = {path: named[path] for path in sorted(named) if _is_another(path, named[path])}
    _looked[asked] = looks, found
    while len(_looked) > REMEMBERED:
        _looked.popitem(last=False)
    return dict(found)


def called_by(kind: type, names: Iterable[str]) -> set[str]:
    """Names that are looked up by methods of a class, or by those of its methods that they call."""
    seen, left, followed = set[str](), [*names], set[object]()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        functions = [bare(vars(base).get(name)) for base in kind.__mro__ if base is not nn.Module]
        while functions:
            function = functions.pop()
            if isinstance(function, FunctionType) and function not in followed:
                followed.add(function)
                left += _names(function.__code__)
                functions += _closed_over(function)
    return seen


def set_by(kind: type, names: Iterable[str]) -> set[str]:
    """Attributes that such methods set while they run, of those that somebody has written."""
    methods = [
        bare(vars(base).get(name)) for name in called_by(kind, names) for base in kind.__mro__
    ]
    own = [one for one in methods if isinstance(one, FunctionType) and not is_known(one)]
    return {name for one in own for name in _set_in(one.__code__)}


def _followed(attention: str, kinds: Iterable[type], looks: Looks) -> Named:
    """All that a model's code looks up, once or more often."""
    tables = (AttentionInterface(), AttentionMaskInterface())
    left: list[tuple[type | None, Any]] = [
        (None, uncompiled(looks.up(table, attention))) for table in tables
    ]
    for kind in kinds:
        for path, forward in _methods(kind, ("forward",), looks):
            left.append((kind, forward))
            if is_known(forward):  # of another the model's additions tell, module by module
                yield path, forward
    seen = set[tuple[type | None, FunctionType]]()
    while left:
        of, function = left.pop()
        if not isinstance(function, FunctionType) or (of, function) in seen:
            continue
        if is_of_compiler(function):  # what it looks up decides no number
            continue
        seen.add((of, function))
        names, closed = looks.into(function)
        methods = [*_methods(of, names, looks)]
        functions = [*_functions(names, function.__globals__, looks)]
        yield from (*methods, *functions)
        left += [(of, one) for one in (*closed, *(own for _, own in methods))]
        left += [(None, one) for _, one in functions if _computes(one)]


def _methods(kind: type | None, names: tuple[str, ...], looks: Looks) -> Named:
    """Of a class, those methods of these names that its libraries have written for it."""
    for name in names:
        for base in kind.__mro__ if kind else ():
            value = looks.up(vars(base), name)
            if value is not NOTHING:
                method = bare(value)
                if base is not nn.Module and isinstance(method, FunctionType) and _computes(base):
                    yield f"{base.__module__}.{base.__qualname__}.{name}", method
                break


def _functions(names: tuple[str, ...], around: dict[str, Any], looks: Looks) -> Named:
    """What is found under names in a function's own module, and in modules named there."""
    modules = {str(around.get("__name__")): around}
    left = [*modules]
    while left:
        home = left.pop()
        for name in names:
            value = uncompiled(looks.up(modules[home], name))
            if isinstance(value, ModuleType):
                if root(value.__name__) in OWNERS and value.__name__ not in modules:
                    modules[value.__name__] = vars(value)
                    left.append(value.__name__)
            elif root(home) in OWNERS and callable(value) and not isinstance(value, type):
                yield f"{home}.{name}", value


def _closed_over(function: FunctionType) -> tuple[object, ...]:
    """What a function has from around it; `NOTHING` of what is filled later."""
    return tuple(map(_content, function.__closure__ or ()))


def _content(cell: CellType) -> object:
    try:
        return bare(cell.cell_contents)
    except ValueError:  # it is filled later: by a class that names itself
        return NOTHING


def _are(some: tuple[object, ...], others: tuple[object, ...]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


@functools.lru_cache(2**14)
def _names(code: CodeType) -> tuple[str, ...]:
    """All names in a function's code, and in that of those inside it."""
    inside = [one for one in code.co_consts if isinstance(one, CodeType)]
    return tuple(dict.fromkeys((*code.co_names, *(n for one in inside for n in _names(one)))))


def _set_in(code: CodeType) -> set[str]:
    """The attributes that a function's code sets, and that of those inside it."""
    inside = [one for one in code.co_consts if isinstance(one, CodeType)]
    here = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_ATTR"}
    return here.union(*map(_set_in, inside))


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
