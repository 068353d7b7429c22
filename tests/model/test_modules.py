"""One look at all modules finds what torch's own walk finds, in its order; equal ones are two."""

import torch
from torch import nn

from microtome.model.modules import modules, named_modules, parameters


class Equal(nn.Module):
    """One that says that it equals every other, as a user's may."""

    def __eq__(self, other):
        return isinstance(other, Equal)

    def __hash__(self):
        return 0


def made():
    shared, none = nn.Linear(2, 2), nn.Sequential(nn.ReLU())
    none.register_module("nothing", None)
    none.register_parameter("no_weight", None)
    whole = nn.Sequential(shared, nn.Sequential(none, shared, nn.LayerNorm(2)), nn.Linear(2, 3))
    whole[2].bias = shared.bias
    return whole


def test_all_are_found_in_torchs_order(tiny, of_family):
    for top in (made(), tiny.hf, of_family("llama").hf, tiny.hf.transformer.h):
        assert named_modules(top) == [*top.named_modules()]
        assert modules(top) == [*top.modules()]
        found = dict.fromkeys(map(id, parameters(top)))
        assert [*found] == [id(own) for own in top.parameters()]


def test_a_module_inside_itself_is_found_once():
    top = nn.Sequential(nn.ReLU())
    top[0].around = top
    assert named_modules(top) == [("", top), ("0", top[0])]


def test_modules_that_are_equal_are_all_found():
    both = nn.Sequential(Equal(), Equal())
    assert len([*both.modules()]) == 2  # torch takes the two for one
    assert [path for path, _ in named_modules(both)] == ["", "0", "1"]


def test_dtypes_are_those_of_all_parameters(tiny):
    kinds = {own.dtype for own in tiny.hf.parameters()}
    assert set(tiny.dtypes) == kinds == {torch.float32}
