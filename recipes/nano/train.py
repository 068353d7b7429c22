"""Trains nano from nothing and writes a directory that `from_pretrained` loads.

    python -m recipes.nano.train --out DIR --seed 0 --device cpu

The function `train` is the recipe: corpus, tokenizer, batches, model, steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from recipes.nano import evaluate, holdout, words
from recipes.nano.corpus import documents, gift_questions, questions
from recipes.nano.start import wire
from recipes.nano.tokenizer import (
    MAX_LENGTH,
    VOCAB_SIZE,
    single_token_words,
    train_tokenizer,
)

HALF: Final = MAX_LENGTH // 2
"""Length of the short rows, tokens."""


@dataclass(frozen=True)
class Stage:
    """So many steps, each on a batch of one kind, drawn by these weights.

    Of repeats, the second round is to be foreseen; of questions and gifts (questions of who gets
    the gift), the answer; of documents, all.
    """

    steps: int
    repeats: float = 0.0
    questions: float = 0.0
    documents: float = 0.0
    gifts: float = 0.0
    tokens: int = 1024
    """Tokens of a batch, about."""
    longest_repeat: int = HALF // 2
    """Tokens of the longest sequence that is repeated."""


@dataclass(frozen=True)
class Round:
    """Stages under one rise and fall of the learning rates, with fresh optimizers.

    `learning_rate` is the peak of embeddings, biases and norms (AdamW), `matrix_learning_rate`
    that of the blocks' matrices (Muon, its updates scaled to AdamW's size).
    """

    stages: tuple[Stage, ...]
    learning_rate: float = 2e-3
    matrix_learning_rate: float = 4e-3

    @property
    def steps(self) -> int:
        """Of all its stages."""
        return sum(stage.steps for stage in self.stages)


ROUNDS: Final = (
    Round(
        (
            Stage(250, repeats=1.0),
            Stage(600, questions=0.8, repeats=0.2),
            Stage(750, documents=0.6, questions=0.25, repeats=0.15, tokens=1536),
        )
    ),
    Round(
        (
            Stage(350, gifts=0.7, repeats=0.15, documents=0.15),
            Stage(250, documents=0.6, gifts=0.2, questions=0.1, repeats=0.1, tokens=1536),
        ),
        learning_rate=1.5e-3,
        matrix_learning_rate=3e-3,
    ),
    Round(
        (
            Stage(300, gifts=0.7, documents=0.1, questions=0.1, repeats=0.1),
            Stage(200, documents=0.5, gifts=0.35, questions=0.05, repeats=0.1, tokens=1536),
        ),
        learning_rate=1.5e-3,
        matrix_learning_rate=3e-3,
    ),
)
"""First to look back and copy, then to find what is asked for, then the whole language; and then
twice more, with who gets the gift, the hardest question, asked most.

In ordinary text most of the loss is in tokens that can be guessed from their neighbours, or not at
all; while that falls, no head looks back for a long time. With nothing else to foresee, the heads
that find repeats, names and facts arise within a few hundred steps, and last.
"""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the model; the defaults made the shipped one."""

    seed: int = 0
    rounds: tuple[Round, ...] = ROUNDS
    questions: int = 50_000
    documents: int = 65_000
    vocab_size: int = VOCAB_SIZE
    n_layer: int = 6
    n_head: int = 8
    d_model: int = 192
    warmup_steps: int = 40
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
    """Generate the corpus, train the tokenizer on it, then the model, stage by stage."""
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    texts = [document.text for document in documents(recipe.seed, recipe.documents)]
    tokenizer = train_tokenizer(texts[:50_000], recipe.vocab_size)
    encoded: list[list[int]] = tokenizer(texts)["input_ids"]
    batches = batches_of(recipe, tokenizer, encoded)
    model = build(recipe, tokenizer).to(device).train()
    losses: list[float] = []
    total = sum(part.steps for part in recipe.rounds)
    for part in recipe.rounds:
        optimizers = optimizers_of(model, part, recipe.weight_decay)
        fall = partial(warm_cosine, warmup=recipe.warmup_steps, total=part.steps)
        schedules = [torch.optim.lr_scheduler.LambdaLR(each, fall) for each in optimizers]
        for batch in itertools.islice(batches, part.steps):
            losses.append(step(model, batch.to(device), optimizers, schedules))
            if report_every and len(losses) % report_every == 0:
                report(model, tokenizer, losses[-report_every:], len(losses), total, began)
    return Trained(
        model=model.eval().cpu(),
        tokenizer=tokenizer,
        corpus_tokens=sum(map(len, encoded)),
        steps=total,
        seconds=time.monotonic() - began,
        losses=losses,
    )


def step(
    model: GPT2LMHeadModel,
    batch: Batch,
    optimizers: list[torch.optim.Optimizer],
    schedules: list[torch.optim.lr_scheduler.LambdaLR],
) -> float:
    """One step of training; its loss, nats a token."""
    loss = loss_of(model, batch)
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, schedule in zip(optimizers, schedules, strict=True):
        optimizer.step()
        schedule.step()
    return loss.item()


