"""What objects show of themselves in a notebook."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import effects_made_by_hand as by_hand
import microtome as mt
from microtome import notebook
from microtome.engines import observer

EVIL = "<script>alert(1)</script> is & the"


def test_a_prompt_shows_its_fields_escaped():
    shown = mt.Prompt(EVIL, target=" <b>")._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "target" in shown
    assert "contrast" not in shown


def test_prompts_show_a_row_each_and_no_more_than_fit():
    shown = mt.Prompts([mt.Prompt(f"text {n}", target=" a") for n in range(50)])._repr_html_()
    assert shown.count("<tr>") == 1 + notebook.MOST_ROWS
    assert "… and 30 more" in shown


def test_what_is_long_is_cut():
    shown = mt.Prompt("word " * 4000)._repr_html_()
    assert len(shown) < 1500
    assert " … " in shown
    tokens = notebook.html_tokens(["a"] * 1000)
    assert tokens.count("<span") == notebook.MOST_TOKENS
    assert "… and 800 more" in tokens


def test_numbers_are_written_as_in_every_other_table():
    shown = notebook.html_table(["rank", "prob"], [[11880.25, 0.123456]])
    assert "11,880" in shown
    assert "0.1235" in shown


def test_a_run_shows_tokens_predictions_and_receipts(nano):
    run = nano.run([EVIL, "Berlin is"], edits=[mt.zero("L0.z.h3")])
    shown = run._repr_html_()
    assert "<script" not in shown
    assert shown.count("clean_prob") == 2
    assert "zero L0.z.h3" in shown
    assert "selected" in run.receipts._repr_html_()
    assert run.receipts == tuple(run.receipts)
    assert "No edit" in nano.run("Berlin is").receipts._repr_html_()


def test_a_model_shows_what_can_be_addressed(nano):
    shown = nano._repr_html_()
    for part in ("nano", "8 heads of 24", "resid_mid", "mlp_post"):
        assert part in shown
    assert "&lt;Model" in shown


@pytest.mark.parametrize(
    "effects",
    [by_hand.heads(), by_hand.factors(), by_hand.positions(), by_hand.heads(n_prompts=3)],
    ids=["heads", "factors", "three dimensions", "prompts"],
)
def test_effects_show_the_map_itself(effects):
    shown = effects._repr_html_()
    [data] = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size[0] > 300
    assert "Strongest effects" in shown
    assert "&lt;Effects of" in shown


def test_effects_without_a_map_show_their_table(nano):
    effects = mt.sweep(nano, EVIL, mt.zero("L0.z.h3"), metrics=["kl", "top1"], progress=False)
    shown = effects._repr_html_()
    assert "<img" not in shown
    assert "<script" not in shown
    assert "Strongest effects on kl" in shown
    only_ids = mt.sweep(nano, "Berlin is", mt.zero("L0.z.h3"), metrics="top1", progress=False)
    assert "&lt;Effects of" in only_ids._repr_html_()


def test_a_notebook_has_a_progress_bar(monkeypatch):
    told = []

    class Bar:
        def __init__(self, **given):
            told.append(given["total"])

        def update(self, cells):
            told.append(cells)

        def close(self):
            told.append("closed")

    monkeypatch.setattr(observer, "tqdm", Bar)
    console = Console(file=io.StringIO(), force_jupyter=True)
    bar = observer.ProgressBar(console)
    bar.planned(8, 1)
    bar.advanced(3)
    bar.finished()
    bar.finished()
    assert told == [8, 3, "closed"]
    assert console.file.getvalue() == ""


@pytest.mark.parametrize(
    ("lang", "verdict"), [("en", "does not hold here"), ("vi", "không đúng ở đây")]
)
def test_a_study_shows_its_claims_in_its_language(nano, lang, verdict):
    result = mt.studies.run("ioi-levels", model=nano, lang=lang)
    table = result.claims()
    assert table["holds"].to_dict() == {"flips": True, "never": False}
    assert table.loc["never", "verdict"] == verdict
    shown = result._repr_html_()
    for text in (result.document.question, *table["claim"], *table["measured"], verdict):
        assert notebook.escaped(notebook.shown(text)) in shown


def test_a_claim_without_a_verdict_holds_neither_way(nano):
    table = mt.studies.run("hidden-scaling", model=nano).claims()
    assert table.loc["early", "holds"] is None
    assert table.loc["early", "verdict"] == "not judged"


def test_what_is_read_and_scored_shows_a_table(nano):
    prompts = mt.tasks.ioi(2)
    scores = mt.circuits.score(nano, prompts, level="node", progress=False)
    circuit = scores.circuit(6)
    curve = mt.circuits.curve(nano, prompts, scores, sizes=(0.5, 1.0), progress=False)
    found = {
        "top_token": mt.lens(nano, EVIL),
        "L5.mlp_out": mt.attribute_logits(nano, prompts),
        "previous_token": mt.head_scores(nano, n=2, length=5),
        "least": scores,
        "reader": circuit,
        "faithfulness": curve,
    }
    for words, one in found.items():
        shown = one._repr_html_()
        assert words in shown
        assert "<table>" in shown
        assert "<script" not in shown


def test_a_circuit_shows_its_strongest_edge_first(nano):
    circuit = mt.circuits.Circuit.of(nano, ["input->a0.h1<v>", "a0.h1->m3", "a0.h1->logits"])
    assert "input-&gt;a0.h1&lt;v&gt;" in circuit._repr_html_()
    scores = np.where(circuit.chosen, 0.5, np.nan)
    scores[circuit.graph.edges.index("a0.h1->m3")] = -2.0
    shown = replace(circuit, scores=scores)._repr_html_()
    [first] = re.findall(r"<tbody><tr><td[^>]*>([^<]*)</td>", shown)
    assert first == "a0.h1-&gt;m3"


def test_figures_of_a_dose_are_written_like_others(nano, tmp_path):
    vector = mt.steering.of_token(nano, " France", normalise=True)
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    found = mt.dose(nano, vector.add(layers="*"), prompt, "Sam went to the park.",
                    over={"factor": [1.0, 8.0]}, verify=1, progress=False)  # fmt: skip
    for figure in (found.figure(), found.figure("kl"), found.trade()):
        assert figure.save(tmp_path / "dose.svg").stat().st_size > 1000
