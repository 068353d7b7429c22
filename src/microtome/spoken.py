"""Arguments of a wrong kind: a sentence about them, in the place of Python's own complaint.

A function runs with what it is given: many things may be a prompt or an edit, and to ask before
each call would refuse some of them. Where it ends in one of Python's own errors, and an argument is
not what its annotation says, the complaint is of that argument: what was given, what is taken, and
what it is for in the words of the docstring. Otherwise the error stays as it is: it is ours, or
that of a function of the user's own, which no argument beside it is to blame for.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import re
import reprlib
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Real
from types import FunctionType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from microtome.amounts import single
from microtome.errors import ArgumentError, MicrotomeError, did_you_mean

RAW = (TypeError, AttributeError, ValueError, LookupError, ArithmeticError)
"""What Python raises where something is not of the kind that it is taken for."""

AMBIGUOUS = "Boolean value of Tensor"
"""How torch's complaint, a RuntimeError, begins where a tensor is asked whether it is there."""

ROWS = (Iterable, Collection, Sequence)
"""Kinds of which an array, a tensor or a column is one, though not by its class."""

UNPADDED = "each prompt runs by itself, unpadded, with the positions of its own tokens"
ELSEWHERE: Mapping[str, str] = {
    "prepend_bos": "special tokens are those that the model's own tokenizer adds; tokens as they "
    "are go by Prompt(ids=[…])",
    "padding_side": UNPADDED,
    "attention_mask": UNPADDED,
    "position_ids": UNPADDED,
    "input_ids": "tokens are a prompt: Prompt(ids=[…])",
    "inputs_embeds": "a prompt is text or tokens; vectors of your own go in by an edit of embed, "
    "replace('embed', values)",
    "past_key_values": "a prompt is read whole",
    "fwd_hooks": "say edits=[…], such as 'zero L5.z.h3', or apply(address, function)",
    "names_filter": "say keep=[…], such as ['L5.z']",
    "return_type": "logits are run.logits; a loss is a metric, next_loss@3",
    "stop_at_layer": "states of a layer are kept, keep=['L5.resid_post']",
    "corrupted": "the run that activations come from is the prompt's donor, Prompt(…, donor=…)",
    "donor": "it is the prompt's, Prompt(…, donor=…)",
    "target": "it is the prompt's, Prompt(…, target=…)",
    "contrast": "it is the prompt's, Prompt(…, contrast=…)",
}
"""Arguments of other tools, and of our own objects, → where the same is said here."""

INSTALLED = ("site-packages", "dist-packages")
"""Folders of libraries: what is called there is nobody's own."""

Named = TypeVar("Named", bound=Callable[..., Any])


def spoken(target: Named) -> Named:
    """A function, or a class whose public methods, say in a sentence which argument is wrong.

    >>> @spoken
    ... def halves(text: str, n: int = 2) -> str:
    ...     return text[: len(text) // n]
    >>> halves(5)
    Traceback (most recent call last):
    microtome.errors.ArgumentError: halves(text=5): text= is str, not an int. See help(halves).
    """
    if not isinstance(target, type):
        return _told(target, target)
    for name, member in [*vars(target).items()]:
        if name.startswith("_") and name not in ("__init__", "__getitem__"):
            continue
        if isinstance(member, classmethod | staticmethod):
            setattr(target, name, type(member)(_told(member.__func__, member.__func__)))
        elif isinstance(member, FunctionType):
            setattr(target, name, _told(member, target if name == "__init__" else member))
    return target


def _told(function: Named, described: object) -> Named:
    """A function that complains in the words of what is described: itself, or its class."""

    @functools.wraps(function)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except MicrotomeError:
            raise
        except (*RAW, RuntimeError) as error:
            if not isinstance(error, RAW) and not str(error).startswith(AMBIGUOUS):
                raise
            own = _is_users(error, function)
            complaint = None if own else _complaint(function, described, args, kwargs)
            if complaint is None:
                raise
            raise ArgumentError(complaint) from error

    return told  # type: ignore[return-value]


def _is_users(error: Exception, function: Callable[..., Any]) -> bool:
    """Whether an error comes out of a function that was given: of an edit, a hook, a generator."""
    ours, raised = function.__module__.partition(".")[0], ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        home = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        installed = any(folder in frame.f_code.co_filename for folder in INSTALLED)
        if home == ours or not (installed or home in sys.stdlib_module_names):
            raised = home
    return raised not in (ours, __name__.partition(".")[0])


