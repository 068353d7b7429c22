"""Code for a view: each form is executed as it stands there, and gives what the page shows."""

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

import microtome as mt
from microtome.errors import CircuitError, MicrotomeError
from microtome.frontends import cli
from microtome.frontends.experiment.running import Ran
from microtome.frontends.experiment.writing import Written
from microtome.frontends.lab import drawing, exports
from microtome.frontends.lab.answers import cell, pinned, upstream, writing
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.code import codes, parts
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.panels import Context
from microtome.frontends.lab.sides import other_of
from microtome.frontends.lab.state import Against, View

SAM = View(
    text="When Sam and Sally went to the park, Sam gave a gift to",
    target=" Sally",
    contrast=" Sam",
    steps=3,
    chosen=("zero L3.z.h1@-1", "scale(0.5) L2.mlp_out@-1"),
    reader="a3.h1<q>",
    pins=("m0->logits", "a3.h1"),
)
QUOTED = View(
    text='It\'s "so": $HOME `x`\\ </script>\nBerlin is the capital of',
    donor='It\'s "so": $HOME `x`\\ </script>\nParis is the capital of',
    target=" Germany",
    edit="patch L*.z.h*@-1",
    chosen=('patch L2.z.h3@"capital"',),
    roles=(("city", -5),),
)
VIEWS = {"plain": SAM, "quoted": QUOTED}


@pytest.fixture(params=VIEWS)
def view(request) -> View:
    return VIEWS[request.param]


@pytest.fixture
def models(nano):
    return lambda name: nano


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Executes a shell text of ours: files first, then the command."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, *more: str) -> str:
        for name, lines in re.findall(r"cat > (\S+) <<'END'\n(.*?)\nEND\n", text, re.DOTALL):
            (tmp_path / name).write_text(lines, encoding="utf-8")
        [line] = re.findall(r"^microtome .*", text, re.DOTALL | re.MULTILINE)
        monkeypatch.setattr(sys, "argv", [*shlex.split(line), *more])
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            cli.main()
        return capsys.readouterr().out

    return run


def executed(text: str) -> dict[str, object]:
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, "snippet", "exec"), names)
    return names


def same(one: mt.Effects, other: mt.Effects) -> bool:
    return one.data.drop_attrs(deep=False).identical(other.data.drop_attrs(deep=False))


def shown(model, view, *edits) -> mt.Effects:
    """What the page computes."""
    asked = edits or [view.edit]
    return mt.sweep(model, prompt_of(view), asked, metrics=view.measured, progress=False)


def check_sweep(made, expected, tmp_path, command=None):
    """All forms against a result, bit for bit; the command too, where one is to be called."""
    assert same(executed(made.python)["effects"], expected)
    (tmp_path / "experiment.yaml").write_text(made.yaml, encoding="utf-8")
    assert same(mt.Experiment.read(tmp_path / "experiment.yaml").run(progress=False), expected)
    if command is None:
        return
    command(made.shell)
    assert same(mt.open_effects(tmp_path / "out" / "effects.zarr"), expected)


def test_the_map_is_repeated_by_all_three(nano, models, view, command, tmp_path):
    [made] = codes("map", view, models)
    check_sweep(made, shown(nano, view), tmp_path, command)


def test_chosen_cells_are_repeated_by_all_three(nano, models, view, command, tmp_path):
    [made] = codes("cells", view, models)
    check_sweep(made, shown(nano, view, *view.chosen), tmp_path, command)
    value = cell.together(nano, prompt_of(view), view.chosen, view.measured).value
    data = executed(made.python)["effects"].data[value.metric]
    assert value.edited - data.item() == 0


def asked_by(yaml: str) -> str:
    """The command that a file's first line names."""
    return yaml.partition("\n")[0].removeprefix("# ")


def test_the_run_of_chosen_cells_is_repeated_by_all_three(nano, models, command, tmp_path):
    [made] = codes("run", SAM, models)
    after = cell.changed(nano, prompt_of(SAM), SAM.chosen).after
    own = executed(made.python)["run"].top(10)
    assert [one.prob for one in after] == own["prob"].tolist()
    said = json.loads(command(made.shell, "--json"))
    tokens = said["prompts"][0]["top"][0]["tokens"]
    assert [one["prob"] for one in tokens] == [one.prob for one in after]
    (tmp_path / "run.yaml").write_text(made.yaml, encoding="utf-8")
    filed = Ran.read(tmp_path / "run.yaml").run()
    assert filed.top(10)["prob"].tolist() == own["prob"].tolist()
    assert filed.receipts == executed(made.python)["run"].receipts
    again = json.loads(command(asked_by(made.yaml), "--json"))
    assert again["prompts"] == said["prompts"]


