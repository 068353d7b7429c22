"""Both sides of the pages under ``docs/coming-from`` run, and give the same numbers.

    make bench-pages

Blocks have the title of their tool. Where both sides of a task have left their answer, ``theirs``
and ``ours``, the two are compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from recipes.pages import ROOT, blocks, execute

PAGES = ROOT / "docs" / "coming-from"
ALLOWED = 2e-3
"""Of logits and activations in float32, as far as two ways to one number may differ by rounding."""


def compared(page: Path) -> int:
    """How many answers of a page were compared.

    Raises:
        AssertionError: two of them differ; the message says behind which line.
    """
    names: dict[str, object] = {}
    count = 0
    for block in blocks(page):
        execute(page, block, names)
        if {"ours", "theirs"} <= names.keys():
            ours, theirs = (np.asarray(names.pop(name)) for name in ("ours", "theirs"))
            where = f"{page.name}, line {block.line}"
            np.testing.assert_allclose(
                ours.squeeze(), theirs.squeeze(), rtol=1e-4, atol=ALLOWED, err_msg=where
            )
            count += 1
    return count


def main() -> None:
    """Compare the pages that are named, or all."""
    named = sys.argv[1:] or sorted(page.stem for page in PAGES.glob("*.md"))
    for name in named:
        print(f"{name}: {compared(PAGES / f'{name}.md')} answers are the same")


if __name__ == "__main__":
    main()
