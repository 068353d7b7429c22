"""The panels of answers: what they show is what the answers are, and where a click leads."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from asked_panels import Page, rows, texts, within

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.engines.observer import go_on
from microtome.errors import MicrotomeError
from microtome.figures import matrix
from microtome.frontends.lab.answers.cell import changed, shares, together
from microtome.frontends.lab.answers.upstream import upstream
from microtome.frontends.lab.answers.writing import written
from microtome.frontends.lab.asked import Asked, prompt_of
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.panels import TABS, Context, feeding, works
from microtome.frontends.lab.panels.compare import other_of
from microtome.frontends.lab.panels.keep import called
from microtome.frontends.lab.panels.showing import graph
from microtome.frontends.lab.panels.works import Works
from microtome.frontends.lab.state import Against, View
from microtome.texts import LANGUAGES

VIEW = View(
    model="tiny",
    text=BERLIN,
    donor=PARIS,
    target=" Germany",
    contrast=" France",
    edit="patch L*.z.h*@-1",
    chosen=("patch L1.z.h2@-1",),
    lang="en",
)
TWO = replace(VIEW, chosen=("patch L1.z.h2@-1", "zero L2.mlp_out"))
PLANTED = "<b>x</b><script>alert(1)</script>"


@pytest.fixture(scope="module")
def context(tiny, bert64, make_gpt2, tokenizer) -> Context:
    models = {
        "tiny": tiny,
        "bert": bert64,
        "other": mt.load(make_gpt2(seed=1), tokenizer=tokenizer),
    }
    desk = Desk(["tiny", "bert", "other"], load=models.__getitem__)
    for name in models:
        desk.model(name)
    return Context(desk, Jobs(desk))


@pytest.fixture(scope="module")
def page(context) -> Page:
    return Page.on(context)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A page waits for its answers, however busy the machine is."""
    for module in (feeding, works):
        monkeypatch.setattr(module, "PATIENCE", 300.0)


@pytest.fixture
def mapped(context):
    """A view's map, computed."""

    def wait(view):
        job = context.jobs.submit(Asked.of(view))
        assert job.over.wait(60)
        return job.effects

    return wait


def number(text):
    return float(text.replace("−", "-").replace("+", "").replace(",", "").split()[0])


# ------------------------------------------------------------------------------------------ cell


def test_a_cell_shows_tokens_before_and_after_and_its_receipt(page, tiny):
    found = changed(tiny, prompt_of(VIEW), VIEW.chosen)
    table = rows(page.shown("cell-answer.children", VIEW))
    assert len(table) == 10 + 10 + 1
    for row, word in zip(table[:20], (*found.before, *found.after), strict=True):
        assert row[0] == word.token.replace(" ", "·")
        assert number(row[1]) == pytest.approx(100 * word.clean_prob, abs=0.005)
        assert number(row[2]) == pytest.approx(100 * word.prob, abs=0.005)
        assert row[3] == f"{word.clean_rank} → {word.rank}"
    [receipt] = found.receipts
    assert table[20][:2] == ["patch L1.z.h2@-1", f"{receipt.changed} / {receipt.selected}"]


def test_several_cells_are_one_run_beside_the_sum_of_each(page, tiny):
    found = together(tiny, prompt_of(TWO), TWO.chosen, "logit_diff")
    table = rows(page.shown("cell-together.children", TWO))
    wanted = [*(one.effect for one in found.alone), found.summed, found.value.effect, found.joint]
    assert [number(row[1]) for row in table] == pytest.approx(wanted, rel=1e-3)
    assert not rows(page.shown("cell-together.children", VIEW))


