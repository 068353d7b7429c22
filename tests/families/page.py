"""The page docs/families.md, made of what the tests measured (`make families`).

A test of a family hands each difference that it finds to the fixture ``gap``; the page has the
largest of each family, site and kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from microtome.language.sites import SITES
from oracles.families import ENCODERS, FAMILIES

KINDS = ("read", "edit", "walk")
PAGE = Path(__file__).parents[2] / "docs" / "families.md"
Found = Mapping[tuple[str, str, str], float]
"""Kind, family, site → the largest difference."""

TOP = """# Families, site by site

Written by the tests (`make families`) with transformers {version}, torch {torch}; a tiny random
model each, float64, prompts of 8 tokens (longer than the sliding windows). A cell is the largest
difference that a test found between microtome and hand-written hooks, or between its two engines:

- **read**: the site's values in every layer, against hand-written hooks;
- **edit**: all logits after the site of the middle layer was zeroed, scaled by −1.5 or replaced,
  at all positions, the last or two, by turns, against hand-written hooks (`pattern`: zeroed,
  halved, replaced and knocked out; `k_head`, `v_head`: zeroed and added to, against two runs joined
  by hand; what heads, MLP and final norm read, and `head_out`: zeroed, scaled or replaced,
  likewise);
- **walk**: logit difference and Kullback–Leibler divergence in every cell of a map that zeroes,
  scales or patches the site in every layer, by turns, on the walk against the reference path (what
  is read and `head_out`: all of them in one cell, and some by themselves).

– : the family has no such site. Attention and MLP read the same input in a parallel block, which
has no `resid_mid`; a mixture of experts has no `mlp_post`; `k_head`, `v_head` and the sites of
groups are where query heads share keys. The walk does not take edits of `logits`, which come after
the last layer; they go to the reference path. GPT-J, GPT-Neo and BLOOM compute attention in
float32, ModernBERT turns queries and keys in float32, and many norms are computed in float32:
verification allows 1e-6 there, times the logits' standard deviation where that is above 1.

## Encoders

The last rows, {encoders}, are encoders with a masked-language head
([how their prompts are read](terminology.md#masked-language-models)). Sites mean what they mean
elsewhere:

- BERT, RoBERTa and DistilBERT are *post-norm*: the residual stream itself is normed after every
  sum. `attn_out` and `mlp_out` are what the sub-layer adds, **before** add & LayerNorm;
  `resid_mid` is LN(`resid_pre` + `attn_out`) and `resid_post` is LN(`resid_mid` + `mlp_out`). So
  what a head adds is scaled by a norm at every later layer, and the last `resid_post` is what
  Hugging Face calls the last hidden state.
- `embed` is behind the norm of the embeddings: what enters block 0.
- Between the last block and the unembedding stands the head's own transformation (dense,
  activation, norm; in ModernBERT behind the final norm). It belongs to no site.
- `[CLS]` and `[SEP]` are tokens like others, with positions of their own.
- Every position sees all others (in ModernBERT's local layers, those in a window to both sides), so
  an edit changes positions before it as well: [what the walk does instead](engine.md#encoders).

"""


def text_of(found: Found) -> str:
    """The page."""
    text = TOP.format(
        version=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        encoders=", ".join(ENCODERS),
    )
    for kind in KINDS:
        text += f"## {kind.capitalize()}\n\n| family | {' | '.join(SITES)} |\n"
        text += f"|---{'|---' * len(SITES)}|\n"
        for name in FAMILIES:
            cells = (_number(found.get((kind, name, site))) for site in SITES)
            text += f"| {name} | {' | '.join(cells)} |\n"
        text += "\n"
    return text.rstrip() + "\n"


def _number(gap: float | None) -> str:
    if gap is None:
        return "–"
    return f"{gap:.0e}" if gap else "0"


def cells_of(text: str) -> dict[tuple[str, str, str], str]:
    """What a page says, by kind, family and site."""
    said, kind, sites = {}, "", []
    for line in text.splitlines():
        if line.startswith("## "):
            kind = line[3:].lower()
        elif kind in KINDS and line.startswith("| "):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if name == "family":
                sites = cells
            else:
                said |= {(kind, name, s): c for s, c in zip(sites, cells, strict=True)}
    return said
