"""A figure's own few words in another language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

COUNTED: Mapping[str, str] = {
    "mean over {n} prompts": r"mean over (\d+(?:–\d+)?) prompts",
    "no larger than the noise floor, {n}": r"no larger than the noise floor, (\S+)",
}
"""What figures say with a number in it → how it is found; the words have it with ``{n}``."""
LABEL = r"({words})( \d+(?: .*)?)"
"""A line of what a figure writes at a cell: ``layer 3``, ``pos 1 ·Sam``. No token by itself looks
like it."""


def translated(figure: go.Figure, words: Mapping[str, str]) -> go.Figure:
    """A copy of a figure with its axes, colours and hover texts in another language.

    Titles, captions and the names of series are given to a figure and stay as they are.

    Args:
        figure: made by this package.
        words: English → the other language, `COUNTED` among them.

    >>> made = go.Figure(layout={"xaxis": {"title": {"text": "head"}}})
    >>> translated(made, {"head": "đầu"}).layout.xaxis.title.text
    'đầu'
    """
    made = go.Figure(figure)
    known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    for axis in (made.layout.xaxis, made.layout.yaxis):
        if axis.title.text:
            axis.title.text = _each(axis.title.text, known, words)
    if made.layout.title.subtitle.text:
        made.layout.title.subtitle.text = _counted(made.layout.title.subtitle.text, words)
    for trace in made.data:
        if trace.hovertemplate:
            trace.hovertemplate = _each(trace.hovertemplate, known, words)
        for bar in _colorbars(trace):
            if bar.title.text:
                bar.title.text = _each(bar.title.text, known, words)
        if trace.text is not None and not isinstance(trace.text, str):
            trace.text = _labels(trace.text, known, words)
        if trace.name:
            trace.name = words.get(trace.name) or _counted(trace.name, words)
    return made


def _each(text: str, known: str, words: Mapping[str, str]) -> str:
    """Every known word of a text, but for what stands between the braces of ``%{…}``."""
    pattern = rf"%{{[^}}]*}}|\b({known})\b"
    return re.sub(pattern, lambda found: words[found[1]] if found[1] else found[0], text)


def _counted(text: str, words: Mapping[str, str]) -> str:
    """A text with what `COUNTED` finds in it."""
    for english, pattern in COUNTED.items():
        if other := words.get(english):
            for found in re.finditer(pattern, text):
                text = text.replace(found[0], other.format(n=found[1]))
    return text


def _labels(texts: Any, known: str, words: Mapping[str, str]) -> Any:
    """Names of cells, line by line: the word in front, and not a token behind the number."""
    if not isinstance(texts, str):
        return [_labels(one, known, words) for one in texts]
    lines = [re.fullmatch(LABEL.format(words=known), line) for line in texts.split("<br>")]
    labels = [f"{words[line[1]]}{line[2]}" for line in lines if line is not None]
    return "<br>".join(labels) if len(labels) == len(lines) else texts


def _colorbars(trace: Any) -> list[Any]:
    owners = (trace, getattr(trace, "marker", None))
    return [owner.colorbar for owner in owners if owner is not None and "colorbar" in owner]
