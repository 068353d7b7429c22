"""The examples run, and what the docs say of them is so."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from examples import name_movers, repeat_a_name, steering

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
        assert (first.head, first.k_pos_token) == (6, " Lily")
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


@pytest.fixture(scope="module")
def gifts(smollm2):
    """Eight of the fifty prompts of docs/name-movers.md."""
    return name_movers.asked(smollm2, 8)


@pytest.fixture(scope="module")
def movers(smollm2, gifts):
    found = name_movers.patched(smollm2, gifts)
    strongest = name_movers.strongest(smollm2, gifts, found, 5)
    return {(one.layer, one.head): one for one in strongest}


@pytest.mark.slow
class TestNameMovers:
    def test_the_heads_that_carry_the_answer_and_what_they_look_at(self, movers):
        assert set(movers) == {(20, 0), (23, 3), (24, 4), (29, 0), (29, 1)}
        assert all(head.p < 0.05 for head in movers.values())
        assert movers[20, 0].effect.value < -3 < 2 < movers[24, 4].effect.value
        assert movers[20, 0].looks_at == movers[23, 3].looks_at == "S2"
        assert movers[24, 4].looks_at == "IO"
        assert movers[24, 4].attends["IO"] > 0.6
        assert movers[29, 1].attends["IO"] < 0.05

    def test_what_a_head_writes_by_itself_is_what_removing_it_at_the_end_takes_away(
        self, smollm2, gifts, movers
    ):
        """In the last layer, where nothing comes after but the MLP and a norm that hardly moves."""
        effects = mt.sweep(smollm2, gifts, "zero L29.z.h*@-1", metrics=["logit_diff"])
        removed = effects.delta("logit_diff").mean("prompt")
        for head in (0, 1):
            assert movers[29, head].writes == pytest.approx(-float(removed[head]), abs=0.6)

    def test_a_negative_name_mover_is_told_by_its_look(self, smollm2, gifts):
        cut = name_movers.knocked_out(smollm2, gifts, 24, "IO").delta("logit_diff")
        assert float(cut.sel(head=4).mean()) > 1.5


@pytest.fixture(scope="module")
def mood(smollm2):
    """The vector of docs/steering.md."""
    return steering.happy_minus_sad(smollm2)


@pytest.mark.slow
class TestSteering:
    def test_the_model_writes_what_the_page_shows(self, smollm2, mood, monkeypatch):
        """All of what makes it happy; of the others, how they begin."""
        assert mood.norms[12] == pytest.approx(109.1, abs=0.1)
        [happy] = steering.written(smollm2, mood, 0.5)
        assert happy.text.startswith(" a great success.")
        assert happy.kl.mean() == pytest.approx(0.71, abs=0.01)
        assert happy.apart < 1e-3
        monkeypatch.setattr(steering, "STEPS", 6)
        for factor, begin in {0.0: " a film about a young", -0.5: " a movie about a"}.items():
            [one] = steering.written(smollm2, mood, factor)
            assert one.text.startswith(begin)
            assert (one.kl.mean() > 0.1) == bool(factor)
            assert one.apart < 1e-3

    def test_without_edits_it_is_the_modules_own_in_a_chat_too(self, smollm2):
        chat = mt.Prompt.chat([{"role": "user", "content": "Is a whale a fish?"}])
        [one] = smollm2.generate(chat, steps=6)
        ids = torch.tensor([one.encoded.tokens.ids])
        own = smollm2.hf.generate(ids, max_new_tokens=6, do_sample=False)
        assert one.ids == tuple(own[0, ids.shape[1] :].tolist())

    def test_a_dose_gains_and_costs_what_the_page_says(self, smollm2, mood):
        prompts = [
            mt.Prompt(f"{subject} was absolutely", target=" wonderful", contrast=" terrible")
            for subject in steering.JUDGED
        ]
        found = mt.dose(
            smollm2, mood.add(layers=18), prompts, steering.NEUTRAL, over={"factor": [-0.5]},
            verify=1, progress=False,
        )  # fmt: skip
        assert found.data["logit_diff_effect"].item() == pytest.approx(-3.41, abs=0.01)
        assert found.data["kl"].item() == pytest.approx(0.25, abs=0.01)
        assert found.data["perplexity"].item() == pytest.approx(92.9, abs=0.1)
        assert found.data["clean_perplexity"].item() == pytest.approx(84.9, abs=0.1)


def test_a_trained_llama_writes_its_own_text_and_steers(stories):
    """Grouped keys, and a text of 30 tokens."""
    prompt = "Once upon a time, there was a little girl named Lily."
    ids = torch.tensor([stories.encode(prompt)[0].tokens.ids])
    own = stories.hf.generate(ids, max_new_tokens=30, do_sample=False)[0, ids.shape[1] :]
    [clean] = stories.generate(prompt, steps=30)
    assert clean.ids == tuple(own.tolist())
    vector = mt.steering.of_token(stories, "y", normalise=True)
    [one] = stories.generate(prompt, vector.add(2, layers=3, at="last"), steps=30)
    assert (one.kl > 0).all()
    assert [receipt.norm for receipt in one.receipts] == pytest.approx([2.0] * 30, rel=1e-4)
