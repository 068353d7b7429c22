"""The card of one head says what the maps that it is of say."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.errors import AddressError, MetricError
from microtome.frontends import cli
from microtome.report.of_head import document_of_head

FACTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France", roles={"city": 0}),
    mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany", roles={"city": 0}),
]


@pytest.fixture(scope="module")
def card(tiny64):
    return mt.head_card(tiny64, "L2.h1", FACTS, k=50, tokens=12)


def test_its_effects_are_those_of_maps(card, tiny64):
    for row in card.effects.itertuples():
        own = mt.sweep(tiny64, FACTS, row.edit, metrics=["logit_diff"]).delta("logit_diff")
        assert row.effect == pytest.approx(float(own.mean()), abs=1e-12)
        assert row.n == 2
    assert card.effects["edit"].tolist() == ["zero L2.z.h1", "patch L2.z.h1"]
    shares = mt.attribute_logits(tiny64, FACTS).data["head_out"].sel(layer=2, head=1)
    assert card.share.value == pytest.approx(float(shares.mean()), abs=1e-12)
    [snippet] = document_of_head(card).snippets
    assert snippet.code.endswith("prompts, k=50, tokens=12, seed=0)")


def test_it_looks_where_the_last_token_looks(card, tiny64):
    weights = tiny64.run(FACTS, keep=["L2.pattern"])["L2.pattern"].sel(head=1, q_pos=4)
    wanted = {"first token": weights.sel(k_pos=0), "@city": weights.sel(k_pos=0)}
    assert set(card.looks["at"]) == set(wanted)
    for row in card.looks.itertuples():
        assert row.weight == pytest.approx(float(wanted[row.at].mean()), abs=1e-9)
    scores = mt.head_scores(tiny64).data["induction"].sel(layer=2, head=1)
    own = card.scores.set_index("score").loc["induction", "value"]
    assert own == pytest.approx(float(scores.mean()), abs=1e-9)


def test_what_feeds_it_are_edges_one_by_one(card, tiny64):
    assert not card.not_fed
    fed = card.fed.set_index(["reads", "writer"])["effect"]
    assert len(fed) == 3 * (1 + 2 * 4 + 2)  # the embedding, heads and MLPs of two layers
    for reads, writer in (("q_in", "L1.head_out.h3"), ("v_in", "embed"), ("k_in", "L0.mlp_out")):
        edit = f"patch {writer} -> L2.{reads}.h1"
        own = mt.sweep(tiny64, FACTS, edit, metrics=["logit_diff"]).delta("logit_diff")
        assert fed[reads, writer] == pytest.approx(float(own.mean()), abs=1e-12)
    sizes = np.abs(card.fed["effect"].to_numpy())
    assert (np.diff(sizes) <= 0).all()


def test_of_the_first_layer_and_of_one_prompt(tiny64, bert64):
    one = mt.head_card(tiny64, "L0.h0", mt.Prompt(BERLIN, target=" Germany"), tokens=5)
    assert one.metric == "logit"
    assert set(one.fed["writer"]) == {"embed"}
    assert one.effects["edit"].tolist() == ["zero L0.z.h0"]
    assert len(one.looks) == 5
    for wrong in ("L4", "three"):
        with pytest.raises(AddressError, match=f"'{wrong}' names no head: L<layer>.h<head>"):
            mt.head_card(tiny64, wrong, FACTS)
    with pytest.raises(AddressError, match=r"A head goes by its name, .*, not by \(0, 3\)"):
        mt.head_card(tiny64, (0, 3), FACTS)
    with pytest.raises(AddressError, match="there is no layer 7"):
        mt.head_card(tiny64, "L7.h0", FACTS)
    with pytest.raises(MetricError, match="has no target"):
        mt.head_card(tiny64, "L0.h0", BERLIN)
    masked = mt.Prompt("a dog sat on the [MASK]", target="mat")
    found = mt.head_card(bert64, "L1.h0", masked, tokens=5)
    assert "no sum of what was written" in found.not_fed


def test_the_command_line_leaves_the_card(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    asked = ["head", "L0.h3", "nano", "--task", "ioi:2", "--tokens", "10", "-o", str(out), "--json"]
    monkeypatch.setattr(sys, "argv", ["microtome", *asked])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    answer = json.loads(capsys.readouterr().out)
    assert [row["edit"] for row in answer["effects"]] == ["zero L0.z.h3", "patch L0.z.h3"]
    assert (out / "figures" / "pattern.png").is_file()
    assert "What feeds it" in (out / "report.html").read_text(encoding="utf-8")


def test_neighbours_are_heads_whose_effects_correlate_over_prompts(tiny64):
    rome = mt.Prompt("Rome is the capital of", donor=PARIS, target=" Italy", contrast=" France")
    short = mt.Prompt("Rome is in", donor="Berlin is in", target=" Italy", contrast=" Germany")
    prompts = [*FACTS, rome, short]
    card = mt.head_card(tiny64, "L2.h1", prompts, tokens=5, k=1000)
    each = mt.sweep(tiny64, prompts, "patch L*.z.h*", metrics=["logit_diff"])
    effects = each.delta("logit_diff").transpose("prompt", "layer", "head").values.reshape(4, -1)
    heads = tiny64.anatomy.dims.n_heads
    wanted = np.corrcoef(effects.T)[2 * heads + 1]
    found = dict(zip(card.neighbours["head"], card.neighbours["correlation"], strict=True))
    assert len(found) == tiny64.anatomy.dims.n_layers * heads - 1
    assert "L2.h1" not in found
    for name, own in found.items():
        layer, head = (int(part[1:]) for part in name.split("."))
        assert own == pytest.approx(wanted[layer * heads + head], abs=1e-9)
    sizes = card.neighbours["correlation"].abs()
    assert sizes.is_monotonic_decreasing
    assert mt.head_card(tiny64, "L2.h1", FACTS, tokens=5).neighbours.empty
