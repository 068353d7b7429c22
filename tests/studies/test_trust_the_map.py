"""The parts of `trust-the-map`, each against what is known of it, both ways."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy
import torch
import xarray as xr

import microtome as mt
from microtome import studies
from microtome.errors import PromptError
from microtome.studies import trust_the_map as study
from oracles import families as by_hand

IOI = mt.Prompt(
    "When Mary and John went to the store, John gave a drink to",
    donor="When Mary and John went to the store, Mary gave a drink to",
    target=" Mary",
    contrast=" John",
)


def heads(values) -> xr.DataArray:
    array = np.asarray(values, float)
    return xr.DataArray(array, {"layer": range(len(array)), "head": range(array.shape[1])})


def scores(**pearson: dict[str, float]) -> xr.DataArray:
    shape = (len(study.METHODS), len(study.EVERY), len(study.SCORES))
    names = {"map": [*study.METHODS], "by": [*study.EVERY], "score": [*study.SCORES]}
    made = xr.DataArray(np.full(shape, np.nan), names)
    for name, each in pearson.items():
        for method, r in each.items():
            made.loc[{"map": name, "by": method, "score": ["pearson", "recall"]}] = [r, 0.8]
    return made


# ---------------------------------------------------------------------------------- how near


def test_scores_are_the_libraries_own():
    chance = np.random.default_rng(0)
    exact = chance.normal(size=(7, 9))
    rough = exact + chance.normal(size=exact.shape)
    rough[0, 0] = np.nan
    found = study.scores_of(rough, exact)
    one, two = (values.ravel()[1:] for values in (rough, exact))
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(one, two).statistic)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(one, two).statistic)
    assert found["signs"] == pytest.approx(np.mean(np.sign(one) == np.sign(two)))
    assert found["error"] == pytest.approx(np.abs(one - two).sum() / np.abs(two).sum())
    strongest = (set(np.argsort(-np.abs(values))[:12]) for values in (one, two))
    assert found["recall"] == len(set.intersection(*strongest)) / 12


@pytest.mark.parametrize(("cells", "k"), [(4, None), (5, 1), (99, 19), (1000, 20)])
def test_of_a_small_map_a_fifth_is_looked_for(cells, k):
    exact = np.arange(cells, 0, -1.0)
    moved = np.roll(exact, 1)  # so that all but one of the strongest are still there
    found = study.recall_of(moved, exact)
    assert np.isnan(found) if k is None else found == (k - 1) / k


def test_maps_without_any_effect_say_nothing():
    found = study.scores_of(np.zeros(30), np.zeros(30))
    assert all(np.isnan([*found.values()]))


def test_a_map_is_trusted_by_its_best_method_where_that_is_near_and_finds_the_strongest():
    known = scores(heads={"atp": 0.8, "relp": 0.9}, keys={"atp": 0.89}, edges={"eap": 0.95})
    known.loc[{"map": "edges", "by": "eap", "score": "recall"}] = 0.79
    assert study.best_of(known) == {"heads": "relp", "keys": "atp", "edges": "eap"}
    assert study.trusted(known) == ["heads"]


# ------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(
    ("rough", "holds", "value"),
    [
        ([[0, 2], [0, 4]], True, 1.0),  # the first head of each layer is saturated, and missed
        ([[1, 0], [3, 0]], False, -1.0),
        ([[1, 2], [3, 4]], False, 0.0),
    ],
)
def test_errors_where_attention_is_saturated(rough, holds, value):
    queries = xr.concat([heads(rough)], xr.DataArray(["atp"], dims="by", name="by"))
    measured = study.measure_saturated(
        heads([[1, 2], [3, 4]]), queries, heads([[0.9, 0.1], [0.8, 0.7]])
    )
    assert measured.holds is holds
    assert measured.value == pytest.approx(value)
    assert (measured.words["above"], measured.words["below"]) == pytest.approx((0.85, 0.4))


@pytest.mark.parametrize(("exact", "shape"), [([[0, 2], [0, 4]], 2), ([[1]], 1)])
def test_a_half_without_effects_and_a_half_without_heads_are_not_judged(exact, shape):
    queries = xr.concat([heads(exact)], xr.DataArray(["atp"], dims="by", name="by"))
    saturation = heads([[0.9, 0.1], [0.8, 0.7]][:shape]) if shape == 2 else heads([[0.9]])
    assert study.measure_saturated(heads(exact), queries, saturation).holds is None


@pytest.mark.parametrize(("one", "holds"), [(0.6, True), (0.5, False), (0.4, False)])
def test_one_method_against_another(one, holds):
    known = scores(mlps={"relp": one, "atp": 0.5})
    known.loc[{"map": "mlps", "by": ["relp", "atp"], "score": "spearman"}] = [0.7, 0.8]
    measured = study.measure_better(known, "mlps", "relp", "atp")
    assert measured.holds is holds
    assert measured.value == pytest.approx(one - 0.5)
    told = {"one": one, "other": 0.5, "one_ranks": 0.7, "other_ranks": 0.8}
    assert measured.words == pytest.approx(told)
    assert study.measure_better(known, "keys", study.FIXED, "atp").holds is None


def test_no_claim_of_another_model_holds_where_it_was_published():
    """AtP* was published on Pythia: on GPT-2 its verdict is of here."""
    by_name = {claim.name: claim for claim in study.CLAIMS}
    held = [study.Measured(True, 1.0)]
    verdict = studies.findings.verdict_of
    assert verdict(by_name["keys"], held, True) == "holds here"
    assert verdict(by_name["mlps"], held, True) == "holds"


# ------------------------------------------------------------------------------- on models


@pytest.fixture(scope="module")
def result(short, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("trust-the-map", short, out), out


def test_its_scores_are_those_of_the_sweeps(result, short):
    done, out = result
    prompt = done.data.encoded[0].prompt
    asked = {"metrics": "logit_diff", "progress": False}
    exact = mt.sweep(short, prompt, "patch L*.k.h*", **asked).delta("logit_diff").values.ravel()
    rough = mt.sweep(short, prompt, "patch L*.k.h*", method="atp", **asked)
    r = np.corrcoef(rough.approximate("logit_diff").values.ravel(), exact)[0, 1]
    found = done.summary["scores"]["keys"]["atp"]["pearson"]
    assert found == pytest.approx(r, abs=1e-5)
    assert (out / "figures" / "trust.png").stat().st_size > 5_000


def test_saturation_is_the_largest_weight_of_the_last_token(result, short):
    done, _ = result
    ids = torch.tensor([done.data.encoded[0].tokens.ids])
    hf = copy.deepcopy(short.hf)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        weights = hf(ids, output_attentions=True).attentions
    wanted = torch.stack(weights)[:, 0, :, -1].amax(-1).numpy()
    assert np.abs(done.data.array("saturation").values - wanted).max() < 1e-5


def test_methods_that_a_model_refuses_are_absent(tokenizer):
    """No rule of relevance is known for BLOOM's MLP."""
    hf = by_hand.make("bloom", len(tokenizer))
    done = studies.run("trust-the-map", mt.load(hf, tokenizer=tokenizer), prompts=[IOI])
    known = done.data.array("scores").sel(score="pearson")
    assert np.isnan(known.sel(by="relp")).all()
    assert np.isfinite(known.sel(by="atp").sel(map=["heads", "keys", "mlps"])).all()
    verdicts = {f.published: f.verdict for f in done.findings[-1:]}
    assert verdicts == {"published on gpt2": "not judged"}
    methods = set(done.document.sections[0].tables[1].frame["method"])
    assert "relp" not in methods
    assert "atp_star" in methods


