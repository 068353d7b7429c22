"""A figure's own few words in another language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

MEAN_OVER = r"mean over (\d+(?:–\d+)?) prompts"
LABEL = r"({words}) \d+(?:<br>({words}) \d+)?"
"""What a figure writes at a cell: ``layer 3<br>head 2``. Token texts never look like it."""


def translated(figure: go.Figure, words: Mapping[str, str]) -> go.Figure:
    """A copy of a figure with its axes, colours and hover texts in another language.

    Titles, captions and the names of series are given to a figure and stay as they are.

    Args:
        figure: made by this package.
        words: English → the other language; ``"mean over {n} prompts"`` among them.

    >>> made = go.Figure(layout={"xaxis": {"title": {"text": "head"}}})
    >>> translated(made, {"head": "đầu"}).layout.xaxis.title.text
    'đầu'
    """
    made = go.Figure(figure)
    known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    for axis in (made.layout.xaxis, made.layout.yaxis):
        if axis.title.text:
            axis.title.text = _each(axis.title.text, known, words)
    note = made.layout.title.subtitle.text
    several = words.get("mean over {n} prompts")
    if note and several:
        made.layout.title.subtitle.text = re.sub(
            MEAN_OVER, lambda found: several.format(n=found[1]), note
        )
    for trace in made.data:
        if trace.hovertemplate:
            trace.hovertemplate = _each(trace.hovertemplate, known, words)
        for bar in _colorbars(trace):
            if bar.title.text:
                bar.title.text = _each(bar.title.text, known, words)
        if trace.text is not None and not isinstance(trace.text, str):
            trace.text = _labels(trace.text, known, words)
        if trace.name in words:
            trace.name = words[trace.name]
    return made


def _each(text: str, known: str, words: Mapping[str, str]) -> str:
    """Every known word of a text, but for what stands between the braces of ``%{…}``."""
    pattern = rf"%{{[^}}]*}}|\b({known})\b"
    return re.sub(pattern, lambda found: words[found[1]] if found[1] else found[0], text)


def _labels(texts: Any, known: str, words: Mapping[str, str]) -> Any:
    if isinstance(texts, str):
        label = re.fullmatch(LABEL.format(words=known), texts)
        return _each(texts, known, words) if label else texts
    return [_labels(one, known, words) for one in texts]


def _colorbars(trace: Any) -> list[Any]:
    owners = (trace, getattr(trace, "marker", None))
    return [owner.colorbar for owner in owners if owner is not None and "colorbar" in owner]
