"""Which weights and which tokenizer: hashes, and cheap signs that tell when to hash again.

Weights are hashed whole, which takes a second for a few hundred megabytes. So a hash is kept as
long as a cheap `weights_sign` stays the same: of every tensor its place in memory, shape, type and
version, and some of its numbers, since a change through ``.data`` moves none of the others.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import count
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.errors import listing
from microtome.model.additions import is_method
from microtome.model.code import code_of
from microtome.model.modules import named_modules
from microtome.model.placement import fetched, parts, weights
from microtome.model.whose import is_known, name_of, written
from microtome.model.wrappers import refuse_cut_up, refuse_packed

SAMPLES = 2**18
"""How many numbers of a tensor a sign looks at, at most."""

MOST = 4
"""How many tensors a message names."""

GROWS = ("dynamic", "longrope")
"""Kinds of rotary embedding that change their frequencies on the way, for long texts."""

VOLATILE = {
    "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version",
    "use_cache", "output_attentions", "output_hidden_states", "return_dict",
}  # fmt: skip
"""Settings that do not say what a model computes."""

MOVING = ("training", "max_seq_len_cached", "name_or_path")
"""Settings of modules that a pass may change, that are refused elsewhere, or that say where a model
was found: by a path from here, or by the whole of it. Of the length that rotary frequencies grow by
there may be one for each type of layer."""


OF_TORCH = frozenset(vars(nn.Module()))
"""What torch sets on every module: tables, and whether it is in training, which is refused."""

FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)
"""What may stand in the place of a method."""

PLAIN = (bool, int, float, str, tuple, NoneType)
"""Settings, which are told by what they are."""


class Remembered:
    """A text that is dear to compute, kept while the sign that it belongs to stays the same."""

    def __init__(self) -> None:
        self._sign: Hashable = None
        self._text = ""

    def get(self, sign: Hashable, compute: Callable[[], str]) -> str:
        """The text of this sign."""
        if self._sign is None or sign != self._sign:
            self._text, self._sign = compute(), sign
        return self._text


# ----------------------------------------------------------------------------------------- weights


def weight_hash(hf: PreTrainedModel) -> str:
    """sha256 over the names, shapes and bytes of all weights and saved buffers, in hexadecimal.

    Wherever they are: the same for a model on one device and one that is spread or offloaded.
    Of packed (quantised) weights, what is packed.
    """
    return _sha(weights(hf))


def buffer_hash(hf: PreTrainedModel) -> str:
    """The same of the buffers that no file has and that decide numbers: rotary frequencies, masks.

    A hash of its own, since transformers makes them, and another release makes others; not of
    those that a pass may change.
    """
    made = _made_buffers(named_modules(hf))
    return _sha((name, fetched(module, own)) for name, module, own in made)


def weights_sign(hf: PreTrainedModel) -> Hashable:
    """Equal for one model at two times unless weights, or buffers that decide numbers, changed.

    A few numbers changed in place through ``.data`` may go unseen: a sign has some of each tensor,
    of a matrix one at least of every row and of every column, such as a neuron is. Of offloaded
    tensors it has the shapes alone.

    Raises:
        LoadError: torch has quantised layers of it, or cut it up: such weights no sign sees.
    """
    modules = named_modules(hf)
    refuse_packed(hf, modules)
    refuse_cut_up(modules)
    named = [*hf.state_dict(keep_vars=True).items()]
    named += [(name, getattr(module, own)) for name, module, own in _made_buffers(modules)]
    tensors = [pair for name, tensor in named for pair in parts(name, tensor.detach())]
    places = tuple(_place(name, tensor) for name, tensor in tensors)
    return places, _sampled(tensor for _, tensor in tensors)


def changed_names(one: Hashable, other: Hashable) -> str:
    """The first tensors that two signs of a model tell apart, a buffer that counts among them."""
    before, after = (sign[0] if isinstance(sign, tuple) else () for sign in (one, other))
    # A change through `.data` moves no version, and has no name.
    names = [str(new[0]) for old, new in zip(before, after, strict=False) if old != new]
    return listing(names[:MOST]) + (", …" if names[MOST:] else "") or "in a few numbers"


def _made_buffers(
    modules: Iterable[tuple[str, nn.Module]],
) -> Iterator[tuple[str, nn.Module, str]]:
    """Buffers that are not saved with the weights: whole name, module, own name."""
    for path, module in modules:
        if not module._non_persistent_buffers_set:
            continue  # to ask for what most modules do not have takes longer than all else here
        changing = str(getattr(module, "rope_type", ""))
        for own in sorted(module._non_persistent_buffers_set):
            grows = any(kind in changing for kind in GROWS) and "original" not in own
            if isinstance(getattr(module, own, None), Tensor) and not grows:
                yield f"{path}.{own}".removeprefix("."), module, own


def _sha(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        raw = tensor.contiguous().cpu().flatten().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _place(name: str, tensor: Tensor) -> tuple[Hashable, ...]:
    # Offloaded ones lie nowhere; those made in inference mode have no version.
    where = None if tensor.is_meta else tensor.data_ptr()
    version = None if tensor.is_meta or tensor.is_inference() else tensor._version
    return name, where, version, tuple(tensor.shape), tensor.dtype, tensor.device


def _sampled(tensors: Iterable[Tensor]) -> bytes:
    """Some numbers of every tensor: one transfer for all of one device and type."""
    samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if not tensor.is_meta and tensor.numel():
            samples[tensor.device, tensor.dtype].append(_some(tensor))
    digest = hashlib.sha256()
    for _, some in sorted(samples.items(), key=lambda pair: str(pair[0])):
        digest.update(torch.cat(some).cpu().view(torch.uint8).numpy().data)
    return digest.digest()


def _some(tensor: Tensor) -> Tensor:
    """Of a matrix, one number at least of each row and of each column.

    But of rows, where there are more of them than `SAMPLES`, so many.
    """
    columns = tensor.shape[-1] if tensor.ndim > 1 else 1
    numbers = tensor.numel()
    return tensor.flatten()[:: _step(columns, numbers // columns, numbers // SAMPLES)]


@functools.cache
def _step(columns: int, rows: int, least: int) -> int:
    """From one of the numbers that are looked at to the next."""
    # No longer than a row, and coprime to it: so many steps as there are columns meet all of them.
    fits = range(min(columns, rows), 0, -1)
    steps = fits if least < fits.start else count(least)
    return next(step for step in steps if math.gcd(step, columns) == 1)


# ----------------------------------------------------------------------------------------- modules


def modules_hash(hf: PreTrainedModel, idle: Collection[str] = ()) -> str:
    """sha256 over what decides numbers besides weights and hooks, in hexadecimal.

    The configuration; and of each module its class, and its settings, such as a norm's epsilon.
    Those that are ``idle`` are left out.
    """
    digest, words = hashlib.sha256(), dict[type, str]()
    config = {name: value for name, value in settings(hf).items() if name not in idle}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for path, module in named_modules(hf):
        made = type(module)
        if made not in words:
            words[made] = made.__qualname__ + ("" if is_known(made) else code_of(made.__mro__))
        own = sorted(f"{name} {word}" for name, word in _set_on(module) if name not in idle)
        digest.update(json.dumps([path, words[made], *own]).encode())
    return digest.hexdigest()


def settings(hf: PreTrainedModel) -> dict[str, Any]:
    """A model's configuration, as far as it says what is computed."""
    told: dict[str, Any] = hf.config.to_dict()
    return {name: value for name, value in told.items() if name not in VOLATILE}