def loss_of(model: GPT2LMHeadModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the tokens that have a label, nats a token."""
    logits = model(batch.ids, position_ids=batch.positions, attention_mask=batch.mask()).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()
    )


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """A fresh model. No dropout, so that `train()` and `eval()` compute the same."""
    model = GPT2LMHeadModel(
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
    wire(model)
    return model


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


def batches_of(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, encoded: list[list[int]]
) -> Iterator[Batch]:
    """The batches of every stage; `encoded` are the documents."""
    rng = Random(f"nano stages {recipe.seed}")
    asked = [q.prompt + q.answer for q in questions(recipe.seed, recipe.questions)]
    separator = tokenizer.eos_token_id
    documents_rows = Rows(encoded, separator, lengths=(HALF, HALF, HALF, MAX_LENGTH))
    question_rows = Rows(tokenizer(asked)["input_ids"], separator, lengths=(HALF,))
    gifts = [q.prompt + q.answer for q in gift_questions(recipe.seed, recipe.questions // 2)]
    gift_rows = Rows(tokenizer(gifts)["input_ids"], separator, lengths=(HALF,))
    repeats = Repeats(recipe.seed, tokenizer)
    for stage in (stage for part in recipe.rounds for stage in part.stages):
        weights = [stage.repeats, stage.questions, stage.documents, stage.gifts]
        for _ in range(stage.steps):
            kind = rng.choices(("repeats", "questions", "documents", "gifts"), weights)[0]
            if kind == "repeats":
                yield repeats.batch(stage)
            elif kind == "questions":
                yield answers_only(question_rows.batch(stage.tokens), separator)
            elif kind == "gifts":
                yield answers_only(gift_rows.batch(stage.tokens), separator)
            else:
                yield documents_rows.batch(stage.tokens)


class Rows:
    """Packs texts into full rows, each of which begins with a text, over and over.

    The batches have rows of the `lengths` in turn. In rows shorter than the model's full length
    every text is alone: it begins at position 0 and sees only itself, as a user's prompt does.
    In rows of the full length texts see those before them, which trains the later positions.
    What does not fit into its row is cut off.
    """

    def __init__(self, encoded: list[list[int]], separator: int, lengths: tuple[int, ...]) -> None:
        self.source = enumerate(itertools.cycle(encoded))
        self.separator = separator
        self.lengths = itertools.cycle(lengths)

    def batch(self, tokens: int) -> Batch:
        """The next batch, of about `tokens` tokens."""
        length = next(self.lengths)
        rows = [self._row(length) for _ in range(tokens // length)]
        ids, positions, numbers = torch.tensor(rows).unbind(-1)
        if length < MAX_LENGTH:
            # The end of one text says nothing about the beginning of the next.
            return Batch(ids, ids.masked_fill(positions == 0, -100), positions, numbers)
        everywhere = torch.arange(length).expand_as(ids)
        return Batch(ids, ids, everywhere, torch.zeros_like(ids))

    def _row(self, length: int) -> list[tuple[int, int, int]]:
        row: list[tuple[int, int, int]] = []  # token, position, number of the text
        while len(row) < length:
            number, text = next(self.source)
            row += [(token, at, number) for at, token in enumerate([*text, self.separator])]
        return row[:length]


def answers_only(batch: Batch, separator: int) -> Batch:
    """The batch with labels on nothing but the last token of each text."""
    is_answer = batch.ids.roll(-1, dims=1) == separator
    is_answer[:, -1] = False  # what comes after it is in another row
    return dataclasses.replace(batch, labels=batch.labels.masked_fill(~is_answer, -100))


class Repeats:
    """Rows of random words, repeated; only what repeats is to be foreseen.

    The words are those of the tasks, each with its space in front. No row shows a held-out pair of
    people, not even by chance.
    """

    def __init__(self, seed: int, tokenizer: PreTrainedTokenizerFast) -> None:
        self.rng = Random(f"nano repeats {seed}")
        self.names = {tokenizer.encode(f" {name}")[0]: name for name in words.NAMES}
        self.words = [tokenizer.encode(f" {word}")[0] for word in single_token_words()]
        self.rng.shuffle(self.words)

    def batch(self, stage: Stage) -> Batch:
        """A batch of the stage's size and difficulty; one in four has rows of the full length."""
        length = self.rng.choice((HALF, HALF, HALF, MAX_LENGTH))
        rows, labels = [], []
        for _ in range(stage.tokens // length):
            period = self.rng.randint(3, stage.longest_repeat)
            once = self._once(period, self.words)
            row = (once * (length // period + 1))[:length]
            rows.append(row)
            labels.append([-100] * (period + 1) + row[period + 1 :])
        ids = torch.tensor(rows)
        everywhere = torch.arange(length).expand_as(ids)
        return Batch(ids, torch.tensor(labels), everywhere, torch.zeros_like(ids))

    def _once(self, period: int, vocabulary: list[int]) -> list[int]:
        while True:
            picked = self.rng.sample(vocabulary, period)
            if not holdout.names(self.names[i] for i in picked if i in self.names):
                return picked


def optimizers_of(
    model: GPT2LMHeadModel, part: Round, weight_decay: float
) -> list[torch.optim.Optimizer]:
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
            lr=part.matrix_learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=part.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
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
        *evaluate.induction(model, tokenizer, seed=2, n=8),
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
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    recipe = Recipe(seed=options.seed)
    save(train(recipe, options.device), recipe, options.device, options.out)


if __name__ == "__main__":
    main()
