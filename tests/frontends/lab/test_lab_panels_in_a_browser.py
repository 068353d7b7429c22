"""What the lab answers below its map, driven in a browser and held to calls of the library."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from frontends.lab.browsing import GIFT, panel, shown

pytestmark = pytest.mark.slow

CELLS = ["zero L3.z.h1@-1", "zero L4.z.h5@-1"]
DONOR = "When Sam and Sally went to the park, Sally gave a gift to"
PROMPT = mt.Prompt(**GIFT)


def numbers(page, table: str) -> list[float]:
    """The last column of a table."""
    cells = page.locator(f"{table} tbody tr td:last-child").all_inner_texts()
    return [float(one.replace("−", "-").replace("+", "")) for one in cells]


def test_a_cell_shows_its_run(tab, nano):
    page = tab.gift(cell=CELLS[0])
    page.wait_for_selector("#cell-answer table >> nth=2")
    run = nano.run(PROMPT, CELLS[0])
    tokens = page.locator("#cell-answer table").nth(1).locator("tbody th").all_inner_texts()
    assert tokens == [one.replace(" ", "·") for one in run.top(10)["token"]]
    said = page.locator("#cell-answer table").nth(2).inner_text()
    assert f"{run.receipts[0].changed:,} / " in said
    page.wait_for_selector("#cell-pattern .js-plotly-plot")
    pattern = nano.run(PROMPT, keep="L3.pattern.h1")["L3.pattern.h1"].values.squeeze()
    drawn = shown(page, "#cell-pattern")
    below = np.tril_indices(len(pattern))
    np.testing.assert_allclose(drawn[below], pattern[below], atol=1e-6)
    page.wait_for_selector("#cell-shares table")
    tab.computed("#cell-fed table", "#cell-feed")


def test_cells_together_are_beside_the_sum_of_each_alone(tab, nano):
    page = tab.gift(cell=CELLS)
    page.wait_for_selector("#cell-together table")

    def effect(edits) -> float:
        made = mt.sweep(nano, PROMPT, edits, metrics="logit_diff", progress=False)
        return made.delta("logit_diff").item()

    one, other = map(effect, CELLS)
    both = effect(CELLS)
    found = numbers(page, "#cell-together table")
    np.testing.assert_allclose(
        found, [one, other, one + other, both, both - one - other], rtol=1e-2, atol=1e-3
    )


def test_upstream_goes_edge_by_edge_and_pins_become_a_circuit(tab, nano):
    page = tab.gift(cell=CELLS[0], panel="trace", reader="a3.h1<v>")
    tab.computed("#trace-fed table", "#trace-feed")
    edge = page.locator("#trace-fed tbody tr").first
    name = edge.locator("th").inner_text().replace(" → ", "->")
    writer = name.partition("->")[0]
    address = {"i": "embed", "m": f"L{writer[1:]}.mlp_out"}.get(
        writer[0], f"L{writer[1:].replace('.h', '.z.h')}"
    )
    exact = mt.sweep(nano, PROMPT, f"zero {address} -> L3.v_in.h1", metrics="logit_diff",
                     progress=False).delta("logit_diff").item()  # fmt: skip
    said = edge.locator("td").first.inner_text().replace("−", "-")
    assert float(said) == pytest.approx(exact, rel=1e-2, abs=1e-4)

    edge.locator("button", has_text="pin").first.click()
    tab.until_address("pin=")
    page.wait_for_selector("#trace-drawing .js-plotly-plot")
    note = page.locator("#trace-pins input")
    note.fill("<b>why</b> it looks back")
    page.keyboard.press("Enter")
    tab.until_address("note=")
    page.locator("#trace-judge").click()
    page.wait_for_selector("#trace-kept table")
    circuit = mt.circuits.Circuit.of(nano, [name])
    kept = mt.circuits.faithfulness(nano, PROMPT, circuit, ablation="zero", progress=False)
    row = page.locator("#trace-kept tbody tr").first
    found = float(row.locator("td").first.inner_text().replace("−", "-"))
    assert found == pytest.approx(kept["faithfulness"].item(), rel=1e-2, abs=1e-3)
    page.reload()
    page.wait_for_selector("#trace-pins input")
    assert page.input_value("#trace-pins input") == "<b>why</b> it looks back"


@pytest.mark.parametrize("against", ["edit:mean L*.z.h*@-1", f"prompt:{DONOR}"])
def test_two_maps_stand_on_one_scale_with_their_difference(tab, nano, against):
    page = tab.gift(against=against, panel="compare")
    tab.computed("#compare-maps .js-plotly-plot", "#compare-go")
    for one in ("left", "right", "difference"):
        page.wait_for_selector(f"#compare-{one} .js-plotly-plot")

    def effects(text: str, edit: str) -> np.ndarray:
        prompt = mt.Prompt(**{**GIFT, "text": text})
        made = mt.sweep(nano, prompt, edit, metrics="logit_diff", progress=False)
        return made.delta("logit_diff").values[0]

    kind, value = against.split(":", 1)
    own = effects(GIFT["text"], "zero L*.z.h*@-1")
    other = effects(value, "zero L*.z.h*@-1") if kind == "prompt" else effects(GIFT["text"], value)
    for name, expected in (("left", own), ("right", other), ("difference", other - own)):
        np.testing.assert_allclose(shown(page, f"#compare-{name}"), expected, atol=1e-5)
    limits = page.evaluate(
        "['left', 'right'].map(side => document.querySelector(`#compare-${side} .js-plotly-plot`)"
        "._fullLayout.coloraxis?.cmax ?? document.querySelector("
        "`#compare-${side} .js-plotly-plot`)._fullData[0].zmax)"
    )
    assert limits[0] == limits[1] == pytest.approx(max(np.abs(own).max(), np.abs(other).max()))


def test_what_is_written_stands_beside_the_unedited_text(tab, nano):
    page = tab.gift(cell=CELLS[0], steps="4")
    page.locator(panel("write")).click()
    tab.computed("#write-texts .text", "#write-go")
    page.wait_for_selector("#write-texts .text >> nth=1")
    edited, plain = page.locator("#write-texts .text").all_text_contents()
    for text, edits in ((edited, CELLS[0]), (plain, ())):
        made = nano.generate(PROMPT, edits, steps=4, do_sample=False)[0]
        assert text == GIFT["text"] + "".join(made.pieces)


def test_panels_are_tabs_and_the_open_one_is_in_the_address(tab):
    page = tab.gift(cell=CELLS[0], steps="4")
    for name in ("trace", "compare", "write", "keep", "cell"):
        page.locator(panel(name)).click()
        tab.until_address(f"panel={name}")
        page.wait_for_selector(f"#{name}:visible")
