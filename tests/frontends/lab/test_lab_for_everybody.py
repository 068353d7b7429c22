"""The lab by keyboard alone, on a phone, for those who hear it, and in Vietnamese."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from frontends.lab.browsing import GIFT, panel, query, watched

pytestmark = pytest.mark.slow

PANELS = ("cell", "trace", "compare", "write", "keep")
FULL = {
    **GIFT,
    "donor": "When Sam and Sally went to the park, Sally gave a gift to",
    "cell": ["zero L3.z.h1@-1", "zero L4.z.h5@-1"],
    "pin": "a3.h1->logits",
    "reader": "a3.h1<q>",
    "against": "edit:mean L*.z.h*@-1",
    "steps": "3",
}

SEEN = """one => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && one.checkVisibility();
}"""

NAMELESS = f"""() => Array.from(
    document.querySelectorAll('input, select, textarea, button, a[href], [tabindex="0"], summary'))
    .filter({SEEN})
    .filter(one => !(one.getAttribute('aria-label') || one.title || one.innerText?.trim()
        || Array.from(one.labels || []).some(label => label.innerText.trim())
        || document.querySelector(`label[for='${{CSS.escape(one.id)}}']`)?.innerText.trim()))
    .map(one => one.outerHTML.slice(0, 200))"""
"""Controls that nothing says the name of."""

FAINT = f"""() => {{
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
    const over = (top, below) => {{
        const a = top[3] ?? 1;
        return [0, 1, 2].map(n => a * top[n] + (1 - a) * below[n]);
    }};
    const behind = one => one === null ? [255, 255, 255]
        : over(numbers(getComputedStyle(one).backgroundColor), behind(one.parentElement));
    return Array.from(document.querySelectorAll('body *'))
        .filter(one => !one.closest('svg, option, :disabled, .js-plotly-plot, .skip'))
        .filter(one => Array.from(one.childNodes).some(
            node => node.nodeType === Node.TEXT_NODE && node.textContent.trim()))
        .filter({SEEN})
        .map(one => {{
            const ground = behind(one), color = over(numbers(getComputedStyle(one).color), ground);
            const [high, low] = [light(color), light(ground)].sort((a, b) => b - a);
            return [(high + 0.05) / (low + 0.05), one.outerHTML.slice(0, 120)];
        }})
        .filter(([ratio]) => ratio < 4.5);
}}"""
"""Texts whose colour is too near to what is behind them, by WCAG 2.2's measure."""

UNORDERED = """document.querySelectorAll(
    "[tabindex]:not([tabindex='0']):not([tabindex='-1'])").length"""
UNSAID = "document.querySelectorAll('img:not([alt])').length"
WIDTH = "document.documentElement.scrollWidth"


PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 1000}


@dataclass(frozen=True)
class Looks:
    """What the panels look like.

    Attributes:
        wide: panel → how many pixels, on a phone of 375.
        wrong: panel → what nothing says the name of, texts that are too faint, elements that are
            reached in another order than they stand in, and pictures without words; on a desk.
    """

    wide: dict[str, int]
    wrong: dict[str, list[object]]


@pytest.fixture(scope="module")
def looks(browsing, lab) -> Looks:
    """Each panel, one after another, once all of it is there."""
    how = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    context = browsing.open().new_context(locale="en-US", **how)
    tab = watched(context, lab)
    page = tab.mapped(query(**FULL))

    def each(*measures: str) -> dict[str, list[object]]:
        found = {}
        for name in PANELS:
            page.locator(panel(name)).click()
            page.wait_for_selector(f"#{name}:visible")
            tab.settle()
            found[name] = [page.evaluate(measure) for measure in measures]
        return found

    wide = {name: most for name, [most] in each(WIDTH).items()}
    page.set_viewport_size(DESK)
    wrong = each(NAMELESS, FAINT, UNORDERED, UNSAID)
    assert tab.wrong == []
    context.close()
    return Looks(wide, wrong)


def test_every_control_has_a_name_and_every_text_is_dark_enough(looks):
    assert looks.wrong == {name: [[], [], 0, 0] for name in PANELS}


def test_nothing_is_wider_than_a_phone(looks):
    assert {name: wide for name, wide in looks.wide.items() if wide > 375} == {}


def test_the_keyboard_alone_asks_chooses_and_opens(tab):
    page = tab.open()
    focused(page, "#ask-text")
    page.keyboard.insert_text(GIFT["text"])  # letter by letter it would be read fifty times
    page.keyboard.press("Enter")
    for name in ("target", "contrast"):
        focused(page, f"#ask-{name}")
        page.keyboard.type(GIFT[name])
        page.keyboard.press("Enter")
        tab.until_address(f"{name}=")
    page.wait_for_selector("#map-strongest button")
    tab.settle()
    focused(page, "#map-operation")
    page.keyboard.press("ArrowDown")
    tab.until("window.location.search.includes('edit=')")
    tab.settle()
    focused(page, "#map-edit")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("zero L*.z.h*@-1")
    page.keyboard.press("Enter")
    tab.until("!window.location.search.includes('edit=')")
    tab.settle()
    page.wait_for_selector("#map-strongest button")
    focused(page, "#map-strongest button")
    page.keyboard.press("Enter")
    tab.until_address("cell=")
    page.wait_for_selector("#cell-answer table")
    tab.settle()
    focused(page, '[id*=\'"name":"write"\']')
    page.keyboard.press("Space")
    page.wait_for_selector("#write:visible")


def focused(page, selector: str, most: int = 150) -> None:
    """Press Tab until something has the focus."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


CUT = """[...document.querySelectorAll("select.native")].filter(one => one.offsetParent)
.map(list => {
    const pen = document.createElement("canvas").getContext("2d"), look = getComputedStyle(list);
    pen.font = look.font;
    const said = list.selectedOptions[0]?.textContent ?? "";
    const room = list.clientWidth - parseFloat(look.paddingLeft) - parseFloat(look.paddingRight);
    return [said, pen.measureText(said).width - (room - 16)];  // 16: its arrow
}).filter(([said, over]) => over > 0)"""
"""The lists whose chosen line is wider than they are, with how many pixels."""


def test_the_page_is_in_the_language_of_its_address(tab):
    page = tab.mapped(query(**FULL, panel="keep", lang="vi"))
    page.wait_for_selector("#keep-code pre")
    assert page.evaluate("document.querySelector('[lang=vi]') !== null")
    assert page.locator("#keep h3").first.inner_text() == "Mã cho trang này"
    assert page.evaluate(CUT) == []
    page.locator("#shell-en").click()
    page.wait_for_selector("#keep h3:has-text('Code for this view')")
    tab.until_address("lang=en")


def test_the_first_tab_leads_past_everything_to_the_map(tab):
    tab.has_gift = False  # the page comes up anew
    page = tab.gift()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#map"
