"""Metrics inside the model: what they read, against numpy on activations that were kept."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from families.both import compared
from microtome.errors import AddressError, MetricError, VerificationError
from microtome.plan.memory import room
from microtome.readings.inside import Fitted, gauge
from microtome.readings.registry import readings

JOHN = mt.Prompt("When Mary and John went to", target=" Mary", roles={"giver": 3})
SWAPPED = mt.Prompt("When John and Mary gave to", target=" John", roles={"giver": 1})
CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", roles={"giver": 2})
EDIT = "zero L*.z.h*@2"


def kept(model, prompt, edits, site):
    """A site's values of every layer, ``[layer, pos, *units]``, from runs of their own."""
    return model.run(prompt, edits=edits, keep=[f"L:.{site}"])[f"L:.{site}"].values[0]


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("engine", ["walk", "reference"])
@pytest.mark.parametrize(
    ("text", "site", "wanted"),
    [
        ("norm(L*.resid_post@-1)", "resid_post",
         lambda x, clean: np.linalg.norm(x[:, -1], axis=-1)),
        ("norm(L1.z.h*@*)", "z",
         lambda x, clean: np.linalg.norm(x[1], axis=-1).T),
        ("std(L*.resid_post)", "resid_post",
         lambda x, clean: x.reshape(len(x), -1).std(axis=1)),
        ("std(L*.mlp_post.n::2@{1,4})", "mlp_post",
         lambda x, clean: x[:, [1, 4], ::2].reshape(len(x), -1).std(axis=1)),
        ("distance(L*.k.h{0,2}@giver)", "k",
         lambda x, clean: np.linalg.norm((x - clean)[:, 3][:, [0, 2]].reshape(len(x), -1), axis=1)),
        ("distance(L*.resid_mid@*)", "resid_mid",
         lambda x, clean: np.linalg.norm(x - clean, axis=-1)),
        ("cosine(L*.resid_post@giver, -1)", "resid_post",
         lambda x, clean: [cosine(layer[3], layer[-1]) for layer in x]),
        ("cosine(L2.v.h*@*, 1)", "v",
         lambda x, clean: [[cosine(p[h], x[2][1][h]) for p in x[2]] for h in range(x.shape[2])]),
        ("cosine(L*.resid_post@*, *)", "resid_post",
         lambda x, clean: [[[cosine(p, q) for q in layer] for p in layer] for layer in x]),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_probes_are_what_numpy_makes_of_kept_activations(tiny64, engine, text, site, wanted):
    effects = mt.sweep(tiny64, JOHN, EDIT, metrics=[text, "prob"], engine=engine)
    clean = kept(tiny64, JOHN, [], site)
    name = str(gauge(text))
    np.testing.assert_allclose(effects.clean(name)[0], wanted(clean, clean), atol=1e-9)
    for layer, head in [(0, 0), (1, 3), (2, 1)]:
        edited = kept(tiny64, JOHN, [mt.zero(f"L{layer}.z.h{head}@2")], site)
        found = effects.data[name].sel(prompt=0, layer=layer, head=head)
        np.testing.assert_allclose(found, wanted(edited, clean), atol=1e-9)


PROBES = [
    "norm(L*.resid_post@*)",
    "distance(L*.resid_post@giver)",
    "std(L1.z.h*)",
    "cosine(L*.attn_out@*, last)",
    "cosine(L2.resid_post@*, *)",
]


@pytest.mark.parametrize("edit", ["zero L*.z.h1@*", "scale(2) L*.resid_pre@giver", "noise L0:2.k"])
def test_the_walk_equals_the_reference_path_inside_too(tiny64, edit):
    """On prompts of one length and of another, whose roles are in different places."""
    compared(tiny64, edit, [JOHN, SWAPPED, CAT], PROBES, lambda size: 1e-9)


def test_their_stars_are_dimensions_with_coordinates(tiny64):
    effects = mt.sweep(tiny64, [JOHN, CAT], EDIT, metrics=["cosine(L*.q.h*@*, *)"])
    [name] = effects.metrics
    inner = ("at_layer", "at_head", "at_pos", "at_other")
    assert effects.data[name].dims == ("prompt", "layer", "head", *inner)
    assert effects.clean(name).dims == ("prompt", *inner)
    assert effects.data["at_layer"].values.tolist() == [0, 1, 2]
    assert effects.data["at_pos_token"].values[0].tolist()[1:3] == [" Mary", " and"]
    longest = effects.data.sizes["at_pos"]
    shorter = len(tiny64.encode(JOHN)[0].tokens)
    assert shorter < longest  # and what the shorter prompt does not have is absent
    assert bool(effects.data[name][0, ..., shorter:, :].isnull().all())
    assert bool(effects.data[name][0, ..., :shorter, :shorter].notnull().all())


def test_they_come_back_from_a_file_and_into_tables_and_figures(tiny64, tmp_path):
    metrics = ["prob", "std(L*.resid_post)"]
    effects = mt.sweep(tiny64, JOHN, EDIT, metrics=metrics, out=tmp_path / "x.zarr")
    again = mt.open_effects(tmp_path / "x.zarr")
    assert again.metrics == ("prob", "std(L*.resid_post)")
    assert again.data.identical(effects.data)
    assert len(effects.to_dataframe()) == effects.n_cells
    assert "std(L*.resid_post)" not in effects.to_dataframe()
    top = effects.top(3, "std(L*.resid_post)")
    assert list(top.columns[:4]) == ["prompt", "layer", "head", "at_layer"]
    picture = effects.figure("std(L*.resid_post)", at_layer=2)
    assert len(picture.data[0].z) == 3


def test_an_edit_moves_nothing_before_its_layer(tiny64):
    effects = mt.sweep(tiny64, JOHN, EDIT, metrics=["distance(L*.resid_post)"])
    distance = effects.data["distance(L*.resid_post)"][0].max("head")
    for layer in range(3):
        assert float(abs(distance.sel(layer=layer)[:layer]).max() if layer else 0) < 1e-12
        assert float(distance.sel(layer=layer)[layer:].min()) > 1e-3


def test_long_prompts_are_looked_at_in_parts(tiny64, monkeypatch):
    whole = mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=PROBES)
    monkeypatch.setattr(room, "LOOK", 2**40)  # a cell at a time
    parts = mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=PROBES)
    for name in whole.metrics:
        assert float(abs(whole.data[name] - parts.data[name]).max()) < 1e-12


