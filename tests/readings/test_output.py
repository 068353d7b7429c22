"""Metrics against scipy and numpy, by hand; and what a wrong one says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import microtome as mt
from conftest import BERLIN
from microtome.errors import AddressError, EditError, MetricError
from microtome.readings.output import METRICS
from microtome.readings.registry import readings

PROMPT = mt.Prompt(BERLIN, target=" Germany", contrast=" France", roles={"subject": "Berlin"})


@pytest.fixture(scope="module")
def case(tiny):
    """Logits of four cells and clean ones, random; the encoded prompt."""
    rng = np.random.default_rng(0)
    vocabulary = len(tiny.tokenizer)
    logits, clean = rng.normal(size=(4, vocabulary)) * 5, rng.normal(size=(1, vocabulary)) * 5
    return logits, clean, tiny.encode(PROMPT)[0]


def measured(name: str, case) -> np.ndarray:
    logits, clean, encoded = case
    [reading] = readings(name)
    return reading.measure(torch.tensor(logits), torch.tensor(clean), encoded).numpy()


def by_hand(name: str, logits: np.ndarray, clean: np.ndarray, token: int, other: int) -> float:
    logprobs, cleanly = scipy.special.log_softmax(logits), scipy.special.log_softmax(clean)
    return {
        "logit": logits[token],
        "logit_diff": logits[token] - logits[other],
        "prob": scipy.special.softmax(logits)[token],
        "logprob": logprobs[token],
        "loss": -logprobs[token],
        "rank": scipy.stats.rankdata(-logits, method="min")[token],
        "top1": np.argmax(logits),
        "kl": scipy.stats.entropy(np.exp(cleanly), np.exp(logprobs)),
        "logit_corr": scipy.stats.pearsonr(logits, clean).statistic,
    }[name]


@pytest.mark.parametrize("name", [name for name in METRICS if name != "next_loss"])
def test_a_metric_is_what_scipy_makes_of_the_same_logits(case, name):
    logits, clean, encoded = case
    wanted = [by_hand(name, row, clean[0], encoded.target, encoded.contrast) for row in logits]
    np.testing.assert_allclose(measured(name, case), wanted, rtol=1e-12)


@pytest.mark.parametrize("place", ["@0", "@subject", "@-2"])
def test_the_texts_own_next_token_is_measured_where_there_is_one(case, place):
    logits, _, encoded = case
    token = encoded.tokens.ids[1 + {"@0": 0, "@subject": 0, "@-2": 3}[place]]
    wanted = [-scipy.special.log_softmax(row)[token] for row in logits]
    np.testing.assert_allclose(measured(f"next_loss{place}", case), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["next_loss", "next_loss@last", "next_loss@4"])
def test_behind_the_last_token_is_no_next_one(tiny, name):
    with pytest.raises(MetricError, match=r"next_loss@0 … next_loss@3"):
        mt.sweep(tiny, PROMPT, "zero L*.z.h*", metrics=name)


def test_the_next_tokens_loss_walks_as_on_the_reference_path(tiny64):
    metrics = [f"next_loss@{place}" for place in range(4)]
    walked, slow = (
        mt.sweep(tiny64, BERLIN, "scale(2) L*.mlp_out", metrics=metrics, engine=engine)
        for engine in ("walk", "reference")
    )
    ids = tiny64.encode(BERLIN)[0].tokens.ids
    for layer in range(3):
        logits = tiny64.run(BERLIN, [f"scale(2) L{layer}.mlp_out"]).logits[0].numpy()
        for place, name in enumerate(metrics):
            wanted = -scipy.special.log_softmax(logits[place])[ids[place + 1]]
            for found in (walked, slow):
                assert found.data[name].sel(layer=layer).item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", ["logit", "prob", "logprob", "loss", "rank"])
def test_of_the_contrast_it_is_the_contrasts(case, name):
    logits, clean, encoded = case
    wanted = [by_hand(name, row, clean[0], encoded.contrast, encoded.target) for row in logits]
    np.testing.assert_allclose(measured(f"{name}(contrast)", case), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "next_loss"])
def test_values_stay_in_the_range_that_is_stated_also_far_out(case, name):
    _, clean, encoded = case
    far = np.stack([clean[0] * 200, -clean[0] * 200, clean[0], clean[0] + 1e3])
    values = measured(name, (far, clean, encoded))
    low, high = METRICS[name].range
    assert np.isfinite(values).all()
    assert (values >= low - 1e-12).all()
    assert (values <= high + 1e-12).all()


def test_no_change_is_no_divergence_and_perfect_correlation(case):
    _, clean, encoded = case
    assert measured("kl", (clean, clean, encoded)) == [0.0]
    np.testing.assert_allclose(measured("logit_corr", (clean * 3 + 7, clean, encoded)), [1.0])


def test_float32_logits_are_measured_in_float64(case):
    logits, clean, encoded = case
    single = [torch.tensor(x, dtype=torch.float32) for x in (logits, clean)]
    values = readings("prob")[0].measure(*single, encoded)
    assert values.dtype == torch.float64
    doubled = single[0].double().softmax(-1)[:, encoded.target]
    torch.testing.assert_close(values, doubled, rtol=1e-14, atol=0)


def test_equal_logits_share_the_better_rank(case):
    _, clean, encoded = case
    logits = np.zeros((1, clean.shape[1]))
    assert measured("rank", (logits, clean, encoded)) == [1.0]


@pytest.mark.parametrize(
    ("text", "name", "position"),
    [
        ("prob", "prob", 4),
        (" prob@-1 ", "prob@last", 4),
        ("prob@last", "prob@last", 4),
        ("loss@3", "loss@3", 3),
        ("loss@-2", "loss@-2", 3),
        ("logit_diff@subject", "logit_diff@subject", 0),
        ('prob(contrast)@"capital"', 'prob(contrast)@"capital"', 3),
        ("prob(target)", "prob", 4),
    ],
)
def test_a_reading_has_a_name_and_a_position(tiny, text, name, position):
    [reading] = readings(text)
    encoded = tiny.encode(PROMPT)[0]
    reading.check(encoded, tiny.anatomy.dims)
    assert str(reading) == name
    assert reading.position(encoded, tiny.anatomy.dims) == position
    assert [str(r) for r in readings(str(reading))] == [name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ([], ["No metric is given", "logit_diff"]),
        ("porb", ["No metric is called 'porb'", "Did you mean 'prob'?"]),
        ("", ["No metric is called ''", "logit_diff"]),
        ("prob(contrast", ["Cannot read the metric"]),
        ("prob@", ["Cannot read the metric"]),
        ("prob(other)", ["'target' or 'contrast'"]),
        ("kl(contrast)", ["'target' or 'contrast'"]),
        ("logit_diff(contrast)", ["'target' or 'contrast'"]),
        (["prob@last", "kl", "prob@-1"], ["given twice"]),
    ],
)
def test_a_metric_that_does_not_exist_says_what_does(text, says):
    with pytest.raises(MetricError) as error:
        readings(text)
    for words in says:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [("prob", "target"), ("rank", "target"), ("loss(contrast)", "contrast"), ("logit_diff", "")],
)
def test_a_prompt_without_the_token_is_refused_before_anything_runs(tiny, text, field):
    prompts = {"target": BERLIN, "contrast": mt.Prompt(BERLIN, target=" Germany")}
    for missing, prompt in prompts.items():
        if field not in ("", missing):
            continue
        with pytest.raises(MetricError, match=rf"needs a {missing}.*{missing}="):
            mt.sweep(tiny, prompt, "zero L0.z", metrics=text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kl@5", "pos 5 does not exist"),
        ("kl@{0,1}", "read at one position, not at several"),
        ("kl@:", "read at one position, not at several"),
        ("kl@*", "has stars"),
        ("kl@;", "expected positions"),
    ],
)
def test_a_position_that_is_none_or_several_is_refused(tiny, text, says):
    with pytest.raises(AddressError, match=says):
        mt.sweep(tiny, BERLIN, "zero L0.z", metrics=text)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1, -3.7])
def test_the_correlation_of_constant_logits_is_none(case, constant):
    """0.1 times many does not sum to exactly that: rounding must not be read as a direction."""
    logits, clean, encoded = case
    same = np.full_like(clean, constant)
    assert np.isnan(measured("logit_corr", (same, clean, encoded))).all()
    assert np.isnan(measured("logit_corr", (logits, same, encoded))).all()
    one = same.copy()
    one[0, 7] += 1e-3  # one token apart is a direction: closed form
    rest = clean[0] - clean[0].mean()
    n = clean.shape[1]
    wanted = rest[7] / (np.linalg.norm(rest) * np.sqrt(1 - 1 / n))
    found = measured("logit_corr", (one, clean, encoded))[0]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_a_cell_without_a_correlation_is_absent_and_not_zero(tiny64):
    """All logits become one number: every engine says none, and the other metrics are there."""
    prompt = mt.Prompt(BERLIN, target=" Germany")
    found = mt.sweep(
        tiny64, prompt, "replace(2) logits", metrics=["logit_corr", "prob"], progress=False
    )
    assert np.isnan(found.data["logit_corr"].values).all()
    assert found.data["prob"].values == pytest.approx(1 / len(tiny64.tokenizer))
    assert found.data["clean_logit_corr"].values == pytest.approx(1)
    assert found.n_cells == 1
    assert len(found.top(5, "logit_corr")) == 0


def test_tokens_that_cannot_be_are_left_out(case):
    """An output bias of −∞ takes tokens out of the vocabulary."""
    logits, clean, encoded = case
    without = [np.insert(x, 3, -np.inf, axis=1) for x in (logits, clean)]
    for name in ("kl", "logit_corr"):
        found = measured(name, (*without, encoded))
        np.testing.assert_allclose(found, measured(name, case), rtol=1e-12)


@pytest.mark.parametrize("engine", ["walk", "reference"])
@pytest.mark.parametrize("metric", ["prob", "top1", "rank", "kl", "logit_diff"])
def test_what_overflows_is_an_error_and_no_absent_cell(tiny, engine, metric):
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    with pytest.raises(EditError, match=r"is no number after|not all finite"):
        mt.sweep(tiny, prompt, "scale(1e30) L*.z.h*", metrics=metric, engine=engine)