def test_what_a_cell_writes_and_where_it_looks(page, tiny):
    found = shares(tiny, prompt_of(TWO), TWO.chosen)
    table = rows(page.shown("cell-shares.children", TWO))
    assert [row[0] for row in table[:2]] == ["L1.head_out.h2", "L2.mlp_out"] or [
        row[0] for row in table[:2]
    ] == ["L2.mlp_out", "L1.head_out.h2"]
    assert [number(row[1]) for row in table[:2]] == pytest.approx(
        [one.share for one in found.own], rel=1e-3
    )
    heads = json.loads(page.shown("cell-head.data-lines", TWO))
    assert [one["value"] for one in heads] == ["a1.h2"]
    [figure] = within(page.shown("cell-pattern.children", TWO), "Graph")
    assert figure["figure"]["layout"]["title"]["text"] == "Attention of L1.h2"
    stream = replace(VIEW, chosen=("zero L1.resid_post@-1",))
    assert "has no share" in "".join(texts(page.shown("cell-shares.children", stream)))
    assert page.shown("cell-looks.hidden", stream)


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (replace(VIEW, donor=""), "donor"),
        (replace(VIEW, chosen=("zero L9.z.h2",)), "layer"),
        (replace(VIEW, chosen=("nonsense",)), "nonsense"),
    ],
)
def test_what_is_refused_says_why(page, view, says):
    assert says in "".join(texts(page.shown("cell-answer.children", view)))
    page.shown("cell-pattern.children", view)
    page.shown("cell-fed.children", view)


def test_nothing_is_shown_where_nothing_is_chosen_or_it_is_not_open(page):
    for view in (replace(VIEW, chosen=()), replace(VIEW, text=" "), replace(VIEW, panel="write")):
        assert page.shown("cell-answer.children", view) == []
    without = replace(VIEW, target="", contrast="")
    assert "asked of a target" in "".join(texts(page.shown("cell-shares.children", without)))


def test_cells_can_be_chosen_and_let_go_without_a_mouse(page, mapped):
    effects = mapped(VIEW)
    options = json.loads(page.shown("cell-pick.data-lines", VIEW))
    values = [one["value"] for one in options if "value" in one]
    assert VIEW.chosen[0] not in values
    row = effects.top(1).iloc[0]
    strongest = f"patch L{int(row['layer'])}.z.h{int(row['head'])}@-1"
    assert strongest in (*values, *VIEW.chosen)
    chips = within(page.shown("cell-chosen.children", TWO), "Button")
    assert [one["data-drops"] for one in chips] == [*TWO.chosen]


def test_what_feeds_a_cell_is_its_edges(page, tiny):
    each = [upstream(tiny, prompt_of(VIEW), f"a1.h2<{part}>", "logit_diff") for part in "qkv"]
    edges = sorted((e for one in each for e in one.edges), key=lambda e: -abs(e.effect))
    table = rows(page.shown("cell-fed.children", VIEW, by="cell-feed.n_clicks"))
    assert [row[0] for row in table] == [one.name.replace("->", " → ") for one in edges[:15]]
    assert [number(row[1]) for row in table] == pytest.approx(
        [one.effect for one in edges[:15]], rel=1e-3, abs=1e-9
    )


# ----------------------------------------------------------------------------------------- trace

TRACED = replace(VIEW, panel="trace", reader="a2.h1<v>")


def test_edges_are_traced_pinned_and_gone_on_from(page, tiny):
    shown = page.shown("trace-fed.children", TRACED, by="trace-feed.n_clicks")
    found = upstream(tiny, prompt_of(TRACED), "a2.h1<v>", "logit_diff")
    assert [row[0] for row in rows(shown)] == [
        one.name.replace("->", " → ") for one in found.edges[:15]
    ]
    buttons = [one["id"] for one in within(shown, "Button")]
    pin = next(one for one in buttons if one["type"] == "edge-pin")
    go = next(one for one in buttons if one["type"] == "edge-go")
    pinned = page.change("edge-pin.n_clicks", TRACED, {"edge-pin.n_clicks": [(pin, 1)]})
    assert pinned.pins == (found.edges[0].name,)
    noted = replace(pinned, notes=((pinned.pins[0], "why"),))
    free = page.change("edge-pin.n_clicks", noted, {"edge-pin.n_clicks": [(pin, 1)]})
    assert (free.pins, free.notes) == ((), ())
    on = page.change("edge-go.n_clicks", VIEW, {"edge-go.n_clicks": [(go, 1)]})
    assert (on.reader, on.panel) == (go["reader"], "trace")
    for name, one in (("edge-pin", pin), ("edge-go", go)):
        assert page.change(f"{name}.n_clicks", TRACED, {f"{name}.n_clicks": [(one, None)]}) is None


