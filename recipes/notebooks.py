"""The notebooks of examples/notebooks, from the scripts beside them: ``make notebooks``.

A script is a notebook in the percent form, which VS Code, Spyder, PyCharm and jupytext know:
``# %%`` begins a cell of code, ``# %% [markdown]`` one of text, which stands in comments. It is
what is edited and reviewed; the notebook is made of it, without outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
MARK = re.compile(r"^# %%(?: \[(markdown)\])?$", re.MULTILINE)
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


def sources() -> list[Path]:
    """The scripts."""
    return sorted(FOLDER.glob("*.py"))


def cells(script: str) -> Iterator[tuple[str, str]]:
    """Kind, ``"code"`` or ``"markdown"``, and text of each cell.

    >>> [*cells("# %% [markdown]\\n# # Title\\n#\\n# Text\\n\\n# %%\\n1 + 1\\n")]
    [('markdown', '# Title\\n\\nText'), ('code', '1 + 1')]
    """
    before, *parts = MARK.split(script)
    if before.strip():
        raise ValueError(f"Before the first cell stands {before.strip()[:40]!r}.")
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        text = text.strip("\n")
        yield (kind, _uncommented(text)) if kind else ("code", text)


def _uncommented(text: str) -> str:
    lines = text.split("\n")
    if stray := [line for line in lines if line != "#" and not line.startswith("# ")]:
        raise ValueError(f"In a cell of text stands a line without '# ': {stray[0]!r}.")
    return "\n".join(line[2:] for line in lines)


def notebook(script: str) -> str:
    """The notebook of a script, as the text of its file."""
    made = new_notebook(metadata=METADATA)
    for number, (kind, text) in enumerate(cells(script)):
        new = new_code_cell if kind == "code" else new_markdown_cell
        made.cells.append(new(text, id=f"cell-{number}"))
    nbformat.validate(made)
    return str(nbformat.writes(made)) + "\n"


def main() -> None:
    """Write all of them."""
    for source in sources():
        made = notebook(source.read_text(encoding="utf-8"))
        source.with_suffix(".ipynb").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
