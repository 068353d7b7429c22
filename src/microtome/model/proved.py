"""What a model's modules say of themselves, to be held to what they said when it was proved.

Running a block by itself rests on what the probe proved at load: that attention is causal, how far
it sees, which parts there are. A setting that is changed afterwards acts in a whole pass, and it
is not known what it does in a part of one. To look takes a tenth of what a hash of it takes, so
every sweep does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from types import FunctionType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from microtome.errors import ArchitectureError, listing
from microtome.model.additions import is_method
from microtome.model.identity import VOLATILE, is_moving
from microtome.model.modules import named_modules
from microtome.model.state import IDLE
from microtome.model.whose import written

LEFT_OUT = frozenset((*VOLATILE, *IDLE))
"""Settings that decide no number of a pass, or are refused elsewhere."""

PLAIN = (bool, int, float, str, tuple, type(None), FunctionType)
"""What settings are. Of lists and mappings, such as those of adapters, the walk takes nothing."""

MOST = 3
"""How many settings a message names."""

Said = Mapping[str, tuple[type, Mapping[str, Any]]]
"""By a module's path its class and its settings; those of the configuration under `CONFIG`."""

CONFIG = "config"


def said_by(hf: PreTrainedModel) -> Said:
    """The settings of a model's modules, and of its configuration, as they are now."""
    said = {path: (type(module), _settings(module)) for path, module in named_modules(hf)}
    return {**said, CONFIG: (type(hf.config), _settings(hf.config))}


def why_not_as_proved(proved: Said, hf: PreTrainedModel) -> str | None:
    """Why a model has to be run whole, where it says something else than it did; or None."""
    now = said_by(hf)
    if now == proved:
        return None
    which = [*changed(proved, now)]
    more = f" and {len(which) - MOST} more" if len(which) > MOST else ""
    return (
        f"after it was loaded, and proved, {listing(which[:MOST])}{more} changed, so the model "
        "is run as it is (load(model.hf, tokenizer=model.tokenizer) proves it anew)"
    )


def check_apart(hf: PreTrainedModel, blocks: str) -> None:
    """Raise `ArchitectureError` where a block, or what it is made of, stands in several places.

    Args:
        hf: the model.
        blocks: the path of its blocks.
    """
    found: dict[nn.Module, str] = {}
    for path, module in hf.get_submodule(blocks).named_modules(None, blocks, False):
        if path.count(".") > blocks.count(".") + 2:  # adapters share what lies deeper
            continue
        first = found.setdefault(module, path)
        if first != path and any(True for _ in module.parameters()):
            raise ArchitectureError(
                f"{first} and {path} of this {type(hf).__name__} are one module, so that an edit "
                "of one is of the other. Give each layer its own, and load it again."
            )


def _settings(owner: nn.Module | object) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(owner).items()
        if name[:1] != "_" and _is_plain(value) and not (name in LEFT_OUT or is_moving(name))
        if not (isinstance(value, FunctionType) and _is_idle(owner, name))
    }


def _is_idle(owner: nn.Module | object, name: str) -> bool:
    """Whether a function there stands in the place of a method that no pass calls.

    Accelerate puts one in the place of `to`, where it spreads a model.
    """
    hides = callable(written(type(owner), name))
    return hides and isinstance(owner, nn.Module) and not is_method(owner, name)


def _is_plain(value: object) -> bool:
    """Whether it is a setting: of a tuple all parts, or a pass has left what it made there."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN)


def changed(before: Said, now: Said) -> Iterator[str]:
    """The settings and modules that are others, by their paths."""
    nothing = (type(None), dict[str, Any]())
    for path in dict.fromkeys(chain(before, now)):
        (kind, old), (other, new) = before.get(path, nothing), now.get(path, nothing)
        if kind is not other:
            yield path or "the model"
            continue
        for name in dict.fromkeys(chain(old, new)):
            if name not in old or name not in new or old[name] != new[name]:
                yield f"{path}.{name}".removeprefix(".")
