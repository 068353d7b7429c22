"""Readings as files: what Python, a file and the command line give is one."""

from __future__ import annotations

import inspect
import json

import pytest
import yaml

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.errors import ExperimentError
from microtome.frontends.experiment import reading
from microtome.report.of_attention import summary_of_attention
from microtome.report.of_attribution import summary_of_attribution
from microtome.report.of_dose import summary_of_dose
from microtome.report.of_head import summary_of_head
from microtome.report.of_lens import summary_of_lens
from microtome.report.of_tracing import summary_of_traces
from microtome.report.writing import plain

PROMPT = {"text": BERLIN, "donor": PARIS, "target": " Germany", "contrast": " France",
          "roles": {"subject": 0}}  # fmt: skip
EDIT = "zero L2.z.h1"
DOSES = {"factor": [0.0, 0.5]}
NEUTRAL = "Sam went to the park."
GIVEN = {
    "lens": {"address": "L*.mlp_out@*", "edits": [EDIT], "metrics": ["kl", "rank"], "top": 2},
    "attribute": {"metric": "logit"},
    "attention": {"address": "L1:3.pattern.h{0,2}"},
    "head": {"head": "L4.h3", "tokens": 20, "k": 3},
    "trace": {"kinds": ["hidden"], "samples": 1, "noise_std": 2.0, "seed": 3},
    "dose": {"edits": "scale(1) L*.mlp_out", "over": DOSES, "neutral": NEUTRAL, "metrics": "prob"},
}
SUMMARIES = {
    "lens": summary_of_lens,
    "attribute": summary_of_attribution,
    "attention": summary_of_attention,
    "head": summary_of_head,
    "trace": summary_of_traces,
    "dose": summary_of_dose,
}
FORMS = {
    "lens": reading.ReadLens,
    "attribute": reading.ReadAttribution,
    "attention": reading.ReadAttention,
    "head": reading.ReadHead,
    "trace": reading.ReadTraces,
    "dose": reading.ReadDose,
}


OTHERS = {
    "lens": {"reference": PARIS, "tuned": "translators"},
    "attribute": {"sources": True},
    "attention": {},
    "head": {"seed": 5},
    "trace": {"window": 3, "verify": "all", "memory": "1GB"},
    "dose": {"verify": 2, "memory": "1GB", "seed": 7},
}
"""The fields that are left, other than they are by default."""
CALLED = {
    "lens": "lens",
    "attribute": "attribute_logits",
    "attention": "attention",
    "head": "head_card",
    "trace": "trace_facts",
    "dose": "dose",
}


def by_python(verb, nano):
    prompt, own = mt.Prompt(**PROMPT), GIVEN[verb]
    match verb:
        case "lens":
            return mt.lens(nano, prompt, **own)
        case "attribute":
            return mt.attribute_logits(nano, prompt, "logit")
        case "attention":
            return mt.attention(nano, prompt, own["address"])
        case "head":
            return mt.head_card(nano, "L4.h3", prompt, tokens=20, k=3)
        case "trace":
            return mt.trace_facts(nano, prompt, **own)
        case _:
            doses = {"over": DOSES, "metrics": "prob", "progress": False}
            return mt.dose(nano, own["edits"], prompt, NEUTRAL, **doses)


@pytest.fixture
def file(tmp_path):
    def write(verb, **fields):
        path = tmp_path / f"{verb}.yaml"
        asked = {"model": "nano", "prompts": [PROMPT], **GIVEN[verb], **fields}
        path.write_text(yaml.safe_dump(asked, allow_unicode=True), encoding="utf-8")
        return path

    return write


@pytest.fixture
def call(call, monkeypatch, tmp_path):
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.mark.parametrize("verb", [*GIVEN])
def test_a_file_gives_what_python_gives(verb, nano, file):
    more = {"progress": False} if verb == "dose" else {}
    found, wanted = FORMS[verb].read(file(verb)).run(nano, **more), by_python(verb, nano)
    if verb == "head":
        assert found.fed.equals(wanted.fed)
    else:
        assert found.data.equals(wanted.data)


@pytest.mark.parametrize("verb", [*GIVEN])
def test_every_field_reaches_its_verb(verb, nano, monkeypatch):
    whole, heard = getattr(reading, CALLED[verb]), {}

    def hear(*args, **named):
        heard.update(inspect.signature(whole).bind(*args, **named).arguments)

    monkeypatch.setattr(reading, CALLED[verb], hear)
    monkeypatch.setattr(reading.Translators, "load", lambda place: place)
    form = FORMS[verb](model="nano", prompts=[PROMPT], **GIVEN[verb], **OTHERS[verb])
    assert form.model_fields_set | {"out"} == set(FORMS[verb].model_fields)
    form.run(nano)
    made = {"reference": [PARIS], "neutral": [NEUTRAL]}
    for name in form.model_fields_set - {"model", "prompts"}:
        told = heard["edit" if (verb, name) == ("dose", "edits") else name]
        if name in made:
            assert [one.text for one in told] == made[name]
        else:
            assert told == getattr(form, name), name


