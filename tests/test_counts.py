"""A count is followed by its noun in the singular where it is one: `amounts.many` speaks it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import microtome

SRC = Path(microtome.__file__).parent
THINGS = (
    "answer", "arrow", "block", "byte", "cell", "chunk", "circuit", "edge", "edit",
    "effect", "expert", "fact", "file", "head", "layer", "map", "mask", "neuron", "number", "part",
    "pass", "phrasing", "piece", "position", "prompt", "quotation", "row", "sample", "size", "step",
    "test", "text", "time", "token", "translator", "turn", "unit", "value", "weight", "window",
    "word", "worker",
)  # fmt: skip
"""What is counted."""
OTHERS = "are|at|has|have|holds|of|shares|the|these|turned"
"""What stands between a name and a plural that it does not count."""
PLURALS = re.compile(rf" (?:(?!(?:{OTHERS})\b)\w+ )?(?:{'|'.join(THINGS)})e?s\b")
MANY = {
    "DEATHS": "a constant: some",
    "MOST": "a constant: many",
    "MOST_ROWS": "a constant: many",
    "GGUF": "a kind of files",
    "known": "kinds of files",
    "blocks": "a kind of blocks: parallel, sequential",
    "'Largest mean' if several else 'Strongest'": "a kind of effects",
    "listing(sizes)": "several",
    "list(given.shape)": "a shape",
    "text": "a text's tokens",
    "parts": "several: a file of one part is taken",
    "len(edits)": "more cells than are allowed",
    "len(circuit)": "more edges than are allowed",
    "array.size": "several values: of one there are no axes to be missed",
    "math.prod(rest.values())": "several: those of one are not counted",
    "values.size": "those among which some are infinite, of a sample",
    "len(set(words))": "of a vocabulary",
    "total": "said of more than are shown",
    "audit['rounds']": "once is said in another word",
    "bound['cells']": "of many, by statistics",
    "self.budget.memory": "bytes, too few for anything",
    "budget.memory": "bytes, too few for anything",
    "self._done / spent if spent > 0 else 0.0": "a second, with a decimal",
    "speed": "a second, with a decimal",
    "cost.passes": "so many passes' work, with a decimal",
}
"""What is no count, or none that can be one, and why."""


def counts(code: str) -> list[tuple[int, str, str]]:
    """Where an f-string goes on behind a value with a plural: its line, the value, what follows."""
    found = []
    for text in ast.walk(ast.parse(code)):
        if isinstance(text, ast.JoinedStr):
            for value, behind in zip(text.values, text.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(behind, ast.Constant):
                    said = PLURALS.match(str(behind.value))
                    if said:
                        found.append((value.lineno, ast.unparse(value.value), said[0]))
    return found


def test_a_count_that_can_be_one_is_spoken_with_its_noun():
    plain = {
        f"{path.relative_to(SRC)}:{line}: {{{value}}}{behind}"
        for path in sorted(SRC.rglob("*.py"))
        for line, value, behind in counts(path.read_text(encoding="utf-8"))
        if value not in MANY
    }
    assert not plain, f"say many(n, 'thing'): {sorted(plain)}"


def test_what_is_argued_is_there():
    there = {value for path in SRC.rglob("*.py") for _, value, _ in counts(path.read_text("utf-8"))}
    assert MANY.keys() <= there


def test_a_plain_plural_is_found():
    assert counts('f"has {n:,} tokens"') == [(1, "n", " tokens")]
    assert counts('f"{n} more prompts; {m} passes"') == [
        (1, "n", " more prompts"),
        (1, "m", " passes"),
    ]
    assert counts("""f"{many(n, 'token')} and {name} has numbers" """) == []
