"""The examples run, and what the docs say of them is so."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from examples import repeat_a_name

import microtome as mt


@pytest.fixture(scope="module")
def stories(real_models):
    folder = real_models / "stories260K"
    if not folder.is_dir():
        pytest.skip("../shared/models/stories260K is not there")
    return mt.load(folder, device="cpu")


class TestRepeatAName:
    def test_two_heads_carry_the_name(self, stories):
        effect = repeat_a_name.heads(stories).delta("logit_diff").mean("prompt").values
        order = np.argsort(effect.ravel())
        assert [divmod(int(n), 8) for n in order[:3]] == [(2, 6), (4, 0), (4, 4)]
        np.testing.assert_allclose(effect.ravel()[order[:3]], [-4.86, -4.36, -1.16], atol=0.01)

    def test_the_first_reads_the_name_where_it_was_given(self, stories):
        effects = repeat_a_name.keys(stories, 2)
        first, second = effects.top(2, "logit_diff").itertuples()
        assert (first.head, first.k_pos_token) == (6, "Lily")
        assert first.effect == pytest.approx(-2.14, abs=0.01)
        assert abs(second.effect) < 0.25

    def test_of_two_heads_that_share_its_key_one_needs_it(self, stories):
        effect = repeat_a_name.shared(stories, 2).delta("logit_diff").mean("prompt").values
        assert effect[6] == pytest.approx(-2.33, abs=0.01)
        assert abs(effect[7]) < 0.02

    def test_the_script_writes_what_the_docs_show(self, real_models, tmp_path, monkeypatch, capsys):
        if not (real_models / "stories260K").is_dir():
            pytest.skip("../shared/models/stories260K is not there")
        monkeypatch.setattr(sys, "argv", ["", str(real_models / "stories260K"), str(tmp_path)])
        repeat_a_name.main()
        assert "L2.z.h6@-1: -4.86" in capsys.readouterr().out
        for name in ("heads", "keys"):
            assert (tmp_path / f"{name}.png").stat().st_size > 10_000