def test_a_wrong_probe_on_the_walk_is_caught(tiny64, monkeypatch):
    measure = Fitted.measure

    def wrong(self, values, clean):
        return measure(self, values, clean) * (1 + 1e-3 * (len(values) > 1))

    monkeypatch.setattr(Fitted, "measure", wrong)
    with pytest.raises(VerificationError, match=r"norm\(L\*.resid_post@-1\) is"):
        mt.sweep(tiny64, JOHN, EDIT, metrics=["norm(L*.resid_post@-1)"])


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("norm(L*.hidden)", "norm(L*.resid_post)"),
        (" cosine( L0.z@0 ,1 )", "cosine(L0.z@0, 1)"),
        ('cosine(L*.resid_post@"a, b","c")', 'cosine(L*.resid_post@"a, b", "c")'),
        ('cosine(L*.resid_post@0,"a, b")', 'cosine(L*.resid_post@0, "a, b")'),
    ],
)
def test_their_text_is_canonical_and_reads_back(text, canonical):
    assert str(gauge(text)) == canonical
    assert gauge(canonical) == gauge(text)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("norm", MetricError, r"write norm\(L\*.resid_post@-1\)"),
        ("norm(L*.resid_post", MetricError, "write norm"),
        ("norm()", AddressError, "expected a site"),
        ("nrm(L0.z)", MetricError, "Did you mean 'norm'"),
        ("norm(embed)", MetricError, "activations of layers"),
        ("std(logits@-1)", MetricError, "activations of layers"),
        ("norm(L0.pattern.h0@-1,0)", MetricError, "an attention weight is one of two tokens"),
        ("norm(L:.z)", MetricError, r"write a star, L\*"),
        ("norm(L7.z)", AddressError, "layer 7 does not exist"),
        ("cosine(L0.z@1)", MetricError, "between two positions"),
        ("cosine(L0.z, 1)", MetricError, "between two positions"),
        ("cosine(L0.z@1, {1,2})", MetricError, "between two positions"),
        ("cosine(L0.z@1, 70)", AddressError, "pos 70 does not exist"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(tiny64, text, error, says):
    with pytest.raises(error, match=says):
        mt.sweep(tiny64, JOHN, EDIT, metrics=[text])


def test_they_are_counted_in_the_memory_that_is_planned(tiny64):
    bare, probed = (
        mt.sweep(tiny64, JOHN, EDIT, metrics=metrics).provenance["predicted"]["bytes"]
        for metrics in (["prob"], ["prob", "norm(L*.mlp_post)"])
    )
    assert probed > bare


def test_a_reading_of_both_kinds():
    assert [str(r) for r in readings(["prob", "std(L*.resid_post)"])] == [
        "prob",
        "std(L*.resid_post)",
    ]
