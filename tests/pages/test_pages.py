"""Every block of Python on the pages runs, in order, and gives what stands under it."""

from __future__ import annotations

import math
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from recipes.pages import ROOT, blocks, run

import microtome as mt
from microtome.frontends import listing
from microtome.frontends.experiment import CircuitExperiment
from microtome.frontends.experiment.writing import Written

REAL, SLOW = 'load("smollm2")', ('load("smollm2")', "circuits.score(", "head_card(")
"""What a page has that takes a real model, and one that takes long."""
OWN = ("docs/edges.md", "docs/experiments.md")
"""Pages that a test of their own runs, which holds more of what they say."""
PAGES = {
    page.relative_to(ROOT).as_posix(): [one for one in blocks(page) if one.ours]
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
}


def cases():
    for name, own in PAGES.items():
        code = "".join(block.code for block in own if not block.why_not)
        marks = [pytest.mark.slow] if any(one in code for one in SLOW) else []
        if own and name not in OWN:
            yield pytest.param(name, REAL in code, id=name, marks=marks)


@pytest.mark.parametrize(("name", "real"), [*cases()])
def test_the_code_of_a_page_runs(name, real, request, tmp_path, monkeypatch):
    if real:
        request.getfixturevalue("smollm2_is_loaded")  # skips where it is not installed
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    assert run(ROOT / name, {}) == len(PAGES[name])


@pytest.mark.parametrize("name", PAGES)
def test_no_fence_or_comment_is_passed_over(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    all_of_it = [*blocks(ROOT / name)]
    assert len(re.findall(r"^ *```py|^<!-- python", text, re.M)) == len(all_of_it)
    assert len(re.findall(r"^ *<!-- not run", text, re.M)) == sum(
        bool(block.why_not) for block in all_of_it
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("docs/circuits.md", CircuitExperiment), ("docs/steering.md", Written)]
)
def test_the_file_of_a_page_is_read(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mt.SteeringVector({12: np.ones(3)}).save("happy.safetensors")
    [sheet] = re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text("utf-8"), re.S)
    asked = kind.from_yaml(sheet)
    assert kind.from_yaml(asked.to_yaml()) == asked


def written(tmp_path, text: str):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_a_page_whose_session_gives_something_else_fails(tmp_path):
    page = written(tmp_path, "```python\nx = 1\n```\n\n```pycon\n>>> x\n2\n```\n")
    with pytest.raises(AssertionError, match="Expected:\n    2\nGot:\n    1"):
        run(page, {})


def test_an_error_in_a_page_has_the_pages_line(tmp_path):
    page = written(tmp_path, "# a\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as error:
        run(page, {})
    assert error.traceback[-1].lineno + 1 == 5


def test_a_fence_with_a_title_is_somebody_elses(tmp_path):
    page = written(tmp_path, '```python title="pyvene"\n    import nowhere\n```\n')
    assert run(page, {}) == 0
    [block] = blocks(page)
    assert (block.title, block.line) == ("pyvene", 2)


def test_what_is_not_shown_is_run_where_it_stands(tmp_path):
    page = written(tmp_path, "<!-- python\nx = 2\n-->\n\n```pycon\n>>> x\n2\n```\n")
    assert run(page, {}) == 2


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("mt.sweeep(model)", "has no attribute 'sweeep'"),
        ("mt.circuits.score(model, [], levels='edge')", "unexpected keyword argument 'levels'"),
        ("for one in mt.zero('L0.z', 1, 2): ...", "too many positional arguments"),
    ],
)
def test_what_is_not_run_calls_what_there_is(code, why, tmp_path):
    text = "<!-- not run: it takes long -->\n\n```python\nnobody.knows(model)\n{}\n```\n"
    assert run(written(tmp_path, text.format("mt.zero('L0.z')")), {}) == 1
    with pytest.raises(AssertionError, match=f"page.md, line 5: .*{why}"):
        run(written(tmp_path, text.format(code)), {})


SIGNATURE = '```python title="signature"\nmt.tasks.greater_than({})\n```\n'


@pytest.mark.parametrize("given", ["n=64, seed=…, *, tokenizer=None", "n=…, seed=0, tokenizer=…"])
def test_a_signature_may_leave_defaults_untold(given, tmp_path):
    assert run(written(tmp_path, SIGNATURE.format(given)), {}) == 1


@pytest.mark.parametrize(
    "given", ["n=6, seed=0, *, tokenizer=…", "seed=0, n=64, tokenizer=…", "n=64"]
)
def test_a_signature_is_the_functions_own(given, tmp_path):
    with pytest.raises(AssertionError, match=r"page\.md, line 2: mt\.tasks\.greater_than has"):
        run(written(tmp_path, SIGNATURE.format(given)), {})


def test_the_page_of_studies_has_each_with_its_cells():
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\|[^|]*?, (\d[\d,× ]*) cells \|$", page, re.M)
    said = {name: [int(n.replace(",", "")) for n in cells.split("×")] for name, cells in rows}
    there = {name: study["cells"] for name, study in listing.studies().items()}
    assert {name: math.prod(numbers) for name, numbers in said.items()} == there


def measured(part: str, row: str, column: str) -> float:
    """A number of the page of benchmarks: of a part, in the row that begins so."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    lines = page.partition(f"\n### {part}\n")[2].partition("\n### ")[0].splitlines()
    head, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line)
    [found] = [cells for cells in rows if " | ".join(cells).startswith(row)]
    return float(found[head.index(column)].partition("*")[0].replace(",", ""))


def test_the_readmes_figures_are_those_of_the_benchmarks():
    """Of the last measurement: who measures again writes them anew."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    ours = re.search(r"Large's shape take (\d+) seconds at the last token, verification", readme)
    theirs = re.search(r"TransformerLens, a forward pass for each, takes (\d+) minutes", readme)
    heads = "(b) heads patched at the last token"
    assert int(ours[1]) == round(measured("microtome", f"{heads} | large", "seconds"))
    assert int(theirs[1]) == round(measured(heads, "large", "TransformerLens") / 60)