def test_a_prompt_with_roles_has_no_words_on_the_command_line_for_a_run(models):
    [made] = codes("run", QUOTED, models)
    assert made.shell is None
    assert "roles={'city': -5}" in made.python
    filed = Ran.from_yaml(made.yaml).run(models("nano"))
    own = models("nano").run(prompt_of(QUOTED), QUOTED.chosen)
    assert filed.logits.equal(own.logits), "a file has words for it"


def test_what_is_traced_is_repeated_writer_by_writer(nano, models, tmp_path):
    expected = upstream.upstream(nano, prompt_of(SAM), SAM.reader, SAM.measured)
    found = codes("trace", SAM, models)
    effects = [executed(one.python)["effects"] for one in found]
    numbers = np.concatenate([one.delta("logit_diff").values.ravel() for one in effects])
    there = np.concatenate([one.data["values_changed"].values.ravel() for one in effects])
    own = sorted(numbers[~np.isnan(there)])
    assert own == sorted(edge.effect for edge in expected.edges)
    check_sweep(found[0], effects[0], tmp_path)


def test_what_is_traced_is_edited_as_the_page_says(nano, models):
    view = replace(SAM, donor=SAM.text.replace("Sam gave", "Sally gave"))
    for way in ("patch", "zero"):
        found = codes("trace", replace(view, way=way), models)
        assert all(one.about.startswith(f"{way} ") for one in found)
    assert codes("trace", view, models)[0].about.startswith("patch ")
    found = codes("trace", replace(view, reader="m0", way="mean"), models)
    effects = executed(found[0].python)["effects"]
    edges = upstream.upstream(nano, prompt_of(view), "m0", view.measured, "mean").edges
    [of_input] = [edge.effect for edge in edges if edge.writer == "input"]
    assert effects.delta("logit_diff").item() == of_input


def test_a_circuit_is_judged_by_the_metric_of_the_page(models, command):
    view = replace(SAM, metric="prob(contrast)@3", pins=("m0->logits",))
    [made] = codes("circuit", view, models)
    said = json.loads(command(made.shell, "--json"))
    assert said["faithfulness"] == executed(made.python)["found"]["faithfulness"].item()
    assert '"prob(contrast)@3"' in made.python.replace("'", '"')


def test_the_circuit_is_judged_the_same_by_each_ablation(nano, models, command, tmp_path):
    view = replace(SAM, donor=SAM.text.replace("Sam gave", "Sally gave"))
    circuit, found = pinned.circuit_of(nano, SAM.pins), codes("circuit", view, models)
    assert len(codes("circuit", SAM, models)) == 1  # there is no donor to patch from
    for way, made in zip(("patch", "zero"), found, strict=True):
        expected = pinned.kept(nano, prompt_of(view), circuit, view.measured, way).faithfulness
        assert executed(made.python)["found"]["faithfulness"].item() - expected == 0
        assert json.loads(command(made.shell, "--json"))["faithfulness"] - expected == 0
        (tmp_path / "circuit.yaml").write_text(made.yaml, encoding="utf-8")
        filed = mt.CircuitExperiment.read(tmp_path / "circuit.yaml").run(nano, progress=False)
        assert filed.found.circuit == circuit
        assert filed.summary()["faithfulness"] - expected == 0
    said = json.loads(command(asked_by(made.yaml), "--json"))
    assert said["faithfulness"] - expected == 0


@pytest.mark.parametrize(
    "against",
    [
        Against("edit", "mean L*.z.h*@-1"),
        Against("prompt", SAM.text.replace("Sam", "Tom")),
        Against("prompt", View(text=SAM.text, target=" Sam", contrast=" Sally").to_query()),
    ],
    ids=["edit", "text", "prompt"],
)
def test_a_comparison_is_repeated_side_by_side(nano, models, tmp_path, against):
    view = View(text=SAM.text, target=" Sally", contrast=" Sam", against=against)
    side, both = codes("comparison", view, models)
    one, other = shown(nano, view), shown(nano, other_of(view))
    check_sweep(side, other, tmp_path)
    expected = other.delta("logit_diff") - one.delta("logit_diff")
    assert float(abs(executed(both.python)["difference"] - expected).max()) == 0


def test_the_other_side_of_a_comparison_of_models_loads_that_one(nano, tiny):
    view = View(model="nano", text="Berlin is", against=Against("model", "other"))
    [side] = codes("comparison", view, {"nano": nano, "other": tiny}.__getitem__)
    assert tiny.weight_hash in side.python


