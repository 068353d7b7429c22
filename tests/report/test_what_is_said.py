"""Sentences about maps, each where it is true and not where it is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

import effects_made_by_hand as by_hand
import microtome as mt
from microtome.report import document_of_sweep
from microtome.report.cells import moving, told
from microtome.report.maps import pictures
from microtome.report.method import method


def many(effect, changed=None):
    """A result with these effects on prob, ``[prompt, layer, head]``."""
    made = by_hand.effects_of({"prob": by_hand.CLEAN + np.asarray(effect)}, ("layer", "head"))
    if changed is not None:
        made.data["values_changed"] = made.data["values_changed"] * np.asarray(changed)
    return made


def caption(effects):
    [picture] = pictures(effects, "prob")
    return picture.caption


def test_grey_is_explained_where_a_cell_does_not_exist():
    effect = np.arange(1.0, 7.0).reshape(1, 2, 3)
    assert "grey" not in caption(many(effect))
    effect[0, 1, 2] = np.nan
    assert "Where it is grey there is no such cell." in caption(many(effect))


def test_over_how_many_prompts_a_map_is_averaged():
    effect, changed = np.ones((3, 2, 2)), np.ones((3, 2, 2))
    assert "Averaged over 3 prompts." in caption(many(effect))
    effect[2], changed[2] = 0, 0
    assert "in which the edits changed something: 2 of 3." in caption(many(effect, changed))
    effect[1, 0, 0], changed[1, 0, 0] = 0, 0
    assert "in which the edits changed something: 1 to 2 of 3." in caption(many(effect, changed))


def test_a_map_of_nothing_names_no_largest_effect():
    effects = many(np.zeros((8, 1, 2)))
    assert told(effects, "prob", effects.table("prob")) == ("Every mean effect is 0.",)


@pytest.mark.parametrize(
    ("texts", "says"),
    [("abcdefgh", ""), ("abcdefga", "1 of the 8 prompts is the"), ("abababcd", "4 of the 8 ")],
)
def test_prompts_that_come_again_are_counted_and_what_comes_of_them_is_said(texts, says):
    effects = many(np.ones((8, 1, 2)))
    given = [{"text": text, "meta": {"row": row}} for row, text in enumerate(texts)]
    effects.data.attrs["provenance"] = json.dumps({"spec": {"prompts": given}})
    said = [one for one in told(effects, "prob", effects.table("prob")) if "earlier one" in one]
    assert [one.startswith(says) for one in said] == [True] * (says != "")


@pytest.mark.parametrize(
    ("floor", "says"),
    [
        (
            0.0,
            "Noise floor: cells that change nothing, computed beside the others, have no effect.",
        ),
        (1e-6, "Noise floor: 1e-06 on prob. So much at most did cells that change nothing"),
    ],
)
def test_a_noise_floor_of_nothing_is_said_to_be_none(floor, says):
    effects = many(np.ones((1, 2, 2)))
    effects.data["prob"].attrs["noise_floor"] = floor
    assert says in " ".join(method(effects))


def test_what_is_measured_is_named_where_there_is_one_prompt(tiny):
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    germany, france = (tiny.tokenizer.convert_tokens_to_ids(f"Ġ{w}") for w in ("Germany", "France"))
    effects = mt.sweep(tiny, prompt, "zero L*.z.h*", metrics="logit_diff", progress=False)
    clean, shown = document_of_sweep(effects, tiny.run(prompt)).sections
    assert clean.paragraphs[0] == (
        f"Here the target is ' Germany' ({germany}), the contrast is ' France' ({france})."
    )
    assert shown.paragraphs[0].startswith("logit_diff (logit): logit of the target − logit of")
    bare = mt.sweep(tiny, prompt.text, "zero L*.z.h*", metrics="kl", progress=False)
    clean, _ = document_of_sweep(bare, tiny.run(prompt.text)).sections
    assert not any("Here" in text for text in clean.paragraphs)


def test_roles_move_where_they_stand_elsewhere_in_another_prompt():
    effects = by_hand.effects_of({"prob": np.full((2, 3), 0.7)}, ("pos",))

    def with_roles(*rows):
        return type(effects)(effects.data.assign_coords(role=(("prompt", "pos"), [*rows])))

    assert moving(effects) == ()
    assert moving(with_roles(["", "who", "end"], ["", "who", "end"])) == ()
    assert moving(with_roles(["", "who", "end"], ["who", "", "end"])) == ("who",)
