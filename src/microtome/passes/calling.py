"""Calls of a model: of all of it, or of what is below its head; and who has made one fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.errors import MicrotomeError, listing
from microtome.model.additions import additions, additions_on, named
from microtome.model.placement import types_of


def call(hf: PreTrainedModel, ids: Int[Tensor, "batch pos"], **more: Any) -> Any:
    """What a model gives, called as everybody calls it.

    Raises:
        MicrotomeError: it fails, with something of somebody's own on it.
    """
    with failing_by_name(hf):
        return hf(input_ids=ids, **more)


def call_body(hf: PreTrainedModel, ids: Int[Tensor, "batch pos"], **more: Any) -> None:
    """A call for what happens on its way: without the head, unless something is on the whole model.

    Raises:
        MicrotomeError: it fails, with something of somebody's own on it.
    """
    with failing_by_name(hf):
        run = hf if additions_on(hf) else hf.base_model
        run(input_ids=ids, **more)


@contextmanager
def failing_by_name(hf: PreTrainedModel) -> Iterator[None]:
    """Within this block, an error of a model that somebody has added to says what is on it."""
    try:
        yield
    except (MicrotomeError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a hook is anybody's code, and raises anything
        why = _mixture(hf) or _setting(hf)
        own = additions(hf)
        if own:
            why = f"It has {named(own)}"
        if not why:
            raise
        raise MicrotomeError(
            f"The model does not run: {type(error).__name__}: {error}. {why}; run model.hf by "
            "itself on this text to see where it fails."
        ) from error


def _setting(hf: PreTrainedModel) -> str:
    """The setting with which no model of transformers runs; empty where it is not there."""
    broken = getattr(hf.config, "return_dict", True) is False
    return "Its config says return_dict=False: set it True" if broken else ""


def _mixture(hf: PreTrainedModel) -> str:
    """In which ways a model's weights are of several kinds; empty where they are of one."""
    kinds = {str(kind).removeprefix("torch."): 0 for kind in types_of([hf])}
    places = {str(weight.device): 0 for weight in hf.parameters()}
    if len(kinds) < 2 and len(places) < 2:
        return ""
    return f"Its weights are now of {listing(kinds)}, on {listing(places)}"
