"""What all studies have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import microtome as mt
from microtome import studies
from microtome.errors import StudyError
from microtome.results.provenance import of_model
from microtome.studies import STUDIES, again
from microtome.studies.findings import judge
from microtome.studies.study import Claim, Measured
from microtome.texts import Texts, catalogue


def test_an_unknown_study_is_named_with_the_nearest():
    with pytest.raises(StudyError, match=r"head-ablation, cosine-ripple.*mean 'head-ablation'"):
        studies.run("head-ablatoin")


class Loaded:
    def __init__(self, name):
        self.name = name


@pytest.fixture
def unchanged(monkeypatch):
    """Every model is what the files of its name hold: see `tests/model/test_published.py`."""
    monkeypatch.setattr("microtome.studies.study.is_published", lambda model: True)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_the_published_checkpoint_and_parameters_alone_repeat_what_was_published(study):
    published = study.published
    for name in (published.model, *study.also_on):
        assert study.comparable(Loaded(name), published)
        owner = "google-bert" if study.masked else "openai-community"
        assert study.comparable(Loaded(f"{owner}/{name}"), published)
        assert study.comparable(Loaded(name), study.parameters(lang="vi"))
    assert not study.comparable(Loaded("nano"), published)
    for change in ({"prompt": "Paris is the capital of"}, {"prompts": ["Berlin is"]}):
        assert not study.comparable(Loaded(published.model), study.parameters(**change))


def test_a_directory_named_like_the_checkpoint_is_not_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    study = STUDIES["head-ablation"]
    assert not study.comparable(Loaded("gpt2"), study.published)


def test_a_model_in_memory_that_is_called_like_the_checkpoint_is_not_it(make_gpt2, tokenizer):
    hf = make_gpt2()
    hf.config.name_or_path = "gpt2"
    model = mt.load(hf, tokenizer=tokenizer)
    assert model.name == "gpt2"
    study = STUDIES["head-ablation"]
    assert not study.comparable(model, study.published)


def test_a_study_of_a_model_in_memory_is_repeated_with_that_model(make_gpt2, tokenizer):
    hf = make_gpt2()
    hf.config.name_or_path = "gpt2"
    record = of_model(mt.load(hf, tokenizer=tokenizer))
    study = STUDIES["head-ablation"]
    given = study.parameters(model="gpt2", lang="vi")
    [snippet] = again.snippets(study.name, given, study.texts("en"), record)
    assert "mt.load(hf, tokenizer=tokenizer)" in snippet.code
    assert f'assert model.weight_hash == "{record["weight_hash"]}"' in snippet.code
    assert "model=model, lang='vi'" in snippet.code
    assert "gpt2" not in snippet.code


TEXTS = Texts(
    "en",
    {
        f"claims.c.{part}": {"en": text, "vi": text}
        for part, text in {
            "text": "text",
            "rule": "rule",
            "measured": "{x:.1f}",
            "value": "x",
        }.items()
    }
    | catalogue("microtome.studies.texts", "common.yaml"),
)


def with_claim(claim):
    return replace(STUDIES["head-ablation"], claims=(claim,))


@pytest.mark.parametrize(
    ("holds", "comparable", "of_checkpoint", "verdict"),
    [
        (True, True, False, "holds"),
        (False, True, True, "does not hold"),
        (True, False, False, "holds here"),
        (False, False, False, "does not hold here"),
        (True, False, True, "not comparable on this model"),
        (None, False, False, "not judged"),
        (None, True, False, "not judged"),
    ],
)
def test_verdicts(holds, comparable, of_checkpoint, verdict):
    claim = Claim("c", lambda data: Measured(holds, 1.0, {"x": 1.0}), of_checkpoint)
    measured = {"c": [claim.measure(None)]}
    [finding] = judge(with_claim(claim), measured, comparable, TEXTS)
    assert (finding.verdict, finding.measured, finding.note) == (verdict, "1.0", "rule")
    assert finding.published == "published on gpt2"


@pytest.mark.parametrize(
    ("last", "verdict", "words"),
    [
        (True, "holds here", "holds on 3 of 3 prompts; x: 2 (95 % interval"),
        (False, "does not hold here", "holds on 2 of 3 prompts; x: 2 (95 % interval"),
        (None, "not judged", "holds on 2 of the 2 prompts that can be judged, out of 3; x: 2"),
    ],
)
def test_over_several_prompts_a_claim_holds_if_it_does_on_each(last, verdict, words):
    claim = Claim("c", lambda data: None)
    measured = {"c": [Measured(True, 1.0), Measured(True, 2.0), Measured(last, 3.0)]}
    [finding] = judge(with_claim(claim), measured, False, TEXTS)
    assert finding.verdict == verdict
    assert words in finding.measured


def test_one_prompt_on_which_it_fails_decides_whatever_cannot_be_judged():
    claim = Claim("c", lambda data: None)
    measured = {"c": [Measured(None, 1.0), Measured(False, 2.0), Measured(True, 3.0)]}
    [finding] = judge(with_claim(claim), measured, False, TEXTS)
    assert finding.verdict == "does not hold here"


REPORTED = ("head-ablation", "cosine-ripple", "ioi-circuit")
"""These load the model, and write a report; that of every study is in test_catalogues.py."""


@pytest.fixture(scope="module")
def weights(gpt2_tokenizer, tmp_path_factory):
    """A folder as of a published checkpoint, with small random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "weights"
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    gpt2_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(weights):
    return mt.load(weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if not study.masked])
def test_it_runs_on_a_directory_with_gpt2s_own_tokenizer(name, weights, loaded, tmp_path):
    """Loading, tokens and reports as on the published checkpoints."""
    reported = name in REPORTED
    out = tmp_path / "out" if reported else None
    done = studies.run(name, model=weights if reported else loaded, out=out)
    dims = done.data.model.anatomy.dims
    assert (dims.n_layers, dims.n_heads) == (2, 2)
    assert "does not hold" not in {finding.verdict for finding in done.findings}  # but "… here"
    if out is not None:
        assert (out / "report.html").stat().st_size > 1_000_000  # plotly.js is inside
