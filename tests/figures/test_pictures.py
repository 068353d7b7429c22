"""Figures for papers: SVG and PDF, and what a user may say of a figure's look."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import effects_made_by_hand as by_hand
from microtome import figures
from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.pictures import check_picture, is_picture, write
from microtome.figures.png import picture_of
from microtome.steering import SteeringVector
from microtome.texts import brief


@pytest.mark.parametrize("kind", ["heatmap", "curve"])
@pytest.mark.parametrize("ending", [".svg", ".pdf", ".png", ".html", ".SVG"])
def test_a_figure_is_written_as_its_ending_says(kind, ending, tmp_path):
    effects = by_hand.heads() if kind == "heatmap" else by_hand.factors()
    path = effects.figure("prob", size=(500, 300)).save(tmp_path / f"map{ending}")
    data = path.read_bytes()
    match ending.lower():
        case ".svg":
            root = ElementTree.fromstring(data)
            assert root.get("width") == "360pt", "500 pixels, 1/100 inch each"
            assert len(list(root.iter())) > 50
        case ".pdf":
            assert data.startswith(b"%PDF-")
            assert b"CreationDate" not in data
        case ".png":
            with Image.open(path) as picture:
                assert picture.size == (1000, 600)
        case _:
            assert b"plotly" in data.lower()
            assert b"<script src=" not in data


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_costs_no_picture_that_is_there(tmp_path):
    path = by_hand.heads().figure("prob").save(tmp_path / "map.svg")
    before = path.read_bytes()
    (tmp_path / "map.svg.writing").symlink_to("/dev/full")
    with pytest.raises(EffectsError, match=r"Cannot write .*map\.svg: No space left"):
        by_hand.factors().figure("prob").save(path)
    assert [one.name for one in tmp_path.iterdir()] == ["map.svg"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["map.jpg", "map.eps", "map", "map.svgz", "nowhere/map.svg"])
def test_what_cannot_be_written_is_refused_with_what_can(name, tmp_path):
    with pytest.raises(EffectsError, match=r"\.png, \.svg, \.pdf|there is no folder"):
        write(by_hand.heads().figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["nul\0", "half\ud83d", "x" * 300, "y/" * 2100 + "y"],
    ids=["nul", "half", "name", "path"],
)
def test_a_name_that_no_file_can_have_is_refused(name):
    vector = SteeringVector({1: np.ones(2)})
    for save, ending in ((by_hand.heads().figure().save, ".svg"), (vector.save, ".gguf")):
        with pytest.raises(EffectsError, match="cannot name a file") as refused:
            save(name + ending)
        assert len(str(refused.value)) < 200


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    name = "m" * 251 + ".svg"
    assert write(by_hand.heads().figure(), tmp_path / name).is_file()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_folder_and_a_file_that_is_there_are_refused(tmp_path):
    (tmp_path / "map.svg").mkdir()
    with pytest.raises(EffectsError, match="is a folder"):
        check_picture(tmp_path / "map.svg")
    (tmp_path / "map.pdf").write_text("mine")
    with pytest.raises(EffectsError, match="is there already"):
        check_picture(tmp_path / "map.pdf", overwrite=False)
    assert is_picture("a.PDF")
    assert not is_picture("a.zarr")


def test_results_that_are_called_like_a_table_are_gone_on_with_and_none_is_begun(tmp_path):
    effects = by_hand.heads()
    effects.save(tmp_path / "whole").rename(tmp_path / "whole.nc")
    (tmp_path / "begun.pkl.partial").mkdir()
    assert effects.save(tmp_path / "whole.nc") == tmp_path / "whole.nc"
    figures.refuse_file(tmp_path / "begun.pkl")
    with pytest.raises(EffectsError, match="names a table"):
        figures.refuse_file(tmp_path / "new.nc")


def test_a_figure_says_what_it_is_told_to():
    effects = by_hand.heads()
    plain = effects.figure("prob")
    made = effects.figure(
        "prob", title="Heads <b>", labels={"head": "attention <head>", "effect": "change"},
        size=(450, 320), colors="Viridis", limit=0.25,
    )  # fmt: skip
    assert made.layout.title.text == "Heads &lt;b&gt;"
    assert made.layout.xaxis.title.text == "attention &lt;head&gt;"
    assert made.data[0].colorbar.title.text.startswith("change")
    assert (made.layout.width, made.layout.height) == (450, 320)
    assert (made.data[0].zmin, made.data[0].zmax) == (-0.25, 0.25)
    assert made.data[0].colorscale[0][1] == "#440154"
    assert plain.data[0].colorscale[0][1] == "#053061", "the default stays as it is"
    assert effects.figure("prob", title="").layout.title.text == ""
    assert effects.figure("prob", colors=["#ffffff", "red"]).data[0].colorscale[1][1] == "#ff0000"


def test_some_layers_and_heads_in_the_order_of_their_effects():
    effects = by_hand.heads()
    delta = effects.delta("prob").mean("prompt")
    layers = delta.layer.values.tolist()[1:]
    made = effects.figure("prob", only={"layer": slice(1, None)}, order="head")
    z = np.asarray(made.data[0].z)
    assert z.shape[0] == len(layers)
    sizes = np.abs(z).mean(axis=0)
    assert (np.diff(sizes) <= 1e-12).all()
    by_size = (-abs(delta.isel(layer=slice(1, None))).mean("layer")).values.argsort(kind="stable")
    assert list(made.layout.xaxis.ticktext) == [str(n) for n in by_size]
    by_hand_order = effects.figure("prob", order={"head": [2, 0]})
    assert np.array_equal(by_hand_order.data[0].z, delta.isel(head=[2, 0]))
    for only in (slice(-2, None), [-2, -1], slice(1, 9, 1)):
        part = effects.figure("prob", only={"layer": only})
        assert np.array_equal(part.data[0].z, delta.isel(layer=slice(1, None))), only
    other = effects.figure("prob", only={"head": slice(0, None, 2)})
    assert np.array_equal(other.data[0].z, delta.isel(head=slice(None, None, 2)))
    # Values of a parameter are no places.
    doses = dataclasses.replace(effects, data=effects.data.rename(layer="factor"))
    with pytest.raises(EffectsError, match="factor=-1 is not there"):
        doses.figure("prob", only={"factor": [-1]})
    one = effects.figure("prob", only={"layer": 1})
    assert np.array_equal(one.data[0].z, [delta.isel(layer=1)])


@pytest.mark.parametrize(
    ("look", "words"),
    [
        ({"size": (9, 9)}, "width and height in pixels"),
        ({"size": 300}, "width and height in pixels"),
        ({"limit": 0}, "limit is an effect above 0"),
        ({"limit": 10**400}, "limit is an effect above 0"),
        ({"colors": "virids"}, "Did you mean 'viridis'?"),
        ({"colors": ["#fff"]}, "at least two colours"),
        ({"only": {"layr": 1}}, "Did you mean 'layer'?"),
        ({"only": {"layer": [99]}}, "layer=99 is not there"),
        ({"only": {"layer": -99}}, "layer=-99 is not there"),
        ({"only": {"layer": slice(90, 99)}}, "Of layer nothing is left"),
        ({"only": {"layer": slice(0, 4, 0)}}, "a slice's step is not 0"),
        ({"only": {"layer": [1, 1]}}, "is given twice"),
        ({"order": "token"}, "There is no dimension 'token'"),
    ],
)
def test_a_look_that_cannot_be_is_refused(look, words):
    with pytest.raises(EffectsError, match=re.escape(words)):
        by_hand.heads().figure("prob", **look)


VECTOR = f"add({[round(n / 7, 6) for n in range(768)]}) L5.resid_post"


def test_a_long_vector_never_becomes_a_title():
    values = {"prob": np.full((1, 3, 4), 0.25)}
    effects = by_hand.effects_of(values, ("layer", "head"), edit=VECTOR)
    title = effects.figure("prob").layout.title.text
    assert len(title) < 120
    assert "768 numbers" in title
    assert effects.figure("prob").layout.margin.t <= style.LIGHT.layout.margin.t + 20
    assert brief(VECTOR) == "add([0.0, 0.142857, … 768 numbers]) L5.resid_post"
    assert brief("replace([[1, 2], [3, 4]]) L0.z") == "replace([[1, 2], [3, 4]]) L0.z"
    words = 'patch(align="words") L{1,4}.z.h*@"a word [of] the text"'
    assert brief(words) == words


def test_a_title_of_any_length_leaves_room_for_the_map():
    effects = by_hand.heads()
    made = effects.figure("prob", title="word " * 400, size=(300, 300))
    lines = made.layout.title.text.split("<br>")
    assert len(lines) <= style.MOST_LINES
    assert lines[-1].endswith("…")
    assert max(map(len, lines)) <= style.TITLE_WIDTH * 300 / style.WIDTH + 1
    assert made.layout.margin.t < 160


def test_every_function_is_where_users_look_for_it():
    assert isinstance(by_hand.heads().figure(), figures.Drawn)
    assert figures.write is write


def test_the_limit_of_a_curve_is_that_of_its_picture():
    effects = by_hand.factors()
    made = effects.figure("prob", limit=5.0)
    assert made.layout.yaxis.range == (-5.0, 5.0)
    labels = re.findall(r"<!-- ([^>]*) -->", picture_of(made, "svg").decode())
    assert "4" in labels or "5" in labels or "4.0" in labels, labels
