"""The lens: lengths, chunks, refusals, figures, the command line. Values are in `families`."""

from __future__ import annotations

import json
import sys
import weakref

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT
from microtome.errors import AddressError, EffectsError, MetricError, PromptError
from microtome.figures.png import png_of
from microtome.frontends import cli
from microtome.readings import lens as seeing
from microtome.readings.translators import Translators
from microtome.report import render
from microtome.report.of_lens import document_of_lens

PROMPT = mt.Prompt(BERLIN, target=" Germany", contrast=" France")


def test_a_prompt_among_others_says_what_it_says_alone(tiny64):
    several = mt.lens(tiny64, [PROMPT, CAT], metrics=["kl"])
    alone = mt.lens(tiny64, CAT, metrics=["kl"]).data.isel(prompt=0)
    own = several.data.isel(prompt=1)
    for name in ("kl", "entropy", "top_prob"):
        np.testing.assert_array_equal(own[name].isel(pos=slice(0, 3)), alone[name])
        assert own[name].isel(pos=slice(3, None)).isnull().all()
    assert (own["top_id"].isel(pos=slice(3, None)) == -1).all()
    assert several.table(1)["pos"].max() == 2
    assert several.figure(prompt=1).data[0].z.shape == (3, 3)


def test_results_of_some_states_keep_no_memory_apart(tiny64, monkeypatch):
    """Small results that are kept where large ones are freed: 3.0 GB in the place of 0.6."""
    kept, own = [], seeing._look

    def look(*given):
        assert sum(there() is not None for there in kept) < 9  # of the last states
        found = own(*given)
        kept.extend(map(weakref.ref, found.values()))
        return found

    monkeypatch.setattr(seeing, "_look", look)
    monkeypatch.setattr(seeing, "IN_CACHE", 1)
    mt.lens(tiny64, CAT)
    assert len(kept) > 30


def test_in_chunks_it_says_the_same(tiny64):
    whole = mt.lens(tiny64, PROMPT, "L*.head_out@*").data
    cut = mt.lens(tiny64, PROMPT, "L*.head_out@*", memory=1).data
    for name in ("kl", "prob", "top_prob", "entropy"):
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-12)
    np.testing.assert_array_equal(cut["top_id"], whole["top_id"])


def test_metrics_are_those_that_prompts_have_answers_for(tiny):
    assert mt.lens(tiny, BERLIN).metrics == ("kl", "entropy")
    any_of = mt.Prompt(BERLIN, targets=[" Germany", " France"])
    assert mt.lens(tiny, any_of).metrics == ("kl", "prob", "entropy")
    found = mt.lens(tiny, PROMPT, metrics=["logit_diff"]).data["logit_diff"]
    run = tiny.run(PROMPT).logits[0, -1]
    germany, france = tiny.encode(PROMPT)[0].target, tiny.encode(PROMPT)[0].contrast
    assert float(found[0, -1, -1]) == pytest.approx(float(run[germany] - run[france]), abs=1e-6)


def test_what_it_cannot_read_is_refused_by_name(tiny):
    with pytest.raises(AddressError, match="whole vectors as wide as the residual stream"):
        mt.lens(tiny, BERLIN, "L*.z")
    with pytest.raises(AddressError, match=r"resid_post\.d3"):
        mt.lens(tiny, BERLIN, "L*.resid_post.d3")
    with pytest.raises(MetricError, match="needs a target"):
        mt.lens(tiny, BERLIN, metrics=["prob"])
    with pytest.raises(MetricError, match="at the positions of its address"):
        mt.lens(tiny, PROMPT, metrics=["prob@3"])
    with pytest.raises(MetricError, match="is several tokens, and a state says one"):
        mt.lens(tiny, mt.Prompt(BERLIN, target=" Germany and"), metrics=["prob"])
    seen = mt.lens(tiny, PROMPT, "L*.head_out@*")
    with pytest.raises(EffectsError, match=r"Pick a coordinate, such as pos=-1"):
        seen.figure()
    with pytest.raises(EffectsError, match="There is no 'porb' here"):
        seen.figure("porb", pos=-1)
    with pytest.raises(EffectsError, match="no dimension 'layr'"):
        seen.figure(layr=0)
    with pytest.raises(PromptError, match="There is no prompt 3"):
        seen.table(3)