def test_zero_is_a_way_of_its_own_and_no_donor_says_so(page, tiny):
    zeroed = page.change("trace-way.data-value", TRACED, {"trace-way.data-value": "zero"})
    assert zeroed.way == "zero"
    shown = page.shown("trace-fed.children", zeroed, by="trace-feed.n_clicks")
    found = upstream(tiny, prompt_of(zeroed), "a2.h1<v>", "logit_diff", "zero")
    assert number(rows(shown)[0][1]) == pytest.approx(found.edges[0].effect, rel=1e-3)
    for donor, says in (("", "no donor"), (CAT, "another number of tokens")):
        view = replace(TRACED, donor=donor)
        assert says in "".join(texts(page.shown("trace-why.children", view)))
    readers = json.loads(page.shown("trace-readers.data-lines", TRACED))
    assert len(readers) == 3 * (3 * 4 + 1) + 1
    typed = page.change("trace-reader.n_blur", TRACED, {"trace-reader.value": " m2 "})
    assert typed.reader == "m2"


def test_a_model_without_edges_says_why(page):
    view = View(
        model="bert", text="a dog sat on the [MASK]", target="mat", panel="trace", reader="m1",
        pins=("m0->m1",), lang="en",
    )  # fmt: skip
    for output in ("trace-why.children", "trace-fed.children", "trace-circuit.children"):
        assert "norms the residual stream" in "".join(texts(page.shown(output, view)))


PINNED = replace(
    TRACED, pins=("input->m0", "m0->logits", "a0.h1"), notes=(("m0->logits", PLANTED),)
)


def test_pins_are_a_circuit_with_notes(page, tiny):
    notes = [one["value"] for one in within(page.shown("trace-pins.children", PINNED), "Input")]
    assert notes == ["", PLANTED, ""]
    drawn = page.shown("trace-circuit.children", PINNED)
    told = "".join(texts(drawn))
    assert "nodes: 4;" in told
    weighed = rows(page.shown("trace-weighed.children", PINNED, by="trace-weigh.n_clicks"))
    assert page.shown("trace-circuit.hidden", PINNED), "it is drawn in the colours of its scores"
    effect = mt.sweep(tiny, prompt_of(PINNED), "patch L0.mlp_out -> final_in", metrics="logit_diff")
    wanted = -effect.delta("logit_diff").item()
    [row] = [row for row in weighed if row[0] == "m0 → logits"]
    assert number(row[1]) == pytest.approx(wanted, rel=1e-3, abs=1e-9)
    ids = [{"type": "trace-note", "pin": pin} for pin in PINNED.pins]
    given = {
        "trace-note.n_blur": [(of, 1) for of in ids],
        "trace-note.value": [*zip(ids, ("one", "", " two "), strict=True)],
        "trace-note.id": [(of, of) for of in ids],
    }
    noted = page.change("trace-note.n_blur", PINNED, given)
    assert noted.notes == (("input->m0", "one"), ("a0.h1", "two"))
    added = page.change("trace-add.n_blur", PINNED, {"trace-add.value": " m2->logits "})
    assert added.pins == (*PINNED.pins, "m2->logits")


