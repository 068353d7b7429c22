"""A figure's own words in another language; what came from outside stays."""

from __future__ import annotations

import effects_made_by_hand as by_hand
from microtome import figures
from microtome.figures.translate import translated

WORDS = {
    "layer": "tầng",
    "head": "đầu",
    "clean": "gốc",
    "edited": "sau can thiệp",
    "effect": "tác động",
    "probability": "xác suất",
    "mean over {n} prompts": "trung bình trên {n} prompt",
    "no larger than the noise floor, {n}": "không lớn hơn ngưỡng nhiễu, {n}",
}


def test_axes_colors_and_hover_texts():
    made = translated(figures.heatmap(by_hand.heads(), "prob", title="head"), WORDS)
    assert (made.layout.xaxis.title.text, made.layout.yaxis.title.text) == ("đầu", "tầng")
    assert made.data[0].colorbar.title.text == "tác động, xác suất"
    assert made.data[0].hovertemplate.startswith("tầng %{y}<br>đầu %{x}<br>gốc %{customdata[0]")
    assert made.layout.title.text == "head", "titles are given to a figure"


def test_the_figure_given_stays_as_it_is():
    before = figures.heatmap(by_hand.heads(), "prob")
    translated(before, WORDS)
    assert before.layout.xaxis.title.text == "head"


def test_the_note_about_several_prompts():
    made = translated(figures.heatmap(by_hand.heads(3), "prob"), WORDS)
    assert made.layout.title.subtitle.text == "trung bình trên 3 prompt"


def test_names_of_cells_and_not_tokens():
    cells = translated(figures.scatter(by_hand.heads(), "prob"), WORDS)
    assert cells.data[0].text[5] == "tầng 1<br>đầu 1"
    tokens = figures.points([0, 1], [0, 1], ["head", "·clean"], x_title="x", y_title="y", title="t")
    assert list(translated(tokens, WORDS).data[0].text) == ["head", "·clean"]


def test_at_a_position_the_word_is_translated_and_the_token_is_not():
    texts = ["layer 0<br>pos 1 head", "pos 12 ·layer 3", "head 5", "pos 1"]
    made = figures.points([0] * 4, [0] * 4, texts, x_title="x", y_title="y", title="t")
    made.data[0].text = texts
    said = translated(made, {**WORDS, "pos": "vị trí"}).data[0].text
    assert list(said) == ["tầng 0<br>vị trí 1 head", "vị trí 12 ·layer 3", "đầu 5", "vị trí 1"]


def test_the_noise_floor_keeps_its_number():
    made = figures.points([0], [0], ["·a"], x_title="x", y_title="y", title="t")
    made.data[0].name = "no larger than the noise floor, 5.2e-06"
    assert translated(made, WORDS).data[0].name == "không lớn hơn ngưỡng nhiễu, 5.2e-06"
    assert translated(made, {}).data[0].name == made.data[0].name