def test_tokens_that_cannot_be_are_no_hindrance(make_bert, wordpiece):
    hf = make_bert(dtype=torch.float64)
    hf.cls.predictions.bias.data[3] = -torch.inf
    seen = mt.lens(mt.load(hf, tokenizer=wordpiece), "a dog sat on the [MASK]").data
    assert seen["kl"].notnull().all()
    assert seen["entropy"].notnull().all()
    assert (seen["top_id"] != 3).all()


def test_in_bfloat16_the_last_row_is_the_models_own(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    seen = mt.lens(model, PROMPT).data
    assert not seen["kl"].isel(layer=-1).values.any()
    one = mt.load(make_gpt2(n_layer=1, n_head=1), tokenizer=tokenizer)
    seen = mt.lens(one, "Berlin")
    assert dict(seen.data.sizes) == {"prompt": 1, "layer": 1, "pos": 1, "top": 5}
    assert not seen.data["kl"].values.any()


def test_a_map_has_its_tokens_in_its_picture(nano):
    seen = mt.lens(nano, PROMPT)
    figure = seen.figure()
    [trace] = figure.data
    assert trace.text[-1][-1] == "·Germany"
    assert trace.texttemplate == "%{text}"
    bare = mt.lens(nano, PROMPT).figure()
    bare.data[0].texttemplate = None
    assert png_of(figure) != png_of(bare)


@pytest.mark.parametrize(
    ("address", "columns"),
    [("embed@*", {"pos"}), ("L1.resid_post@-1", {"pos"}), ("L1.head_out@*", {"pos", "head"})],
)
def test_one_layer_has_a_table_and_a_report_too(tiny, address, columns):
    seen = mt.lens(tiny, ["Berlin is the capital of", "The cat sat"], address, top=2)
    for prompt in (0, 1):
        row = seen.table(prompt, pos=-1)
        assert len(row) == (4 if "head" in columns else 1)
        assert columns <= {*seen.table(prompt)}
        whole = seen.data.isel(prompt=prompt, top=0)
        last = seen.encoded[prompt].tokens.pieces[-1]
        assert {*row["token"]} == {last}
        assert {*row["top_token"]} <= {*whole["top_token"].values.flatten()}
    made = document_of_lens(seen)
    assert [len(one.pictures) for one in made.sections] == [int("head" in columns)] * 2


def test_a_report_of_the_tuned_lens_says_how_to_repeat_it(tiny, tmp_path):
    made = Translators.nothing(tiny.anatomy.dims, tiny.hf)
    in_memory = document_of_lens(mt.lens(tiny, "The cat sat", tuned=made))
    said = "".join(snippet.code for snippet in in_memory.snippets)
    assert "# translators: those that were given in memory (none), which are in no folder;" in said
    assert "tuned=translators" in said
    assert "load('none')" not in said
    folder = made.save(tmp_path / "lens")
    seen = mt.lens(tiny, "The cat sat", tuned=mt.Translators.load(folder))
    said = "".join(snippet.code for snippet in document_of_lens(seen).snippets)
    assert f"tuned=mt.Translators.load({str(folder)!r})" in said


def test_its_report_marks_spaces_and_repeats_what_was_asked(nano, tmp_path):
    mt.Translators.nothing(nano.anatomy.dims, nano.hf).save(tmp_path)
    tuned = mt.Translators.load(tmp_path)
    document = document_of_lens(mt.lens(nano, BERLIN, edits="zero L0.z.h1", tuned=tuned))
    [table] = document.sections[0].tables
    assert table.frame["top_token"].iloc[-1] == "·Germany"
    [snippet] = document.snippets
    assert f"tuned=mt.Translators.load({str(tmp_path)!r})" in snippet.code
    assert "edits=['zero L0.z.h1']" in snippet.code
    assert "figure { margin: 1.75rem 0 2.25rem; overflow-x: auto; }" in render(document)


def test_the_command_line_leaves_a_report(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    asked = ["lens", "nano", "-p", BERLIN, "--target", " Germany", "-o", str(out), "--json"]
    monkeypatch.setattr(sys, "argv", ["microtome", *asked])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    answer = json.loads(capsys.readouterr().out)
    assert answer["prompts"][0]["states"][-1]["top_token"] == " Germany"
    assert (out / "figures" / "lens-0.png").stat().st_size > 10_000
    assert "mt.lens(model, prompts" in (out / "report.html").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main()
    assert "holds an answer already" in capsys.readouterr().err