def _complaint(
    function: Callable[..., Any],
    described: object,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> str | None:
    """What is wrong with the first argument that is not what it is said to be."""
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return _unknown(name, signature, kwargs)
    for parameter, value in given.items():
        own = signature.parameters[parameter]
        several = own.kind in (own.VAR_POSITIONAL, own.VAR_KEYWORD)
        if several or fits(value, _read(own.annotation, function)):
            continue
        said = str(own.annotation).removeprefix("<class '").removesuffix("'>")
        what = type(value).__name__
        article = "an" if what[0].lower() in "aeiou" else "a"
        other = "not None" if value is None else f"not {article} {what}"
        taken = f"{parameter}= is {said}{_about(described, parameter)}"
        return f"{name}({parameter}={reprlib.repr(value)}): {taken}, {other}. See help({name})."
    return None


def _unknown(name: str, signature: inspect.Signature, kwargs: Mapping[str, Any]) -> str | None:
    """Of the first name that there is not, what is said in its place; where nothing is, or too
    little was given, Python's own sentence will do."""
    known = [one for one, own in signature.parameters.items() if own.kind is not own.VAR_KEYWORD]
    given = next((one for one in kwargs if one not in known), "")
    if given in ELSEWHERE:
        return f"{name} has no {given}=: {ELSEWHERE[given]}."
    near = did_you_mean(given, known, likeness=0.7)
    return f"{name} has no {given}=.{near}" if near else None


class _Around(dict[str, Any]):
    """Names as a module has them; those that only a type checker sees are of any kind."""

    def __init__(self, around: Mapping[str, Any]) -> None:
        super().__init__(vars(builtins), **around)

    def __missing__(self, name: str) -> Any:
        return Any


def _read(annotation: Any, function: Callable[..., Any]) -> Any:
    """An annotation as an object; anything, where it cannot be read."""
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    around = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, {}, _Around(around))
    except Exception:  # such as an alias of what only a type checker knows
        return Any


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind, as far as can be told; what cannot be told, fits.

    >>> fits(["a"], list[str] | None), fits([5], list[str]), fits(5, float), fits(5.0, int)
    (True, False, True, False)
    """
    if kind is Any:
        return True
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Literal:
        alone = single(value)
        return any(type(alone) is type(one) and alone == one for one in inside)
    if kind is None or kind is NoneType:
        return value is None
    if kind in (bool, int, float, str):
        return isinstance(single(value), Real if kind is float else kind)
    shape = getattr(value, "shape", None)
    if shape is not None and origin in ROWS:
        return shape != () and all(fits(one, inside[0]) for one in value)
    if isinstance(origin, type):
        return isinstance(value, origin) and _holds(value, origin, inside)
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    array = getattr(kind, "array_type", None)  # of a jaxtyping annotation
    return isinstance(value, kind if array is None else array)


def _holds(value: Any, origin: type, inside: tuple[Any, ...]) -> bool:
    """Whether what is in a collection fits, where there is a kind for it."""
    if not isinstance(value, Collection) or isinstance(value, bytes) or not inside:
        return True
    if hasattr(value, "shape"):  # of an array an annotation says its type, and of what shape
        return True
    if isinstance(value, str):  # each letter is a text
        return fits(value, inside[0])
    if isinstance(value, Mapping):
        pairs = value.items() if len(inside) > 1 else ()
        return all(fits(key, inside[0]) and fits(own, inside[1]) for key, own in pairs)
    if issubclass(origin, tuple) and inside[-1] is not ...:
        return len(value) == len(inside) and all(map(fits, value, inside))
    return all(fits(one, inside[0]) for one in value)


def _about(described: object, parameter: str) -> str:
    """The first words of what a docstring says of a parameter."""
    text = inspect.getdoc(described) or ""
    found = re.search(rf"^ +{parameter}: (.*(?:\n {{5,}}.*)*)", text, re.MULTILINE)
    if found is None:
        return ""
    words = re.split(r"[.;](?:\s|$)", " ".join(found[1].split()))[0]
    return f" ({words})"