@pytest.mark.parametrize("verb", [*GIVEN])
def test_the_command_line_takes_the_file(verb, nano, file, call):
    code, shown, err = call(verb, "--config", str(file(verb)), "--json", "-q")
    assert code == 0, err
    answer, wanted = json.loads(shown), SUMMARIES[verb](by_python(verb, nano))
    wanted = json.loads(json.dumps(plain(wanted)))
    assert wanted.keys() <= answer.keys()
    for name in wanted.keys() - {"model"}:
        assert answer[name] == wanted[name], name


@pytest.mark.parametrize("verb", [*GIVEN])
def test_what_was_stopped_while_its_report_was_written_goes_on(
    verb, file, call, tmp_path, monkeypatch
):
    """The command that a signal names is taken; a finished answer is not written over."""
    asked = [verb, "--config", str(file(verb)), "-q", "-o", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("microtome.report.folder.render", stopped)
        code, _, err = call(*asked)
        assert code != 0
        assert "No space left" in err
    code, _, err = call(*asked)
    assert code == 0, err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "complete"
    code, _, err = call(*asked)
    assert (code, "holds an answer already" in err) == (2, True)


def test_neutral_texts_that_are_no_longer_asked_for_are_not_lost(file, call, tmp_path, monkeypatch):
    """How many a file has is known once it is read."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": BERLIN}) + "\n" + json.dumps({"text": PARIS}))
    asked = ["dose", "--config", str(file("dose", neutral={"file": str(texts)})), "-q", "-o", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("microtome.report.folder.render", stopped)
        assert call(*asked)[0] != 0
    whole = texts.read_text()
    texts.write_text(whole.splitlines()[0])
    code, _, err = call(*asked)
    assert (code, "holds an answer already" in err) == (2, True)
    assert mt.open_effects(tmp_path / "out/effects/neutral-1.zarr").metrics
    texts.write_text(whole)
    assert call(*asked)[0] == 0


def test_a_sweep_without_a_report_is_in_nobodys_way(file, call, tmp_path, monkeypatch):
    given = ["-p", BERLIN, "--target", " Germany", "-e", "zero L*.z.h*", "-o", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("microtome.report.folder.render", stopped)
        assert call("sweep", "nano", *given)[0] != 0
    for verb in ("head", "trace"):
        code, _, err = call(verb, "--config", str(file(verb)), "-q", "-o", "out")
        assert (code, "holds an answer already" in err) == (2, True)
    assert mt.open_effects(tmp_path / "out").metrics


def stopped(*given):
    raise OSError(28, "No space left on device")


def test_a_head_stands_before_its_model(call):
    """As the help, the README and the pages have it."""
    code, shown, err = call(
        "head", "L4.h3", "nano", "-p", BERLIN, "--target", " Germany", "--tokens", "20", "--top",
        "3", "--json", "-q",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(shown)["spec"]["head"] == "L4.h3"
    code, _, err = call("head", "L4.h3", "-p", BERLIN)
    assert "Give a model, such as nano, or a file with --config." in err


def test_an_option_goes_before_its_field(file, call, tmp_path):
    path = file("lens", out="of-the-file")
    asked = ["lens", "--config", str(path), "--json", "-q"]
    code, shown, err = call(*asked, "-a", "L0:2.resid_post@-1", "-o", "map.svg")
    assert code == 0, err
    answer = json.loads(shown)
    assert answer["spec"]["address"] == "L0:2.resid_post@-1"
    assert answer["picture"] == "map.svg"
    assert not (tmp_path / "of-the-file").exists()
    code, shown, err = call(*asked)
    assert json.loads(shown)["folder"] == "of-the-file"
    code, _, err = call(*asked)
    assert (code, "holds an answer already" in err) == (2, True)
    code, shown, _ = call(*asked, "-p", PARIS, "--target", " France", "-o", "other")
    assert [one["text"] for one in json.loads(shown)["prompts"]] == [PARIS]


def test_a_wrong_field_is_named_with_its_line(file, call):
    path = file("trace", sample=2)
    code, _, err = call("trace", "--config", str(path))
    assert code == 2
    assert "there is no such field" in err
    assert "Did you mean 'samples'" in err
    with pytest.raises(ExperimentError, match=r"line \d+.*whole number"):
        reading.ReadTraces.read(file("trace", samples=0.5))
    with pytest.raises(ExperimentError, match="the field 'head' is missing"):
        reading.ReadHead(model="nano", prompts=BERLIN)
    code, _, err = call("lens", "-p", BERLIN)
    assert "Give a model, such as nano, or a file with --config." in err
    code, _, err = call("dose", "nano", "-p", BERLIN, "-e", EDIT, "--over", "factor=1")
    assert "--neutral TEXT" in err
