"""Amounts that users give: bytes with their unit, and whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN
from microtome.amounts import bytes_of, whole_of
from microtome.errors import SweepError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("2GiB", 2**31), ("2 gib", 2**31), ("500MB", 500_000_000), ("1.5kB", 1500), ("7", 7),
        ("1e3 B", 1000), (4096, 4096), (np.int64(5), 5),
        (torch.tensor(5), 5), (np.array(5), 5),
    ],
)  # fmt: skip
def test_bytes(given, wanted):
    assert bytes_of(given) == wanted


@pytest.mark.parametrize("given", ["2GB ram", "GiB", "", "nan", "infB", "1e999", "-1GiB", "0.5 B"])
def test_texts_that_are_no_bytes(given):
    with pytest.raises(
        SweepError, match=r"^memory=.*expected (bytes, such as 2GiB|a whole number)"
    ):
        bytes_of(given, what="memory")


@pytest.mark.parametrize("given", [0, -1, True, 1.5, [1], "3"])
def test_numbers_that_are_no_whole_ones(given):
    with pytest.raises(SweepError, match=r"^verify=.*: expected a whole number.*\.$"):
        whole_of(given, 1, "verify")


def test_a_sweep_takes_memory_as_an_experiment_does_and_anybodys_whole_numbers(tiny):
    one, two = (
        mt.sweep(tiny, BERLIN, "zero L*.z.h*", metrics="kl", progress=False, **how)
        for how in ({"memory": "16MiB"}, {"memory": np.int64(2**24), "verify": torch.tensor(4)})
    )
    assert one.data["kl"].identical(two.data["kl"])
    assert one.provenance["memory"] == two.provenance["memory"] == 2**24


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"verify": -1}, "verify=-1: give how many cells to recompute"),
        ({"verify": 1.5}, "verify=1.5: give how many cells to recompute"),
        ({"memory": "2 GiBs"}, "memory='2 GiBs': expected bytes, such as 2GiB"),
        ({"memory": 0}, "memory=0: expected a whole number of at least 1"),
    ],
)
def test_a_sweep_refuses_what_is_none(tiny, how, words):
    with pytest.raises(SweepError) as error:
        mt.sweep(tiny, BERLIN, "zero L*.z.h*", metrics="kl", **how)
    assert words in str(error.value)


def test_how_many_rows_are_shown_is_a_number_of_them(tiny):
    effects = mt.sweep(tiny, BERLIN, "zero L*.z.h*", metrics="kl", progress=False)
    assert len(effects.top(torch.tensor(3))) == len(effects.top(3)) == 3
    with pytest.raises(SweepError, match="n='kl': expected a whole number, not 'kl'"):
        effects.top("kl")
    with pytest.raises(SweepError, match="n=-1: expected a whole number of at least 0"):
        effects.top(-1)
