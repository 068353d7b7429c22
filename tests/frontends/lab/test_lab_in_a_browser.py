"""The lab, driven as somebody would: typed, clicked, gone back, reloaded, saved."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from frontends.lab.browsing import (
    GIFT,
    PLANTED,
    axis,
    chosen_in,
    click_cell,
    panel,
    press_cells,
    query,
    shown,
    site,
    token,
    watched,
)

DONOR = "When Sam and Sally went to the park, Sally gave a gift to"
HEADS = "zero L*.z.h*@-1"


def expected(nano, edit=HEADS, metric="logit_diff", **prompt) -> mt.Effects:
    asked = mt.Prompt(**{**GIFT, **prompt})
    return mt.sweep(nano, asked, edit, metrics=metric, progress=False)


# ---------------------------------------------------------------------------------- 1: ask


def test_a_prompt_is_seen_as_tokens_while_it_is_typed(tab, nano):
    page = tab.gift()
    tab.go("?")
    page.locator("#ask-text").press_sequentially("Berlin is the capital of")
    pieces = nano.encode("Berlin is the capital of")[0].tokens.pieces
    tab.until(
        "pieces => Array.from(document.querySelectorAll('.token .piece'), one => one.innerText)"
        ".join() === pieces.join()",
        [one.replace(" ", "·") for one in pieces],
    )
    assert "text=" not in tab.search  # it is typed, and not asked for yet
    page.keyboard.press("Enter")
    tab.until_address("text=Berlin%20is%20the%20capital%20of")
    page.locator("#ask-target").fill(" Germany and")
    page.keyboard.press("Enter")
    tab.until("document.querySelector('#ask-is').textContent.includes('and')")
    page.locator("#ask-donor").fill("Paris is the capital of")
    page.keyboard.press("Enter")
    page.wait_for_selector(".token .differs")
    assert page.locator(".token .differs").all_inner_texts() == ["Paris"]


@pytest.mark.slow
def test_a_click_on_a_token_gives_it_a_role(tab):
    page = tab.gift()
    page.locator("#ask-click").select_option("role")
    page.locator("#ask-role").fill("city")
    page.locator(token(0)).click()
    page.wait_for_selector(".token .role")
    tab.until_address("role=city:0")
    page.locator("#ask-click").select_option("position")


@pytest.mark.slow
def test_examples_are_ready_to_open_and_templates_make_prompts(tab):
    page = tab.gift()
    tab.go("?")
    page.locator('[id*="ask-example"]').first.click()
    page.wait_for_selector("#map-strongest button")
    tab.until_address("text=When%20Sam")
    tab.until("!document.querySelector('#ask-begin').open")  # it folds where there is a text
    page.locator("#ask-begin summary").click()
    page.locator('[id*=\'"name":"capitals","type":"ask-task"\']').click()
    tab.until_address("is%20the%20capital%20of")
    page.locator("#ask-begin summary").click()


# ---------------------------------------------------------------------------------- 2: map


@pytest.mark.slow
def test_an_edit_is_chosen_by_clicking_and_its_address_arises(tab, nano):
    page = tab.gift(donor=DONOR)
    page.locator(site("resid_post")).click()
    tab.until("document.querySelector('#map-edit').value === 'zero L*.resid_post@-1'")
    page.locator("#map-operation").select_option("patch")
    tab.until("document.querySelector('#map-edit').value === 'patch L*.resid_post@-1'")
    page.locator(token(9)).click()
    tab.until("document.querySelector('#map-edit').value === 'patch L*.resid_post@9'")
    tab.settle()
    page.locator(axis("pos")).select_option("*")
    tab.until("document.querySelector('#map-edit').value === 'patch L*.resid_post@*'")
    tab.until_address("edit=patch%20L*.resid_post@*")
    tab.settle()
    assert page.input_value("#map-operation") == "patch"
    lines = page.locator("#map-operation option").all_inner_texts()
    assert len(lines) == len({*lines}) == 7, "lines were made again, in the place of the earlier"
    found = expected(nano, "patch L*.resid_post@*", donor=DONOR).delta("logit_diff").values[0]
    tab.until(
        "n => { const plot = document.querySelector('#map-figure .js-plotly-plot');"
        " return plot && plot._fullData[0].z && plot._fullData[0].z[0].length === n }",
        found.shape[1],
    )
    np.testing.assert_allclose(shown(page), found, atol=1e-5)


@pytest.mark.slow
def test_an_address_may_be_typed_and_a_wrong_one_says_why(tab):
    page = tab.gift()
    page.locator("#map-edit").fill("zero L9.z.h0@-1")
    page.keyboard.press("Enter")
    page.wait_for_selector(".status .wrong, #map-status .wrong")
    assert "layer 9 does not exist; there are 6" in page.locator("#map-status").inner_text()
    page.locator("#map-edit").fill("zero L*.mlp_out@-1")
    page.keyboard.press("Enter")
    tab.until_address("edit=zero%20L*.mlp_out@-1")
    page.wait_for_selector("#map-strongest button:has-text('mlp_out')")


@pytest.mark.slow
def test_what_a_model_has_not_is_not_offered_and_says_why(tab):
    page = tab.gift()
    assert page.locator("#map-metric option:disabled").count() == 0
    tab.go(query(text="Berlin is"))
    tab.until("document.querySelectorAll('#map-metric option:disabled').length > 0")
    tab.settle()
    grey = page.locator("#map-operation option:disabled").all_inner_texts()
    assert any("patch" in one and "–" in one for one in grey)
    metrics = page.locator("#map-metric option:disabled").all_inner_texts()
    assert any(one.startswith("logit_diff –") for one in metrics)


@pytest.mark.slow
def test_a_map_that_could_not_be_asked_for_is_asked_for_again(tab):
    """Nothing else would: its model is there, and of its map nothing is known.

    And for panels that are closed nothing is asked as the page comes up.
    """
    lost, asked = [], ""

    def lose(route) -> None:
        nonlocal asked
        asked += route.request.post_data_json["output"]
        if "grown.data" in route.request.post_data_json["output"] and len(lost) < 2:
            lost.append(route.abort())
        else:
            route.continue_()

    tab.page.route("**/_dash-update-component*", lose)
    tab.has_gift = False  # the page comes up anew
    tab.gift()
    assert len(lost) == 2
    assert "cell-answer" in asked
    assert [name for name in ("trace-", "compare-", "write-", "keep-") if name in asked] == []
    tab.wrong.clear()  # the browser's own lines on what was lost


def test_the_map_is_that_of_the_library(tab, nano):
    page = tab.gift()
    found = expected(nano)
    np.testing.assert_allclose(shown(page), found.delta("logit_diff").values[0], atol=1e-5)
    top = found.top(1, "logit_diff").iloc[0]
    first = page.locator("#map-strongest li button").first.inner_text()
    assert f"L{top['layer']}.z.h{top['head']}@-1" in first


HEARD = """async () => {
    const [store] = dash_stores, heard = {};
    let n = 0;
    const off = store.subscribe(() => { n += 1; });
    const told = async (name, type, itempath) => {
        n = 0;
        for (const _ of Array(9)) { store.dispatch({type, payload: {itempath}}); }
        heard[name] = [n];
        await null;
        heard[name].push(n);
    };
    await told('nothing', 'NOTHING');
    await told('put on', 'RESET_COMPONENT_STATE', ['nowhere']);
    n = 0;
    dash_clientside.set_props('map-frame', {'data-x': 'y'});
    heard.changed = n > 0;
    off();
    return heard;
}"""
"""How often one hears of nothing, and of nine that were put on: at once, and a moment later."""


@pytest.mark.slow
def test_components_hear_once_of_all_that_are_put_on_and_at_once_of_what_changes(tab):
    heard = tab.gift().evaluate(HEARD)
    assert heard == {"nothing": [0, 0], "put on": [0, 1], "changed": True}


@pytest.mark.slow
def test_a_page_waits_for_an_answer_and_looks_again_where_it_is_lost(tab):
    page, asked = tab.gift(), []
    state = "dash_component_api.getLayout('grown').props.data.state"
    assert page.evaluate(state) == "done"

    def hear(route) -> None:
        if any("pulse." in one for one in route.request.post_data_json["changedPropIds"]):
            asked.append(route)
            if len(asked) < 3:
                return
        route.continue_()

    page.route("**/_dash-update-component*", hear)
    page.evaluate(
        "dash_clientside.set_props('grown', {data: {key: '', state: 'running', units: 0}})"
    )
    for n in (1, 2):  # how far the model is, and then the map
        tab.until_held(asked, n)
        page.wait_for_timeout(1500)
        assert len(asked) == n, "who waits for an answer does not ask again"
        asked[-1].fulfill(status=204)  # as where all of it went wrong
    tab.until(f"{state} === 'done'")
    tab.until("dash_component_api.getLayout('pulse').props.disabled")  # and it rests


@pytest.mark.slow
def test_a_panels_question_that_was_lost_is_asked_again_without_a_click(tab):
    """Its beat rests: nothing else of the page would have it look."""
    page, lost = tab.gift(cell="zero L3.z.h1@-1", panel="write", steps="2"), []
    page.locator("#write").wait_for(state="visible")
    tab.settle()

    def lose(route) -> None:
        if not lost and "write-texts.children" in route.request.post_data_json["output"]:
            lost.append(route.abort())
        else:
            route.continue_()

    page.route("**/_dash-update-component*", lose)
    page.locator("#write-steps").fill("3")
    page.locator("#write-steps").blur()
    tab.until(
        "document.querySelectorAll('#write-texts .written').length === 3"
        " || !document.querySelector('#write-go').hidden"  # a machine too slow for it to begin
    )
    assert len(lost) == 1
    tab.wrong.clear()  # the browser's own line on what was lost


@pytest.mark.slow
def test_what_is_typed_while_the_server_cannot_be_heard_is_asked_once_it_can(tab):
    page = tab.gift()
    tab.settle()
    assert page.locator("#shell-lost").is_hidden()
    page.context.set_offline(True)
    page.locator("#ask-text").fill("Berlin is the capital of")
    page.locator("#ask-text").blur()
    page.locator("#shell-lost").wait_for(state="visible")
    assert "does not answer" in page.locator("#shell-lost").inner_text()
    page.context.set_offline(False)
    tab.until(
        "document.querySelector('#shell-lost').hidden"
        " && document.querySelector('#ask-tokens').innerText.includes('Berlin')"
        " && window.location.search.includes('text=Berlin')"
    )
    tab.wrong.clear()  # the browser's own lines on what was lost


SLOW_LINE = """
    window.once = []; const ask = window.fetch, on_way = new Set();
    window.fetch = async (place, how) => {
        const asked = how?.body ? JSON.parse(how.body) : {}, whose = asked.output;
        const slow = /grown.data/.test(whose), by_beat = /pulse/.test(asked.changedPropIds);
        if (slow) { once.push(by_beat && on_way.has(whose)); on_way.add(whose); }
        const got = await ask(place, how);
        if (!slow || got.status !== 200) { on_way.delete(whose); return got; }
        const bytes = new Uint8Array(await got.arrayBuffer()), later = new ReadableStream({
            start: (to) => setTimeout(
                () => { to.enqueue(bytes); to.close(); on_way.delete(whose); }, 1200)});
        return new Response(later, {status: got.status, headers: got.headers});
    };
