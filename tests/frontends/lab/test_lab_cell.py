"""What a click shows is what runs by hand give: tokens, receipts, effects, patterns, shares."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.errors import AddressError, EditError, MetricError, PromptError
from microtome.frontends.lab.answers import cell as cells
from microtome.frontends.lab.answers.cell import changed, looked, shares, together
from microtome.frontends.lab.answers.measuring import Value, canonical
from microtome.frontends.lab.answers.nodes import nodes_of, readers_of
from oracles.plain_hooks import Change, everything, run

FACT = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")


@pytest.fixture(scope="module")
def grouped(of_family):
    return of_family("llama")


def by_hand(model, *heads):
    """The last logits where these heads are zero, ``{(layer, head), …}``."""
    length = len(model.encode(FACT)[0].tokens)
    where = everything(model.hf, "z", length)
    changes = [
        Change("z", layer, [where[0], [head], where[2]], lambda z: 0 * z) for layer, head in heads
    ]
    ids = model.encode(FACT)[0].tokens.ids
    return run(model.hf, ids, changes).logits[-1].numpy()


def difference(model, logits):
    target, contrast = (model.encode(FACT)[0].answer(name) for name in ("target", "contrast"))
    return logits[target] - logits[contrast]


def test_tokens_before_and_after_are_those_of_hooks(tiny64):
    found = changed(tiny64, FACT, ["zero L0.z.h1", "zero L2.z.h3"], k=4)
    clean, edited = by_hand(tiny64), by_hand(tiny64, (0, 1), (2, 3))
    soft = [np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in (clean, edited)]
    assert [one.id for one in found.before] == np.argsort(-clean)[:4].tolist()
    assert [one.id for one in found.after] == np.argsort(-edited)[:4].tolist()
    for word in (*found.before, *found.after):
        assert word.clean_prob == pytest.approx(soft[0][word.id], abs=1e-9)
        assert word.prob == pytest.approx(soft[1][word.id], abs=1e-9)
        assert word.rank == 1 + (edited > edited[word.id]).sum()
        assert word.clean_rank == 1 + (clean > clean[word.id]).sum()
    assert [one.edit for one in found.receipts] == ["zero L0.z.h1", "zero L2.z.h3"]
    assert all(one.changed == 5 * 8 for one in found.receipts)


def test_together_is_one_run_and_alone_is_one_each(tiny64):
    found = together(tiny64, FACT, ["zero L0.z.h1", "zero L2.z.h3"], "logit_diff")
    clean = difference(tiny64, by_hand(tiny64))
    both = difference(tiny64, by_hand(tiny64, (0, 1), (2, 3)))
    each = [difference(tiny64, by_hand(tiny64, one)) - clean for one in ((0, 1), (2, 3))]
    assert found.value.effect == pytest.approx(both - clean, abs=1e-9)
    assert [one.effect for one in found.alone] == pytest.approx(each, abs=1e-9)
    assert found.summed == pytest.approx(sum(each), abs=1e-9)
    assert found.joint == pytest.approx(both - clean - sum(each), abs=1e-9)
    assert abs(found.joint) > 1e-4
    assert found.value.noise < 1e-9


def test_one_cell_is_alone_what_it_is_together(tiny64):
    found = together(tiny64, FACT, ["patch L1.z.h0@-1"], "prob")
    own = mt.sweep(tiny64, FACT, "patch L*.z.h*@-1", metrics="prob").delta("prob")
    assert found.value.effect == pytest.approx(float(own[0, 1, 0]), abs=1e-12)
    assert found.joint == 0
    assert [one.edit for one in found.alone] == ["patch L1.z.h0@-1"]


def test_the_noise_is_the_largest_of_all_runs(tiny64, monkeypatch):
    noises = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(
        cells, "value_of", lambda effects: Value("prob@last", "", 0.0, 1.0, next(noises))
    )
    found = together(tiny64, FACT, ["zero L0.z.h1", "zero L2.z.h3"], "prob")
    assert found.value.noise == 3.0


def test_its_share_is_shown_however_small(tiny64):
    writers = [one.writer for one in shares(tiny64, FACT, [], k=100).largest]
    heads = [one for one in writers if "head_out" in one]
    edit = f"zero {heads[-1].replace('head_out', 'z')}"
    found = shares(tiny64, FACT, [edit], k=1)
    assert [one.writer for one in found.own] == [heads[-1]]
    assert [one.writer for one in found.largest] == writers[:1]


def test_what_cannot_be_shown_is_refused_by_name(tiny64, bert64):
    with pytest.raises(EditError, match="No cell is chosen: click one"):
        changed(tiny64, FACT, [])
    with pytest.raises(EditError, match="No cell is chosen"):
        together(tiny64, FACT, [], "prob")
    bare = mt.Prompt(BERLIN, target=" Germany")
    with pytest.raises(PromptError, match="donor"):
        changed(tiny64, bare, ["patch L1.z.h0"])
    with pytest.raises(AddressError, match="layer"):
        changed(tiny64, FACT, ["zero L7.z.h0"])
    with pytest.raises(MetricError, match="token"):
        shares(tiny64, mt.Prompt(BERLIN), ["zero L1.z.h0"])
    with pytest.raises(MetricError, match="top1 has no difference"):
        together(tiny64, FACT, ["zero L1.z.h0"], "top1")
    with pytest.raises(MetricError, match="several numbers in a cell"):
        canonical("norm(L1.z)")


def test_a_prompt_of_one_token_and_a_mask_are_shown_like_others(tiny64, bert64):
    one = mt.Prompt("Berlin", target=" is")
    assert len(changed(tiny64, one, ["zero L0.z.h1"]).after) == 10
    assert looked(tiny64, one, 0, 1).data[0].z.tolist() == [[1.0]]
    masked = mt.Prompt("a dog sat on the [MASK]", target="mat")
    found = together(bert64, masked, ["zero L1.z.h0@mask"], "logprob")
    wanted = mt.sweep(bert64, masked, "zero L1.z.h0@mask", metrics="logprob").delta("logprob")
    assert found.value.effect == pytest.approx(wanted.item(), abs=1e-12)
    assert changed(bert64, masked, ["zero L1.z.h0"]).receipts[0].changed > 0


def test_it_shows_where_the_head_looks(tiny64):
    weights = tiny64.run(FACT, keep=["L2.pattern"])["L2.pattern"].sel(head=1).values[0]
    np.testing.assert_allclose(looked(tiny64, FACT, 2, 1).data[0].z, weights, atol=1e-9)
    with pytest.raises(AddressError):
        looked(tiny64, FACT, 2, 9)


def test_its_share_is_what_it_writes_by_itself(tiny64):
    data = mt.attribute_logits(tiny64, FACT).data
    found = shares(tiny64, FACT, ["zero L2.z.h1@-1", "zero L0.mlp_post.n3", "zero L2.z.h1"])
    assert {one.writer: one.share for one in found.own} == pytest.approx(
        {
            "L2.head_out.h1": data["head_out"].sel(layer=2, head=1).item(),
            "L0.mlp_out": data["mlp_out"].sel(layer=0).item(),
        },
        abs=1e-12,
    )
    clean = difference(tiny64, by_hand(tiny64))
    assert found.metric == "logit_diff"
    assert found.logit == pytest.approx(clean, abs=1e-9)
    sizes = [abs(one.share) for one in found.largest]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("edit", "nodes"),
    [
        ("zero L1.z.h2@-1", ["a1.h2"]),
        ("zero L-1.z.h{0,3}", ["a2.h0", "a2.h3"]),
        ("zero L1.k.h1", ["a1.h2", "a1.h3"]),
        ("zero L1.k_head.h3", ["a1.h3"]),
        ("zero L0.attn_out", ["a0.h0", "a0.h1", "a0.h2", "a0.h3"]),
        ("zero L:.mlp_post.n0", ["m0", "m1", "m2"]),
        ("zero L1.resid_post", []),
        ("zero embed@-1", ["input"]),
        ("zero L0.z.h1 -> L1.q_in.h3", ["a1.h3"]),
        ("zero L0.z.h1 -> final_in", ["logits"]),
    ],
)
def test_a_cell_is_of_nodes(grouped, edit, nodes):
    assert list(nodes_of(grouped, mt.Prompt(BERLIN), edit)) == nodes


def test_a_head_reads_by_its_three_parts_or_by_the_one_that_is_edited():
    assert readers_of("a1.h2") == ("a1.h2<q>", "a1.h2<k>", "a1.h2<v>")
    assert readers_of("a1.h2", "v_in_group") == ("a1.h2<v>",)
    assert readers_of("logits") == ("logits",)


def test_what_a_user_wrote_is_no_markup_in_a_figure(tiny64):
    planted = mt.Prompt("<b>Berlin</b><img src=x onerror=alert(1)> is", target=" the")
    for figure in (looked(tiny64, planted, 1, 0), shares(tiny64, planted, []).figure):
        shown = json.dumps(figure.to_plotly_json(), default=str)
        assert "<img" not in shown
        assert "<b>" not in shown


@pytest.mark.parametrize("answer", [changed, lambda *given: together(*given, "prob")])
def test_a_cell_has_no_stars(tiny, answer):
    """A link may name a whole map in the place of a cell: it is not swept."""
    with pytest.raises(EditError, match="is a map, not a cell of one"):
        answer(tiny, FACT, ["zero L0.z.h1", "zero L*.mlp_post.n*@*"])


def test_not_more_cells_are_weighed_one_by_one_than_anybody_waits_for(tiny):
    many = [f"scale({n}) L0.z.h1" for n in range(33)]
    with pytest.raises(EditError, match="33 cells are chosen, and at most 32"):
        together(tiny, FACT, many, "prob")