def test_a_circuit_is_judged_by_each_ablation_on_request(page, tiny):
    assert page.shown("trace-kept.children", PINNED) == []
    shown = page.shown("trace-kept.children", PINNED, by="trace-judge.n_clicks")
    circuit = mt.circuits.Circuit.of(tiny, PINNED.pins[:2])
    circuit |= mt.circuits.Circuit.among(tiny, PINNED.pins[2:])
    for row, ablation in zip(rows(shown), ("patch", "zero"), strict=True):
        found = mt.circuits.faithfulness(tiny, prompt_of(PINNED), circuit, ablation=ablation)
        assert number(row[1]) == pytest.approx(float(found["faithfulness"]), rel=1e-3, abs=1e-6)
        assert row[2] == "–"
    assert "no interval" in "".join(texts(shown))
    bare = replace(PINNED, donor="")
    shown = page.shown("trace-kept.children", bare, by="trace-judge.n_clicks")
    assert len(rows(shown)) == 1
    assert "has no donor" in "".join(texts(shown))
    task = {"trace-on.data-value": "ioi"}
    shown = page.shown("trace-kept.children", PINNED, task, by="trace-judge.n_clicks")
    assert within(shown, "P"), "this tokenizer lacks the words, and that is said"
    none = {"trace-on.data-value": "nothing"}
    shown = page.shown("trace-kept.children", PINNED, none, by="trace-judge.n_clicks")
    assert "No circuit is judged on 'nothing'" in "".join(texts(shown))