ALL = "heads; queries, last token; keys; MLPs, by token; neurons of one layer, last token; edges"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, [f"nothing can be said, as no correlation is defined: {ALL} from heads to MLPs."]),
        ({name: {"atp": 0.95} for name in study.METHODS}, ["every map is trustworthy"]),
        ({name: {"atp": 0.8} for name in study.METHODS}, ["No map is trustworthy"]),
        ({"heads": {"atp": 0.8}}, ["No map is trustworthy", "no correlation is defined: queries"]),
        (
            {"heads": {"atp": 0.95}, "mlps": {"atp": 0.95}, "keys": {"atp": 0.898}},
            [
                "these maps are trustworthy: heads; MLPs, by token.",
                "These are not, not even by their best method: keys.",
                "is defined: queries, last token; neurons",
            ],
        ),
    ],
)
def test_what_is_said_of_trust_is_what_was_found(result, known, said):
    done, _ = result
    observed = {**done.data.observed, "scores": scores(**known).expand_dims("prompt")}
    data = study.Data(
        done.data.model, done.data.parameters, done.data.encoded, done.effects, observed
    )
    [first, _] = study.sections(data, study.STUDY.texts("en"))
    told = first.paragraphs[1:]
    assert len(told) == len(said)
    for paragraph, words in zip(told, said, strict=True):
        assert words in paragraph


def test_a_prompt_without_a_donor_of_its_length_is_refused(nano):
    for donor in (None, "Sally gave"):
        given = {"text": "Sam gave a gift to", "target": " Sally", "contrast": " Sam"}
        with pytest.raises(PromptError, match="from a donor of the same length"):
            studies.run("trust-the-map", nano, prompts=[{**given, "donor": donor}])
