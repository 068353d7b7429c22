"""The maps that are kept on disk: the oldest go, none in use, and nothing that is not the lab's."""

from __future__ import annotations

import os

import pytest

import microtome as mt
from microtome.errors import EffectsError
from microtome.frontends.lab import shelf
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.shelf import clear, look_at, maps, others, trim
from microtome.frontends.lab.state import View
from microtome.results.stores import Beside

KEYS = tuple(letter * 24 for letter in "abc")


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A map as a sweep leaves it."""
    place = tmp_path_factory.mktemp("made") / "map.zarr"
    mt.sweep(tiny, "It is", "zero L*.z.h*", metrics="kl", out=place, progress=False)
    return place


@pytest.fixture
def folder(made, tmp_path):
    """Three maps, of which b was used first and c last; and what others have put there."""
    for key, day in zip(KEYS, (2, 1, 3), strict=True):
        place = tmp_path / f"{key}.zarr"
        place.mkdir()
        for file in made.rglob("*"):
            to = place / file.relative_to(made)
            to.mkdir() if file.is_dir() else to.write_bytes(file.read_bytes())
        os.utime(place, (day * 86_400, day * 86_400))
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "mine.zarr").mkdir()
    return tmp_path


def left(folder):
    return [one.key[0] for one in maps(folder)]


def size_of(place):
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def test_maps_are_listed_by_when_they_were_used_with_what_they_take(folder, made):
    assert left(folder) == ["b", "a", "c"]
    assert {one.size for one in maps(folder)} == {size_of(made)}
    look_at(folder / f"{KEYS[1]}.zarr")
    assert left(folder) == ["a", "c", "b"]
    look_at(folder / "nowhere.zarr")
    assert maps(folder / "nowhere") == []
    assert others(folder) == 2


def test_the_oldest_go_until_the_others_have_room(folder, made):
    size = size_of(made)
    assert trim(folder, 3 * size).maps == 0
    removed = trim(folder, 2 * size + 1)
    assert (removed.maps, removed.size, removed.left) == (1, size, 0)
    assert left(folder) == ["a", "c"]
    assert trim(folder, size, using=[KEYS[0]]).maps == 1
    assert left(folder) == ["a"], "the older one is looked at"
    assert trim(folder, 1, using=[KEYS[0]]).maps == 0


def test_what_is_being_written_and_what_is_not_the_labs_stays(folder):
    hold = Beside(folder / f"{KEYS[0]}.zarr").enter()
    try:
        found = clear(folder)
    finally:
        hold.release()
    assert (found.maps, found.left) == (2, 1)
    assert left(folder) == ["a"]
    assert mt.open_effects(folder / f"{KEYS[0]}.zarr").dims == ("prompt", "layer", "head")
    assert clear(folder).maps == 1
    assert sorted(one.name for one in folder.iterdir()) == ["mine.txt", "mine.zarr"]


def test_a_folder_of_that_name_that_is_no_map_and_a_link_stay(folder, tmp_path):
    foreign, link = folder / f"{'d' * 24}.zarr", folder / f"{'e' * 24}.zarr"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    target = tmp_path / "elsewhere"
    (folder / f"{KEYS[2]}.zarr").rename(target)
    link.symlink_to(target)
    found = clear(folder)
    assert (found.maps, found.left) == (2, 2)
    assert (foreign / "thesis.txt").read_text() == "years of work"
    assert mt.open_effects(target).n_cells > 0


def test_what_is_not_the_labs_takes_no_room_of_the_labs(folder, made, tmp_path):
    """However much lies there under a map's name, or behind a link: no map goes for it."""
    foreign, link = folder / f"{'d' * 24}.zarr", folder / f"{'e' * 24}.zarr"
    foreign.mkdir()
    (foreign / "thesis.txt").write_bytes(b"x" * 10 * size_of(made))
    link.symlink_to(foreign)
    assert trim(folder, 3 * size_of(made)).maps == 0
    (folder / f"{'f' * 24}.zarr.partial").write_text("a file")
    assert {one.size for one in maps(folder) if one.key[0] in "def"} == {0}
    assert clear(folder).maps == 3


def test_of_what_is_in_use_the_next_ones_go_in_its_place(folder, made):
    beside = Beside(folder / f"{KEYS[1]}.zarr")
    hold = beside.enter()
    os.utime(beside.folder, (0, 0))
    try:
        found = trim(folder, 2 * size_of(made) + 1000)
    finally:
        hold.release()
    assert (found.maps, found.left) == (1, 1)
    assert sorted(left(folder)) == ["b", "c"]


def test_a_file_in_the_place_of_the_folder_is_said(folder):
    with pytest.raises(EffectsError, match=r"mine\.txt cannot be listed: Not a directory"):
        clear(folder / "mine.txt")


def test_an_unfinished_map_is_one_too(folder, made):
    beside = Beside(folder / f"{'f' * 24}.zarr")
    beside.make()
    beside.write("units/000000.zip", b"12345")
    [one] = [one for one in maps(folder) if one.key[0] == "f"]
    assert one.size == 5
    assert left(folder)[-1] == "f"
    assert trim(folder, 3 * size_of(made) + 5).maps == 0
    assert clear(folder).maps == 4
    assert not beside.folder.exists()


def test_after_each_map_the_server_keeps_no_more_than_it_may(nano, tmp_path, monkeypatch):
    desk = Desk(load=lambda name: nano)
    jobs = Jobs(desk, tmp_path, most=1)
    trimmed = []
    monkeypatch.setattr(shelf, "trim", lambda *given: trimmed.append(given))
    try:
        view = View(model="nano", text="It is", edit="zero L*.mlp_out@-1")
        job = jobs.submit(Asked.of(view))
        assert job.over.wait(60)
        jobs._lines["nano"].submit(lambda: None).result(60)  # what stands behind it in line
    finally:
        jobs.close()
    assert trimmed == [(tmp_path, 1, frozenset([job.key]))]
    [kept] = maps(tmp_path)
    assert kept.key == job.key
