"""Trains nano from nothing and writes a directory that `from_pretrained` loads.

    python -m recipes.nano.train --out DIR --seed 0 --device cpu

The function `train` is the recipe: corpus, tokenizer, rows, model, steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from recipes.nano import evaluate, holdout, words
from recipes.nano.corpus import documents
from recipes.nano.tokenizer import MAX_LENGTH, VOCAB_SIZE, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the model; the defaults made the shipped one."""

    seed: int = 0
    documents: int = 260_000
    primer: int = 25_000
    """How many of the documents come first and are of the kinds in `corpus.PRIMER` only."""
    vocab_size: int = VOCAB_SIZE
    n_layer: int = 6
    n_head: int = 8
    d_model: int = 192
    tokens_a_step: int = 1536
    repeat_share: float = 0.125
    """Share of the rows of a step that are random tokens, repeated; none during the primer."""
    learning_rate: float = 2e-3
    """Peak, of embeddings, biases and norms (AdamW)."""
    matrix_learning_rate: float = 4e-3
    """Peak, of the blocks' matrices (Muon, its updates scaled to AdamW's size)."""
    warmup_steps: int = 100
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Trained:
    """A trained model with what its card tells of the training."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast
    corpus_tokens: int
    steps: int
    seconds: float
    losses: list[float]
    """Training loss of every step, nats a token."""


def train(recipe: Recipe, device: str = "cpu", report_every: int = 100) -> Trained:
    """Generate the corpus, train the tokenizer on it, then the model in one pass over it."""
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    made = documents(recipe.seed, recipe.documents, recipe.primer)
    texts = [document.text for document in made]
    tokenizer = train_tokenizer(texts[-50_000:], recipe.vocab_size)
    encoded: list[list[int]] = tokenizer(texts)["input_ids"]
    batches = list(pack(encoded, tokenizer.eos_token_id, recipe.tokens_a_step))

    model = build(recipe, tokenizer).to(device).train()
    optimizers = optimizers_of(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warm_cosine(step, recipe.warmup_steps, len(batches))
        )
        for optimizer in optimizers
    ]
    repeats = Repeats(recipe, tokenizer)
    primer_steps = len(batches) * recipe.primer // recipe.documents
    losses: list[float] = []
    for step, batch in enumerate(batches):
        if step >= primer_steps:
            batch = repeats.mix_in(batch)
        loss = loss_of(model, batch.to(device))
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        losses.append(loss.item())
        if report_every and (step + 1) % report_every == 0:
            report(model, tokenizer, losses[-report_every:], step + 1, len(batches), began)
    return Trained(
        model=model.eval().cpu(),
        tokenizer=tokenizer,
        corpus_tokens=sum(map(len, encoded)),
        steps=len(batches),
        seconds=time.monotonic() - began,
        losses=losses,
    )


def loss_of(model: GPT2LMHeadModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the tokens that have a label, nats a token."""
    logits = model(batch.ids, position_ids=batch.positions, attention_mask=batch.mask()).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()
    )


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """A fresh model. No dropout, so that `train()` and `eval()` compute the same."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=MAX_LENGTH,
            n_embd=recipe.d_model,
            n_layer=recipe.n_layer,
            n_head=recipe.n_head,
            # GPT-2's own 0.02 belongs to a width of 768. In so narrow a model it would make the
            # attention scores nearly equal at the start, and no head would look anywhere.
            initializer_range=recipe.d_model**-0.5,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            summary_first_dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, each tensor [row, position].

    `labels` are −100 where nothing is to be foreseen. `positions` are what the position embedding
    is looked up by. A token sees the earlier tokens of its row with the same number in `documents`.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return Batch(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))

    def mask(self) -> Tensor:
        """Which token sees which, [row, 1, position, position], as the model's attention mask."""
        same = self.documents[:, None, :, None] == self.documents[:, None, None, :]
        return same & torch.ones_like(same).tril()