def test_two_maps_of_other_cells_have_no_difference(models):
    view = View(text="Berlin is", against=Against("edit", "zero L*.mlp_out@-1"))
    [side] = codes("comparison", view, models)
    assert side.about == "zero L*.mlp_out@-1"


def test_what_is_written_is_repeated_by_all_three(nano, models, command, tmp_path):
    expected = writing.written(nano, prompt_of(SAM), SAM.chosen, SAM.steps)
    [made] = codes("writing", SAM, models)
    names = executed(made.python)
    assert names["made"][0].text == expected.edited
    assert names["plain"][0].text == expected.unedited
    (tmp_path / "writing.yaml").write_text(made.yaml, encoding="utf-8")
    again = Written.read(tmp_path / "writing.yaml").run()[0]
    assert (again.table()["logprob"] - names["made"][0].table()["logprob"]).abs().max() == 0
    [said] = json.loads(command(made.shell, "--json"))["texts"]
    assert [said["text"], said["without_edits"]] == [expected.edited, expected.unedited]
    assert [one["logprob"] for one in said["tokens"]] == again.table()["logprob"].tolist()


def test_a_view_has_code_for_what_it_shows_and_no_more():
    assert parts(View()) == ()
    assert parts(View(text="It is")) == ("map",)
    assert parts(SAM) == ("map", "cells", "run", "trace", "circuit", "writing")


def test_a_model_in_memory_has_python_alone(tiny):
    view = View(text="Berlin is", chosen=("zero L1.z.h2",), pins=("m0->logits",))
    for part in parts(view):
        for one in codes(part, view, lambda name: tiny):
            assert "mt.load(hf, tokenizer=tokenizer)" in one.python
            assert (one.shell, one.yaml) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"edit": "zero L9.z.h0"}, {"edit": "zap L1.z"}, {"metric": "logit_diff"}, {"text": ""}],
    ids=["layer", "edit", "metric", "text"],
)
def test_what_cannot_be_run_has_no_code_and_says_why(models, wrong):
    with pytest.raises(MicrotomeError):
        codes("map", View(**{"text": "Berlin is", **wrong}), models)


def test_a_run_needs_no_target_whatever_is_measured(models):
    view = View(text="Berlin is", metric="logit_diff", chosen=("zero L1.z.h2",))
    assert [len(codes(part, view, models)) for part in ("run", "writing")] == [1, 1]


# ------------------------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def heads(nano) -> mt.Effects:
    return shown(nano, SAM)


def test_each_file_is_what_the_library_writes(nano, heads, tmp_path):
    files = {name: exports.made(name, SAM, nano, heads) for name in exports.offered(SAM, True)}
    assert set(files) == set(exports.KINDS)
    assert exports.offered(SAM, False) == ("circuit.json", "circuit.svg")
    for name in ("map.png", "map.svg"):
        path = heads.figure("logit_diff").save(tmp_path / name)
        assert _plain(path.read_bytes()) == _plain(files[name])
    frame = heads.to_dataframe()
    assert files["map.csv"].decode().count("\n") == len(frame) + 1
    assert repr(float(frame["logit_diff"].iloc[5])) in files["map.csv"].decode()
    (tmp_path / "circuit.json").write_bytes(files["circuit.json"])
    opened = mt.circuits.Circuit.open(tmp_path / "circuit.json", nano)
    assert opened == pinned.circuit_of(nano, SAM.pins)
    page = files["report.html"].decode()
    assert "<script src" not in page
    assert "http://" not in page.partition("</style>")[0]
    assert SAM.text in page


def _plain(data: bytes) -> bytes:
    """A picture without the names that matplotlib draws by lot for what SVG defines."""
    return re.sub(rb'(id="|#)[a-z]*[0-9a-f]{10}', rb"\1", data)


def test_the_map_is_cut_where_the_page_cuts_it(nano):
    view = View(text="Berlin is the capital", edit="zero L*.z.h*@*", at=(("pos", 2),))
    found = shown(nano, view)
    drawn = exports.made("map.svg", view, nano, found)
    assert _plain(drawn) == _plain(_svg(found.figure("kl", pos=2)))
    assert _plain(drawn) != _plain(_svg(found.figure("kl", pos=1)))


