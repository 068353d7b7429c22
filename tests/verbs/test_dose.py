"""A dose sweep is what runs, one by one, give: gains on prompts, costs at every token of texts."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

import microtome as mt
from microtome.engines.walk.walk import Walk
from microtome.errors import EditError, EffectsError, MetricError, PromptError, SweepError
from oracles.plain_hooks import log_softmax

PROMPTS = [
    mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France"),
    mt.Prompt("Rome is in", target=" Italy", contrast=" France"),
]
NEUTRAL = ["The cat sat on the mat", "Mary gave a drink to John, and"]
FACTORS = [0.0, 0.5, -2.0]


@pytest.fixture(scope="module")
def vector():
    rng = np.random.default_rng(3)
    return mt.SteeringVector({layer: rng.normal(size=32) for layer in range(3)})


@pytest.fixture(scope="module")
def found(tiny64, vector):
    return mt.dose(
        tiny64, vector.add(layers="*"), PROMPTS, NEUTRAL, over={"factor": FACTORS},
        metrics=["logit_diff", "prob"], progress=False,
    )  # fmt: skip


def costs(model, edits):
    """KL and −log probability of the next token at each token of each text, by single runs."""
    kl, losses = [], []
    for text in NEUTRAL:
        ids = model.encode(text)[0].tokens.ids
        run = model.run(text, edits)
        for place, edited in enumerate(run.logits[0].numpy()):
            before, after = log_softmax(run.clean_logits[0, place].numpy()), log_softmax(edited)
            kl.append(float((np.exp(before) * (before - after)).sum()))
            losses += [-after[ids[place + 1]]] if place + 1 < len(ids) else []
    return np.mean(kl), np.exp(np.mean(losses))


def test_each_dose_is_what_single_runs_give(tiny64, vector, found):
    assert found.data["kl"].dims == ("layer", "factor")
    for layer in range(3):
        for factor in FACTORS:
            edit = vector.add(factor, layers=layer)
            at = found.data.sel(layer=layer, factor=factor)
            kl, perplexity = costs(tiny64, [edit])
            assert at["kl"].item() == pytest.approx(kl, abs=1e-9)
            assert at["perplexity"].item() == pytest.approx(perplexity, rel=1e-9)
            gains = []
            for prompt in PROMPTS:
                [one] = tiny64.encode(prompt)
                logits = tiny64.run(prompt, [edit]).logits[0, -1]
                gains.append(float(logits[one.target] - logits[one.contrast]))
            assert at["logit_diff"].item() == pytest.approx(np.mean(gains), abs=1e-9)
    _, clean = costs(tiny64, [])
    assert found.data["clean_perplexity"].item() == pytest.approx(clean, rel=1e-9)
    difference = found.data["logit_diff"] - found.data["clean_logit_diff"]
    np.testing.assert_allclose(found.data["logit_diff_effect"], difference, atol=1e-12)


def test_no_dose_costs_nothing_to_the_bit(found):
    assert (found.data["kl"].sel(factor=0) == 0).all()
    assert (found.data["logit_diff_effect"].sel(factor=0) == 0).all()
    clean = found.data["clean_perplexity"].item()
    np.testing.assert_allclose(found.data["perplexity"].sel(factor=0), clean, rtol=1e-12)


def test_the_best_are_the_strongest_of_those_that_cost_little(found):
    rows = found.table()
    limit = rows["kl"].median()
    best = found.best(kl=limit, top=3)
    allowed = rows[rows["kl"] <= limit]["logit_diff_effect"].abs().sort_values(ascending=False)
    assert best["logit_diff_effect"].abs().tolist() == allowed.head(3).tolist()
    assert found.best("prob", kl=-1.0).empty


def test_it_is_drawn_as_maps_and_as_a_trade(found):
    for of, unit in {
        None: "change of logit_diff, logit", "prob": "change of prob, probability",
        "kl": "nat per token", "perplexity": "log10",
    }.items():  # fmt: skip
        figure = found.figure(of)
        assert isinstance(figure, go.Figure)
        [trace] = figure.data
        assert np.shape(trace.z) == (3, 3)
        assert unit in trace.colorbar.title.text
    [trace] = found.trade("prob").data
    assert len(trace.x) == 6  # a dose of nothing costs nothing, and has no logarithm
    assert "layer 0" in trace.text[0]
    assert repr(found).startswith("<Dose of add(")
    assert "<table" in found._repr_html_()


def test_a_direction_is_dosed_too(tiny64, vector):
    found = mt.dose(tiny64, vector.project(layers=1), PROMPTS, NEUTRAL[0],
                    over={"factor": [1.0, 0.0]}, progress=False)  # fmt: skip
    assert found.data["kl"].dims == ("factor",)
    assert found.data["kl"].sel(factor=1).item() == 0
    assert found.data["kl"].sel(factor=0).item() > 0
    assert len(found.trade().data[0].x) == 1
    with pytest.raises(EffectsError, match="two dimensions, and these doses have factor"):
        found.figure()


def test_what_cannot_be_dosed_is_refused(tiny64, vector):
    edit = vector.add(layers="*")
    with pytest.raises(PromptError, match="single token"):
        mt.dose(tiny64, edit, PROMPTS, [NEUTRAL[0], mt.Prompt(ids=[3])], over={"factor": [1.0]})
    with pytest.raises(SweepError, match="strength"):
        mt.dose(tiny64, edit, PROMPTS, NEUTRAL, over={"strength": [1.0]})
    for place in ("L1.resid_post@*", "L1.pattern.h0@-1,*"):
        with pytest.raises(EditError, match="a star over positions, which are others"):
            mt.dose(tiny64, f"scale(2) {place}", PROMPTS, NEUTRAL, over={"factor": [1.0]})
    with pytest.raises(MetricError, match="needs a target"):
        mt.dose(tiny64, edit, NEUTRAL, NEUTRAL, over={"factor": [1.0]})


def test_a_metric_that_was_not_measured_is_named(found):
    with pytest.raises(MetricError, match="there are logit_diff, prob, kl, perplexity"):
        found.figure("rank")


def test_it_goes_on_with_what_its_folder_holds(tiny64, vector, tmp_path, monkeypatch):
    def measured(**more):
        return mt.dose(
            tiny64, vector.add(layers="*"), PROMPTS, NEUTRAL, over={"factor": FACTORS},
            metrics=["logit_diff"], out=tmp_path / "out", progress=False, **more,
        )  # fmt: skip

    calls, collect = [], Walk.collect

    def stopped(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return collect(*given)

    monkeypatch.setattr(Walk, "collect", stopped)
    with pytest.raises(KeyboardInterrupt):
        measured()
    before = len(calls)
    whole = measured()
    kept = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*.zarr"))
    assert kept == ["effects.zarr", "effects/neutral-0.zarr", "effects/neutral-1.zarr"]
    assert len(calls) > before
    after = len(calls)
    assert measured().data.equals(whole.data)
    assert len(calls) == after, "all of it was there"
    with pytest.raises(EffectsError, match="seed"):
        measured(seed=3)
    assert measured(seed=3, overwrite=True).data.equals(whole.data)