def is_moving(name: str) -> bool:
    """Whether a setting of this name is left out.

    >>> is_moving("full_attention_max_seq_len_cached"), is_moving("eps")
    (True, False)
    """
    return name in MOVING or name.endswith("_max_seq_len_cached")


def _set_on(module: nn.Module) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if name in OF_TORCH:
            continue
        plain = isinstance(value, PLAIN)
        if not (plain or isinstance(value, FUNCTIONS)) or is_moving(name):
            continue
        if name.startswith("_") and not is_method(module, name):
            continue
        if plain:
            yield name, repr(value)
        elif _decides(value, name, module):
            yield name, name_of(value) if is_known(value) else code_of([value])


def _decides(function: Any, name: str, module: nn.Module) -> bool:
    """Whether a function on a module may decide a number: one that a pass calls, and another's."""
    hides = callable(written(type(module), name))
    return not _is_bound(function, name, module) and (is_method(module, name) or not hides)


def _is_bound(function: Any, name: str, module: nn.Module) -> bool:
    """Whether it is the method of its class, put there by hand; or accelerate's way to it."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    own = written(type(module), name)
    return function is own or str(function.__module__).startswith("accelerate.")


# --------------------------------------------------------------------------------------- tokenizer


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of all that turns texts into tokens, in hexadecimal.

    Of a fast tokenizer, its own form in JSON; without padding and truncation, which any call may
    set, and microtome does not use.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # The form is compact, and these two stand first; to parse megabytes would take long.
        text = backend.to_str().partition('"added_tokens":')[2]
    else:
        text = json.dumps(sorted(tokenizer.get_vocab().items()))
    whole = json.dumps(tokenizer_settings(tokenizer), sort_keys=True) + text
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


def tokenizer_sign(tokenizer: PreTrainedTokenizerBase) -> Hashable:
    """Equal for one tokenizer at two times unless it was changed: parts, size, settings."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    names = ("normalizer", "pre_tokenizer", "post_processor")
    parts = [getattr(backend, name, None) for name in names]
    states = tuple(None if part is None else part.__getstate__() for part in parts)
    added = tuple(sorted((i, str(token)) for i, token in tokenizer.added_tokens_decoder.items()))
    settings = json.dumps(tokenizer_settings(tokenizer), sort_keys=True)
    return id(tokenizer), len(tokenizer), states, added, settings


def tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, str | bool]:
    """Special tokens, and the switches that decide which of them a text gets."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    names = ("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens")
    switches = {name: getattr(tokenizer, name, None) for name in names}
    return special | {name: on for name, on in switches.items() if isinstance(on, bool)}
