"""Causal tracing against hooks written by hand, cell by cell; averages; refusals."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats

import microtome as mt
from conftest import BERLIN, CAT
from microtome.engines.approximate.atp import AtP
from microtome.engines.walk.walk import Walk
from microtome.errors import EditError, EffectsError, MetricError, PromptError, SweepError
from microtome.frontends import cli
from microtome.frontends.guard import Stopped
from microtome.plan.plan import make_plan
from microtome.report import code
from microtome.verbs.answer import Here
from microtome.verbs.asking import asking
from microtome.verbs.options import Options
from microtome.verbs.sweep import answered
from oracles import families as by_hand
from oracles.families import FAMILIES, LAYERS, Change

FACTS = [
    mt.Prompt("The cat sat on the mat, and", target=" dog", roles={"subject": "cat sat"}),
    mt.Prompt(BERLIN, target=" Germany", roles={"subject": "Berlin"}),
]


@pytest.fixture(scope="module", params=["gpt2", "gemma2"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family, of_family):
    return of_family(family)


@pytest.fixture(scope="module")
def traces(model):
    return mt.trace_facts(model, FACTS, samples=2, window=2, seed=5)


def test_every_cell_is_what_hooks_written_by_hand_give(model, family, traces):
    hand, one = FAMILIES[family], model.encode(FACTS[0])[0]
    ids, subject, width = one.tokens.ids, [1, 2], list(range(32))
    clean = by_hand.run(model.hf, hand, ids)

    def prob(*changes: Change) -> float:
        logits = by_hand.run(model.hf, hand, ids, changes).logits.numpy()
        return scipy.special.softmax(logits[-1])[one.target]

    own = traces.data.isel(prompt=0)
    assert float(own["clean"]) == pytest.approx(prob(), abs=1e-9)
    std = traces.provenance["spec"]["std"]
    for sample in range(2):
        text = f'noise(std={std!r}, how="add", seed={5 + sample}) embed@{{1,2}}'
        noisy = model.run(FACTS[0], edits=[text], keep=["embed"])["embed"].values[0]
        corrupt = Change("embed", None, [subject, width], lambda x, noisy=noisy: noisy[[1, 2]])
        found = float(own["corrupted"][sample])
        assert found == pytest.approx(prob(corrupt), abs=1e-9)
        for kind, site in (("hidden", "resid_post"), ("mlp", "mlp_out"), ("attention", "attn_out")):
            for layer, pos in ((0, 1), (1, 2), (2, 7), (1, 0)):
                layers = [layer] if kind == "hidden" else range(max(0, layer - 1), layer + 1)
                restore = [
                    Change(site, n, [[pos], width],
                           lambda x, n=n: clean.seen[site, n][[pos]])  # noqa: B023
                    for n in layers
                ]  # fmt: skip
                cell = own["prob"].sel(kind=kind, layer=layer, pos=pos, sample=sample)
                wanted = prob(corrupt, *restore)
                assert float(cell) == pytest.approx(wanted, abs=1e-9), (kind, layer, pos)


def test_the_noise_is_a_multiple_of_the_subjects_spread(model, traces):
    rows = []
    for fact, subject in zip(FACTS, ([1, 2], [0]), strict=True):
        rows.append(model.run(fact, keep=["embed"])["embed"].values[0, subject])
    wanted = 3 * np.concatenate(rows).std()
    assert traces.provenance["spec"]["std"] == pytest.approx(wanted, rel=1e-9)


def test_positions_of_shorter_facts_are_absent_and_parts_are_named(traces):
    own = traces.data.isel(prompt=1)
    assert own["prob"].isel(pos=slice(5, None)).isnull().all()
    assert own["part"].values.tolist()[:6] == [
        "last subject token", "first token behind", "further tokens", "further tokens",
        "last token", "",
    ]  # fmt: skip
    before = traces.effect.isel(prompt=0, pos=0)
    np.testing.assert_allclose(before, 0, atol=1e-12)  # no noise reaches what is before it


def test_averages_are_means_over_facts_with_their_intervals(tiny64):
    traces = mt.trace_facts(tiny64, FACTS, kinds=["hidden", "mlp"], samples=1)
    average = traces.average().sel(kind="hidden", layer=1)
    effect = traces.effect.sel(kind="hidden", layer=1)
    each = [float(effect[0, 2]), float(effect[1, 0])]
    own = average.sel(part="last subject token")
    assert float(own["effect"]) == pytest.approx(np.mean(each), abs=1e-12)
    half = scipy.stats.t.ppf(0.975, 1) * np.std(each, ddof=1) / np.sqrt(2)
    ends = [np.mean(each) - half, np.mean(each) + half]
    np.testing.assert_allclose([own["low"], own["high"]], ends, atol=1e-12)
    assert int(own["n"]) == 2
    alone = average.sel(part="first subject token")
    assert (int(alone["n"]), bool(alone["low"].isnull())) == (1, True)
    further = float(effect[0, 4:7].mean() + effect[1, 2:4].mean()) / 2
    own = average.sel(part="further tokens")
    assert float(own["effect"]) == pytest.approx(further, abs=1e-12)
    assert traces.figure("mlp").data[0].z.shape == (average.sizes["part"], LAYERS)
    assert traces.figure("mlp", prompt=1).data[0].z.shape == (5, LAYERS)
    with pytest.raises(EffectsError, match="no 'hiden' here; there are: hidden, mlp"):
        traces.figure("hiden")


def test_without_noise_all_is_as_clean_and_with_all_put_back_too(tiny64):
    still = mt.trace_facts(tiny64, FACTS[1], kinds=["hidden"], samples=1, noise_std=0.0)
    np.testing.assert_allclose(still.data["prob"], still.data["clean"].item(), atol=1e-12)
    assert not still.total.values.any()
    fact = mt.Prompt(BERLIN, donor=BERLIN, target=" Germany")
    edits = ['noise(std=3, how="add") embed@0', "patch L*.resid_post"]
    effects = mt.sweep(tiny64, fact, edits, metrics=["prob"])
    np.testing.assert_allclose(effects.delta("prob"), 0, atol=1e-12)


def test_a_fact_without_an_answer_has_what_the_model_says(tiny64):
    fact = mt.Prompt(BERLIN, roles={"subject": 0})
    traces = mt.trace_facts(tiny64, fact, kinds=["mlp"], samples=1)
    assert traces.encoded[0].target == tiny64.run(fact).top(1)["id"][0]
    by_ids = mt.Prompt(ids=tiny64.encode(BERLIN)[0].tokens.ids, roles={"subject": 0})
    again = mt.trace_facts(tiny64, by_ids, kinds=["mlp"], samples=1)
    np.testing.assert_array_equal(again.data["prob"], traces.data["prob"])


def test_what_is_no_fact_is_refused_by_name(tiny, bert64):
    with pytest.raises(PromptError, match=r"has no subject: name its words as a role.*--subject"):
        mt.trace_facts(tiny, CAT)
    with pytest.raises(PromptError, match="fills in masks"):
        mt.trace_facts(bert64, "a dog sat on the [MASK]")
    several = mt.Prompt(BERLIN, target=" Germany and", roles={"subject": "Berlin"})
    with pytest.raises(MetricError, match="several tokens"):
        mt.trace_facts(tiny, several)
    with pytest.raises(EffectsError, match="kinds are hidden, mlp, attention; given: heads"):
        mt.trace_facts(tiny, FACTS, kinds=["heads"])


def test_the_command_line_leaves_maps_and_averages(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    asked = ["trace", "nano", "--task", "capitals:2", "--kind", "hidden", "--samples", "1"]
    monkeypatch.setattr(sys, "argv", ["microtome", *asked, "-o", str(out), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    answer = json.loads(capsys.readouterr().out)
    [first, *_] = answer["largest"]
    assert (first["kind"], first["n"]) == ("hidden", 2)
    for name in ("hidden-average", "hidden-0", "hidden-1"):
        assert (out / "figures" / f"{name}.png").is_file()
    asked = ["trace", "nano", "-p", BERLIN, "--subject", "Paris"]
    monkeypatch.setattr(sys, "argv", ["microtome", *asked])
    with pytest.raises(SystemExit):
        cli.main()
    assert "'Paris' is not in the prompt" in capsys.readouterr().err


def test_a_window_walks_as_the_reference_path_has_it(tiny64):
    fact = mt.Prompt(CAT, donor="The dog sat", target=" dog", contrast=" cat")
    question = asking(
        tiny64, fact, "patch L*.z.h*@1:", metrics=["logit_diff"], window=2,
    )  # fmt: skip
    walk, reference = (
        answered(
            tiny64, question, Options.of(engine, 4, None, None, None, 0), Here(tiny64),
            None, False, False, False,
        ).data["logit_diff"].values[0]
        for engine in ("walk", "reference")
    )  # fmt: skip
    np.testing.assert_allclose(walk, reference, atol=1e-9, rtol=0)
    for layer, layers in enumerate(("0", "0:2", "1:3")):
        run = tiny64.run(fact, edits=[f"patch L{layers}.z.h3@1:"]).logits[0, -1]
        one = tiny64.encode(fact)[0]
        wanted = float(run[one.target] - run[one.contrast])
        assert walk[layer, 3] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    "edit",
    ["zero L1.z.h*", "zero embed@*", "scale(2) L*.pattern.h0@-1,0", "zero L*.z.h0 -> L2.mlp_in"],
)
def test_windows_are_of_starred_layers(tiny64, edit):
    with pytest.raises(SweepError, match="is made in no window of 3 layers"):
        asking(tiny64, CAT, edit, metrics=["top1"], window=3)


@pytest.mark.parametrize("kind", ["hidden", "mlp"])
def test_no_sweep_is_said_to_repeat_its_maps(tiny64, tmp_path, kind):
    """Nor one run a cell of them: neither has the noise, or the window."""
    mt.trace_facts(tiny64, FACTS[1], kinds=[kind], samples=1, window=2, out=tmp_path)
    effects = mt.open_effects(tmp_path / f"{kind}.zarr")
    ways = [code.again_in_python, code.again_in_shell, code.again_in_yaml]
    for way in [*ways, lambda own: code.rerun(own, {"prompt": 0, "layer": 0, "pos": 0})]:
        with pytest.raises(EditError, match="which no sweep repeats: trace_facts made it"):
            way(effects)


def test_gradients_say_nothing_of_windows(tiny64):
    question = asking(tiny64, FACTS[1], "zero L*.z.h*", metrics=["logit"], window=2)
    with pytest.raises(SweepError, match="nor of windows of layers"):
        make_plan(question, method=AtP())


def test_who_stops_it_hears_what_is_kept_and_the_same_again_goes_on(tmp_path, monkeypatch, capsys):
    asked = ["trace", "nano", "-p", BERLIN, "--target", " Germany", "--subject", "Berlin"]
    asked += ["--samples", "1", "--kind", "hidden", "--kind", "mlp"]
    collect, calls = Walk.collect, []

    def stopped(*given):
        calls.append(given)
        if len(calls) == 3:  # clean and corrupted, hidden states, MLPs
            raise Stopped(signal.SIGINT)
        return collect(*given)

    def call(*more) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["microtome", *asked, *map(str, more)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Walk, "collect", stopped)
        code, said = call("-o", out)
    assert code == 130
    assert f"Kept in {out}: effects/hidden.zarr (whole)" in said
    assert "To go on, the same again:\nmicrotome trace nano" in said
    calls.clear()
    monkeypatch.setattr(Walk, "collect", lambda *a: calls.append(a) or collect(*a))
    assert call("-o", out)[0] == 0
    assert len(calls) == 2  # clean and corrupted, MLPs
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["effects"] == ["effects/hidden.zarr", "effects/mlp.zarr"]
    monkeypatch.setattr(Walk, "collect", stopped)
    calls.clear()
    code, said = call()
    assert code == 130
    assert "Nothing is kept. With -o DIR" in said
    assert said.splitlines()[-1].endswith("-o DIR")


def test_what_a_text_has_of_plotlys_signs_is_shown_as_it_is(tiny64):
    fact = mt.Prompt("The <b>cat</b> sat", roles={"subject": "cat"})
    traces = mt.trace_facts(tiny64, fact, kinds=["hidden"], samples=1)
    assert "&lt;b&gt;cat" in traces.figure("hidden", prompt=0).layout.title.subtitle.text
    assert traces.figure("hidden").layout.title.subtitle.text.endswith("over 1 fact")
