"""The notebooks run from the first cell to the last, and what they assert holds."""

from __future__ import annotations

import ast

import nbformat
import pytest
from recipes.notebooks import FOLDER, cells, notebook, sources

from recipes import notebooks

NAMES = [source.stem for source in sources()]
EXERCISES = [name for name in NAMES if name.startswith("exercises")]
ON_A_REAL_MODEL = "lens_and_attribution"
"""One of them; others take minutes there."""
LONG = (*EXERCISES, "head_to_circuit", "trust_an_approximation")
CASES = [
    pytest.param(n, marks=[pytest.mark.slow] if n in LONG else [])
    for n in NAMES
    if n not in EXERCISES[1:]  # the same in another language, which a test of its own holds
]
LOADED = 'mt.load("nano")'


def script(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def run(text: str, name: str) -> None:
    """Run the cells one after another, each last value shown, as a notebook does it."""
    names: dict[str, object] = {"__name__": "__main__"}
    for kind, code in cells(text):
        if kind == "markdown":
            continue
        body = ast.parse(code, name)
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, name, "exec"), names)
        if last is not None:
            show(eval(compile(ast.Expression(last.value), name, "eval"), names))


def show(value: object) -> None:
    """Ask a value for what a notebook shows of it."""
    for how in ("_repr_mimebundle_", "_repr_html_"):
        if hasattr(value, how):
            getattr(value, how)()
            return
    repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_that_of_its_script(name):
    written = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert written == notebook(script(name)), "make notebooks"


def test_the_page_names_them_all():
    page = (FOLDER.parents[1] / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert {name for name in NAMES if f"(../examples/notebooks/{name}.ipynb)" in page} == {*NAMES}


@pytest.mark.parametrize("name", CASES)
def test_it_runs_and_what_it_asserts_holds(name, nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(script(name), f"{name}.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_is_loaded")
def test_it_runs_on_a_real_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = script(ON_A_REAL_MODEL)
    assert own.count(LOADED) == 1
    run(own.replace(LOADED, 'mt.load("smollm2")'), f"{ON_A_REAL_MODEL}.py")


@pytest.mark.slow
def test_a_kernel_runs_the_first_one_and_shows_its_map(kernel):
    assert [cell.source for cell in kernel.cells[1:]] == [
        source for _, source in cells(script("first_map"))
    ]
    shown = [output for cell in kernel.cells[1:] for output in cell.get("outputs", [])]
    assert not [one for one in shown if one.output_type == "error"]
    data = [one.data for one in shown if "data" in one]
    assert any("application/vnd.plotly.v1+json" in one for one in data)
    widgets = [one for one in data if "application/vnd.jupyter.widget-view+json" in one]
    [live] = [one for one in widgets if "Live map" in one["text/plain"]]
    assert "data:image/png" in live["text/html"]  # for whoever has no kernel


def test_the_exercises_are_the_same_in_both_languages():
    english, vietnamese = (list(cells(script(name))) for name in ("exercises_en", "exercises_vi"))
    assert [kind for kind, _ in english] == [kind for kind, _ in vietnamese]
    for (kind, one), (_, other) in zip(english, vietnamese, strict=True):
        if kind == "code":
            assert told_apart(one) == told_apart(other)
        else:
            assert one != other


def told_apart(code: str) -> str:
    """Code without what is said in words: docstrings, what is printed, the language."""
    return ast.dump(Wordless().visit(ast.parse(code)))


class Wordless(ast.NodeTransformer):
    """Takes away the words; what is computed to stand between them stays."""

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        if ast.unparse(node.targets[0]) in ("LANG", "WORDS"):
            several = node.value.elts if isinstance(node.value, ast.Tuple) else ()
            node.value = ast.Constant(len(several))  # one that is missing would be missed
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        assert ast.get_docstring(node)
        node.body = node.body[1:]
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [one for one in node.values if isinstance(one, ast.FormattedValue)]
        node.values = sorted(values, key=ast.dump)  # another language, another order
        return node


class TestTheRecipe:
    def test_text_stands_in_comments(self):
        made = [*cells("# %% [markdown]\n# # Title\n#\n# - a list\n#   goes on\n\n# %%\nx = 1\n")]
        assert made == [("markdown", "# Title\n\n- a list\n  goes on"), ("code", "x = 1")]

    def test_a_line_that_is_neither_is_refused(self):
        with pytest.raises(ValueError, match="a line without '# ': 'x = 1'"):
            notebook("# %% [markdown]\n# Title\nx = 1\n")
        with pytest.raises(ValueError, match="Before the first cell stands 'import os'"):
            notebook("import os\n# %%\nx = 1\n")

    def test_it_writes_beside_the_scripts_and_the_same_each_time(self, tmp_path, monkeypatch):
        monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
        (tmp_path / "one.py").write_text("# %%\nx = 'đầu chú ý'\n", encoding="utf-8")
        for _ in range(2):
            notebooks.main()
            made = nbformat.read(tmp_path / "one.ipynb", as_version=4)
            assert [cell.source for cell in made.cells] == ["x = 'đầu chú ý'"]
            assert "đầu" in (tmp_path / "one.ipynb").read_text(encoding="utf-8")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one.ipynb", "one.py"]
