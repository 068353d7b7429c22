"""Figures in the language of a page: the words that studies' figures have there, and a few more."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from microtome.frontends.importing import imported
from microtome.texts import Texts, catalogue

if TYPE_CHECKING:
    import plotly.graph_objects as go

OWN = "figure.word."
"""What keys of the lab's own words of figures begin with."""


def spoken(
    figure: go.Figure,
    words: Texts,
    title: str = "",
    note: str = "",
    more: Mapping[str, str] = MappingProxyType({}),
) -> go.Figure:
    """A figure in the page's language: axes, colours, and what is read on hover.

    Args:
        figure: as the library draws it, in English; it stays as it is.
        words: of the page.
        title: in the place of the figure's own, in that language; plain text.
        note: in the place of the quiet line under it; plain text.
        more: other words of it, with what they are in that language.
    """
    if words.lang == "en":
        return figure
    said = {**known(words), **more}
    made: go.Figure = imported("microtome.figures.translate").translated(figure, said)
    for slider in made.layout.sliders:
        prefix = slider.currentvalue.prefix
        slider.currentvalue.prefix = said.get(prefix, prefix)
    escaped = imported("microtome.figures.labels").escaped
    if title:
        imported("microtome.figures.style").entitle(made, escaped(title), made.layout.width)
    if note:
        made.update_layout(title_subtitle_text=escaped(note))
    return made


def known(words: Texts) -> dict[str, str]:
    """Words of figures: English → the page's language."""
    studies = catalogue("microtome.studies.texts", "common.yaml")
    found = {one["en"]: one[words.lang] for key, one in studies.items() if key.startswith("words.")}
    own = [key.removeprefix(OWN) for key in words.entries if key.startswith(OWN)]
    english = Texts("en", words.entries)
    return found | {english(f"figure.word.{name}"): words(f"figure.word.{name}") for name in own}
