"""What the lab says: every text in every language, none missing, none left over."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microtome.frontends import lab
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.panels import PANELS, Context
from microtome.texts import LANGUAGES

FOLDER = Path(lab.__file__).parent
SOURCES = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.py"))]
WORD = re.compile(r"""f?"([a-z]+\.[\w.{}\[\]' ]+)\"""")


@pytest.fixture(scope="module")
def context():
    desk = Desk()
    return Context(desk, Jobs(desk))


def named() -> set[str]:
    """Keys, and beginnings of keys up to where something is put in, that the sources name."""
    prefixes = "|".join(path.stem for path in (FOLDER / "texts").glob("*.yaml"))
    found = {key for source in SOURCES for key in WORD.findall(source)}
    files = (".csv", ".json", ".png", ".svg", ".yaml")
    named = {key for key in found if re.match(rf"({prefixes})\.", key)}
    return {key for key in named if not key.endswith(files)}


def test_every_text_that_is_named_is_there(context):
    words = context.words("en")
    plain = {key for key in named() if "{" not in key and not key.endswith(".")}
    assert len(plain) > 40
    there = words.entries
    missing = {
        key for key in plain if key not in words and not any(one.startswith(key) for one in there)
    }
    assert missing == set()


def test_no_text_is_left_over(context):
    used = named()
    begun = tuple(key.partition("{")[0] for key in used if "{" in key)
    unused = {
        key
        for key in context.words("en").entries
        if key not in used and not key.startswith((*begun, "map.lacks."))
    }
    assert unused == {f"{one.name}.title" for one in PANELS} - used


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_panel_is_laid_out_in_every_language(context, lang):
    for panel in PANELS:
        assert panel.layout(context.words(lang)) is not None
        assert context.words(lang)(f"{panel.name}.title")


def test_a_page_that_names_nothing_has_the_servers_own_model_and_language():
    desk = Desk(["first", "second"])
    context = Context(desk, Jobs(desk), "vi")
    assert (context.view("").model, context.view(None).lang) == ("first", "vi")
    view = context.view("?model=second&lang=en")
    assert (view.model, view.lang) == ("second", "en")


def test_in_vietnamese_it_has_the_words_of_the_studies(context):
    """One word for one thing: a class goes from the lab to a study's report and back."""
    said = " ".join(one["vi"] for one in context.words("vi").entries.values()).lower()
    for word in ("câu nguồn", "token đích", "token đối chứng", "trung thành"):
        assert word in said
    for word in ("câu cho", "từ mong đợi", "từ đối chiếu", "trung thực"):
        assert word not in said
