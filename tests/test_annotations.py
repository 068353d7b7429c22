"""Shapes in the package's annotations are executed by the tests; nothing else is slowed down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import microtome
from microtome.engines.local import Stream
from microtome.engines.walk.walk import Walk
from microtome.passes.prefix import _own_scores
from oracles import typechecker

SOURCE = Path(microtome.__file__).parent


def test_every_module_with_shapes_is_checked():
    names = {
        ".".join(("microtome", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in SOURCE.rglob("*.py")
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
    }
    modules = {name.rpartition(".")[0] for name in typechecker.checked}
    unchecked = {name for name in names if not any(own.startswith(name) for own in modules)}
    assert len(names) > 20
    assert unchecked == set()


def test_axes_of_one_name_are_of_one_length_within_a_call():
    query, key = torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)
    assert _own_scores(query, key).shape == (2, 3, 5)
    assert _own_scores(query, key[:, :2]).shape == (2, 3, 2)  # another call, another length
    with pytest.raises(TypeError, match="violates type hint"):
        _own_scores(query, key[..., :3])


def test_the_fields_of_a_dataclass_are_checked():
    with pytest.raises(TypeError, match="violates type hint"):
        Stream([0], torch.zeros(1, 4), torch.zeros(4))


def test_a_function_without_shapes_is_as_it_was():
    assert not hasattr(Walk.run, "__wrapped__")
    assert hasattr(_own_scores, "__wrapped__")
