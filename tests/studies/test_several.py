"""Studies over several models: each model's folder, and the table of what generalises."""

from __future__ import annotations

import json

import pytest

import microtome as mt
from microtome import studies
from microtome.errors import EffectsError, StudyError
from microtome.report import ClaimRow, OnModel, Overview, StudyRows, render_overview
from microtome.studies import STUDIES, everything, several
from microtome.texts import LANGUAGES

EVIL = '<script>alert("1")</script>'
BERLIN = {"prompt": "Berlin is the capital of", "target": " Germany", "contrast": " France"}


@pytest.fixture(scope="module")
def two(make_gpt2, tokenizer):
    models = []
    for name, seed in (("first", 0), ("second", 1)):
        hf = make_gpt2(seed=seed)
        hf.config.name_or_path = name
        models.append(mt.load(hf, tokenizer=tokenizer))
    return models


@pytest.fixture(scope="module")
def compared(two, tmp_path_factory):
    out = tmp_path_factory.mktemp("several") / "out"
    return studies.compare("head-ablation", two, out, **BERLIN), out


def test_each_model_has_its_folder_and_the_overview_leads_there(compared):
    overview, out = compared
    assert overview.models == ("first", "second")
    page = (out / "overview.html").read_text(encoding="utf-8")
    for model in overview.models:
        assert (out / model / "report.html").exists()
        assert f'href="{model}/report.html"' in page
    assert overview.as_dict() == json.loads((out / "overview.json").read_text(encoding="utf-8"))


def test_a_row_has_the_verdicts_and_numbers_of_each_models_own_report(compared):
    overview, out = compared
    [study] = overview.studies
    assert len(study.claims) == len(STUDIES["head-ablation"].claims)
    for model in overview.models:
        summary = json.loads((out / model / "summary.json").read_text(encoding="utf-8"))
        for row, finding in zip(study.claims, summary["findings"], strict=True):
            assert (row.claim, row.rule) == (finding["claim"], finding["note"])
            assert row.on[model].verdict == finding["verdict"]
            assert row.on[model].measured == finding["measured"]
        values = [claim[0]["value"] for claim in summary["claims"].values()]
        assert [row.on[model].value for row in study.claims] == pytest.approx(values)


def test_a_premise_that_fails_on_a_model_is_said_in_the_overview(compared):
    overview, out = compared
    [study] = overview.studies
    assert study.caveats, "random weights do not know the capital"
    for model, said in study.caveats.items():
        summary = json.loads((out / model / "summary.json").read_text(encoding="utf-8"))
        assert list(said) == summary["caveats"]


def test_all_studies_over_several_models(two, bert64, tmp_path):
    """The tiny tokenizer has no ' Sally', and BERT predicts no next token."""
    names = ["ioi-levels", "ablation-methods"]
    overview = studies.compare(names, [two[0], bert64], tmp_path / "out", lang="vi")
    ioi, ablation = overview.studies
    assert set(ioi.failures) == {"first", bert64.name}
    assert ioi.skipped == ablation.skipped == (bert64.name,)
    assert not ioi.claims
    assert "first" in ablation.failures or "first" in ablation.reports
    assert (tmp_path / "out" / "first" / "index.html").exists()
    page = (tmp_path / "out" / "overview.html").read_text(encoding="utf-8")
    assert '<html lang="vi">' in page
    assert "không chạy được" in page


def test_a_model_that_cannot_be_loaded_does_not_stop_the_others(two, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    overview = studies.compare("head-ablation", [nowhere, two[0]], **BERLIN)
    [study] = overview.studies
    assert list(study.failures) == [nowhere]
    assert list(study.reports) == ["first"]


@pytest.mark.parametrize(
    ("models", "words"),
    [([0], "two models or more"), ([0, 0], "given twice"), ([], "two models or more")],
)
def test_an_overview_is_of_different_models(two, models, words):
    with pytest.raises(StudyError, match=words):
        studies.compare("head-ablation", [two[n] for n in models])


def test_several_studies_take_the_language_alone(two):
    with pytest.raises(StudyError, match="their own published parameters"):
        studies.compare(None, two, target=" Germany")


def test_a_folder_of_someone_elses_is_refused_before_anything_runs(two, tmp_path):
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "notes.txt").write_text("mine")
    with pytest.raises(EffectsError, match="left alone"):
        studies.compare("head-ablation", two, tmp_path, **BERLIN)
    assert not (tmp_path / "first").exists()


def test_directories_of_one_name_keep_their_whole_path(tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "model").mkdir(parents=True)
    paths = [str(tmp_path / parent / "model") for parent in ("a", "b")]
    assert studies.several.labels(paths) == tuple(paths)
    assert studies.several.labels([paths[0], "nano"]) == ("model", "nano")


ROW = ClaimRow(
    EVIL,
    "rule",
    "published on gpt2",
    "r",
    {
        "a": OnModel("holds", "1", 1.0),
        "b": OnModel("does not hold here", "0", float("nan")),
        "c": OnModel("not judged", EVIL, 0.0),
        "d": OnModel("holds here", "1", 1.0),
        "e": OnModel("not comparable on this model", "1", 1.0),
    },
)


def test_a_claim_is_counted_where_it_is_judged():
    assert (ROW.holds_on, ROW.judged_on) == (2, 3)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_text_from_outside_is_shown_and_never_run(lang):
    models = tuple(ROW.on)
    rows = StudyRows("s", EVIL, (ROW,), {m: f"{m}/report.html" for m in models}, {"a": (EVIL,)}, {})
    page = render_overview(Overview(models, (rows,), lang))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4
    assert (
        Overview(models, (rows,)).as_dict()["studies"][0]["claims"][0]["on"]["b"]["value"] is None
    )


def test_each_study_of_an_overview_is_given_the_workers(two, tmp_path, monkeypatch):
    asked = []

    def perform(study, given, model, out, tell, overwrite, workers=None):
        asked.append(workers)
        raise StudyError("enough is known")

    monkeypatch.setattr(several, "perform", perform)
    monkeypatch.setattr(everything, "perform", perform)
    studies.compare("head-ablation", two, workers="processes:2", **BERLIN)
    studies.compare(["head-ablation", "ioi-levels"], two, tmp_path / "out", workers="processes:2")
    assert asked == ["processes:2"] * (2 + 2 * 2)
