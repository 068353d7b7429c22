"""What all studies have in common."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

import microtome as mt
from microtome import studies
from microtome.errors import StudyError
from microtome.studies import STUDIES
from microtome.studies.study import Claim, Measured


def test_an_unknown_study_is_named_with_the_nearest():
    with pytest.raises(StudyError, match=r"head-ablation, ioi-head-token.*mean 'head-ablation'"):
        studies.run("head-ablatoin")


class Loaded:
    def __init__(self, name):
        self.name = name


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_claims_are_judged_on_the_published_checkpoint_and_prompt_alone(study, tmp_path):
    published = study.published_on
    assert study.comparable(Loaded(published), study.prompt)
    assert study.comparable(Loaded(f"openai-community/{published}"), study.prompt)
    assert not study.comparable(Loaded("nano"), study.prompt)
    other = mt.Prompt("Paris is the capital of", target=" France")
    assert not study.comparable(Loaded(published), other)


def test_a_directory_named_like_the_checkpoint_is_not_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    study = STUDIES["head-ablation"]
    assert not study.comparable(Loaded("gpt2"), study.prompt)


@pytest.mark.parametrize(
    ("holds", "comparable", "anywhere", "verdict"),
    [
        (True, True, False, "holds"),
        (False, True, False, "does not hold"),
        (True, False, False, "not comparable on this model"),
        (True, False, True, "holds"),
        (False, False, True, "does not hold"),
    ],
)
def test_verdicts(holds, comparable, anywhere, verdict):
    claim = Claim("text", "rule", anywhere)
    finding = claim.judge(Measured("1.0", holds), comparable)
    assert (finding.verdict, finding.measured, finding.note) == (verdict, "1.0", "rule")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STUDIES))
def test_it_runs_on_a_directory_with_gpt2s_own_tokenizer(name, gpt2_tokenizer, tmp_path):
    """Loading, tokens and report as on the published checkpoints, with small random weights."""
    config = GPT2Config(n_layer=3, n_head=4, n_embd=32, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "weights")
    gpt2_tokenizer.save_pretrained(tmp_path / "weights")
    done = studies.run(name, model=tmp_path / "weights", out=tmp_path / "out")
    assert next(iter(done.effects.values())).n_cells == 12
    assert "does not hold" not in {finding.verdict for finding in done.findings}
    assert (tmp_path / "out" / "report.html").stat().st_size > 1_000_000  # plotly.js is inside