@pytest.mark.parametrize("at", [("layer", 2), ("pos", 99)])
def test_a_file_is_cut_as_the_page_is_where_the_address_asks_for_another_cut(nano, at):
    view = View(text="Berlin is the capital", edit="zero L*.z.h*@*", at=(at,))
    found = shown(nano, view)
    seen = drawing.cut_of(found, "kl", dict(view.at))
    assert len(seen.dims) == 2
    assert _plain(exports.made("map.svg", view, nano, found)) == _plain(
        _svg(found.figure("kl", **seen.picked))
    )


def _svg(figure) -> bytes:
    return exports.picture_of(figure, "svg")


def test_a_place_along_what_the_map_has_not_is_none_of_it(nano, heads):
    stale = replace(SAM, at=(("pos", 2),))
    assert _plain(exports.made("map.svg", stale, nano, heads)) == _plain(
        exports.made("map.svg", SAM, nano, heads)
    )


def test_a_map_of_too_many_cells_is_no_table(nano, heads, monkeypatch):
    monkeypatch.setattr(exports, "exports", lambda effects: {})
    with pytest.raises(MicrotomeError, match="too many for a table"):
        exports.made("map.csv", SAM, nano, heads)


def test_files_that_are_not_there_say_so(nano):
    with pytest.raises(MicrotomeError, match=r"No view is kept as 'map\.jpg'"):
        exports.made("map.jpg", SAM, nano, None)
    with pytest.raises(MicrotomeError, match="not computed yet"):
        exports.made("map.png", SAM, nano, None)
    with pytest.raises(CircuitError, match="no edge 'm9->logits'"):
        exports.made("circuit.json", View(pins=("m9->logits",)), nano, None)


def test_a_report_is_in_the_pages_language_as_far_as_there_are_words(nano, heads):
    words = Context(Desk(), Jobs(Desk())).words
    english, said = (
        exports.made("report.html", SAM, nano, heads, words(lang)).decode() for lang in ("en", "vi")
    )
    assert english == exports.made("report.html", SAM, nano, heads).decode()
    only = {
        english: ('lang="en"', ">Method<", '"text":"head"', "clean %{"),
        said: (
            'lang="vi"',
            ">Phương pháp<",
            r'"\u0111\u1ea7u"',
            r"g\u1ed1c %{",
            "mã bằng tiếng Anh",
        ),
    }
    for page, other in ((english, said), (said, english)):
        assert all(text in page for text in only[page])
        assert not any(text in other for text in only[page])
    assert words("en")("keep.report_sentences") not in english


def test_a_report_says_what_was_asked_as_text(nano):
    planted = "<img src=x onerror=alert(1)></script><script>alert(2)</script> Berlin is"
    view = View(text=planted, edit="zero L*.attn_out@-1")
    page = exports.made("report.html", view, nano, shown(nano, view)).decode()
    assert "<img src=x" not in page
    assert "alert(2)</script>" not in page


def test_a_table_holds_no_formula(nano):
    planted = "=1+1 @SUM(A1) -2 +3 is"
    view = View(text=planted, edit="zero L0.mlp_out@*", metric="kl", roles=(("first", 0),))
    effects = shown(nano, view)
    table = exports.made("map.csv", view, nano, effects).decode()
    frame = pd.read_csv(io.StringIO(table), keep_default_na=False)
    own = effects.to_dataframe()
    assert {"=", "@"} <= {text[:1] for text in own["token"]}, "the prompt plants some"
    texts = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column])]
    assert "token" in texts
    begins = {text[:1] for column in (*texts, "=") if column in frame for text in frame[column]}
    assert not begins & set("=+-@\t\r")
    assert frame["token"].str.removeprefix("'").tolist() == own["token"].tolist()
    assert frame["kl"].tolist() == own["kl"].tolist()


def test_files_have_plain_names():
    assert all(re.fullmatch(r"[a-z]+\.(html|png|svg|csv|json)", name) for name in exports.KINDS)


def test_pictures_are_in_the_language_of_the_page(nano, heads, monkeypatch):
    words = Context(Desk(), Jobs(Desk())).words
    asked = []

    def picture_of(figure, kind):
        asked.append(figure)
        return b""

    monkeypatch.setattr(exports, "picture_of", picture_of)
    for lang in ("vi", "en"):
        for name in ("map.svg", "circuit.svg"):
            exports.made(name, SAM, nano, heads, words(lang))
    figure, circuit, english, _ = asked
    assert figure.layout.title.text == "zero L*.z.h*@-1: tác động lên logit_diff"
    assert english == heads.figure("logit_diff")
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("đầu", "tầng")
    assert circuit.layout.title.text.startswith("Mạch gồm")


def test_half_a_character_is_no_reason_to_have_no_file():
    assert exports._utf8("a\ud800") == b"a?"
