"""The parts of `pineapple-pizza`, each against what is known of it, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats as scipy_stats

import microtome as mt
from microtome import studies
from microtome.errors import PromptError
from microtome.studies import pineapple_pizza as study
from microtome.studies.pineapple_pizza import PineapplePizza

LAYERS, HEADS = 6, 20


def by_layer(values) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    return xr.DataArray(values, {"at_layer": range(values.size)}, "at_layer")


def changes(seed=0) -> xr.DataArray:
    """Noise where a change can be, ``[pair, layer, head, at_layer]``."""
    noise = np.random.default_rng(seed).normal(size=(2, LAYERS, HEADS, LAYERS))
    return study.possible(
        xr.DataArray(
            noise,
            {
                "pair": ["topping", "other"],
                "layer": range(LAYERS),
                "head": range(HEADS),
                "at_layer": range(LAYERS),
            },
        )
    )


# --------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(
    ("gap", "holds"), [(0.2, True), (0.0, False), (-0.2, False)], ids=["nearer", "alike", "further"]
)
def test_one_word_is_nearer(gap, holds):
    noise = 0.05 * np.random.default_rng(1).normal(size=(2, 36))
    measured = study.measure_nearer(by_layer(0.5 + gap + noise[0]), by_layer(0.5 + noise[1]))
    assert measured.holds is holds
    assert measured.words["difference"].n == 36
    assert measured.value == pytest.approx(gap, abs=0.05)


def test_noise_stands_out_almost_nowhere():
    measured = study.measure_nowhere(study.stands_out(changes()))
    assert measured.holds
    assert measured.words["share"].n == HEADS * (21 + 15)  # 6 + 5 + … + 1, and 5 + … + 1


def test_heads_that_move_everything_stand_out():
    change = changes()
    change.loc[{"layer": 0, "head": [0, 1], "pair": "topping"}] = 40.0
    found = study.stands_out(change)
    measured = study.measure_nowhere(found)
    assert not measured.holds
    where = found["bonferroni"].where(found["bonferroni"] < 0.05, drop=True)
    assert where["layer"].values.tolist() == [0]
    assert where["head"].values.tolist() == [0, 1]
    assert measured.words["fdr"] >= measured.words["passed"] > 0


def test_nothing_to_test_is_no_finding():
    measured = study.measure_nowhere(study.stands_out(0 * changes()))
    assert not measured.holds
    assert measured.wording == "none"


# -------------------------------------------------------------------------------------- the tests


def test_each_change_is_held_against_all_heads_of_its_pair_and_layer():
    change = changes()
    found = study.stands_out(change)
    group = change.sel(pair="other", at_layer=3).values
    present = group[np.isfinite(group)]
    assert present.size == 3 * HEADS
    z = (group - present.mean()) / present.std(ddof=1)
    np.testing.assert_allclose(found["z"].sel(pair="other", at_layer=3), z)
    p = 2 * scipy_stats.norm.sf(abs(z))
    np.testing.assert_allclose(found["p"].sel(pair="other", at_layer=3), p)
    tests = int(found["p"].notnull().sum())
    np.testing.assert_allclose(
        found["bonferroni"].sel(pair="other", at_layer=3), np.minimum(1, tests * p)
    )


def test_what_cannot_change_is_left_out():
    present = changes().notnull().any("head")
    for layer in range(LAYERS):
        for at in range(LAYERS):
            here = present.sel(layer=layer, at_layer=at)
            assert bool(here.sel(pair="topping")) == (at >= layer)
            assert bool(here.sel(pair="other")) == (at > layer)


# ------------------------------------------------------------------------------------ on a model


@pytest.fixture(scope="module")
def result(short, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("pineapple-pizza", short, out), out


def similarity(model, prompt, word, edits=()):
    """The cosine of a word and pizza by layer, from activations that were kept."""
    run = model.run(prompt, edits=edits, keep=[f'L:.resid_post@{{"{word}","pizza"}}'])
    [kept] = [run[key] for key in (f'L:.resid_post@{{"{word}","pizza"}}',)]
    one, two = np.moveaxis(kept.values[0].astype(float), 1, 0)
    return (one * two).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)


def test_its_changes_are_those_of_kept_activations(result, short):
    done, _ = result
    prompt = done.data.encoded[0].prompt
    found = study.changes(done.data).sel(prompt=0, layer=1, head=3)
    for pair, word, start in (("topping", "pineapple", 1), ("other", "butter", 2)):
        clean = similarity(short, prompt, word)
        edited = similarity(short, prompt, word, [mt.zero('L1.z.h3@"pineapple"')])
        np.testing.assert_allclose(study.clean(done.data, pair)[0], clean, atol=1e-5)
        own = found.sel(pair=pair).values
        np.testing.assert_allclose(own[start:], (edited - clean)[start:], atol=1e-5)
        assert np.isnan(own[:start]).all()
        np.testing.assert_allclose((edited - clean)[:start], 0, atol=1e-7)


def test_what_is_left_out_did_not_change(result):
    """The layers that count as impossible are so in the sweep itself; the others are not."""
    done, _ = result
    kept = study.changes(done.data)
    for pair, metric in study.PAIRS.items():
        delta = done.effects["heads"].delta(metric)
        left_out = delta.where(kept.sel(pair=pair).isnull())
        assert float(abs(left_out).max()) < 1e-6
        assert float(abs(kept.sel(pair=pair)).max()) > 1e-3


def test_it_leaves_a_whole_folder(result):
    _, out = result
    for figure in ("similarity", "topping-range", "other-range", "topping-map", "other-map", "z"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_a_word_of_several_tokens_is_meant_by_its_last(short):
    text = "Peanut marmalade and pineapple taste great on pizza"
    roles = {"topping": "pineapple", "other": "marmalade", "dish": "pizza"}
    done = studies.run("pineapple-pizza", short, prompt=text, roles=roles)
    tokens = done.data.encoded[0].tokens
    assert tokens.text[: tokens.offsets[tokens.role("other")][1]].endswith("marmalade")
    assert tokens.pieces[tokens.role("other")].strip() != "marmalade"


def test_over_prompts_a_head_must_change_all_of_them_alike():
    one = changes().expand_dims(prompt=8)
    noise = xr.concat([changes(seed) for seed in range(8)], "prompt")
    assert int(study.over_the_prompts(noise).significant().sum()) == 0
    shifted = noise + 20 * (one["head"] == 4)
    found = study.over_the_prompts(shifted).significant()
    assert found.where(found, drop=True)["head"].values.tolist() == [4]


def test_prompts_with_other_words_are_named_by_their_roles(short):
    prompts = [
        {
            "text": f"Peanut butter and {topping} taste great on {dish}",
            "roles": {"topping": topping, "other": "butter", "dish": dish},
        }
        for topping, dish in (("pineapple", "pizza"), ("cheese", "bread"))
    ]
    done = studies.run("pineapple-pizza", short, prompts=prompts)
    names = [trace.name for trace in done.document.sections[0].pictures[0].figure.data]
    assert names == ["silenced word – dish", "other word – dish"]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (mt.Prompt("Ham tastes great on pizza"), "lacks the roles topping, other, dish"),
        (
            mt.Prompt("a b c", roles={"topping": "a", "other": "b", "dish": "a"}),
            "name three different tokens",
        ),
        (
            mt.Prompt("a b c", roles={"topping": "c", "other": "b", "dish": "a"}),
            r"topping \(position 2\) stands behind dish \(position 0\)",
        ),
    ],
)
def test_prompts_that_do_not_say_which_words(short, prompt, words):
    with pytest.raises(PromptError, match=words):
        studies.run("pineapple-pizza", short, prompt=prompt)


def test_a_prompt_without_the_published_words_is_named(short):
    with pytest.raises(PromptError, match="'pineapple' is not in the prompt"):
        studies.run("pineapple-pizza", short, prompt="Ham tastes great on pizza")


def test_the_published_parameters():
    published = PineapplePizza()
    assert published.model == "gpt2-large"
    assert published.roles["topping"] == "pineapple"
