"""A map to click in a notebook: a click gives the run of that cell."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import plotly
import pytest

import microtome as mt
from conftest import BERLIN, CAT, HEADS, LAYERS, PARIS
from microtome.errors import EditError, EffectsError
from oracles.plain_hooks import Change
from oracles.plain_hooks import run as plainly

PROMPTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
    mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany"),
]


def swept(model, prompts, edits, **options) -> mt.Effects:
    metrics = options.pop("metrics", "logit_diff")
    return mt.sweep(model, prompts, edits, metrics=metrics, progress=False, **options)


def sent(clickable, x: float, y: float, index: int | list[int], trace: int = 0) -> None:
    """A click, as plotly's page sends it to the kernel."""
    clickable.map._js2py_pointsCallback = {
        "event_type": "plotly_click",
        "points": {"trace_indexes": [trace], "point_indexes": [index], "xs": [x], "ys": [y]},
        "device_state": None,
        "selector": None,
    }


def measured(clickable) -> float:
    """The logit difference of the run that is shown, at the last token."""
    [one] = clickable.run.encoded
    logits = clickable.run.logits[0, -1]
    return float(logits[one.target] - logits[one.contrast])


def test_a_click_on_a_head_runs_it_as_a_hook_written_by_hand(tiny64):
    clickable = mt.live(tiny64, swept(tiny64, PROMPTS[0], "zero L*.z.h*@-1"))
    assert clickable.run is clickable.cell is None
    sent(clickable, x=2, y=1, index=[1, 2])
    ids = tiny64.encode(BERLIN)[0].tokens.ids
    change = Change("z", 1, [[len(ids) - 1], [2], range(8)], np.zeros_like)
    by_hand = plainly(tiny64.hf, ids, [change])
    np.testing.assert_allclose(clickable.run.logits[0], by_hand.logits, atol=1e-9)
    assert clickable.cell == {"prompt": 0, "layer": 1, "head": 2}
    [receipt] = clickable.run.receipts
    assert (receipt.edit, receipt.changed) == ("zero L1.z.h2@-1", 8)
    for part in ("zero L1.z.h2@-1", "clean_prob", "logit_diff, on the map", "Python for this cell"):
        assert part in clickable.panel.value
    [frame] = clickable.map.layout.shapes
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (1.5, 2.5, 0.5, 1.5)


@pytest.mark.parametrize(
    ("edit", "over", "at"),
    [
        ("patch L*.resid_post@*", None, {}),
        ("zero L1.pattern.h*@-1,*", None, {}),
        ("zero L*.z.h*@-1 -> L2.q_in.h*", None, {"from_layer": 1}),
        (["zero L0.z.h*", "zero L1.z.h* as other"], None, {}),
        (mt.mean("L*.z.h*", over="prompts"), None, {}),
        (mt.add("L*.resid_post", 1.0), {"vector": [0.5, -2.0]}, {}),
        (mt.scale("L*.mlp_out@last", 1.0), {"factor": [0.1, 3.0]}, {"factor": 3.0}),
    ],
    ids=["positions", "pairs", "edges", "two", "reference", "parameter", "curve"],
)
def test_what_a_click_runs_is_the_cell_of_the_map(tiny64, edit, over, at):
    effects = swept(tiny64, PROMPTS, edit, over=over)
    clickable = mt.live(tiny64, effects, prompt=1, **at)
    shown = effects.figure(prompt=1, **at).data[0]
    if shown.type == "heatmap":
        row, column = (n - 1 for n in np.shape(shown.z))
        sent(clickable, x=column, y=row, index=[row, column])
    else:
        sent(clickable, x=shown.x[-1], y=shown.y[-1], index=len(shown.x) - 1)
    cell = effects.data["logit_diff"].sel(clickable.cell)
    assert clickable.cell["prompt"] == 1
    assert measured(clickable) == pytest.approx(float(cell), abs=1e-9)


def test_a_mean_is_of_the_reference_prompts_of_the_sweep(tiny64):
    edit, others = mt.mean("L*.z.h*", over="prompts"), [PARIS, "Rome is the capital of"]
    effects = swept(tiny64, PROMPTS, edit, reference=others)
    clickable = mt.live(tiny64, effects, prompt=1)
    clickable.click(layer=1, head=2)
    cell = float(effects.data["logit_diff"].sel(clickable.cell))
    assert measured(clickable) == pytest.approx(cell, abs=1e-9)
    own = swept(tiny64, PROMPTS, edit).data["logit_diff"].sel(clickable.cell)
    assert abs(float(own) - cell) > 1e-6


