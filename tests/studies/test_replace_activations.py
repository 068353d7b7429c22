"""The parts of `replace-activations`, each against what is known of it, both ways."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from microtome import studies
from microtome.errors import PromptError, StudyError
from microtome.language.sites import Dimensions
from microtome.model.families.taps import Tap, heads, stacked
from microtome.passes.trace import module_output
from microtome.studies import replace_activations as study
from microtome.studies.checkpoints import CHECKPOINTS
from microtome.studies.final_norm import with_norm
from microtome.studies.keys import fused_columns
from microtome.studies.replace_activations import ReplaceActivations

# --------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(("slope", "holds"), [(1.0, True), (0.0, False), (-1.0, False)])
def test_the_spread_grows_with_depth(slope, holds):
    noise = 0.5 * np.random.default_rng(0).normal(size=12)
    spread = 20 + slope * np.arange(12) + noise
    measured = study.measure_growth(spread, 2 * spread)
    assert measured.holds is holds
    assert measured.words["slope"].n == 12
    assert measured.words["without"].value == pytest.approx(2 * measured.value)


def test_two_layers_make_no_trend():
    assert not study.measure_growth([1.0, 2.0], [1.0, 2.0]).holds


@pytest.mark.parametrize(
    ("ratio", "holds"),
    [
        ([1, 1, 0.1, 0.3, 0.5], True),
        ([1, 1, 0.1, 0.1, 0.15], False),
        ([1, 1, 0.6, 0.9, 1.3], False),
        ([1, 1, 1, 1, 0.1], None),
    ],
    ids=["revives", "stays down", "no collapse", "nothing behind it"],
)
def test_a_collapse_that_revives(ratio, holds):
    layer = 4 if ratio[-1] == ratio[2] * 0.1 else 2
    measured = study.measure_collapse(ratio, layer, 1.0)
    assert measured.holds is holds
    assert measured.words["last"] == ratio[-1]


@pytest.mark.parametrize(
    ("ratio", "final", "holds"),
    [([1, 10, 8], 1.1, True), ([1, 10, 8], 7.0, False), ([1, 2, 1], 1.0, False)],
    ids=["taken back", "stays large", "no explosion"],
)
def test_an_explosion_that_is_compressed(ratio, final, holds):
    measured = study.measure_compress(ratio, 1, final)
    assert measured.holds is holds
    assert measured.value == final


# -------------------------------------------------------------------------------- counting columns


class Laid:
    """An anatomy whose projection is laid out in a given way."""

    def __init__(self, taps, dims):
        self.dims = dims
        self._taps = dict(zip("qkv", taps, strict=True))

    def tap(self, site, layer):
        return self._taps[site.name]


def test_the_published_columns():
    """GPT-2 Small, head index 2: 128 … 191 in K, behind the 768 columns of Q."""
    taps = [Tap("c_attn", "output", stacked(part)) for part in ("q", "k", "v")]
    columns = fused_columns(Laid(taps, CHECKPOINTS["gpt2"]), 3, 2)
    np.testing.assert_array_equal(columns, 768 + np.arange(128, 192))


def test_a_projection_laid_out_head_by_head():
    def of_each_head(part):
        def view(x, dims):
            each = x.view(*x.shape[:-1], dims.n_heads, 3, dims.d_head)
            return each[..., part, :]

        return view

    taps = [Tap("query_key_value", "output", of_each_head(n)) for n in range(3)]
    columns = fused_columns(Laid(taps, Dimensions(1, 4, 4, 32, 8, 64, 9)), 0, 2)
    np.testing.assert_array_equal(columns, 2 * 24 + 8 + np.arange(8))


def test_reading_a_module_whole_leaves_no_hook(nano):
    tokens = nano.encode("Berlin is the capital of")[0].tokens
    path = "transformer.h.3.attn.c_attn"
    found = module_output(nano.hf, tokens, path)
    assert found.shape == (1, 5, 3 * nano.anatomy.dims.d_model)
    assert not nano.hf.get_submodule(path)._forward_hooks


def test_a_point_behind_the_final_norm_is_named_however_many_layers_there_are():
    for n in (1, 6, 24, 36, 48):
        axis = with_norm(go.Figure(), n, "norm").layout.xaxis
        assert (axis.tickvals[-1], axis.ticktext[-1]) == (n, "norm")
        assert len(axis.tickvals) == len(axis.ticktext) <= 26
        assert list(axis.ticktext[:-1]) == [str(at) for at in axis.tickvals[:-1]]


def test_no_fused_projection_has_no_columns(monkeypatch, nano):
    taps = [Tap(f"{name}_proj", "output", heads) for name in "qkv"]
    assert fused_columns(Laid(taps, CHECKPOINTS["gpt2"]), 3, 2) is None
    monkeypatch.setattr("microtome.studies.keys.fused_columns", lambda *_: None)
    done = studies.run("replace-activations", nano)
    [table] = done.document.sections[0].tables
    assert len(table.frame) == 1
    assert "no fused projection" in table.caption


# ------------------------------------------------------------------------------------ on a model


@pytest.fixture(scope="module")
def result(nano, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("replace-activations", nano, out), out


def test_both_ways_of_counting_address_the_same_numbers(result, nano):
    done, _ = result
    assert float(done.data.array("fused")) == 0
    rows = done.document.sections[0].tables[0].frame
    dims = nano.anatomy.dims
    assert rows["first column"].tolist() == [2 * dims.d_head, dims.d_model + 2 * dims.d_head]
    assert rows["last column"].tolist() == [3 * dims.d_head - 1, dims.d_model + 3 * dims.d_head - 1]


def test_only_the_keys_of_one_head_become_zero(result, nano):
    done, _ = result
    found = done.data.array("projections")
    assert [(str(p), int(h)) for p, h in np.argwhere(found.values == 0)] == [("1", 2)]
    kept = nano.run(done.data.encoded[0].prompt, keep=["L3.v"])["L3.v"].values[0]
    np.testing.assert_allclose(
        found.sel(part="V"), np.sqrt((kept.astype(float) ** 2).mean((0, 2))), rtol=1e-6
    )


def test_noise_replaces_the_even_neurons(result, nano):
    done, _ = result
    found = done.data.dataset("neurons")
    assert found.sizes["neuron"] == nano.anatomy.dims.d_mlp // 2
    assert float(found["noise"].mean()) == pytest.approx(10, abs=0.3)
    assert float(found["noise"].std()) == pytest.approx(1, abs=0.2)
    assert float(found["real"].min()) > -0.2  # behind GELU


def test_the_spread_behind_the_final_norm_is_hugging_faces_last_hidden_state(result, nano):
    done, _ = result
    ids = nano.tokenizer(done.data.encoded[0].prompt.text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = nano.hf(ids, output_hidden_states=True).hidden_states
    clean = done.data.array("final").sel(run="clean")
    assert float(clean) == pytest.approx(float(hidden[-1].double().std(correction=0)), rel=1e-6)
    spread = study.clean_by_layer(done.data)
    for layer, state in enumerate(hidden[1:-1]):
        assert spread[layer] == pytest.approx(float(state.double().std(correction=0)), rel=1e-6)


def test_scaling_scales_the_spread_at_its_layer(result):
    done, _ = result
    at = done.data.parameters.layer
    clean = study.clean_by_layer(done.data)
    for name, factor in (("weaker", 0.1), ("louder", 10.0)):
        spread = done.data.edited(name, study.SPREAD).values
        np.testing.assert_allclose(spread[:at], clean[:at], rtol=1e-6)
        assert spread[at] == pytest.approx(factor * clean[at], rel=1e-5)


def test_it_leaves_a_whole_folder(result):
    _, out = result
    for figure in ("projections", "neurons", "scaled-spread", "spread-by-layer", "first-token"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_a_prompt_of_one_token_is_refused(nano):
    with pytest.raises(PromptError, match="looks at the tokens after the first one"):
        studies.run("replace-activations", nano, prompt="Berlin")


def test_a_head_that_is_not_there_is_named(nano):
    with pytest.raises(StudyError, match="head=9 does not exist in nano"):
        studies.run("replace-activations", nano, head=9)


def test_the_published_parameters():
    published = ReplaceActivations()
    assert (published.model, published.head, published.layer) == ("gpt2", 2, 9)
    assert (published.weaker, published.louder, published.noise_mean) == (0.1, 10.0, 10.0)
    assert published.edits["neurons"].endswith("L4.mlp_post.n::2")
