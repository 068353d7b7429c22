"""The report of a sweep, its code and its folder."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

import microtome as mt
from microtome.errors import EffectsError
from microtome.frontends import cli
from microtome.report import code, document_of_sweep, method, render, summary_of_sweep, write_folder

BERLIN = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
PARIS = mt.Prompt("Paris is the capital of", target=" France", contrast=" Germany")
METRICS = ["prob", "logit_diff", "top1"]


def swept(model, prompts, edit, **more):
    return mt.sweep(
        model, prompts, edit, metrics=METRICS, progress=False, engine="reference", **more
    )


@pytest.fixture(scope="module")
def heads(tiny):
    return swept(tiny, BERLIN, mt.zero("L*.z.h*@-1"))


@pytest.fixture(scope="module")
def document(tiny, heads):
    return document_of_sweep(heads, tiny.run(BERLIN))


def executed(text: str, model) -> dict[str, object]:
    names: dict[str, object] = {"hf": model.hf, "tokenizer": model.tokenizer}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, "snippet", "exec"), names)
    return names


def test_a_sweep_of_heads_has_one_map_per_metric_with_a_difference(document):
    assert [p.name for p in document.pictures] == ["prob-layer-head", "logit-diff-layer-head"]
    assert all("layer and head" in p.caption for p in document.pictures)


def test_the_page_shows_prompt_tokens_top_tokens_and_the_engine(document, heads):
    page = render(document)
    assert "<li><code>·capital</code><span>3</span></li>" in page
    assert "The most probable tokens after" in page
    assert heads.provenance["engine"]["why"] in document.method
    assert f"{heads.n_cells} cells" in document.method


def test_the_strongest_cells_are_those_of_the_result(document, heads):
    [section] = [s for s in document.sections if s.title == "Effects on prob"]
    [table] = section.tables
    np.testing.assert_allclose(table.frame["effect"], heads.top(10, "prob")["effect"])


def test_a_map_of_three_dimensions_is_cut_through_its_strongest_cell(tiny):
    effects = swept(tiny, BERLIN, mt.zero("L*.z.h*@*"))
    document = document_of_sweep(effects, tiny.run(BERLIN))
    top = effects.top(1, "prob").iloc[0]
    pictures = {p.name: p for p in document.pictures if p.name.startswith("prob")}
    assert list(pictures) == ["prob-layer-head", "prob-layer-pos", "prob-head-pos"]
    for name, left_out in zip(pictures, ("pos", "head", "layer"), strict=True):
        assert f"strongest cell, at {left_out} {top[left_out]}." in pictures[name].caption
        z = pictures[name].figure.data[0].z
        np.testing.assert_allclose(np.abs(z).max(), abs(top["effect"]))


def test_a_parameter_gets_a_curve_beside_the_map_of_places(tiny):
    effects = swept(tiny, BERLIN, mt.scale("L*.z.h*@-1", 1), over={"factor": [0.1, 0.5, 10.0]})
    names = [p.name for p in document_of_sweep(effects, tiny.run(BERLIN)).pictures]
    assert names[:2] == ["prob-layer-head", "prob-factor"]


def test_several_prompts_are_averaged_and_the_caption_says_so(tiny):
    prompts = [BERLIN, PARIS]
    document = document_of_sweep(swept(tiny, prompts, "zero L*.attn_out"), tiny.run(prompts))
    assert "Averaged over 2 prompts." in document.pictures[0].caption
    assert len(document.tokens) == 2


def test_donors_are_shown_where_they_are_used(tiny):
    prompt = mt.Prompt(BERLIN.text, donor=PARIS.text, target=" Germany", contrast=" France")
    run = tiny.run(prompt)
    patched = document_of_sweep(swept(tiny, prompt, "patch L*.z.h*@-1"), run)
    assert [row.role for row in patched.tokens] == ["recipient", "donor"]
    zeroed = document_of_sweep(swept(tiny, prompt, "zero L*.z.h*@-1"), run)
    assert [row.role for row in zeroed.tokens] == ["recipient"]


def test_a_sweep_without_stars_has_a_table_and_no_map(tiny):
    effects = swept(tiny, BERLIN, mt.zero("L1.z.h2@-1"))
    document = document_of_sweep(effects, tiny.run(BERLIN))
    assert document.pictures == ()
    names = executed(document.snippets[0].code, tiny)
    prob = names["run"].logits[0, -1].double().softmax(-1)
    assert float(prob[tiny.encode(BERLIN)[0].target]) == pytest.approx(
        float(effects.data["prob"].squeeze())
    )


@pytest.mark.parametrize(
    ("edit", "over"),
    [
        (mt.zero("L*.z.h*@-1"), None),
        ([mt.scale("L*.attn_out", 0.5), mt.noise('L*.mlp_out@"capital"', std=2.0, seed=3)], None),
        (mt.add("L*.resid_post@*", 1), {"vector": [0.5, -2.0]}),
        (mt.mean("L*.z.h*", over="prompts"), None),
        (mt.patch("L*.resid_pre@subject"), None),
    ],
    ids=["zero", "two", "over", "reference", "patch"],
)
def test_the_snippet_gives_the_strongest_cell_again(tiny, edit, over):
    prompts = [
        mt.Prompt(BERLIN.text, donor=PARIS.text, target=" Germany", contrast=" France",
                  roles={"subject": ("Berlin", "Paris")}),
        mt.Prompt(PARIS.text, donor=BERLIN.text, target=" France", contrast=" Germany",
                  roles={"subject": ("Paris", "Berlin")}),
    ]  # fmt: skip
    effects = swept(tiny, prompts, edit, over=over)
    [strongest] = effects.top(1, "logit_diff", over=None).to_dict(orient="records")
    run = executed(code.rerun(effects, strongest), tiny)["run"]
    one = tiny.encode(prompts[strongest["prompt"]])[0]
    logits = run.logits[0, -1].double()
    found = float(logits[one.target] - logits[one.contrast])
    assert found == pytest.approx(strongest["edited"], abs=1e-5)


def test_the_sweep_can_be_repeated_from_its_own_code(tiny, heads):
    again = executed(code.again_in_python(heads), tiny)["effects"]
    np.testing.assert_allclose(again.data["prob"], heads.data["prob"])
    assert again.provenance["spec"] == heads.provenance["spec"]


def named(effects: mt.Effects, name: str) -> mt.Effects:
    """The same, as if its model had been loaded by name."""
    record = effects.provenance
    record["model"] |= {"name": name, "loaded": "from files"}
    return mt.Effects(effects.data.assign_attrs(provenance=json.dumps(record)))


def test_a_named_model_is_loaded_by_its_name_and_type(heads):
    assert 'mt.load("gpt2", dtype="float32", device="cpu")' in code.again_in_python(
        named(heads, "gpt2")
    )


def test_the_command_says_the_same_as_the_sweep(heads):
    words = shlex.split(code.again_in_shell(named(heads, "gpt2")))
    assert words == [
        "microtome", "sweep", "gpt2", "--dtype", "float32", "--device", "cpu", "-p",
        "Berlin is the capital of", "--target", " Germany", "--contrast", " France", "-e",
        "zero L*.z.h*@-1", "-m", "prob", "-m", "logit_diff", "-m", "top1",
        "--engine", "reference", "--seed", "0", "-o", "out",
    ]  # fmt: skip


def test_a_command_for_several_prompts_writes_them_to_a_file_first(tiny, tmp_path):
    effects = named(swept(tiny, [BERLIN, PARIS], "zero L*.attn_out"), "gpt2")
    text = code.again_in_shell(effects)
    lines = text.splitlines()[1:3]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert list(mt.Prompts.read(tmp_path / "prompts.jsonl")) == [BERLIN, PARIS]
    assert "--prompts prompts.jsonl" in text


PATCHED = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany",
    contrast=" France", roles={"subject": ("Berlin", 0), "end": -1},
)  # fmt: skip
ROME = mt.Prompt("Rome is the capital of", target=" Italy", contrast=" France")
SWEEPS = {
    "one": (BERLIN, "zero L*.z.h*@-1", {}),
    "roles": (PATCHED, "patch L*.z.h*@subject", {"seed": 3, "verify": 2}),
    "numbers": (BERLIN, "scale(1) L*.attn_out", {"over": {"factor": [1e-3, 0.1, 10]}}),
    "words": (
        ROME,
        "noise(std=2) L1.z.h{0,2}@-1",
        {"over": {"how": ["add", "replace"], "relative": [True, False]}, "memory": 4_000_000},
    ),
    "arrays": (
        BERLIN,
        "add(0) L*.resid_post.d{0,1}@-1",
        {"over": {"vector": [np.array([0.1, 1 / 3]), [1, -2]]}},
    ),
    "screened": (
        [BERLIN, ROME],
        "zero L{0,3}.z.h*@*",
        {"screen": "bfloat16", "refine": 5},
    ),
    "references": (
        [BERLIN, ROME],
        ['mean(over="prompts") L*.attn_out', "scale(0.5) L1.mlp_out@-1"],
        {"reference": [PARIS, ROME]},
    ),
    "windows": ([BERLIN, ROME, PARIS], "zero L*.z.h*@-1", {}),
}


def same(one: mt.Effects, other: mt.Effects) -> bool:
    """Whether two results have the same names, coordinates and numbers, bit for bit."""
    return one.data.drop_attrs(deep=False).identical(other.data.drop_attrs(deep=False))


@pytest.mark.parametrize("kind", SWEEPS)
def test_python_command_and_file_give_the_same_result_bit_for_bit(
    nano, kind, tmp_path, monkeypatch
):
    """Each form of a report is executed as it stands there."""
    prompts, edit, more = SWEEPS[kind]
    given = mt.Stream(prompts, 2) if kind == "windows" else prompts
    effects = mt.sweep(nano, given, edit, metrics=METRICS, progress=False, **more)
    report = document_of_sweep(effects, nano.run(prompts))
    python, shell, sheet = (snippet.code for snippet in report.snippets[1:])
    monkeypatch.chdir(tmp_path)

    assert same(executed(python, nano)["effects"], effects)

    (tmp_path / "experiment.yaml").write_text(sheet, encoding="utf-8")
    assert same(mt.Experiment.read("experiment.yaml").run(progress=False), effects)

    for file, lines in re.findall(r"cat > (\S+) <<'END'\n(.*?)\nEND\n", shell, flags=re.DOTALL):
        (tmp_path / file).write_text(lines, encoding="utf-8")
    [command] = re.findall(r"^microtome .*$", shell, flags=re.MULTILINE)
    commanded(command, monkeypatch)
    assert same(mt.open_effects("out/effects.zarr"), effects)


def test_the_file_says_how_it_is_run(nano, tmp_path, monkeypatch):
    effects = mt.sweep(nano, BERLIN, "zero L*.attn_out", metrics="prob", progress=False)
    sheet = code.again_in_yaml(effects)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.yaml").write_text(sheet, encoding="utf-8")
    commanded(sheet.splitlines()[0].removeprefix("# "), monkeypatch)
    assert same(mt.open_effects("out/effects.zarr"), effects)


def commanded(line: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main()


def test_the_strongest_cell_of_a_map_over_arrays_runs_by_itself(nano):
    """Arrays are coordinates as texts; the code has their numbers."""
    prompts, edit, more = SWEEPS["arrays"]
    effects = mt.sweep(nano, prompts, edit, metrics="logit_diff", progress=False, **more)
    [strongest] = effects.top(1, "logit_diff").to_dict(orient="records")
    run = executed(code.rerun(effects, strongest), nano)["run"]
    one = nano.encode(prompts)[0]
    logits = run.logits[0, -1].double()
    found = float(logits[one.target] - logits[one.contrast])
    assert found == pytest.approx(strongest["edited"], abs=1e-5)


def test_how_a_model_was_loaded_is_in_every_form(heads):
    effects = named(heads, "gpt2")
    record = effects.provenance
    record["model"] |= {"revision": "abc", "attention": "eager", "dtype": "float64"}
    effects = mt.Effects(effects.data.assign_attrs(provenance=json.dumps(record)))
    assert (
        'mt.load("gpt2", dtype="float64", device="cpu", revision="abc", '
        'attn_implementation="eager")' in code.again_in_python(effects)
    )
    command = "gpt2 --dtype float64 --device cpu --revision abc --attention eager"
    assert command in code.again_in_shell(effects)
    model = mt.Experiment.from_yaml(code.again_in_yaml(effects)).model
    assert (model.dtype, model.revision, model.attention) == ("float64", "abc", "eager")


def test_a_model_in_memory_has_python_alone_which_asks_for_it(heads, tiny):
    for record in (heads, called(heads, "gpt2")):
        assert code.again_in_shell(record) is None
        assert code.again_in_yaml(record) is None
        text = code.again_in_python(record)
        assert "# hf: the model that was given in memory (GPT2LMHeadModel, float32, on cpu)" in text
        assert "mt.load(hf, tokenizer=tokenizer)" in text
        assert "gpt2" not in text
    assert f'assert model.weight_hash == "{tiny.weight_hash}"' in text


def called(effects: mt.Effects, name: str) -> mt.Effects:
    """The same of a model in memory whose configuration has the name of a published one."""
    record = effects.provenance
    record["model"]["name"] = name
    return mt.Effects(effects.data.assign_attrs(provenance=json.dumps(record)))


def test_code_runs_on_the_weights_of_the_record_and_no_others(heads, make_gpt2, tokenizer):
    other = mt.load(make_gpt2(seed=1), tokenizer=tokenizer)
    with pytest.raises(AssertionError):
        executed(code.again_in_python(heads), other)


def test_what_only_python_can_say_of_loading_stands_there_alone(heads):
    effects = named(heads, "gpt2")
    record = effects.provenance
    record["model"]["asked"] = {"device_map": "auto", "tokenizer": "GPT2Tokenizer"}
    record["model"]["device_map"] = {"": "cpu"}
    effects = mt.Effects(effects.data.assign_attrs(provenance=json.dumps(record)))
    line = """mt.load("gpt2", dtype="float32", device_map='auto', tokenizer=tokenizer)"""
    assert line in code.again_in_python(effects)
    assert code.again_in_shell(effects) is None


def test_records_of_older_builds_have_code_too(heads):
    record = heads.provenance
    kept = ("revision", "weight_hash", "architecture", "dtype", "attention", "device")
    record["model"] = {"name": "gpt2", **{name: record["model"][name] for name in kept}}
    older = mt.Effects(heads.data.assign_attrs(provenance=json.dumps(record)))
    text = code.again_in_python(older)
    assert 'mt.load("gpt2", dtype="float32", device="cpu")' in text
    assert "assert" not in text
    record["model"]["name"] = record["model"]["architecture"]
    older = mt.Effects(heads.data.assign_attrs(provenance=json.dumps(record)))
    assert "mt.load(hf, tokenizer=tokenizer)" in code.again_in_python(older)


def test_a_function_made_on_the_spot_has_no_code_to_show(tiny):
    effects = swept(tiny, BERLIN, mt.apply("L*.attn_out", lambda x: -x))
    assert document_of_sweep(effects, tiny.run(BERLIN)).snippets == ()


def test_a_folder_holds_results_figures_summary_and_report(tiny, heads, document, tmp_path):
    out = write_folder(tmp_path / "out", heads, document, summary_of_sweep(heads))
    assert {path.name for path in out.iterdir()} == {
        "effects.zarr", "figures", "tables", "summary.json", "report.html",
    }  # fmt: skip
    assert {path.name for path in (out / "figures").iterdir()} == {
        "plotly.min.js", "prob-layer-head.html", "prob-layer-head.png",
        "logit-diff-layer-head.html", "logit-diff-layer-head.png",
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["cells"] == heads.n_cells
    assert summary["clean"]["prob"] == [float(heads.clean("prob")[0])]
    assert summary["top_cells"]["prob"][0]["effect"] == heads.top(1, "prob")["effect"][0]
    np.testing.assert_array_equal(
        mt.open_effects(out / "effects.zarr").data["prob"], heads.data["prob"]
    )


def test_several_results_lie_side_by_side_and_nan_is_null(heads, document, tmp_path):
    named_results = {"zero": heads, "mean": heads}
    out = write_folder(tmp_path, named_results, document, {"p": float("nan"), "n": np.int64(3)})
    assert {path.name for path in (out / "effects").iterdir()} == {"zero.zarr", "mean.zarr"}
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (summary["p"], summary["n"]) == (None, 3)


def test_our_own_folder_is_replaced_and_what_is_not_ours_in_it_is_kept(
    tiny, heads, document, tmp_path
):
    write_folder(tmp_path, {"zero": heads}, document, {})
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    bare = document_of_sweep(swept(tiny, BERLIN, "zero L1.attn_out"), tiny.run(BERLIN))
    write_folder(tmp_path, heads, bare, {})
    assert (tmp_path / "notes.txt").is_file()
    assert not (tmp_path / "effects" / "zero.zarr").exists()
    assert not (tmp_path / "figures" / "prob-layer-head.png").exists()


@pytest.mark.parametrize("summary", [None, "[]", "{}", "no json"])
def test_a_folder_of_someone_elses_is_left_alone(heads, document, tmp_path, summary):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary, encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EffectsError, match=r"not empty and holds no summary.json of microtome's"):
        write_folder(tmp_path, heads, document, {})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_summary_cannot_point_outside_its_folder(heads, document, tmp_path):
    kept = heads.save(tmp_path / "kept.zarr")
    (tmp_path / "precious.png").write_text("x", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    lie = {"microtome_folder": 1, "effects": ["../kept.zarr"], "figures": ["../../precious"]}
    (out / "summary.json").write_text(json.dumps(lie), encoding="utf-8")
    write_folder(out, heads, document, {})
    assert kept.is_dir()
    assert (tmp_path / "precious.png").is_file()


def test_metrics_whose_names_make_one_file_name_have_a_picture_each(tiny):
    prompt = mt.Prompt(BERLIN.text, target=" Germany", roles={"chủ": 0, "vị": 1})
    metrics = ["loss@2", "loss@-2", "loss@chủ", "loss@vị"]
    effects = mt.sweep(tiny, prompt, "zero L*.z.h*", metrics=metrics, progress=False)
    names = [picture.name for picture in document_of_sweep(effects, tiny.run(prompt)).pictures]
    assert len(set(names)) == len(metrics)
    assert names[:2] == ["loss-2-layer-head", "loss-2-layer-head-2"]


def test_a_long_vector_is_no_title(tiny):
    vector = [round(n / 7, 6) for n in range(tiny.anatomy.dims.d_model)]
    effects = swept(tiny, BERLIN, mt.add("L*.resid_post@-1", vector))
    document = document_of_sweep(effects, tiny.run(BERLIN))
    assert len(document.title) < 80
    assert len(document.question) < 120
    assert all(len(one.figure.layout.title.text) < 100 for one in document.pictures)
    twice = [2 * number for number in vector]
    over = swept(tiny, BERLIN, mt.add("L*.resid_post@-1", 0.0), over={"vector": [vector, twice]})
    sections = document_of_sweep(over, tiny.run(BERLIN)).sections
    [table] = next(one for one in sections if one.title == "Effects on prob").tables
    assert table.frame["vector"].map(len).max() < 60


@pytest.fixture(scope="module")
def uneven(tiny) -> mt.Effects:
    prompts = [
        mt.Prompt(text, target=" Germany", roles={"subject": word}, meta={"kind": kind})
        for text, word, kind in [
            ("Berlin is the capital of", "Berlin", "city"),
            ("Paris is the capital of", "Paris", "city"),
            ("The cat sat", "cat", "beast"),
        ]
    ]
    return mt.sweep(tiny, prompts, "zero L*.resid_post@*", metrics=["prob", "top1"], progress=False)


class TestManyPrompts:
    """Means over prompts, one row a cell; each sentence of what was measured."""

    def test_prompts_of_several_lengths_are_drawn_over_their_roles(self, tiny, uneven):
        report = document_of_sweep(uneven, tiny.run(BERLIN))
        assert "The prompts are of 3 to 5 tokens" in report.method
        assert [picture.name for picture in report.pictures] == ["prob-layer-role"]
        [section] = [s for s in report.sections if s.title == "Effects on prob"]
        assert section.paragraphs[1].startswith("The largest mean effect is at layer")
        table = section.tables[0]
        assert "prompt" not in table.frame
        assert {"layer", "role", "effect", "low", "high", "p", "n"} <= set(table.frame)
        [changes] = [s.tables[0] for s in report.sections if s.title == "Changes of top1"]
        assert {"layer", "role", "prompts", "of"} == set(changes.frame)
        assert report.n_prompts == 3

    def test_without_roles_single_prompts_are_drawn_too(self, tiny):
        texts = ["Berlin is the capital of", "The cat sat"]
        effects = mt.sweep(tiny, texts, "zero L*.resid_post@*", metrics="kl", progress=False)
        names = [p.name for p in document_of_sweep(effects, tiny.run(texts)).pictures]
        assert names == ["kl-layer", "kl-layer-pos-prompt-0", "kl-layer-pos-prompt-1"]

    def test_roles_at_other_positions_of_equally_long_prompts_have_maps_of_their_own(self, tiny):
        text = "When Mary and John went to the store, John gave a drink to"
        prompts = [mt.Prompt(text, roles={"who": word}) for word in ("Mary", "store")]
        effects = mt.sweep(tiny, prompts, "zero L*.attn_out@*", metrics="kl", progress=False)
        report = document_of_sweep(effects, tiny.run(prompts))
        assert [p.name for p in report.pictures] == ["kl-layer-pos", "kl-layer-role"]
        assert "who stands at different positions in these prompts" in report.method
        still = mt.sweep(tiny, prompts[:1] * 2, "zero L*.attn_out@*", metrics="kl", progress=False)
        report = document_of_sweep(still, tiny.run(prompts))
        assert [p.name for p in report.pictures] == ["kl-layer-pos"]
        assert "different positions" not in report.method

    def test_tables_are_written_beside_the_effects(self, tiny, uneven, tmp_path):
        report = document_of_sweep(uneven, tiny.run(BERLIN))
        out = write_folder(tmp_path / "out", uneven, report, summary_of_sweep(uneven))
        cells = pd.read_csv(out / "tables" / "cells.csv")
        assert len(cells) == uneven.n_cells
        np.testing.assert_allclose(cells["prob"], uneven.to_dataframe()["prob"], rtol=1e-12, atol=0)
        means = pd.read_csv(out / "tables" / "prob.csv")
        assert len(means) == len(uneven.by_role().table("prob"))
        prompts = pd.read_csv(out / "tables" / "prompts.csv")
        assert prompts["kind"].tolist() == ["city", "city", "beast"]
        assert prompts["clean_prob"].tolist() == pytest.approx(uneven.clean("prob").values.tolist())
        planted = pd.DataFrame({"text": ["=1+1", "is"], "effect": [-0.5, 1.0]})
        bare = replace(report, exports={"planted": planted})
        write_folder(out, uneven, bare, summary_of_sweep(uneven))
        written = (out / "tables" / "planted.csv").read_text()
        assert written == "text,effect\n'=1+1,-0.5\nis,1.0\n"
        bare = replace(report, exports={})
        write_folder(out, uneven, bare, summary_of_sweep(uneven))
        assert not list((out / "tables").iterdir())

    def test_what_changed_nothing_is_said_to_be_0(self, tiny):
        effects = swept(tiny, BERLIN, "scale(1) L*.attn_out@-1", over={"factor": [1.0, 0.5]})
        report = document_of_sweep(effects, tiny.run(BERLIN))
        assert "In 3 cells the edits left every value as it was" in report.method
        assert "exactly 0" in report.method
        effects = swept(tiny, BERLIN, "scale(1) L0.attn_out@-1", over={"factor": [1.0, 0.5]})
        method = document_of_sweep(effects, tiny.run(BERLIN)).method
        assert "In 1 cell the edits left every value as it was" in method
        assert "with one value of factor" in report.method

    def test_no_row_and_no_color_of_a_map_without_effects(self, tiny):
        effects = swept(tiny, BERLIN, "scale(1) L*.z.h*@-1")
        report = document_of_sweep(effects, tiny.run(BERLIN))
        [section] = [s for s in report.sections if s.title == "Effects on prob"]
        assert section.tables == ()
        assert "Every effect on it is 0." in section.pictures[0].caption
        assert "Red" not in section.pictures[0].caption
        assert not any("strongest" in snippet.title for snippet in report.snippets)


def test_an_approximate_map_says_what_it_is_and_how_good(nano):
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    effects = mt.sweep(nano, prompt, "zero L*.z.h*@{0,-1}", metrics="prob", method="atp", audit=16)
    document = document_of_sweep(effects, nano.run(prompt))
    assert "cells stands for one run of the model" in document.method
    assert "Approximated: effects are those of atp, which is not exact. 16 cells" in document.method
    assert "With 95% confidence, of the " in document.method
    names = [picture.name for section in document.sections for picture in section.pictures]
    assert "audit-prob" in names
    shown = " ".join(str(snippet) for snippet in document.snippets)
    assert 'method="atp"' in shown
    assert "--method atp" in shown
    assert "engine" not in shown
    drawn = next(p for s in document.sections for p in s.pictures if p.name == "prob-layer-head")
    rings = [trace for trace in drawn.figure.data if trace.name == "exact"]
    assert len(rings) == 1
    assert len(rings[0].x) > 0
    summary = summary_of_sweep(effects)
    assert summary["method"] == "atp"
    assert summary["audit"]["cells"] == 16
    assert "audit=16," in code.again_in_python(effects)
    assert "--audit 16" in code.again_in_shell(effects)


@pytest.mark.parametrize(
    ("audit", "refine", "shell"),
    [
        (mt.Audit(8, refine=3), "3", "--refine 3"),
        (mt.Audit(8, below=0.5), "'below 0.5'", "--refine 'below 0.5'"),
    ],
)
def test_a_refined_map_is_repeated_as_it_was(nano, audit, refine, shell):
    effects = mt.sweep(nano, BERLIN, "zero L*.z.h*@-1", metrics="prob", method="atp", audit=audit)
    again = code.again_in_python(effects)
    assert "audit=8," in again
    assert f"refine={refine}," in again.replace('"', "'")
    assert shell in code.again_in_shell(effects)
    assert yaml.safe_load(code.again_in_yaml(effects))["refine"] == (audit.refine or "below 0.5")


def test_signs_of_which_none_agree_are_told():
    found = {"pearson": -0.5, "spearman": -0.5, "signs": 0.0, "miss": 1.0}
    worst = {"cell": {}, "approximate": 0.5, "exact": -0.5}
    told = method.how_good({**found, "worst": worst, "recall": None, "bound": None}, "prob")
    assert "0% have the same sign" in " ".join(told)
