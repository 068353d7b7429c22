"""The operations that a map needs at least, counted from the model's sizes alone.

Counted are matrix products, 2 operations for a multiply-add: norms, softmax and activation
functions are left out. A block of width d costs, on the token at position i (from 0),

    24 d² + 4 (i + 1) d

for queries, keys, values, output projection and MLP (12 d² weights), and for the scores and the
mixing of the i + 1 values that a causal token sees. A cell computes whole blocks, since that is
what a Hugging Face model is made of, but only those in which something differs from the clean run:
from the block that holds the edit (for `resid_post`, its output, the next one) to the last, and
from the first edited position to the last. Then it reads two columns of the unembedding at one
position: 4 d.

On top come one clean run for every prompt, and where cells are patched one donor run. No tool's own
bookkeeping is in it, and nothing of microtome's is used: a slow walk would be given the same count.
"""

from __future__ import annotations

from benchmarks.questions import Cell, Question, Shape


def flops(question: Question) -> float:
    """Of the whole map."""
    shape, tokens = question.shape, question.tokens.shape[1]
    prompts = len(question.prompts)
    cells = sum(of_cell(shape, question.map.site, cell, tokens) for cell in question.cells)
    run = blocks(shape, 0, 0, tokens)
    donors = run if question.map.operation == "patch" else 0.0
    return prompts * (cells + run + readout(shape) + donors)


def of_cell(shape: Shape, site: str, cell: Cell, tokens: int) -> float:
    """Of one cell on one prompt."""
    first = cell.layer + 1 if site == "resid_post" else cell.layer
    return blocks(shape, first, cell.position or 0, tokens) + readout(shape)


def blocks(shape: Shape, layer: int, position: int, tokens: int) -> float:
    """From a layer to the last, from a position to the last."""
    d, n = shape.width, tokens - position
    seen = sum(range(position + 1, tokens + 1))
    return (shape.layers - layer) * (24.0 * d * d * n + 4.0 * d * seen)


def readout(shape: Shape) -> float:
    """Two logits at one position."""
    return 4.0 * shape.width