def pack(encoded: list[list[int]], separator: int, tokens: int) -> Iterator[Batch]:
    """Batches of about `tokens` tokens; every row begins with a document and is full.

    In three of four batches every document is alone: it begins at position 0 and sees only itself,
    as a user's prompt does. In the fourth, rows have the model's full length and documents see
    those before them, which trains the later positions.
    What does not fit into its row is cut off.
    """
    source = iter(encoded)
    while True:
        for alone in (True, True, True, False):
            length = MAX_LENGTH // 2 if alone else MAX_LENGTH
            rows = []
            for _ in range(tokens // length):
                row: list[tuple[int, int, int]] = []  # token, position, document
                for number, document in enumerate(source):
                    row += [(t, p, number) for p, t in enumerate([*document, separator])]
                    if len(row) >= length:
                        break
                else:
                    return
                rows.append(row[:length])
            ids, positions, numbers = torch.tensor(rows).unbind(-1)
            if alone:
                # The end of one document says nothing about the beginning of the next.
                yield Batch(ids, ids.masked_fill(positions == 0, -100), positions, numbers)
            else:
                everywhere = torch.arange(length).expand_as(ids)
                yield Batch(ids, ids, everywhere, torch.zeros_like(ids))


class Repeats:
    """Puts rows of random tokens, repeated, in the place of some rows of a batch.

    The tokens are from the whole vocabulary but the separator, and no row shows a held-out pair of
    people, not even by chance.
    """

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
        self.vocabulary = range(tokenizer.eos_token_id + 1, len(tokenizer))
        self.names = {tokenizer.encode(s + n)[0]: n for n in words.NAMES for s in ("", " ")}
        self.share = recipe.repeat_share
        self.rng = Random(f"repeats {recipe.seed}")

    def mix_in(self, batch: Batch) -> Batch:
        """The batch with its last rows replaced; the first round of a repeat has no labels."""
        ids, labels = batch.ids.clone(), batch.labels.clone()
        positions, numbers = batch.positions.clone(), batch.documents.clone()
        rows, length = ids.shape
        for row in range(rows - round(rows * self.share), rows):
            period = self.rng.randint(4, length // 2)
            ids[row] = torch.tensor(self._once(period)).repeat(length // period + 1)[:length]
            labels[row] = ids[row]
            labels[row, : period + 1] = -100
            positions[row] = torch.arange(length)
            numbers[row] = 0
        return Batch(ids, labels, positions, numbers)

    def _once(self, period: int) -> list[int]:
        while True:
            picked = self.rng.choices(self.vocabulary, k=period)
            if not holdout.names(self.names[i] for i in picked if i in self.names):
                return picked


def optimizers_of(model: GPT2LMHeadModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings, biases and norms.

    Muon (Jordan et al., 2024) makes each update of a matrix orthogonal. On the capitals alone it
    needed half as many steps as AdamW.
    """
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    blocks = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in blocks]
    return [
        torch.optim.Muon(
            matrices,
            lr=recipe.matrix_learning_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def warm_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate: a linear rise, then half a cosine down to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def report(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    losses: list[float],
    step: int,
    steps: int,
    began: float,
) -> None:
    """One line of progress."""
    measures = [
        *evaluate.indirect_objects(model, tokenizer, seed=2, n=64),
        *evaluate.capitals(model, tokenizer),
        *evaluate.years(model, tokenizer),
        *evaluate.induction(model, seed=2, n=8),
    ]
    shown = "  ".join(f"{m.key} {m.value:.3f}" for m in measures)
    mean = sum(losses) / len(losses)
    print(
        f"{time.monotonic() - began:6.0f} s  {step}/{steps}  loss {mean:.3f}  {shown}", flush=True
    )


def save(trained: Trained, recipe: Recipe, device: str, out: Path) -> None:
    """Write model and tokenizer as `from_pretrained` wants them, and `training.json`."""
    trained.model.save_pretrained(out)
    trained.tokenizer.save_pretrained(out)
    facts = {
        "recipe": dataclasses.asdict(recipe),
        "machine": (
            f"{torch.get_num_threads()} CPU threads"
            if device == "cpu"
            else torch.cuda.get_device_name(device)
        ),
        "torch": torch.__version__,
        "corpus_tokens": trained.corpus_tokens,
        "steps": trained.steps,
        "seconds": round(trained.seconds),
        "final_training_loss": sum(trained.losses[-100:]) / len(trained.losses[-100:]),
    }
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Train with the committed recipe, but for what the command line changes."""
    parser = argparse.ArgumentParser(description="Train nano from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--documents", type=int, default=Recipe.documents)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    recipe = Recipe(seed=options.seed, documents=options.documents)
    save(train(recipe, options.device), recipe, options.device, options.out)


if __name__ == "__main__":
    main()
