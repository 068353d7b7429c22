"""Effects: differences, tables, and a file that gives back exactly what was put in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import zarr

import microtome as mt
from conftest import BERLIN, CAT
from microtome.errors import EffectsError, MetricError
from microtome.results.effects import Effects
from microtome.results.form import FORMAT, decode, encode
from microtome.stats.aligned import why_apart

GERMANY = {"target": " Germany", "contrast": " France"}
PROMPTS = [mt.Prompt(BERLIN, **GERMANY), mt.Prompt(CAT, **GERMANY)]


@pytest.fixture(scope="module")
def effects(tiny) -> Effects:
    """Two prompts of different lengths: with absent cells, texts, token ids and a parameter."""
    return mt.sweep(
        tiny,
        PROMPTS,
        "scale(1) L*.resid_post@*",
        metrics=["prob", "top1", "prob(contrast)", "kl@1"],
        over={"factor": [0.5, 1.0]},
    )


def test_delta_is_the_cell_minus_the_clean_run(effects):
    delta = effects.delta("prob")
    assert delta.dims == effects.dims == ("prompt", "layer", "pos", "factor")
    wanted = effects.data["prob"].values - effects.data["clean_prob"].values[:, None, None, None]
    np.testing.assert_array_equal(delta.values, wanted)
    assert (abs(delta.sel(factor=1.0)).fillna(0) < 1e-6).all()
    assert abs(delta.sel(factor=0.5)).max() > 1e-3


def test_metrics_are_those_asked_for_in_order(effects):
    assert effects.metrics == ("prob", "top1", "prob(contrast)", "kl@1")
    xr.testing.assert_identical(effects.clean("prob"), effects.data["clean_prob"])


@pytest.mark.parametrize("ask", ["delta", "clean", "top"])
def test_a_metric_that_was_not_measured_is_refused(effects, ask):
    with pytest.raises(EffectsError, match=r"'porb' was not measured.*Did you mean 'prob'\?"):
        effects.top(3, "porb") if ask == "top" else getattr(effects, ask)("porb")


def test_token_ids_are_not_subtracted(effects):
    for ask in (effects.delta, lambda name: effects.top(3, name, over=None)):
        with pytest.raises(EffectsError, match="token id, which cannot be subtracted"):
            ask("top1")


def test_top_is_the_largest_effects_by_absolute_value(effects):
    table = effects.top(5, "prob(contrast)", over=None)
    delta = effects.delta("prob(contrast)")
    ordered = np.sort(np.abs(delta.values[~np.isnan(delta.values)]))[::-1]
    np.testing.assert_array_equal(table["effect"].abs(), ordered[:5])
    for row in table.to_dict("records"):
        where = {d: row[d] for d in effects.dims}
        assert row["edited"] == float(effects.data["prob(contrast)"].sel(where))
        assert row["clean"] == float(
            effects.data["clean_prob(contrast)"].sel(prompt=where["prompt"])
        )
        assert row["effect"] == row["edited"] - row["clean"]
    first, named = effects.top(2, over=None), effects.top(2, "prob", over=None)
    assert first["effect"].tolist() == named["effect"].tolist()
    assert len(effects.top(10**6, over=None)) == effects.n_cells


def test_a_table_has_a_row_for_every_cell_that_exists(effects):
    table = effects.to_dataframe()
    assert len(table) == effects.n_cells == 3 * (5 + 3) * 2
    assert list(table.columns[:4]) == list(effects.dims)
    assert set(table.columns) >= {"text", "token", "prob", "clean_prob", "values_changed"}
    assert table["prob"].notna().all()
    assert set(table.loc[table["prompt"] == 1, "pos"]) == {0, 1, 2}


def test_cells_that_changed_nothing_are_counted(effects):
    assert effects.n_unchanged == 3 * (5 + 3)  # factor 1


def test_texts_that_were_saved_are_told_apart_as_they_were_before(effects, tmp_path):
    effects.save(tmp_path / "saved.zarr")
    opened = mt.open_effects(tmp_path / "saved.zarr")
    kinds = {name: one.dtype for name, one in effects.data.variables.items()}
    assert {name: one.dtype for name, one in opened.data.variables.items()} == kinds
    assert why_apart(opened.data["prob"]) == why_apart(effects.data["prob"]) != ""


def test_tables_of_what_was_opened_have_their_columns_in_the_same_order(tiny, tmp_path):
    prompt = mt.Prompt(BERLIN, **GERMANY, roles={"subject": 0}, meta={"zeal": "a", "a": "b"})
    found = mt.sweep(tiny, prompt, "zero L*.z.h*@*", metrics=["prob"], progress=False)
    found.save(tmp_path / "saved.zarr")
    opened = mt.open_effects(tmp_path / "saved.zarr")
    assert list(opened.data.variables) == list(found.data.variables)
    assert list(opened.to_dataframe()) == list(found.to_dataframe())


def test_coordinates_of_no_variable_are_saved_in_their_place():
    data = xr.Dataset(
        {"prob": ("layer", [0.0, 1.0])},
        {"z": ("layer", [1, 2]), "layer": [0, 1], "alone": ("other", [1]), "a": 5},
        {"provenance": "{}"},
    )
    again = decode(encode(data))
    xr.testing.assert_identical(again, data)
    assert list(again.coords) == list(data.coords)


def test_what_is_saved_is_what_is_opened(effects, tmp_path):
    path = effects.save(tmp_path / "e.zarr")
    again = mt.open_effects(path)
    xr.testing.assert_identical(again.data, effects.data)
    assert list(again.data.data_vars) == list(effects.data.data_vars)
    assert again.provenance == effects.provenance
    for name, variable in effects.data.variables.items():
        if variable.dtype != object:  # texts come back as numpy's own strings
            assert again.data[name].dtype == variable.dtype, name
    assert (again.metrics, again.dims, again.n_cells) == (
        effects.metrics, effects.dims, effects.n_cells
    )  # fmt: skip


def test_saving_leaves_the_effects_as_they_were_and_replaces_the_last(effects, tmp_path, tiny):
    before = effects.data.copy(deep=True)
    path = effects.save(tmp_path / "e.zarr")
    xr.testing.assert_identical(effects.data, before)
    other = mt.sweep(tiny, PROMPTS[0], "zero L*.z", metrics="kl", out=path, overwrite=True)
    xr.testing.assert_identical(mt.open_effects(path).data, other.data)


def test_a_metric_at_a_word_with_a_slash_is_saved_too(tiny, tmp_path):
    prompt = mt.Prompt("The cat and/or the dog")
    found = mt.sweep(tiny, prompt, "zero L*.z", metrics='kl@"and/or"')
    xr.testing.assert_identical(mt.open_effects(found.save(tmp_path / "e.zarr")).data, found.data)


def test_a_newer_format_is_refused_by_name(effects, tmp_path):
    path = effects.save(tmp_path / "e.zarr")
    attributes = path / ".zattrs"
    attributes.write_text(attributes.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    if (path / ".zmetadata").is_file():
        whole = json.loads((path / ".zmetadata").read_text())
        whole["metadata"][".zattrs"]["format"] = 99
        (path / ".zmetadata").write_text(json.dumps(whole))
    with pytest.raises(EffectsError, match=r"format 99.*up to 2.*newer microtome"):
        mt.open_effects(path)


class TestWhatIsNoResult:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(EffectsError, match="is no saved result"):
            mt.open_effects(tmp_path / "none.zarr")

    def test_a_folder_and_a_file(self, tmp_path):
        (tmp_path / "file.zarr").write_text("hello")
        for path in (tmp_path, tmp_path / "file.zarr"):
            with pytest.raises(EffectsError):
                mt.open_effects(path)

    @pytest.mark.parametrize("attributes", [{}, {"format": 1}, {"format": "netcdf"}])
    def test_a_store_of_someone_elses(self, tmp_path, attributes):
        xr.Dataset({"a": ("x", [1.0])}, attrs=attributes).to_zarr(tmp_path / "s", zarr_format=2)
        with pytest.raises(EffectsError):
            mt.open_effects(tmp_path / "s")

    def test_a_store_of_another_zarr(self, tmp_path):
        zarr.create_group(tmp_path / "s", zarr_format=3)
        with pytest.raises(EffectsError):
            mt.open_effects(tmp_path / "s")

    def test_a_result_cut_short(self, effects, tmp_path):
        path = effects.save(tmp_path / "e.zarr")
        for broken in (path / "prob" / ".zarray", path / ".zmetadata"):
            broken.write_text("{")
        with pytest.raises(EffectsError):
            mt.open_effects(path)


class TestSaveRefusesToOverwrite:
    def test_a_folder_or_a_file(self, effects, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.txt").write_text("years of work")
        (tmp_path / "file").write_text("years of work")
        for path in (tmp_path / "folder", tmp_path / "file"):
            with pytest.raises(EffectsError, match="is not a saved result; it is left alone"):
                effects.save(path)
        assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"
        assert (tmp_path / "file").read_text() == "years of work"

    def test_a_store_of_someone_elses(self, effects, tmp_path):
        theirs = xr.Dataset({"years_of_work": ("x", [1.0, 2.0])})
        theirs.to_zarr(tmp_path / "s.zarr", zarr_format=2)
        with pytest.raises(EffectsError):
            effects.save(tmp_path / "s.zarr")
        xr.testing.assert_identical(xr.open_zarr(tmp_path / "s.zarr", zarr_format=2).load(), theirs)


def test_a_metric_without_its_clean_value_is_refused(effects):
    with pytest.raises(EffectsError, match="not its clean value"):
        Effects(effects.data.drop_vars("clean_prob"))


def test_its_text_says_what_it_holds(effects):
    assert repr(effects).startswith("<Effects of 48 cells (prompt: 2, layer: 3, pos: 5, factor: 2)")


@pytest.mark.parametrize("stored", [True, False])
def test_a_metric_whose_name_ends_like_that_of_a_text_is_still_one(tiny, tmp_path, stored):
    """Of a role that ends in _token; also in a result of before metrics were listed in it."""
    roles = {"first_token": "Berlin", "clean_one": "is", "at_end": "of"}
    prompt = mt.Prompt(BERLIN, target=" Germany", roles=roles)
    metrics = [f"{kind}@{role}" for role in roles for kind in ("prob", "top1")]
    found = mt.sweep(tiny, prompt, "zero L*.z.h*", metrics=metrics, progress=False)
    if not stored:
        data = found.data.copy()
        del data.attrs["metrics"]
        found = mt.Effects(data)
    again = mt.open_effects(found.save(tmp_path / "e.zarr"))
    for one in (found, again):
        assert set(one.metrics) == set(metrics)
        assert len(one.metrics) == len(metrics)
        assert one.delta("prob@first_token").shape == (1, 3, 4)


def test_two_metrics_of_which_one_has_the_name_of_the_others_texts_are_refused(tiny):
    prompt = mt.Prompt(BERLIN, roles={"s": "is", "s_token": "of"})
    with pytest.raises(MetricError, match=r"texts of top1@s .* top1@s_token.* rename the role"):
        mt.sweep(tiny, prompt, "zero L0.z.h*", metrics=["top1@s", "top1@s_token"])