def test_what_is_drawn_in_another_order_is_what_is_clicked(tiny64):
    effects = swept(tiny64, PROMPTS[0], "zero L*.z.h*@-1")
    clickable = mt.live(tiny64, effects, only={"layer": [1, 2]}, order={"head": [3, 1, 0, 2]})
    sent(clickable, x=1, y=0, index=[0, 1])
    assert clickable.cell == {"prompt": 0, "layer": 1, "head": 1}
    [frame] = clickable.map.layout.shapes
    assert (frame.x0, frame.y0) == (0.5, -0.5)
    clickable.click(layer=0, head=1)  # is not drawn
    assert clickable.map.layout.shapes == ()


def test_metrics_inside_the_model_have_axes_of_their_own(tiny64):
    effects = swept(tiny64, PROMPTS, "zero L*.mlp_out", metrics="std(L*.resid_post)")
    clickable = mt.live(tiny64, effects)
    sent(clickable, x=2, y=1, index=[1, 2])
    assert clickable.cell == {"prompt": 0, "layer": 1}
    [frame] = clickable.map.layout.shapes
    assert (frame.x0, frame.y0) == (1.5, 0.5)
    clickable.choice.value = 1
    assert clickable.cell == {"prompt": 1, "layer": 1}
    assert clickable.run.receipts[0].edit == "zero L1.mlp_out"


def test_of_several_prompts_one_is_chosen(tiny64):
    effects = swept(tiny64, PROMPTS, "zero L*.z.h*@-1")
    clickable = mt.live(tiny64, effects)
    assert clickable.choice.options[1] == (f"1: {PARIS}", 1)
    clickable.choice.value = 1
    assert clickable.run is None  # nothing was clicked yet
    assert "Click a cell" in clickable.panel.value
    clickable.click(layer=2, head=0)
    assert clickable.run.encoded[0].tokens.text == PARIS
    clickable.choice.value = 0
    assert clickable.cell == {"prompt": 0, "layer": 2, "head": 0}
    assert measured(clickable) == pytest.approx(
        float(effects.data["logit_diff"].sel(clickable.cell)), abs=1e-9
    )
    clickable.click(prompt=1, layer=2, head=0)
    assert clickable.cell["prompt"] == 1


def test_a_curve_keeps_its_lines_and_the_frame_is_where_the_cell_is(tiny64):
    effects = swept(tiny64, PROMPTS, mt.scale("L1.z", 1.0), over={"factor": [0.01, 0.5, 30.0]})
    clickable = mt.live(tiny64, effects)
    lines = clickable.map.layout.shapes
    clickable.click(factor=0.5)
    *kept, frame = clickable.map.layout.shapes
    assert (len(kept), frame.type, frame.x0) == (len(lines), "line", 0.5)
    clickable.click(factor=30.0)
    assert len(clickable.map.layout.shapes) == len(lines) + 1


def test_what_fails_is_said_in_the_panel_and_raised_to_a_caller(tiny64):
    effects = swept(tiny64, [*PROMPTS, mt.Prompt(CAT, target=" on", contrast=" mat")],
                    "zero L*.resid_post@*")  # fmt: skip
    clickable = mt.live(tiny64, effects, prompt=2)
    clickable.click(layer=0, pos=2)
    assert clickable.run is not None
    with pytest.raises(EffectsError, match="missing: pos"):
        clickable.click(layer=0)
    assert clickable.run is clickable.cell is None
    with pytest.raises(EffectsError, match="pos=7 is not there"):
        clickable.click(layer=0, pos=7)
    with pytest.raises(EffectsError, match=r"no dimension 'head'.*layer, pos"):
        clickable.click(head=0)
    clickable._show({"layer": 99, "pos": 0})
    assert "layer=99 is not there" in clickable.panel.value
    edges = mt.live(tiny64, swept(tiny64, PROMPTS[0], "zero L*.z.h0@-1 -> L*.mlp_in"))
    with pytest.raises(EffectsError, match="no cell at prompt 0, from_layer 2, layer 1"):
        edges.click(from_layer=2, layer=1)


def test_a_map_that_was_kept_is_clicked_as_well(tiny64, tmp_path):
    prompt = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France",
                       roles={"subject": ("Berlin", "Paris")}, meta={"kind": "fact"})  # fmt: skip
    swept(tiny64, prompt, "patch L*.resid_post@subject").save(tmp_path / "map.zarr")
    effects = mt.open_effects(tmp_path / "map.zarr")
    clickable = mt.live(tiny64, effects)
    clickable.click(layer=1)
    assert measured(clickable) == pytest.approx(
        float(effects.data["logit_diff"].sel(clickable.cell)), abs=1e-9
    )
    assert clickable.run.encoded[0].prompt == prompt