def test_on_the_prompts_of_a_task_other_edges_may_carry_their_mean(page, tiny, monkeypatch):
    facts = [mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
             mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany")]  # fmt: skip
    monkeypatch.setattr(mt.tasks, "TASKS", {"capitals": lambda n, seed, *, tokenizer: facts})
    on = {"trace-on.data-value": "capitals"}
    table = rows(page.shown("trace-kept.children", PINNED, on, by="trace-judge.n_clicks"))
    assert [row[0] for row in table] == [
        "the donor's (patch)", "nothing (zero)", "the mean over these prompts",
    ]  # fmt: skip
    circuit = mt.circuits.Circuit.of(tiny, PINNED.pins[:2])
    circuit |= mt.circuits.Circuit.among(tiny, PINNED.pins[2:])
    found = mt.circuits.faithfulness(tiny, facts, circuit, ablation="mean", progress=False)
    assert number(table[2][1]) == pytest.approx(float(found["faithfulness"]), rel=1e-3, abs=1e-6)
    facts.append(
        mt.Prompt("Berlin is the", donor="Paris is the", target=" capital", contrast=" is")
    )
    shown = page.shown("trace-kept.children", PINNED, on, by="trace-judge.n_clicks")
    assert len(rows(shown)) == 2
    assert "of several lengths" in "".join(texts(shown))


def waiting(observer):
    """What stops between two parts of a work, which is slow until somebody cancels it."""
    until = time.monotonic() + 20
    while not observer.cancelled and time.monotonic() < until:
        time.sleep(0.01)
    go_on(observer)


@pytest.mark.parametrize(
    ("part", "shows", "asks", "far"),
    [
        ("pinned", "trace-weighed", "trace-weigh", "Weighed: 0 of "),
        ("writing", "write-texts", "write", "0 of 10 tokens"),
    ],
)
def test_weighing_and_writing_are_followed_and_cancelled(page, monkeypatch, part, shows, asks, far):
    view = replace(PINNED if part == "pinned" else WRITTEN, metric="prob", steps=5)
    begins = f"{asks}-go.n_clicks" if part == "writing" else f"{asks}.n_clicks"
    monkeypatch.setattr(works, "PATIENCE", 0.0)
    with monkeypatch.context() as slowly:
        slowly.setattr(f"microtome.frontends.lab.answers.{part}.go_on", waiting)
        told = texts(page.shown(f"{shows}.children", view, by=begins))
        assert any(one.startswith(far) for one in told)
        assert page.shown(f"{asks}-stop.hidden", view, by=f"{asks}-beat.n_intervals") is False
        assert page.shown(f"{asks}-beat.disabled", view, by=f"{asks}-beat.n_intervals") is False
        monkeypatch.setattr(works, "PATIENCE", 60.0)
        shown = page.shown(f"{shows}.children", view, by=f"{asks}-stop.n_clicks")
        assert texts(shown) == ["Cancelled."]
        again = page.shown(f"{shows}.children", view, by=f"{asks}-beat.n_intervals")
        assert texts(again) == ["Cancelled."], "it does not begin anew by itself"
    assert rows(page.shown(f"{shows}.children", view, by=begins))


def test_what_takes_long_is_followed_and_cancelled(page, monkeypatch):
    own, began = mt.sweep, threading.Event()

    def slow(*given, progress, **more):
        began.set()
        until = time.monotonic() + 300
        while not progress.cancelled and time.monotonic() < until:
            time.sleep(0.01)
        return own(*given, progress=progress, **more)

    monkeypatch.setattr("microtome.frontends.lab.answers.upstream.sweep", slow)
    monkeypatch.setattr(feeding, "PATIENCE", 0.0)
    view = replace(TRACED, reader="a2.h2<k>")
    shown = page.shown("trace-fed.children", view, by="trace-feed.n_clicks")
    assert "0 of 11 cells" in texts(shown)
    assert began.wait(300)
    assert page.shown("trace-beat.disabled", view, by="trace-beat.n_intervals") is False
    assert page.shown("trace-stop.hidden", view, by="trace-beat.n_intervals") is False
    monkeypatch.setattr(feeding, "PATIENCE", 300.0)
    shown = page.shown("trace-fed.children", view, by="trace-stop.n_clicks")
    assert texts(shown) == ["Cancelled."]
    monkeypatch.setattr("microtome.frontends.lab.answers.upstream.sweep", own)
    assert rows(page.shown("trace-fed.children", view, by="trace-feed.n_clicks"))


# --------------------------------------------------------------------------------------- compare

COMPARED = replace(VIEW, panel="compare", against=Against("edit", "zero L*.z.h*@-1"))


def test_a_figure_is_as_high_as_it_was_drawn_to_be():
    figure = matrix(xr.DataArray(np.zeros((30, 9)), dims=("layer", "head")), title="", unit="")
    shown = graph(figure, "one", "a map")
    assert figure.layout.height > 450  # what a page gives a figure that says nothing
    assert shown.children.style == {"height": f"{figure.layout.height}px"}


def test_two_maps_are_on_one_scale(page, mapped):
    mine, theirs = mapped(VIEW), mapped(replace(VIEW, edit="zero L*.z.h*@-1"))
    shown = page.shown("compare-maps.children", COMPARED)
    figures = [one["figure"] for one in within(shown, "Graph")]
    assert len(figures) == 3
    assert figures[0]["data"][0]["zmax"] == figures[1]["data"][0]["zmax"]
    apart = theirs.delta("logit_diff") - mine.delta("logit_diff")
    assert abs(number(rows(shown)[0][3])) == pytest.approx(float(abs(apart).max()), rel=1e-3)


def test_the_other_side_is_begun_when_it_is_small_and_followed(page, context, mapped):
    mapped(VIEW)
    view = replace(COMPARED, against=Against("model", "other"))
    page.shown("compare-status.children", view)  # the model is there from the fixture on
    job = context.jobs.find(Asked.of(other_of(view)))
    assert job is not None
    assert job.over.wait(60)
    assert len(within(page.shown("compare-maps.children", view), "Graph")) == 3
    assert page.shown("compare-pulse.disabled", view)


def test_who_compares_keeps_the_other_map_from_whoever_cancels_it(page, context, mapped):
    mapped(VIEW)
    view = replace(COMPARED, against=Against("edit", "zero L*.mlp_out@*"))
    asked = Asked.of(other_of(view))
    page.shown("compare-status.children", view, {"asker.data": "comparing"})
    job = context.jobs.find(asked)
    assert set(job._askers) == {"comparing"}
    assert job.over.wait(60)


def test_maps_over_other_axes_say_why_there_is_no_difference(page, mapped):
    mapped(VIEW)
    mapped(replace(VIEW, edit="zero L*.attn_out@-1"))
    view = replace(COMPARED, against=Against("edit", "zero L*.attn_out@-1"))
    shown = page.shown("compare-maps.children", view)
    assert len(within(shown, "Graph")) == 2
    assert "over layer × head, the other over layer" in "".join(texts(shown))


def test_a_side_that_cannot_be_computed_says_why(page, mapped):
    mapped(VIEW)
    for against, says in (
        (Against("edit", "zero L9.z"), "layer"),
        (Against("model", "nowhere"), "not offered"),
    ):
        told = page.shown("compare-status.children", replace(COMPARED, against=against))
        assert says in "".join(texts(told))
    first = replace(COMPARED, edit="zero L*.mlp_out@0")
    assert "First comes the map" in page.shown("compare-status.children", first)


def test_the_other_prompt_may_be_the_donor_with_answers_exchanged(page):
    chosen = page.change("compare-kind.data-value", VIEW, {"compare-kind.data-value": "prompt"})
    other = other_of(chosen)
    assert (other.text, other.donor) == (PARIS, BERLIN)
    assert (other.target, other.contrast) == (" France", " Germany")
    typed = {"compare-text.value": CAT, "compare-donor.value": "", "compare-target.value": " on"}
    other = other_of(page.change("compare-text.n_blur", chosen, typed))
    assert (other.text, other.donor, other.target, other.contrast) == (CAT, "", " on", "")
    none = page.change("compare-kind.data-value", chosen, {"compare-kind.data-value": ""})
    assert none.against is None
    alone = other_of(replace(VIEW, against=Against("prompt", CAT)))
    assert (alone.text, alone.target) == (CAT, " Germany")
    model = page.change("compare-model.data-value", COMPARED, {"compare-model.data-value": "other"})
    assert model.against == Against("model", "other")
    edit = page.change("compare-edit.n_blur", COMPARED, {"compare-edit.value": "zero L0.z"})
    assert edit.against == Against("edit", "zero L0.z")


# ----------------------------------------------------------------------------------------- write

WRITTEN = replace(TWO, panel="write", steps=3)


def test_both_texts_are_shown_token_by_token(page, tiny):
    shown = page.shown("write-texts.children", WRITTEN, by="write-go.n_clicks")
    found = written(tiny, prompt_of(WRITTEN), WRITTEN.chosen, 3)
    spans = [one for one in within(shown, "Span") if "written" in one.get("className", "")]
    assert [one["children"] for one in spans] == [one.token for one in found.tokens]
    for one, token in zip(spans, found.tokens, strict=True):
        assert ("changed" in one["className"]) == (token.instead != token.token)
    table = rows(shown)
    assert [number(row[1]) for row in table] == pytest.approx(
        [one.logprob for one in found.tokens], rel=1e-3
    )
    assert "".join(found.plain) in "".join(texts(shown))
    more = page.change("write-steps.n_blur", WRITTEN, {"write-steps.value": 7})
    assert more.steps == 7
    for wrong in (None, 0, 1000, 3):
        assert page.change("write-steps.n_blur", WRITTEN, {"write-steps.value": wrong}) is None


def test_a_model_that_fills_in_masks_does_not_write(page):
    view = View(model="bert", text="a dog sat on the [MASK]", panel="write", lang="en")
    shown = page.shown("write-texts.children", view, by="write-go.n_clicks")
    assert "does not write" in "".join(texts(shown))


# ------------------------------------------------------------------------------------------- all


def test_in_vietnamese_it_is_said_who_speaks_and_figures_are_translated(page):
    vi = replace(VIEW, lang="vi")
    told = "".join(texts(page.shown("cell-answer.children", replace(vi, donor=""))))
    assert told.startswith("microtome nói: ")
    assert told.endswith(
        "".join(texts(page.shown("cell-answer.children", replace(VIEW, donor=""))))
    )
    [pattern] = within(page.shown("cell-pattern.children", vi), "Graph")
    layout = pattern["figure"]["layout"]
    assert layout["title"]["text"] == "Chú ý của L1.h2"
    assert (layout["xaxis"]["title"]["text"], layout["yaxis"]["title"]["text"]) == (
        "vị trí khóa", "vị trí truy vấn",
    )  # fmt: skip
    [shared] = within(page.shown("cell-shares.children", vi), "Graph")
    assert shared["figure"]["layout"]["title"]["text"].startswith("Mỗi phần đóng góp")
    [drawn] = within(page.shown("trace-circuit.children", replace(PINNED, lang="vi")), "Graph")
    assert drawn["figure"]["layout"]["title"]["text"].startswith("Mạch gồm")
    assert drawn["figure"]["layout"]["yaxis"]["title"]["text"] == "tầng"
    weighed = page.shown(
        "trace-weighed.children", replace(PINNED, lang="vi"), by="trace-weigh.n_clicks"
    )
    [slider] = within(weighed, "Graph")[0]["figure"]["layout"]["sliders"]
    assert slider["currentvalue"]["prefix"] == "số cạnh mạnh nhất: "


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_panel_speaks_both_languages(context, lang):
    words = context.words(lang)
    for panel in TABS:
        panel.layout(words)
        assert words(f"{panel.name}.title")


def test_what_is_large_says_what_it_takes_first(page, monkeypatch):
    monkeypatch.setattr(Desk, "pace", lambda self, name, prompt: 1.0)
    view = replace(TRACED, reader="a2.h3<k>")
    assert "11 edges" in page.shown("trace-cost.children", view)
    assert page.shown("trace-fed.children", view) == []
    assert not page.shown("trace-feed.hidden", view)
    assert "about" in page.shown("write-cost.children", replace(WRITTEN, steps=9))
    shown = page.shown("trace-fed.children", view, by="trace-feed.n_clicks")
    assert rows(shown)
    assert rows(page.shown("trace-fed.children", view)), "it is remembered"


def test_what_goes_wrong_on_its_way_is_said_and_does_not_begin_anew(page, monkeypatch):
    asked, begun, gate, begin = [], [], threading.Event(), Works.begin

    def failing(*given):
        asked.append(given)
        assert gate.wait(300)
        raise MicrotomeError("it went wrong")

    def noted(self, *given):
        begun.append(begin(self, *given))
        return begun[-1]

    monkeypatch.setattr(Works, "begin", noted)

    monkeypatch.setattr("microtome.frontends.lab.answers.upstream.upstream", failing)
    monkeypatch.setattr(feeding, "PATIENCE", 0.0)
    view = replace(VIEW, panel="trace", reader="m1", text=BERLIN + " it")
    assert page.shown("trace-beat.disabled", view) is False
    gate.set()
    assert begun[0].over.wait(60)
    told = page.shown("trace-fed.children", view, by="trace-beat.n_intervals")
    assert texts(told) == ["it went wrong"]
    assert len(asked) == 1


def test_places_that_ask_something_else_are_told_apart_in_the_history():
    one = View(text=BERLIN, donor=PARIS, target=" Germany", contrast=" France", metric="prob")
    others = [
        replace(one, **change)
        for change in (
            {"metric": "loss"}, {"target": " Italy"}, {"contrast": " Italy"}, {"donor": CAT},
            {"edit": "zero L*.mlp_out@-1"}, {"text": CAT}, {"reader": "a1.h2<q>"},
        )
    ]  # fmt: skip
    assert len({called(view) for view in (one, *others)}) == 1 + len(others)
    assert called(View()) == ""
