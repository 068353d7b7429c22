"""Nothing in the walk waits for the device, shown without one.

The model is on torch's ``meta`` device: its tensors have shapes and no values, so whatever would
read a value (a number as a Python number, a shape that depends on values, a copy to the host)
cannot run at all. What would run, but wait on an accelerator, is found by looking at every
operation. Edits that draw at random draw on the host, by design: a cell draws the same numbers on
every device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_engine import CAT, EDITS, JOHN, PLACES, SWAPPED
from test_readers import PLACES as READERS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import microtome as mt
from microtome.edits import means
from microtome.edits import sources as origins
from microtome.engines.collector import Collector
from microtome.engines.walk.walk import Stretch, Walk
from microtome.model.devices import onto
from microtome.passes.trace import trace
from microtome.plan.plan import make_plan
from microtome.verbs.answer import sources_of
from microtome.verbs.options import budget_of
from microtome.verbs.sweep import asking

DEVICE = torch.device("meta")
INSIDE = ("norm(L*.resid_post)", "std(L*.resid_post@*)", "cosine(L*.resid_mid@*, 1)")


class Waits(Exception):  # noqa: N818
    """An operation that an accelerator would be waited for."""


class Watching(TorchDispatchMode):
    """Refuses operations between the host's memory and the device's, but for copies at once."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        met = tree_leaves((args, kwargs, result))
        arrays = [x for x in met if isinstance(x, torch.Tensor) and x.ndim]
        if {x.device.type for x in arrays} >= {"cpu", "meta"} and not kwargs.get("non_blocking"):
            raise Waits(f"{func} of {[(x.device.type, list(x.shape)) for x in arrays]}")
        return result


class Reading(TorchFunctionMode):
    """Refuses calls that bring lists of Python's numbers to the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            where = args[1] if isinstance(args[1], tuple) else (args[1],)
            if args[0].device == DEVICE and any(isinstance(own, list) for own in where):
                raise Waits(f"an index by a list: {where}")
        there = torch.device(kwargs.get("device") or "cpu") == DEVICE
        if func is torch.tensor and there and np.size(args[0]):
            raise Waits(f"numbers to the device: {args}")
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def nowhere(make_gpt2, tokenizer):
    """A model without values."""
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    model.hf.to(DEVICE)
    return model


@pytest.fixture(autouse=True)
def arrivals(monkeypatch):
    """How much arrived each time that the walk let results arrive; from nowhere nothing does."""
    found = []

    def settle(self):
        found.append(len(self.arriving))
        self.arriving.clear()

    monkeypatch.setattr(Collector, "settle", settle)
    return found


def walk(model, edit, metrics, prompts=(JOHN, SWAPPED, CAT)):
    asked = asking(model, prompts, edit, metrics=metrics, reference=[JOHN, SWAPPED])
    plan = make_plan(asked, budget=budget_of(model))
    assert plan.choice.engine == "walk"
    executor = Walk(model, plan, sources_of(model, plan), budget_of(model), lambda cells: None)
    with Watching(), Reading():
        for unit in plan.units:
            executor.run(unit)


@pytest.mark.parametrize("operation", EDITS)
def test_no_edit_makes_the_walk_wait(nowhere, operation, monkeypatch):
    """Each at one of three places, by turns: at every place, one is in the next test."""
    walked, run = [], Stretch._walk
    monkeypatch.setattr(Stretch, "_walk", lambda self, *rest: walked.append(1) or run(self, *rest))

    def record(hf, anatomy, texts, pieces):
        assert not walked, "reference prompts are run before"
        return trace(hf, anatomy, texts, riders=texts, pieces=pieces).beside

    # Transformers itself waits in a run without a cache.
    monkeypatch.setattr(means, "record", record)
    monkeypatch.setattr(origins, "record", record)
    prompts = (JOHN, SWAPPED) if "prompts" in operation else (JOHN, SWAPPED, CAT)
    place = ("embed", "L*.z.h*", "L*.resid_post")[EDITS.index(operation) % 3]
    walk(nowhere, f"{operation} {place}@{{2,4}}", ["logit_diff"], prompts)
    assert walked


@pytest.mark.slow
def test_no_place_makes_the_walk_wait(nowhere):
    for place in (*PLACES, *READERS):
        walk(nowhere, f"zero {place}@-1", ["logit_diff"], [JOHN, SWAPPED])


@pytest.mark.parametrize("metrics", [["logit", "prob", "kl", "rank", "top1", "loss@3"], INSIDE])
@pytest.mark.parametrize("edit", ["zero L*.z.h*@*", "zero L*.resid_post@*", "zero L*.mlp_post.n*"])
def test_no_metric_makes_the_walk_wait(nowhere, edit, metrics):
    walk(nowhere, edit, metrics, [JOHN, CAT])


def test_results_arrive_once_for_every_batch(nowhere, arrivals):
    walk(nowhere, "zero L*.z.h*@-1", ["logit_diff", "prob"], [JOHN])
    # Of the clean run, two metrics; of the one batch, these and two columns of receipts.
    assert [n for n in arrivals if n] == [2, 4]


def test_what_waits_is_found(nowhere):
    """The proof proves something."""
    x = torch.zeros(3, 2, device=DEVICE)
    with Watching(), Reading():
        for waits in (
            lambda: torch.arange(3).to(DEVICE),
            lambda: torch.tensor([1, 2], device=DEVICE),
            lambda: x[:, [0, 1]],
            lambda: x[torch.arange(3)],
            lambda: x[x > 0],
            x.nonzero,
            x.sum().item,
            x.cpu,
        ):
            with pytest.raises((Waits, RuntimeError, NotImplementedError)):
                waits()
        x[onto(DEVICE, np.arange(2))] * 2.0 + torch.tensor(1.0)
