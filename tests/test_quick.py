"""``pytest --quick``: every test function, one of its cases, three families, nothing slow."""

from __future__ import annotations

from types import SimpleNamespace

import quick


class Item:
    def __init__(self, nodeid: str, slow: bool = False, needs: str = "", **params: str) -> None:
        self.nodeid, self.slow, self.fixturenames = nodeid, slow, [*needs.split(), *params]
        self.path = nodeid.partition("::")[0]
        if params:
            self.callspec = SimpleNamespace(params=params)

    def get_closest_marker(self, name: str) -> bool:
        return self.slow and name == "slow"


def kept(items: list[Item]) -> list[str]:
    left_out: list[Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    config = SimpleNamespace(getoption=lambda name: name == "--quick", hook=hook)
    every = len(items)
    quick.pytest_collection_modifyitems(config, items)
    assert len(items) + len(left_out) == every
    return [item.nodeid for item in items]


def test_one_case_of_each_test_and_not_always_the_first():
    numbers = range(20)
    items = [Item(f"a.py::test_{n}[{case}]") for n in numbers for case in range(3)]
    found = kept([*items, Item("a.py::test_alone")])
    assert {name.partition("[")[0] for name in found} == {
        *(f"a.py::test_{n}" for n in numbers),
        "a.py::test_alone",
    }
    assert len(found) == 21
    assert {name.partition("[")[2] for name in found} == {"0]", "1]", "2]", ""}


def test_of_families_one_case_of_each_of_three():
    names = ("gpt2", "opt", "llama", "bert")
    items = [
        Item(f"families/a.py::test_it[{case}-{name}]", name=name)
        for case in range(4)
        for name in names
    ]
    found = kept(items)
    assert len(found) == 3
    assert not any("opt" in name for name in found)


def test_what_is_slow_is_left_out():
    assert kept([Item("a.py::test_slow", slow=True), Item("a.py::test_it")]) == ["a.py::test_it"]


def test_what_needs_a_browser_or_a_real_model_is_left_out():
    items = [Item("a.py::test_page", needs="tab browsing"), Item("a.py::test_it", needs="nano")]
    assert kept(items) == ["a.py::test_it"]


def test_a_case_that_has_the_name_of_what_takes_long_is_none():
    """`site` is the built site; of many tests it is a place in the model."""
    items = [Item("a.py::test_site", needs="site"), Item("a.py::test_edit[q]", site="q")]
    assert kept(items) == ["a.py::test_edit[q]"]


def test_where_all_run_the_files_of_what_takes_long_come_first_as_they_are():
    names = ["a.py::x", "b.py::x", "b.py::slow", "c.py::x", "d.py::page", "d.py::x"]
    needs = "browsing lab"  # those with a browser before all others
    items = [Item(name, slow="slow" in name, needs=needs * ("page" in name)) for name in names]
    quick.pytest_collection_modifyitems(SimpleNamespace(getoption=lambda name: False), items)
    found = [item.nodeid for item in items]
    assert found == ["d.py::page", "d.py::x", "b.py::x", "b.py::slow", "a.py::x", "c.py::x"]


def test_what_was_dear_is_left_out_with_all_its_cases(monkeypatch, tmp_path):
    page = tmp_path / "dear.txt"
    page.write_text("1.2 a.py::test_long\n0.9 a.py::Test::test_b\n")
    monkeypatch.setattr(quick, "DEAR", page)
    names = ["a.py::test_long[1]", "a.py::test_long[2]", "a.py::Test::test_b", "a.py::test_it"]
    assert kept([Item(name) for name in names]) == ["a.py::test_it"]


def test_of_each_file_the_quickest_stays():
    weights = {"a.py::x": 0.1, "a.py::y": 3.0, "b.py::z": 2.0, "b.py::w": 2.5}
    assert quick.too_dear(weights) == {"a.py::y": 3.0, "b.py::w": 2.5}


def test_what_is_listed_is_there():
    """A test that was renamed is weighed again."""
    root = quick.DEAR.parent.parent
    for name in quick.listed(quick.DEAR.read_text("utf-8")):
        path, *_, function = name.split("::")
        assert f"def {function}(" in (root / path).read_text("utf-8"), name
