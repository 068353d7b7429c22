"""Shapes in the package's annotations are executed by the tests; nothing else is slowed down."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from jaxtyping import Float

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


def halved(rows: Float[torch.Tensor, "row d"], wrong: bool) -> Float[torch.Tensor, " row"]:
    return rows.sum(-1)[: len(rows) // 2] if wrong else rows.sum(-1)


def test_what_was_right_once_is_checked_again_where_anything_is_otherwise():
    rows, checked = torch.zeros(4, 2), typechecker.check(halved)
    for _ in range(2):
        assert checked(rows, False).shape == (4,)
    with pytest.raises(TypeError, match=r"return .*violates type hint"):
        checked(rows, True)
    for other in (rows[0], rows.int(), None, [rows]):
        with pytest.raises(TypeError, match=r"(?s)parameter rows.*violates type hint"):
            checked(other, False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2).int()),
        (torch.zeros(2), torch.zeros(2).numpy()),
        ([torch.zeros(2)], [torch.zeros(3)]),
        ([torch.zeros(2)], (torch.zeros(2),)),
        ([], [None]),
        ({"a": 1}, {"a": None}),
        ("a", "b"),
        (int, str),
        (1, 1.0),
    ],
)
def test_what_an_annotation_can_tell_apart_is_told_apart(one, other):
    assert typechecker.kind(one) != typechecker.kind(other)
    assert typechecker.kind(one) == typechecker.kind(copy.deepcopy(one))


def test_the_fields_of_a_dataclass_are_checked():
    with pytest.raises(TypeError, match="violates type hint"):
        Stream([0], torch.zeros(1, 4), torch.zeros(4))


def test_a_function_without_shapes_is_as_it_was():
    assert not hasattr(Walk.run, "__wrapped__")
    assert hasattr(_own_scores, "__wrapped__")
