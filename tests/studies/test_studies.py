"""What all studies have in common."""

from __future__ import annotations

import pytest

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
