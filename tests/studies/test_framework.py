"""What all studies share: parameters from three sides, many prompts, cost, all at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import yaml
from pydantic import Field

import microtome as mt
from microtome import studies
from microtome.edits import as_edits
from microtome.errors import MetricError, OtherModelError, StudyError
from microtome.language.sites import Dimensions
from microtome.plan.plan import make_plan
from microtome.plan.question import ask
from microtome.studies import STUDIES, again, cost
from microtome.studies.checkpoints import CHECKPOINTS
from microtome.studies.parameters import Head, Layer, Parameters, read_config

IOI = "When Sam and Sally went to the park, Sam gave a gift to"


class Own(Parameters):
    model: str = "gpt2"
    prompt: str = "Berlin is"
    layer: Layer = 9
    head: Head = 3
    others: dict[Layer, float] = Field(default_factory=dict)
    factors: tuple[float, ...] = (0.5, 2.0)


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fator": 1}, "own has no parameter 'fator'.*Did you mean 'factors'?"),
        ({"layer": "two"}, "own: layer='two' does not fit: input should be a valid integer"),
        ({"layer": True}, "own: layer=True does not fit"),
        ({"layer": -1}, "own: layer=-1 does not fit"),
        ({"factors": [float("nan")]}, "own: factors=nan does not fit"),
        ({"target": 3}, "own: target=3 does not fit"),
        ({"lang": "fr"}, "own: lang='fr' does not fit: input should be 'en' or 'vi'"),
        ({"prompts": [{"txt": "a"}]}, "unknown field 'txt'.*Did you mean 'text'?"),
        ({"prompts": [" "]}, "prompts=.*is empty"),
        ({"prompts": 3}, "give the name of a .jsonl or .csv file"),
        ({"prompts": ["a"], "target": " b"}, "so target cannot be given beside it"),
    ],
)
def test_wrong_parameters_are_named(given, words):
    with pytest.raises(StudyError, match=f"(?s){words}"):
        Own.of("own", given)


@pytest.mark.parametrize("kind", [list, tuple, mt.Prompts])
def test_prompts_may_be_texts_fields_or_prompts(kind):
    given = ["a", mt.Prompt("b", target=" c")]
    assert [p.text for p in Own.of("own", {"prompts": kind(given)}).as_prompts()] == ["a", "b"]
    fields = [{"text": "a", "roles": {"first": 0}}, {"text": "b"}]
    [first, _] = Own.of("own", {"prompts": fields}).as_prompts()
    assert first.roles == {"first": 0}
    every = (mt.Prompt("a", targets=[" b", " c"], meta={"kind": 1}), mt.Prompt(ids=[3, 4]))
    again = Own.of("own", {"prompts": Own.of("own", {"prompts": every}).plain()["prompts"]})
    assert again.prompts == every, "what a report's file says reads back"


def test_numbers_of_numpy_are_numbers():
    assert Own.of("own", {"layer": np.int64(2)}).layer == 2


def dimensions(layers: int, heads: int) -> Dimensions:
    return Dimensions(layers, heads, heads, 8 * heads, 8, 32, 100)


def test_a_published_layer_that_is_not_there_becomes_the_one_at_the_same_depth():
    fitted, [adapted] = Own().fit("own", "small", dimensions(6, 8), CHECKPOINTS["gpt2"])
    assert (fitted.layer, fitted.head) == (4, 3)
    assert adapted == ("layer", 9, 12, 4, 6)


def test_parameters_that_fit_stay_as_published():
    fitted, adapted = Own().fit("own", "gpt2", CHECKPOINTS["gpt2"], CHECKPOINTS["gpt2"])
    assert fitted == Own()
    assert not adapted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layer": 6}, "layer=6 does not exist in small, which has 6 layers: 0 … 5"),
        ({"layer": 9}, "layer=9 does not exist"),
        ({"layer": 1, "head": 8}, "head=8 does not exist in small, which has 8 heads"),
        ({"layer": 1, "others": {2: 0.5, 7: 0.5}}, "others=7 does not exist"),
    ],
)
def test_an_index_that_was_asked_for_must_exist(given, words):
    with pytest.raises(StudyError, match=words):
        Own.of("own", given).fit("own", "small", dimensions(6, 8), CHECKPOINTS["gpt2"])


def test_a_report_says_what_was_adapted(tiny, tokenizer, monkeypatch):
    """Three layers, four heads: layer 2 of 24 is there, so the published one is moved up."""
    study = STUDIES["hidden-scaling"]
    prompt = {"prompt": "Berlin is the capital of", "target": " Germany"}
    given = {**prompt, "layer": 2}
    assert "As published" not in studies.run(study.name, tiny, **given).document.method
    monkeypatch.setattr(study.parameters.model_fields["layer"], "default", 20)
    study.parameters.model_rebuild(force=True)
    try:
        done = studies.run(study.name, tiny, **prompt)
    finally:
        monkeypatch.undo()
        study.parameters.model_rebuild(force=True)
    assert done.data.parameters.layer == 2
    assert "As published, layer is 20, out of 0 … 23." in done.document.method


# ---------------------------------------------------------------------------------- three sides


@pytest.fixture(scope="module")
def changed() -> dict[str, object]:
    return {"layer": 1, "factor": 0.5, "also": {3: 0.9}, "factors": [0.5, 1.0, 2.0]}


def same(a: studies.Result, b: studies.Result) -> None:
    for name, effects in a.effects.items():
        xr.testing.assert_identical(effects.data.drop_attrs(), b.effects[name].data.drop_attrs())
    assert a.findings == b.findings


def test_yaml_and_python_give_identical_numbers(nano, tmp_path, changed):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"study": "hidden-scaling", **changed}))
    same(
        studies.run("hidden-scaling", nano, **changed),
        studies.run(model=nano, config=file),
    )


def test_what_is_given_goes_before_the_file(nano, tmp_path, changed):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(changed))
    done = studies.run("hidden-scaling", nano, config=file, layer=0, factors=[1.0, 2.0])
    assert done.data.parameters.layer == 0
    assert done.data.parameters.factor == 0.5


def test_the_yaml_of_a_report_repeats_it(nano, tmp_path, changed):
    done = studies.run("hidden-scaling", nano, **changed)
    [text] = [s.code for s in done.document.snippets if "--config" in s.title]
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    same(done, studies.run(config=tmp_path / "study.yaml"))


def test_the_python_of_a_report_repeats_it(nano, tmp_path, monkeypatch):
    done = studies.run(
        "ioi-levels", nano, prompts=[mt.Prompt(IOI, donor=IOI, target=" Sally", contrast=" Sam")]
    )
    [text] = [s.code for s in done.document.snippets if s.title == "In Python"]
    monkeypatch.chdir(tmp_path)
    space: dict[str, studies.Result] = {}
    exec(text.replace("mt.studies.run", "again = mt.studies.run"), space)
    same(done, space["again"])


def test_the_command_of_a_report_has_an_option_or_a_set_for_each(changed):
    text = again.in_shell("hidden-scaling", {"model": "my model", "target": "-x", **changed})
    assert text.startswith("microtome study run hidden-scaling --model 'my model' --target=-x ")
    assert "--set layer=1 --set factor=0.5 --set 'also={3: 0.9}'" in text
    assert text.endswith("-o results/hidden-scaling")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "line 1, column 5: not YAML"),
        ("- a", r"holds .*expected fields"),
        ("", r"is empty; expected fields"),
        ("1: a", "line 1: a field's name is a word, not 1"),
        ("a: 1\na: 2", "line 2: 'a' is given twice; first on line 1"),
        ("a: &x [1]\nb: [*x, *x]", "line 1: anchors and aliases"),
    ],
)
def test_files_that_are_no_parameters(text, words, tmp_path):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyError, match=words):
        read_config(tmp_path / "study.yaml")
    with pytest.raises(StudyError, match="Cannot read"):
        read_config(tmp_path / "none.yaml")


def test_a_file_for_another_study(tmp_path):
    (tmp_path / "study.yaml").write_text("study: ioi-levels")
    with pytest.raises(StudyError, match="is for 'ioi-levels', and 'head-ablation' was asked"):
        studies.run("head-ablation", config=tmp_path / "study.yaml")
    with pytest.raises(StudyError, match="Name a study: hidden-scaling"):
        studies.run()


def test_a_prompt_replaces_the_published_one_with_all_that_belongs_to_it(nano):
    with pytest.raises(MetricError, match="needs a contrast"):
        studies.run("head-ablation", nano, prompt=mt.Prompt("Paris is", target=" in"))
    done = studies.run("head-ablation", nano, prompt="Rome is the capital of", target=" Italy")
    assert done.data.encoded[0].prompt.contrast == " France"  # as published


# ---------------------------------------------------------------------------------- many prompts


@pytest.fixture(scope="module")
def several(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    rows = [
        {"text": f"{city} is the capital of", "target": land, "contrast": " Spain"}
        for city, land in (("Berlin", " Germany"), ("Paris", " France"), ("Rome", " Italy"))
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = folder / "out"
    return studies.run("head-ablation", nano, out, prompts=folder / "prompts.jsonl"), rows, out


def test_many_prompts_are_each_as_they_are_alone(several, nano):
    done, rows, _ = several
    row = rows[1]
    alone = studies.run(
        "head-ablation",
        nano,
        prompt=mt.Prompt(row["text"], target=row["target"], contrast=row["contrast"]),
    )
    together, single = done.data.of(1), alone.data
    for sweep, metric in (("zero", "prob"), ("mean", "prob(contrast)")):
        xr.testing.assert_allclose(together.effect(sweep, metric), single.effect(sweep, metric))
    for claim, measured in alone.summary["claims"].items():
        assert done.summary["claims"][claim][1]["holds"] == measured[0]["holds"]
        assert done.summary["claims"][claim][1]["value"] == pytest.approx(measured[0]["value"])


def test_many_prompts_are_told_one_by_one_with_means_and_intervals(several):
    done, rows, out = several
    section = done.document.sections[-1]
    assert section.title == "Prompt by prompt"
    means, each = section.tables
    assert len(each.frame) == 3
    assert each.frame["prompt"].tolist() == [row["text"] for row in rows]
    values = [one["value"] for one in done.summary["claims"]["contrast"]]
    row = means.frame[means.frame["number"] == done.study.texts("en")("claims.contrast.value")]
    assert row["mean"].item() == pytest.approx(np.mean(values))
    assert row["from"].item() < np.mean(values) < row["to"].item()
    assert done.document.n_prompts == 3
    assert "of 3 prompts" in done.findings[1].measured
    assert (out / "report.html").exists()


# ----------------------------------------------------------------------------------------- cost


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_the_published_tokens_are_the_checkpoints_own(study, gpt2_tokenizer, wordpiece):
    """BERT's tokenizer is not here; one with these words makes the same of them."""
    published = study.published.as_prompt()
    tokenizer = wordpiece if study.masked else gpt2_tokenizer
    for text, tokens in ((published.text, study.tokens), (published.donor, study.donor_tokens)):
        ids = tokenizer(text)["input_ids"] if text else []
        assert "|".join(tokenizer.decode([i]) for i in ids) == tokens
    for word in (published.target, published.contrast):
        ids = tokenizer(word or "", add_special_tokens=False)["input_ids"]
        assert word is None or len(ids) == 1


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_the_predicted_cost_is_that_of_the_plan(study, model_of, monkeypatch):
    """On a model whose weights are here: the prediction from dimensions equals the real plan."""
    model = model_of(study)
    [encoded] = model.encode(study.published.as_prompt())
    dims = model.anatomy.dims
    fitted, _ = study.published.fit(study.name, "here", dims, CHECKPOINTS[study.published.model])
    monkeypatch.setattr(type(study), "published", fitted)
    monkeypatch.setattr(cost, "CHECKPOINTS", {study.published.model: dims})
    monkeypatch.setattr(
        cost,
        "_tokens",
        lambda text: encoded.donor if text == study.donor_tokens else encoded.tokens,
    )
    predicted = studies.predict(study)
    plans = [
        make_plan(
            ask(model.anatomy.dims, [encoded], as_edits(sweep.edits), (), sweep.over, [encoded])
        )
        for sweep in (
            *study.sweeps(study.published).values(),
            *study.watched(study.published, dims).values(),
        )
    ]
    assert predicted.cells == sum(len(plan.cells) for plan in plans)
    assert predicted.flops == pytest.approx(sum(plan.cost.flops for plan in plans))


