"""What comes of a detour is put where an edit has changed something, and nowhere else."""

from __future__ import annotations

import numpy as np
import torch

from conftest import D_MODEL, HEADS
from microtome.passes.head_reads import HeadReads
from microtome.passes.ways import MlpReads

ROWS, POSITIONS = np.array([0, 1]), 4


def edited():
    """The stream of two rows before and after an edit of one position of the first."""
    before = torch.randn(2, POSITIONS, D_MODEL)
    after = before.clone()
    after[0, 2] += 1
    return before, after


def test_a_head_gets_no_other_bit_where_the_stream_is_the_same(tiny, monkeypatch):
    made = torch.full((2, POSITIONS, D_MODEL // HEADS), 7.0)
    monkeypatch.setattr(HeadReads, "_made", lambda *_: made)
    view = torch.zeros(2, POSITIONS, HEADS, D_MODEL // HEADS)
    put = HeadReads(tiny.hf, tiny.anatomy, 0, "q_in").change(*edited(), ROWS, np.array([1, 3]))
    put(view)
    assert (view[0, 2, 1] == 7).all()
    assert view.sum() == 7 * D_MODEL / HEADS


def test_the_mlp_gets_no_other_bit_where_the_stream_is_the_same(tiny, monkeypatch):
    made = torch.full((2, POSITIONS, D_MODEL), 7.0)
    monkeypatch.setattr(type(tiny.anatomy), "mlp_normed", lambda *_: made)
    view = torch.zeros(2, POSITIONS, D_MODEL)
    put = MlpReads(tiny.hf, tiny.anatomy, 0).change(*edited(), ROWS, np.array([0, 0]))
    put(view)
    assert (view[0, 2] == 7).all()
    assert view.sum() == 7 * D_MODEL
