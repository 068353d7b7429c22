"""What is read is refused before it runs where it would not fit into the machine."""

from __future__ import annotations

import pytest
import torch

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.errors import MicrotomeError
from microtome.verbs import room

ASKED = {
    # 3 layers × 4 heads × 5 × 5 tokens: weights, and what they move thrice
    "attention": (
        lambda model: mt.attention(model, BERLIN),
        lambda vocab: (4 + 3 * 8) * 12 * 25,
    ),
    # kept once, then twice more while they are put together; and the logits, twice
    "run": (
        lambda model: model.run(BERLIN, keep=["L*.pattern"]),
        lambda vocab: 3 * 4 * 12 * 25 + 2 * 4 * 5 * vocab,
    ),
    # what enters 3 blocks and what leaves the last, twice; and logits of some rows
    "tune": (
        lambda model: mt.train_translators(model, [BERLIN, PARIS], steps=1),
        lambda vocab: 2 * 4 * 10 * 4 * 32 + 6 * 4 * 256 * vocab,
    ),
}


@pytest.mark.parametrize("which", ASKED)
def test_what_would_not_fit_is_refused_before_it_runs(tiny, monkeypatch, which):
    ask, planned = ASKED[which]
    needed = planned(tiny.anatomy.dims.d_vocab)
    ran = []
    handle = tiny.hf.register_forward_pre_hook(mt.watching(lambda *_: ran.append(1)))
    try:
        monkeypatch.setattr(room, "device_left", lambda device: needed - 1)
        with pytest.raises(MicrotomeError, match=r"would take \d MiB, and the machine has \d MiB"):
            ask(tiny)
        assert not ran
        monkeypatch.setattr(room, "device_left", lambda device: needed)
        ask(tiny)
    finally:
        handle.remove()


def test_where_the_machine_does_not_say_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(room, "device_left", lambda device: None)
    room.check_room(2**60, "This", "ask for less")


def test_what_a_device_has_not_left_is_refused_with_its_name(monkeypatch):
    there = torch.device("cuda", 1)
    monkeypatch.setattr(room, "device_left", lambda device: 2**20 if device == there else 2**30)
    room.check_room(2**21, "It", "ask for less")
    with pytest.raises(MicrotomeError, match="take 2 MiB, and the device cuda:1 has 1 MiB left"):
        room.check_room(2**21, "It", "ask for less", there)
