"""Values of over=: lists, ranges, arrays and tensors of numbers are the same question."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import microtome as mt
from microtome.errors import SweepError

VALUES = [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    "given",
    [
        tuple(VALUES),
        np.linspace(0.5, 1.5, 3),
        np.linspace(0.5, 1.5, 3, dtype=np.float32),
        torch.linspace(0.5, 1.5, 3),
        torch.linspace(0.5, 1.5, 3, dtype=torch.bfloat16, requires_grad=True),
        [torch.tensor(0.5), np.float64(1), np.array(1.5)],
        pd.Series(VALUES),
    ],
    ids=["tuple", "array", "float32", "tensor", "bfloat16", "mixed", "series"],
)
def test_numbers_in_any_container_are_the_same_axis(nano, given):
    wanted, found = (
        mt.sweep(nano, "Berlin is", mt.scale("L*.z@-1", 1), metrics="kl",
                 over={"factor": values}, progress=False, verify=0)
        for values in (VALUES, given)
    )  # fmt: skip
    assert found.data.factor.values.tolist() == VALUES
    assert found.provenance["spec"] == wanted.provenance["spec"]
    assert found.data.drop_attrs(deep=False).identical(wanted.data.drop_attrs(deep=False))
    experiment = mt.Experiment(
        model="nano", prompts="Berlin is", edits="scale(1) L*.z@-1", metrics="kl",
        over={"factor": given},
    )  # fmt: skip
    assert experiment.over == {"factor": VALUES}


def test_a_range_is_a_list(nano):
    effects = mt.sweep(nano, "Berlin is", mt.shuffle("L0.resid_pre", 0), metrics="kl",
                       over={"seed": range(3)}, progress=False)  # fmt: skip
    assert effects.data.seed.values.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "given", ["0.5", 0.5, np.array(0.5), torch.tensor(0.5), [], np.empty(0), {1.0}, {"a": 1}]
)
def test_what_is_no_list_is_refused(nano, given):
    with pytest.raises(SweepError, match="takes a list of values, a range or an array"):
        mt.sweep(nano, "Berlin is", mt.scale("L0.z", 1), metrics="kl", over={"factor": given})
