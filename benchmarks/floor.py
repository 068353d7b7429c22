"""The operations that a map needs at least, counted from the model's sizes alone.

Counted are matrix products, 2 operations for a multiply-add: norms, softmax and activation
functions are left out. A block of width d costs, on the token at position i (from 0),

    24 d² + 4 (i + 1) d

for queries, keys and values (6 d²), output projection (2 d²) and MLP (16 d²), and for the scores
and the mixing of the i + 1 values that a causal token sees; where heads share keys, or an MLP is
gated or of another size, as much as its matrices are. A cell computes what differs from the
clean run and is looked at, matrix product by matrix product:

- from the block that holds the edit to the last, and from the first edited position to the last;
- of the block that holds the edit only what comes after it: for `z` the output projection and the
  MLP, for `mlp_post` the MLP's second half, for `resid_post` nothing;
- of the last block's MLP only the last position.

Then it reads two columns of the unembedding at that position: 4 d.

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
    position = cell.position or 0
    n = tokens - position
    attention, out, mlp = parts(shape, position, tokens)
    half = 2.0 * shape.width * shape.neurons * n  # what reads the neurons
    skipped = {"z": attention, "mlp_post": attention + out + mlp - half}.get(site, 0.0)
    first = cell.layer + 1 if site == "resid_post" else cell.layer
    if first == shape.layers:  # the last hidden state itself
        return readout(shape)
    unread = mlp * (n - 1) / n
    if site == "mlp_post" and first == shape.layers - 1:
        unread = half * (n - 1) / n
    return blocks(shape, first, position, tokens) - skipped - unread + readout(shape)


def blocks(shape: Shape, layer: int, position: int, tokens: int) -> float:
    """From a layer to the last, from a position to the last."""
    return (shape.layers - layer) * sum(parts(shape, position, tokens))


def parts(shape: Shape, position: int, tokens: int) -> tuple[float, float, float]:
    """Of a block, from a position to the last: attention, its output projection, the MLP."""
    d, n = shape.width, tokens - position
    seen = sum(range(position + 1, tokens + 1))
    keys = shape.d_head * (shape.kv_heads or shape.heads)
    matrices = 3 if shape.family == "llama" else 2
    attention = 2.0 * d * (d + 2 * keys) * n + 4.0 * d * seen
    return attention, 2.0 * d * d * n, 2.0 * matrices * d * shape.neurons * n


def readout(shape: Shape) -> float:
    """Two logits at one position."""
    return 4.0 * shape.width
