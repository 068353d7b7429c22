"""What docs/reading.md says of a real model is so."""

from __future__ import annotations

import pytest

import microtome as mt

PARIS = mt.Prompt(
    "Berlin is the capital of Germany, and Paris is the capital of",
    target=" France",
    contrast=" Germany",
)


@pytest.mark.slow
class TestOnSmollm2:
    def test_the_answer_comes_first_after_the_last_layer_alone(self, smollm2):
        rank = mt.lens(smollm2, PARIS, "L22:.resid_post@-1").table()["rank"].tolist()
        assert rank[:3] == [2565, 116, 7]
        assert rank[-1] == 1
        assert min(rank[:-1]) > 1

    def test_heads_of_layer_23_write_the_answer(self, smollm2):
        found = mt.attribute_logits(smollm2, PARIS)
        assert float(found.total[0]) == pytest.approx(float(found.data["logit"][0]), abs=1e-4)
        assert float(found.data["logit"][0]) == pytest.approx(11.89, abs=0.01)
        table = found.table(3)
        assert table["writer"].tolist() == ["L23.head_out.h4", "L29.head_out.h1", "L23.head_out.h3"]
        assert table["share"].tolist() == pytest.approx([2.94, 2.40, 2.16], abs=0.01)

    def test_it_has_induction_heads(self, smollm2):
        table = mt.head_scores(smollm2).table("induction", 4)
        heads = list(zip(table["layer"], table["head"], strict=True))
        assert heads == [(18, 6), (17, 4), (17, 3), (17, 5)]
        assert table["score"].tolist() == pytest.approx([0.87, 0.76, 0.76, 0.73], abs=0.01)

    def test_a_name_mover_copies_and_is_told_where_to_look(self, smollm2):
        gifts = mt.tasks.ioi(8, tokenizer=smollm2.tokenizer)
        share = mt.head_circuit(smollm2, "L23.h0", tokens=300).copying
        assert share.value == pytest.approx(0.37, abs=0.01)
        told = "patch L20.head_out.h0 -> L23.q_in.h0"
        effect = mt.sweep(smollm2, gifts[:4], told, metrics=["logit_diff"]).delta("logit_diff")
        assert float(effect.mean()) == pytest.approx(-2.39, abs=0.01)

    def test_a_fact_comes_back_at_the_subjects_last_token(self, smollm2):
        fact = mt.Prompt("Zagreb is the capital of", target=" Croatia", roles={"subject": "Zagreb"})
        traces = mt.trace_facts(smollm2, fact, kinds=["hidden"], samples=1)
        assert float(traces.data["clean"][0]) == pytest.approx(0.0252, abs=1e-4)
        assert float(traces.total[0]) > 0.02
        effect = traces.effect.isel(kind=0, prompt=0)
        assert float(effect[4:23, 2].min()) > 0.01
        assert effect.argmax("pos").values.tolist() == [2] * 23 + [6] * 7  # then of the last token