def test_cells_as_published():
    cells = {name: studies.predict(study).cells for name, study in STUDIES.items()}
    assert cells["head-ablation"] == 2 * 144
    assert cells["ioi-head-token"] == 720 + 36
    assert cells["ioi-levels"] == 2 * 12
    assert cells["ioi-circuit"] == 1 + 12 + 3 * 144
    assert cells["ablation-methods"] == 4 * 144
    assert cells["hidden-scaling"] == 1 + 24 + 24 * 11
    assert cells["replace-activations"] == 4
    assert cells["cosine-ripple"] == 24 * 16
    assert cells["pineapple-pizza"] == 720
    assert cells["noisy-bert"] == 2 * 24 * 10
    assert cells["trust-the-map"] == 3 * 144 + 12 * 14 + 3072 + 12 * 78
    windows = 4 + 39 + 5  # cut at the beginning, whole, cut at the end; of 48 layers
    assert cells["causal-tracing"] == 10 * (1 + 7 * 48 + 2 * 7 * windows)


# ---------------------------------------------------------------------------------- all at once


@pytest.mark.slow
def test_all_studies_and_an_index(nano, tmp_path):
    told: list[str] = []
    chosen = [STUDIES["ioi-levels"], STUDIES["head-ablation"]]
    done = studies.run_all(chosen, nano, tmp_path / "out", "vi", told.append)
    assert list(done) == ["ioi-levels", "head-ablation"]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for name, result in done.items():
        assert f'href="{name}/report.html"' in page
        assert result.document.question in page
        assert (tmp_path / "out" / name / "report.html").exists()
    assert page.count("data:image/png;base64,") == 2
    assert told[0] == "[1/2] ioi-levels"