def test_text_from_outside_is_shown_and_never_run(nano):
    evil = mt.Prompt("<script>alert(1)</script> is & the", target=" <b>")
    clickable = mt.live(nano, swept(nano, evil, "zero L*.z.h*", metrics="kl"))
    clickable.click(layer=0, head=0)
    assert "<script" not in clickable.panel.value
    assert "&lt;script&gt;" in clickable.panel.value


def test_a_notebook_gets_the_widgets_and_a_page_the_map(tiny64):
    clickable = mt.live(tiny64, swept(tiny64, PROMPTS[0], "zero L*.z.h*@-1"))
    clickable.click(layer=0, head=1)
    bundle = clickable._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert "data:image/png" in bundle["text/html"]
    assert "Strongest effects" in bundle["text/html"]
    assert "Live map of <Effects of 12 cells" in bundle["text/plain"]
    assert clickable.map._widget_layout["shapes"][0]["x0"] == 0.5


def test_what_cannot_be_clicked_is_refused(tiny64, tiny, make_gpt2, tokenizer, monkeypatch):
    effects = swept(tiny64, PROMPTS[0], "zero L*.z.h*@-1")
    other = mt.load(make_gpt2(seed=1), tokenizer=tokenizer)
    with pytest.raises(EffectsError, match="The map is of other weights"):
        mt.live(other, effects)
    some = swept(tiny64, PROMPTS, "zero L*.z.h*", keep="aggregates")
    with pytest.raises(EffectsError, match="this is of type Aggregates"):
        mt.live(tiny64, some)
    roles = [mt.Prompt(BERLIN, target=" Germany", contrast=" France", roles={"who": "Berlin"})]
    over = swept(tiny64, roles, "zero L*.resid_post@*").by_role()
    with pytest.raises(EffectsError, match=r"over role, which is another position.*by_role"):
        mt.live(tiny64, over)
    with pytest.raises(EffectsError, match="Pick a coordinate of the others"):
        mt.live(tiny64, swept(tiny64, PROMPTS[0], "zero L*.z.h*@*"))
    with pytest.raises(EditError):
        mt.live(tiny64, swept(tiny64, PROMPTS[0], mt.apply("L*.z.h*", lambda x: x * 2)))
    own = importlib.import_module

    def without(name, package=None):
        if name == "anywidget":
            raise ImportError(name)
        return own(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(EffectsError, match=r"pip install 'microtome\[notebook\]'"):
        mt.live(tiny64, effects)


PAGE = """<div id="map" style="width:700px;height:500px"></div><script type="module">
import widget from "/widget.js";
const state = STATE;
const model = {
  get: name => state[name], on() {}, off() {}, send() {},
  set(name, value) { state[name] = value; },
  save_changes() {
    const sent = state._js2py_pointsCallback;
    if (sent && sent.event_type == "plotly_click") window.clicked = sent;
  },
};
const made = widget();
await made.initialize({model});
await made.render({model, el: document.getElementById("map")});
</script>"""
"""What a notebook does with an anywidget: its module is given a model that reaches the kernel."""


@pytest.mark.slow
def test_a_click_in_a_browser_runs_the_cell_under_the_mouse(tiny64, chromium):
    clickable = mt.live(tiny64, swept(tiny64, PROMPTS[0], "zero L*.z.h*@-1"))
    drawn = json.loads(clickable.effects.figure().to_json())
    state = {"_widget_data": drawn["data"], "_widget_layout": drawn["layout"], "_config": {}}
    body = PAGE.replace("STATE", json.dumps(state))
    script = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
    page = chromium.new_page()
    page.route("**/page", lambda at: at.fulfill(content_type="text/html", body=body))
    page.route("**/widget.js", lambda at: at.fulfill(content_type="text/javascript", path=script))
    page.goto("http://localhost/page")
    plot = page.locator(".nsewdrag").first
    plot.wait_for(state="visible")
    box = plot.bounding_box()
    x = box["x"] + box["width"] * 2.5 / HEADS
    y = box["y"] + box["height"] * 1.5 / LAYERS
    page.mouse.move(x, y)
    page.locator(".hovertext").first.wait_for(state="visible")
    page.mouse.click(x, y)
    page.wait_for_function("window.clicked")
    click = page.evaluate("window.clicked")
    page.close()
    clickable.map._js2py_pointsCallback = click
    assert clickable.cell == {"prompt": 0, "layer": 1, "head": 2}
