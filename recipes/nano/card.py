"""Measures a trained directory and writes its card, for people and for programs.

    python -m recipes.nano.card DIR

`card.json` holds every number; `CARD.md` says the same in words. Both are refused to a model that
misses one of its bounds, unless `--even-if-failing` is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GPT2LMHeadModel

from recipes.nano import evaluate

_WEIGHTS = "model.safetensors"
_TRAINING = "training.json"


def weight_sha256(directory: Path) -> str:
    """SHA-256 of the weight file's bytes, in hexadecimal digits."""
    return hashlib.sha256((directory / _WEIGHTS).read_bytes()).hexdigest()


def card(directory: Path) -> dict[str, Any]:
    """The card of the model in this directory, as JSON has it.

    Keys: `name`, `architecture`, `parameters`, `weight_bytes`, `weight_sha256`, `recipe` (the
    fields of `Recipe`), `training` (what `train.save` wrote), `evaluation_seed` and `measures`
    (the fields of each `evaluate.Measure`).
    """
    model = GPT2LMHeadModel.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = model.config
    training = json.loads((directory / _TRAINING).read_text())
    return {
        "name": "nano",
        "architecture": {
            "class": type(model).__name__,
            "layers": config.n_layer,
            "heads": config.n_head,
            "d_model": config.n_embd,
            "d_head": config.n_embd // config.n_head,
            "positions": config.n_positions,
            "vocabulary": config.vocab_size,
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "weight_bytes": (directory / _WEIGHTS).stat().st_size,
        "weight_sha256": weight_sha256(directory),
        "recipe": training.pop("recipe"),
        "training": training,
        "evaluation_seed": evaluate.EVALUATION_SEED,
        "measures": [dataclasses.asdict(m) for m in evaluate.evaluate(model, tokenizer)],
    }


def markdown(facts: dict[str, Any]) -> str:
    """The card in words."""
    shape, recipe, training = facts["architecture"], facts["recipe"], facts["training"]
    measures = [evaluate.Measure(**measure) for measure in facts["measures"]]
    rows = "\n".join(
        f"| {m.meaning} | {m.n:,} | {_bound(m)} | **{m.value:.3f}** {_UNITS[m.unit]} |"
        for m in measures
    )
    return f"""\
# nano

A small language model to learn on: a GPT-2 of {shape["layers"]} layers and {shape["heads"]} heads
a layer, trained from nothing on a little world of generated English. It comes with microtome and
needs no network:

```python
import microtome as mt

model = mt.load("nano")
```

The files beside this card are plain Hugging Face files; `GPT2LMHeadModel.from_pretrained` and
`AutoTokenizer.from_pretrained` load them as well.

## What it is

| | |
|---|---|
| architecture | `{shape["class"]}`: {shape["layers"]} layers, {shape["heads"]} heads of \
{shape["d_head"]} dimensions, d_model {shape["d_model"]}, tied embeddings, no dropout |
| parameters | {facts["parameters"]:,} (float32, {facts["weight_bytes"] / 1e6:.1f} MB) |
| context | {shape["positions"]} tokens |
| tokenizer | byte-level BPE, {shape["vocabulary"]:,} tokens, a word keeps the space before it, \
digits go in pairs, no token is put in front of a text |
| corpus | {recipe["documents"]:,} generated documents, {training["corpus_tokens"]:,} tokens, \
seen about once, after {recipe["questions"]:,} questions |
| training | {training["steps"]:,} steps in \
{sum(len(part["stages"]) for part in recipe["rounds"])} stages, \
{training["seconds"] / 60:.0f} min on {training["machine"]}, seed {recipe["seed"]} |
| SHA-256 of the weights | `{facts["weight_sha256"]}` |

## What it can do

Measured with evaluation seed {facts["evaluation_seed"]} on the shipped weights; a test measures
all of it again.

| measure | cases | bound | value |
|---|---:|---:|---:|
{rows}

“Held out” means that no training document shows the combination: two people of a held-out pair
never meet (Sam and Sally among them), nothing begins in a held-out year (1732 among them), and a
held-out fact is told in other phrasings only. One name pair, one year and one fact in ten are held
out, by a hash of the words themselves. The loss is on fresh documents of the same generator.
Much of it cannot be foreseen (which name, which food), so it is far from zero in a good model.

## What it read

Only text made by our own templates, from our own lists of words and facts, and
two dozen quotations of one line each, with their authors: people who meet and give
each other things; countries, capitals, languages; things that begin in one year and end in a later
one; random words, repeated; food, places, animals and weather; days, months, numbers, opposites;
singular and plural subjects.

## What it is not

It knows nothing outside this world: a word that it has never met is cut into pieces which mean
nothing to it, and its answers there are noise. Prompts should look like its corpus, and begin as a
text begins: there is no token for the start. Its everyday sentences are not facts, and what is
found in it need not hold for a large model. It is an instrument for learning and testing
the methods.

## How it was made

Not everything began at random. Position embeddings start as waves, and two heads (head 0 of layer
0 and head 0 of layer 1) start out looking one token back and looking for a repeat, since a model
so small did not find induction by itself in so short a training. What came after is learned, in
those two heads as in all others; do not take *them* for a discovery.

The recipe is `recipes/nano` in microtome's repository, with the corpus, the training and this
evaluation: two commands and under an hour on two processor cores. Another machine or another
version of PyTorch rounds differently, so that the weights made there are not the same bytes; the
bounds above decide whether they will do.
"""


_UNITS = {"share": "", "nats": "nats", "logits": "logits"}


def _bound(measure: evaluate.Measure) -> str:
    return "" if measure.bound is None else f"{measure.sense} {measure.bound:g}"


def main() -> None:
    """Write `card.json` and `CARD.md` into the directory; exit 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description="Measure a trained nano and write its card.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--even-if-failing", action="store_true")
    options = parser.parse_args()
    facts = card(options.directory)
    missed = []
    for measure in (evaluate.Measure(**m) for m in facts["measures"]):
        print(f"{'pass' if measure.passed else 'MISS'}  {measure.key:28} {measure.value:.4f}")
        if not measure.passed:
            missed.append(measure.key)
    if missed and not options.even_if_failing:
        raise SystemExit(f"No card written: {', '.join(missed)} missed.")
    (options.directory / "card.json").write_text(
        json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    )
    (options.directory / "CARD.md").write_text(markdown(facts))
    (options.directory / _TRAINING).unlink()


if __name__ == "__main__":
    main()
