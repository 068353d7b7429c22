"""The notebooks run from the first cell to the last; what they assert holds."""

from __future__ import annotations

import ast

import pytest
from recipes.notebooks import FOLDER, cells, notebook, sources

NAMES = [source.stem for source in sources()]


def script(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def executed(text: str, name: str) -> dict[str, object]:
    """Run the cells as a notebook does, each last value shown; the names that they leave."""
    names: dict[str, object] = {"__name__": "__main__"}
    for kind, code in cells(text):
        if kind == "markdown":
            continue
        body = ast.parse(code, name)
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, name, "exec"), names)
        if last is not None:
            show(eval(compile(ast.Expression(last.value), name, "eval"), names))
    return names


def show(value: object) -> None:
    """What a notebook asks of a value."""
    for how in ("_repr_mimebundle_", "_repr_html_"):
        if hasattr(value, how):
            getattr(value, how)()
            return
    repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_that_of_its_script(name):
    assert (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8") == notebook(script(name)), (
        "make notebooks"
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_its_sentences_hold(name, tmp_path, monkeypatch, nano):
    monkeypatch.chdir(tmp_path)
    executed(script(name), f"{name}.py")
    assert not [path for path in FOLDER.iterdir() if path.suffix not in (".py", ".ipynb")]
