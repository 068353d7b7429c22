"""Writes docs/families.md: family × site × {read, edit, walk}, with the largest differences found.

PYTHONPATH=tests python tests/families/table.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import microtome as mt
from oracles import families as by_hand
from oracles.families import ENCODERS, FAMILIES, ByHand, Change

TEXT = "the cat sat on a mat and dog ran to park Mary John gave drink"
ONE = mt.Prompt("the cat sat on a mat and the", donor="the dog sat on a mat to the", target="cat")
TWO = mt.Prompt(
    "Mary gave a drink to John and the", donor="John ran to the park to John and", target="dog"
)
SITES = FAMILIES["gpt2"].sites
TOP = """# Families, site by site

Written by `python tests/families/table.py` with transformers {version}, torch {torch}; a tiny
random model each, float64, prompts of 8 tokens (longer than the sliding windows). A cell is the
largest difference found, of three:

- **read**: the site's values in every layer, against hand-written hooks;
- **edit**: all logits after scaling the site by −1.5 in the middle layer, against hand-written
  hooks;
- **walk**: the Kullback–Leibler divergence of the output in every cell of three maps (each layer
  zeroed; each layer scaled at two positions; each layer patched at the last token), on the walk
  against the reference path.

– : the family has no such site. Attention and MLP read the same input in a parallel block, which
has no `resid_mid`; a mixture of experts has no `mlp_post`. The walk does not take edits of
`logits`, which come after the last layer; they go to the reference path. GPT-J, GPT-Neo and BLOOM
compute attention in float32, ModernBERT turns queries and keys in float32, and many norms are
computed in float32: verification allows 1e-6 there.

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


def main() -> None:
    words = Tokenizer(
        models.WordLevel({w: n for n, w in enumerate(["?", *TEXT.split()])}, unk_token="?")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    rows = {"read": [], "edit": [], "walk": []}
    for name, hand in FAMILIES.items():
        model = mt.load(by_hand.make(name, 64), tokenizer=tokenizer)
        for kind, measure in (("read", reads), ("edit", edits), ("walk", walks)):
            found = dict(measure(model, hand))
            cells = (number(found[s]) if s in found else "–" for s in SITES)
            rows[kind].append(f"| {name} | {' | '.join(cells)} |")
        print(name, flush=True)
    head = f"| family | {' | '.join(SITES)} |\n|---{'|---' * len(SITES)}|\n"
    text = TOP.format(
        version=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        encoders=", ".join(ENCODERS),
    )
    for kind, lines in rows.items():
        text += f"## {kind.capitalize()}\n\n{head}" + "\n".join(lines) + "\n\n"
    folder = Path(__file__).parents[2] / "docs"
    (folder / "families.md").write_text(text.rstrip() + "\n")


def number(gap: float) -> str:
    return f"{gap:.0e}" if gap else "0"


def place(site: str, layers: str) -> str:
    return site if site in ("embed", "logits") else f"{layers}.{site}"


def reads(model: mt.Model, hand: ByHand) -> Iterator[tuple[str, float]]:
    [one] = model.encode(ONE)
    run = model.run(ONE, keep=[place(site, "L*") for site in hand.sites])
    seen = by_hand.run(model.hf, hand, one.tokens.ids).seen
    for site in hand.sites:
        own = run[place(site, "L*")].isel(prompt=0)
        layers = [layer for found, layer in seen if found == site]
        there = (own if layer is None else own.sel(layer=layer) for layer in layers)
        gaps = (
            np.abs(x.values - seen[site, layer]).max()
            for x, layer in zip(there, layers, strict=True)
        )
        yield site, float(max(gaps))


def edits(model: mt.Model, hand: ByHand) -> Iterator[tuple[str, float]]:
    [one] = model.encode(ONE)
    clean = by_hand.run(model.hf, hand, one.tokens.ids)
    for site in hand.sites:
        layer = None if site in ("embed", "logits") else 1
        index = [list(range(n)) for n in clean.seen[site, layer].shape]
        change = Change(site, layer, index, lambda x: -1.5 * x)
        wanted = by_hand.run(model.hf, hand, one.tokens.ids, [change]).logits
        found = model.run(ONE, edits=[f"scale(-1.5) {place(site, 'L1')}"]).logits[0]
        yield site, float((found - wanted).abs().max())


def walks(model: mt.Model, hand: ByHand) -> Iterator[tuple[str, float]]:
    for site in hand.sites[:-1]:
        gaps = []
        for change in ("zero {}", "scale(0.5) {}@{{2,5}}", "patch {}@-1"):
            text = change.format(place(site, "L*"))
            walked, slow = (
                mt.sweep(model, [ONE, TWO], text, metrics=["kl"], engine=engine, verify=0)
                for engine in ("walk", "reference")
            )
            gaps.append(float(abs(walked.data["kl"] - slow.data["kl"]).max()))
        yield site, max(gaps)


if __name__ == "__main__":
    main()