"""
"""An answer about the map begins to come at once, and ends three beats later."""


@pytest.mark.slow
def test_an_answer_that_comes_slowly_is_waited_for_to_its_end(one_tab):
    tab = watched(one_tab.page.context, one_tab.server)
    tab.page.add_init_script(SLOW_LINE)
    tab.mapped(query(**GIFT))
    once = tab.page.evaluate("once")
    tab.page.close()
    assert once
    assert not any(once)


# ------------------------------------------------------------------------ 3: click a cell


@pytest.mark.slow
def test_a_click_chooses_a_cell_and_shift_one_more(tab):
    page = tab.gift()
    click_cell(page, 3, 1)
    tab.until_address("cell=zero%20L3.z.h1@-1")
    tab.until("document.querySelector('#map-figure .js-plotly-plot').layout.shapes?.length === 1")
    click_cell(page, 4, 5, shift=True)
    tab.until_address("cell=zero%20L4.z.h5@-1")
    assert chosen_in(tab.search) == ["zero L3.z.h1@-1", "zero L4.z.h5@-1"]


@pytest.mark.slow
def test_no_press_is_lost_however_fast_they_come(tab):
    """Plotly sees where a pointer is every 50 ms, and would tell of the cell before."""
    page = tab.gift()
    press_cells(page, [(3, 1), (4, 5), (0, 7), (4, 5), (5, 0)])
    tab.until_address("cell=zero%20L5.z.h0@-1")
    chosen = ["zero L3.z.h1@-1", "zero L0.z.h7@-1", "zero L5.z.h0@-1"]  # one was pressed twice
    assert chosen_in(tab.search) == chosen
    tab.until("document.querySelector('#map-figure .js-plotly-plot').layout.shapes?.length === 3")
    page.go_back()
    tab.until("!window.location.search.includes('L5.z.h0')")
    assert chosen_in(tab.search) == ["zero L3.z.h1@-1", "zero L0.z.h7@-1"]


@pytest.mark.slow
def test_a_choice_that_comes_with_the_way_back_is_of_where_that_leads(tab):
    page = tab.gift()
    page.locator(panel("trace")).click()
    tab.until_address("panel=trace")
    page.evaluate(
        "addEventListener('popstate', () => microtome.put('cell', ['zero L1.z.h1@-1']),"
        " {once: true, capture: true})"
    )
    page.go_back()
    tab.until_address("cell=")
    assert chosen_in(tab.search) == ["zero L1.z.h1@-1"]
    assert "panel=" not in tab.search


@pytest.mark.slow
def test_cells_are_chosen_by_list_key_and_button(tab):
    page = tab.gift()
    first = page.locator("#map-strongest li button").first
    cell = f"zero {first.locator('span').first.inner_text()}"
    first.click()
    tab.until_address("cell=")
    assert chosen_in(tab.search) == [cell]
    tab.until("document.querySelector('#map-strongest button.chosen')?.ariaPressed === 'true'")
    page.locator("#cell-chosen button").click()
    tab.until("!window.location.search.includes('cell=')")
    page.locator("#map-more").click()
    tab.until("document.querySelector('#map-more').ariaPressed === 'true'")
    press_cells(page, [(2, 2), (2, 3)], shift=False)
    tab.until("document.querySelectorAll('#cell-chosen button').length === 2")
    picked = page.locator("#cell-pick option").nth(1).get_attribute("value")
    page.locator("#cell-pick").select_option(picked)
    tab.until("document.querySelectorAll('#cell-chosen button').length === 3")
    assert chosen_in(tab.search) == ["zero L2.z.h2@-1", "zero L2.z.h3@-1", picked]
    page.locator("#map-more").click()
    tab.until("document.querySelector('#map-more').ariaPressed === 'false'")
    press_cells(page, [(2, 2)], shift=False)
    for key in ("ArrowRight", "Shift+ArrowDown"):
        page.locator("#map-frame").press(key)
    tab.until_address("cell=zero%20L3.z.h3@-1")
    assert chosen_in(tab.search) == ["zero L2.z.h3@-1", "zero L3.z.h3@-1"]


# ------------------------------------------------------------------------------- 7: keep


KEPT = {"cell": "zero L3.z.h1@-1", "pin": "m0->logits", "panel": "keep"}


def test_code_for_the_view_is_there_in_three_forms(tab, nano):
    page = tab.gift(**KEPT)
    page.wait_for_selector("#keep-code-map-0")
    names: dict[str, object] = {}
    exec(compile(page.locator("#keep-code-map-0").inner_text(), "page", "exec"), names)
    own = expected(nano)
    assert names["effects"].data["logit_diff"].equals(own.data["logit_diff"])
    page.locator("#keep-form label", has_text="file").click()
    tab.until("document.querySelector('#keep-code-map-0').textContent.startsWith('# microtome')")
    written = mt.Experiment.from_yaml(page.locator("#keep-code-map-0").inner_text())
    assert written.run(progress=False).data["logit_diff"].equals(own.data["logit_diff"])
    page.locator("#keep-form label", has_text="command").click()
    tab.until("document.querySelector('#keep-code-map-0').textContent.startsWith('microtome ')")
    page.locator("#keep-form label", has_text="Python").click()
    tab.until("document.querySelector('#keep-code-map-0').textContent.startsWith('import ')")


@pytest.mark.slow
def test_files_are_saved(tab, nano, tmp_path):
    page = tab.gift(**KEPT)
    page.wait_for_selector("#keep-files a[href*='map.csv']")
    saved = {}
    for link in page.locator("#keep-files a").all():
        with page.expect_download() as download:
            link.click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        saved[path.name] = path.read_bytes()
    assert {name.removeprefix("microtome-") for name in saved} == {
        "report.html", "map.png", "map.svg", "map.csv", "circuit.json", "circuit.svg",
    }  # fmt: skip
    assert saved["microtome-map.png"][:4] == b"\x89PNG"
    assert b"<svg" in saved["microtome-map.svg"]
    assert saved["microtome-map.csv"].count(b"\n") == 6 * 8 + 1
    assert json.loads(saved["microtome-circuit.json"])["edges"]["m0->logits"]["in_graph"]
    assert b"https://" not in saved["microtome-report.html"].partition(b"<script")[0]


@pytest.mark.slow
def test_a_saved_report_opens_by_itself(tab, tabs, tmp_path):
    page = tab.gift(**KEPT)
    page.wait_for_selector("#keep-files a[href*='report.html']")
    with page.expect_download() as download:
        page.locator("#keep-files a[href*='report.html']").click()
    download.value.save_as(tmp_path / "report.html")
    alone = tabs()
    alone.page.goto((tmp_path / "report.html").as_uri())
    alone.page.wait_for_selector(".js-plotly-plot")
    assert alone.wrong == []


@pytest.mark.slow
def test_a_link_opens_what_its_sender_saw(tab, tabs):
    page = tab.gift(**KEPT)
    link = page.locator("#keep-link")
    tab.until("document.querySelector('#keep-link').value === window.location.href")
    other = tabs()
    other.page.goto(link.input_value())
    other.page.wait_for_selector("#keep-code-circuit-0", state="attached")
    for one in ("#ask-text", "#ask-target", "#map-edit"):
        other.until("one => !!document.querySelector(one).value", one)
        assert other.page.input_value(one) == page.input_value(one)
    assert other.search == tab.search


SHOWN = """(() => {
  document.querySelectorAll(".hoverlayer").forEach((layer) => layer.replaceChildren());
  return document.querySelector("main").innerText;
})()"""
"""What a page shows, but for what it tells of the cell that the pointer happens to be on."""


@pytest.mark.slow
def test_a_reload_gives_the_same_page(tab):
    page = tab.gift(**KEPT)
    page.wait_for_selector("#keep-files a[href*='map.csv']")
    tab.settle()
    before = page.evaluate(SHOWN)
    page.reload()
    page.wait_for_selector("#keep-files a[href*='map.csv']")
    page.wait_for_selector("#map-strongest button")
    page.wait_for_selector("#keep-code-writing-0", state="attached")
    tab.until(f"text => {SHOWN} === text", before)


@pytest.mark.slow
def test_a_text_is_copied(tab):
    page = tab.gift(**KEPT)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.wait_for_selector("#keep-code-map-0")
    page.locator("[data-copies=keep-code-map-0]").click()
    page.wait_for_selector("[data-copies=keep-code-map-0][data-done]")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#keep-code-map-0").inner_text()


@pytest.mark.slow
def test_the_map_fills_the_screen(tab):
    page = tab.gift(**KEPT)
    page.locator("[data-fills=map]").click()
    tab.until("document.fullscreenElement && document.fullscreenElement.id === 'map'")
    page.evaluate("document.exitFullscreen()")


# ---------------------------------------------- the way back, and answers that come late


@pytest.mark.slow
def test_an_answer_that_comes_late_takes_no_click_away(tab):
    """Two of a kind are on their way, and a cell is clicked meanwhile: all three are there."""
    page = tab.gift(cell="zero L1.z.h1@-1")
    late = tab.hold('"ask-token"')
    page.locator("#ask-click").select_option("role")
    for name, at in (("first", 1), ("second", 3)):
        page.locator("#ask-role").fill(name)
        page.locator(token(at)).click()
    tab.until_held(late.routes, 2)
    click_cell(page, 3, 1, shift=True)
    tab.until_address("cell=zero%20L3.z.h1@-1")
    late.release()
    for part in ("role=first:1", "role=second:3"):  # the second may be answered first
        tab.until_address(part)
    assert chosen_in(tab.search) == ["zero L1.z.h1@-1", "zero L3.z.h1@-1"]
    page.locator("#ask-click").select_option("position")


@pytest.mark.slow
def test_an_earlier_choice_that_is_answered_last_takes_nothing_from_a_later_one(tab):
    """Nor from what only the page knows of: another model was chosen meanwhile."""
    page = tab.gift()
    late = tab.hold("map-metric")
    for n, choice in enumerate(("kl", "prob"), 1):
        page.locator("#map-metric").select_option(choice)
        tab.until_held(late.routes, n)
    page.evaluate("microtome.put('model', ['another'])")
    for route in reversed(late.routes):
        route.continue_()
        tab.until_address("metric=prob")
    late.is_over = True
    tab.settle()
    assert "metric=prob" in tab.search
    assert "model=another" in tab.search


@pytest.mark.slow
def test_back_is_undo_and_forward_redo(tab):
    page = tab.gift()
    page.locator(site("mlp_out")).click()
    tab.until("document.querySelector('#map-edit').value === 'zero L*.mlp_out@-1'")
    page.go_back()
    tab.until("document.querySelector('#map-edit').value === 'zero L*.z.h*@-1'")
    page.go_forward()
    tab.until("document.querySelector('#map-edit').value === 'zero L*.mlp_out@-1'")
    page.locator(panel("keep")).click()
    page.wait_for_selector("#keep-history li a")
    page.locator("#keep button", has_text="Undo").click()  # the panel that was opened
    tab.until("!window.location.search.includes('panel=')")
    page.go_back()
    tab.until("document.querySelector('#map-edit').value === 'zero L*.z.h*@-1'")


@pytest.mark.slow
def test_where_one_has_been_is_listed_and_opens(tab):
    page = tab.gift(cell="zero L3.z.h1@-1")
    page.locator(site("mlp_out")).click()
    tab.until_address("mlp_out")
    page.locator(panel("keep")).click()
    page.wait_for_selector("#keep-history li:nth-child(2)")
    newest, first = page.locator("#keep-history li a").all_inner_texts()[:2]
    assert "mlp_out" in newest
    assert HEADS in first
    page.locator("#keep-history li a").nth(1).click()
    tab.until("document.querySelector('#map-edit').value === 'zero L*.z.h*@-1'")


# -------------------------------------------------------------------------- planted text


@pytest.mark.parametrize(
    "planted",
    [
        {"text": f"{PLANTED} Berlin is", "donor": PLANTED, "target": PLANTED, "pin": PLANTED,
         "note": f"m0->logits|{PLANTED}", "reader": PLANTED, "against": f"prompt:{PLANTED}"},
        {"model": PLANTED, "text": "Berlin is", "edit": PLANTED, "metric": PLANTED},
        {"text": "Berlin is", PLANTED: PLANTED, "steps": PLANTED, "role": f"a:{PLANTED}",
         "cell": PLANTED, "lang": PLANTED},
    ],
    ids=["prompt", "model", "keys"],
)  # fmt: skip
def test_planted_text_does_not_run(tab, planted):
    page = tab.open(query(**{"panel": "keep", **planted}))
    tab.until("document.querySelector('#map-edit').value !== ''")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.planted === undefined")
    assert page.locator("img[src='x'], svg[onload]").count() == 0
    assert not [one for one in tab.wrong if "planted" in one]
    tab.wrong.clear()  # what is wrong with such an address


@pytest.mark.slow
def test_by_night_the_page_is_dark_and_its_pictures_too(tab):
    page = tab.gift()
    light = """one => {
        const shown = getComputedStyle(document.querySelector(one));
        const sum = colour => colour.match(/\\d+/g).slice(0, 3).reduce((all, own) => all + +own, 0);
        return [sum(shown.backgroundColor), sum(shown.color)];
    }"""
    for scheme, dark in (("dark", True), ("light", False)):
        page.emulate_media(color_scheme=scheme)
        for part in ("body", "textarea", "select.native", ".token", "#map-edit"):
            behind, ink = page.evaluate(light, part)
            assert (behind < 200 < 400 < ink) if dark else (ink < 350 < 650 < behind), part
        for picture in (".js-plotly-plot", ".block img"):
            how = page.evaluate(
                "one => getComputedStyle(document.querySelector(one)).filter", picture
            )
            assert ("invert" in how) == dark, picture