def test_a_study_for_models_of_another_kind_is_skipped_and_the_index_says_so(nano, tmp_path):
    told: list[str] = []
    chosen = [STUDIES["noisy-bert"], STUDIES["head-ablation"]]
    done = studies.run_all(chosen, nano, tmp_path / "out", tell=told.append)
    assert isinstance(done["noisy-bert"], OtherModelError)
    assert isinstance(done["head-ablation"], studies.Result)
    why = "noisy-bert needs a masked-language model, and nano predicts the next token"
    assert any(line.startswith(f"noisy-bert is skipped: {why}") for line in told)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert why in page
    assert "Skipped: for models of another kind" in page
    assert "Did not run" not in page


@pytest.mark.parametrize(
    "study", [s for s in STUDIES.values() if not s.masked], ids=lambda s: s.name
)
def test_a_study_of_the_next_token_refuses_a_masked_language_model(study, bert64):
    with pytest.raises(OtherModelError, match=f"{study.name} asks for the next token"):
        studies.run(study.name, bert64)


def test_an_index_of_failures_is_written_too(tiny, tmp_path):
    done = studies.run_all([STUDIES["ioi-levels"]], tiny, tmp_path / "new" / "out")
    assert isinstance(done["ioi-levels"], mt.MicrotomeError)
    assert (tmp_path / "new" / "out" / "index.html").exists()


def test_one_study_that_cannot_run_does_not_stop_the_others(tiny, tmp_path):
    """The tiny tokenizer has no ' Sally'."""
    chosen = [STUDIES["ioi-levels"], STUDIES["head-ablation"]]
    done = studies.run_all(chosen, tiny, tmp_path / "out")
    assert isinstance(done["ioi-levels"], mt.MicrotomeError)
    assert isinstance(done["head-ablation"], studies.Result)
    assert "is not one token" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
