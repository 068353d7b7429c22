"""What studies say depends on what was measured: each sentence in the case where it is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr
from transformers import LlamaConfig, LlamaForCausalLM

import microtome as mt
from microtome import figures, studies
from microtome.errors import PromptError
from microtome.figures.png import png_of
from microtome.studies import STUDIES, ablation_methods, premise, telling
from microtome.studies.perform import task_prompts
from microtome.studies.study import Data
from microtome.texts import LANGUAGES

IOI = {
    "prompt": "When Mary and John went to the store, John gave a drink to",
    "donor": "When Mary and John went to the store, Mary gave a drink to",
    "target": " Mary",
    "contrast": " John",
}
FACT = {"prompt": "Berlin is the capital of", "target": " Germany"}
CAT = {
    "prompt": "The cat sat on the mat, and the dog",
    "roles": {"topping": "cat", "other": "mat", "dish": "dog"},
}
GIVEN = {
    "hidden-scaling": {**FACT, "layer": 0},
    "replace-activations": FACT,
    "ablation-methods": {**FACT, "contrast": " France"},
    "head-ablation": {**FACT, "contrast": " France"},
    "cosine-ripple": {"prompt": FACT["prompt"]},
    "ioi-levels": IOI,
    "ioi-circuit": IOI,
    "ioi-head-token": IOI,
    "pineapple-pizza": CAT,
    "trust-the-map": IOI,
}
"""Each decoder's study in words that the tests' own tokenizer has."""


@pytest.fixture(scope="module")
def make_llama(tokenizer):
    """A random Llama: gated MLP, rotary positions, keys that query heads may share."""

    def make(layers: int, heads: int, kv_heads: int) -> mt.Model:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=8 * heads,
            intermediate_size=16,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=32,
            initializer_range=0.5,
        )
        hf = LlamaForCausalLM(config).eval()
        assert sum(p.numel() for p in hf.parameters()) < 50_000
        return mt.load(hf, tokenizer=tokenizer)

    return make


@pytest.fixture(scope="module")
def smallest(make_llama):
    return make_llama(1, 1, 1)


@pytest.fixture(scope="module")
def grouped(make_llama):
    return make_llama(2, 6, 2)


@pytest.mark.parametrize("name", GIVEN)
def test_no_study_stops_at_one_layer_with_one_head(name, smallest):
    done = studies.run(name, smallest, lang="vi", **GIVEN[name])
    assert len(done.findings) == len(STUDIES[name].claims)
    assert all(np.isfinite(len(f.measured)) and "nan" not in f.measured for f in done.findings)


# ------------------------------------------------------------------- keys that query heads share


def text_of(done: studies.Result, section: int = 0) -> str:
    return " ".join(done.document.sections[section].paragraphs)


def test_shared_keys_are_told_with_the_query_heads_that_read_them(grouped):
    done = studies.run("replace-activations", grouped, head=1, keys_layer=0, **FACT)
    said = text_of(done)
    assert "2 heads of keys and values for its 6 query heads: 3 query heads share each" in said
    assert "Key head 1 is read by query heads 3 … 5, and not by query head 1 alone" in said
    assert "attends equally to every token up to its own" in said
    assert "an attention weight changes by more than 0.001, by their numbers: 3 … 5." in said
    found = done.data.dataset("attention")
    assert float(found["moved"][:3].max()) == 0 < float(found["moved"][3:].min())
    [picture] = done.document.sections[0].pictures
    assert "Grey squares do not exist: this model has 2 heads of keys and values" in picture.caption
    assert "activation function" not in " ".join(text_of(done, n) for n in range(5))


def test_keys_of_one_head_each_are_told_without_sharing(tiny):
    done = studies.run("replace-activations", tiny, keys_layer=1, **FACT)
    assert "share each" not in text_of(done)
    assert "an attention weight changes by more than 0.001, by their numbers: 2." in text_of(done)
    assert "Grey" not in done.document.sections[0].pictures[0].caption


def test_a_published_key_head_that_is_not_there_becomes_one_that_is(smallest):
    done = studies.run("replace-activations", smallest, **FACT)
    assert done.data.parameters.head == 0
    assert "head is 2, out of 0 … 11" in done.document.method


@pytest.mark.parametrize(("mean", "words"), [(1000.0, "None of the noise"), (0.0, "of the noise")])
def test_noise_that_overlaps_real_values_and_noise_that_does_not(tiny, mean, words):
    done = studies.run("replace-activations", tiny, noise_mean=mean, noise_std=0.1, **FACT)
    assert words in text_of(done, 1)
    assert ("lies between the least and the largest" in text_of(done, 1)) is (mean == 0)


# --------------------------------------------------------------------------------- premises


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_model_that_does_not_know_the_answer_says_so_at_the_top(tiny, lang, tmp_path):
    given = {**FACT, "contrast": " France", "lang": lang}
    done = studies.run("head-ablation", tiny, tmp_path / "out", **given)
    rank = float(done.effects["zero"].clean("rank")[0])
    assert rank > 1
    [caveat] = done.document.caveats
    first = premise.first_choice(done.data, "zero")
    assert f"“{first}”" in caveat
    assert f" {rank:.0f} " in caveat
    assert done.summary["caveats"] == (caveat,)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.index('class="caveat"') < page.index("<section>")
    assert f"“{first}”" in text_of(done, 1)


def test_a_model_that_knows_the_answer_has_no_caveat(tiny):
    known = tiny.run(FACT["prompt"]).top(1)["token"][0]
    given = {"prompt": FACT["prompt"], "target": known, "contrast": " France"}
    done = studies.run("head-ablation", tiny, **given)
    assert not done.document.caveats
    assert "Without edits the target is the first choice" in text_of(done, 1)


def test_a_name_that_the_model_does_not_prefer(tiny):
    score = float(tiny.run(mt.Prompt(**as_prompt(IOI))).clean_logits[0, -1, 0])  # any forward pass
    swapped = {**IOI, "target": IOI["contrast"], "contrast": IOI["target"]}
    found = [studies.run("ioi-levels", tiny, **given) for given in (IOI, swapped)]
    caveats = [done.document.caveats for done in found]
    assert sorted(map(len, caveats)) == [0, 1], score
    wrong = found[0] if caveats[0] else found[1]
    assert {one.verdict for one in wrong.findings} == {"not judged"}


def as_prompt(given: dict) -> dict:
    return {"text": given["prompt"], **{k: v for k, v in given.items() if k != "prompt"}}


def test_on_several_prompts_the_failing_ones_are_counted(tiny):
    known = tiny.run(FACT["prompt"]).top(1)["token"][0]
    prompts = [
        {"text": FACT["prompt"], "target": known, "contrast": " France"},
        {"text": "Paris is the capital of", "target": " cat", "contrast": " Italy"},
    ]
    done = studies.run("head-ablation", tiny, prompts=prompts)
    assert "On 1 of 2 prompts the premise does not hold" in done.document.caveats[0]


def test_the_unspaced_word_is_told_as_such_only_where_it_is_one(tiny):
    done = studies.run("ablation-methods", tiny, **FACT, contrast=" France")
    by_claim = dict(zip([c.name for c in ablation_methods.CLAIMS], done.findings, strict=True))
    assert by_claim["unspaced"].verdict == "not judged"
    assert "is not the target without its space" in by_claim["unspaced"].measured
    assert "leading space" not in text_of(done, 1)


# ------------------------------------------------------------------------------------- tasks


def test_a_tasks_prompts_are_in_the_words_of_the_model(nano):
    done = studies.run("ioi-levels", nano, prompts="ioi:3")
    expected = mt.tasks.ioi(3, tokenizer=nano.tokenizer)
    assert [one.prompt.text for one in done.data.encoded] == [one.text for one in expected]
    [command] = [s.code for s in done.document.snippets if "microtome study run" in s.code][:1]
    assert "--prompts ioi:3" in command


def test_a_file_that_is_called_like_a_task_goes_first(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert task_prompts(Path("ioi"), nano) is not None
    assert task_prompts(Path("nothing.csv"), nano) is None
    with pytest.raises(PromptError, match="'nothing' is no file here, and no task"):
        task_prompts(Path("nothing"), nano)
    (tmp_path / "ioi").write_text("")
    assert task_prompts(Path("ioi"), nano) is None


# ----------------------------------------------------------------------------------- numbers


def several(values) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    layers = range(values.shape[1])
    return xr.DataArray(values, {"layer": layers}, ("prompt", "layer"))


def drawn(values, **options) -> go.Figure:
    texts = STUDIES["ioi-levels"].texts("en")
    titles = {"x_title": "x", "y_title": "y", "title": "t"}
    return telling.lines(texts, {"a": several(values)}, **titles, **options)


def test_bars_stay_within_what_there_can_be_and_are_explained():
    figure = drawn([[0.0, 0.5], [0.02, 0.6]], within=(0, 1))
    [line] = figure.data
    assert line.error_y.arrayminus[0] == pytest.approx(0.01)  # down to 0 and no further
    assert line.error_y.array[0] > 0.05
    assert "95 % t interval of the mean over 2 prompts" in figure.layout.title.subtitle.text


def test_one_prompt_has_no_bars_to_explain():
    figure = drawn([[0.0, 0.5]])
    assert figure.data[0].error_y.array is None
    assert not figure.layout.title.subtitle.text


def test_no_change_has_no_colour_on_the_map_of_correlations(tiny):
    done = studies.run("hidden-scaling", tiny, layer=0, factors=[0.5, 1.0], **FACT)
    [map_] = [p.figure for p in done.document.pictures if p.name == "correlation-map"]
    [trace] = map_.data
    unscaled = np.asarray(trace.z, dtype=float)[:, 1]
    np.testing.assert_allclose(unscaled, 0, atol=1e-6)
    assert trace.zmin == 0


@pytest.mark.parametrize("sites", [[0.2, 0.2, 0.2, 5.0], [0.2, 0.2, 0.2, 0.2]])
def test_quartiles_that_do_not_lie_around_their_mean_are_drawn(sites):
    low, high = np.quantile(sites, [0.25, 0.75])
    figure = figures.series(
        {"mean": ([0, 1], [np.mean(sites)] * 2)},
        bands={"middle half": ([low] * 2, [high] * 2)},
        x_title="x",
        y_title="y",
        title="t",
    )
    assert png_of(figure)[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("estimate", "limit", "above", "below"),
    [
        ((1.0, 0.5, 1.5, 9), 0.0, True, False),
        ((1.0, -0.5, 2.5, 9), 0.0, False, False),
        ((-1.0, -1.5, -0.5, 9), 0.0, False, True),
        ((1.0, np.nan, np.nan, 9), 0.0, True, False),  # all values alike
        ((1.0, np.nan, np.nan, 1), 0.0, None, None),
        ((np.nan, np.nan, np.nan, 2), 0.0, None, None),
        ((2.0, 1.5, 2.5, 9), 3.0, False, True),
    ],
)
def test_an_estimate_is_held_against_a_limit_with_its_whole_interval(estimate, limit, above, below):
    value, low, high, n = estimate
    one = mt.stats.Estimate(value, low, high, 0.5, n)
    assert telling.above(one, limit) is above
    assert telling.below(one, limit) is below


def test_data_of_one_prompt_is_not_several(tiny):
    done = studies.run("cosine-ripple", tiny, prompt=FACT["prompt"])
    assert isinstance(done.data, Data)
    assert not done.data.several
