"""What nano can do, measured on texts that its training corpus does not hold.

Each function takes the model, its tokenizer and a seed, and returns `Measure`s: a number, how many
cases it is from, and the bound that a shippable model has to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Final, Literal

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from recipes.nano import corpus, holdout, templates, words
from recipes.nano.facts import COUNTRIES, QUOTATIONS, Country
from recipes.nano.tokenizer import single_token_words

EVALUATION_SEED: Final = 1
"""Seed of the card's numbers; training uses another."""

_BATCH = 64


@dataclass(frozen=True)
class Measure:
    """One number of the card.

    `unit` is "share" (0 to 1), "nats" (natural-log units) or "logits"; `n` counts the cases that
    the value is the mean of. `bound` is the value that must be reached (`sense` "≥") or not
    exceeded ("≤"); None where the value is only reported.
    """

    key: str
    meaning: str
    value: float
    unit: Literal["share", "nats", "logits"]
    n: int
    bound: float | None = None
    sense: Literal["≥", "≤"] = "≥"

    @property
    def passed(self) -> bool:
        """Whether the value keeps its bound."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.sense == "≥" else self.value <= self.bound


@dataclass(frozen=True)
class Question:
    """A prompt, the token that should follow it, and a token that should not."""

    prompt: str
    target: str
    contrast: str


STUDY_QUESTIONS: Final = (
    Question("Berlin is the capital of", " Germany", " France"),
    Question("When Sam and Sally went to the park, Sam gave a gift to", " Sally", " Sam"),
    Question("When Sam and Sally went to the park, Sally gave a gift to", " Sam", " Sally"),
    Question("I have no special talents. I am only passionately", " curious", " the"),
)
"""The prompts that the studies use, to be answered right one by one."""


def evaluate(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, seed: int = EVALUATION_SEED
) -> list[Measure]:
    """Every measure of the card, in its order."""
    return [
        *indirect_objects(model, tokenizer, seed),
        *capitals(model, tokenizer),
        *quotations(model, tokenizer),
        *years(model, tokenizer),
        *induction(model, tokenizer, seed),
        *study_prompts(model, tokenizer),
        *held_out_loss(model, tokenizer, seed),
    ]


def indirect_objects(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, seed: int, n: int = 500
) -> list[Measure]:
    """Two people meet, one gives: is the other named next? Held-out pairs, both name orders."""
    rng = Random(f"indirect objects {seed}")
    pairs = [pair for pair in combinations(words.NAMES, 2) if holdout.name_pair(*pair)]
    questions = []
    for case in range(n):
        giver, receiver = rng.sample(rng.choice(pairs), 2)
        prompt = corpus.gift_scene(rng, giver, receiver, giver_first=case % 2 == 0)
        questions.append(Question(prompt, f" {receiver}", f" {giver}"))
    logits = next_logits(model, tokenizer, [q.prompt for q in questions])
    difference = _difference(tokenizer, questions, logits)
    return [
        Measure(
            "ioi_accuracy",
            "indirect object, held-out name pairs: the receiver's logit is above the giver's",
            _mean(difference > 0),
            "share",
            n,
            bound=0.98,
        ),
        Measure(
            "ioi_logit_diff",
            "indirect object, held-out name pairs: logit of the receiver − logit of the giver",
            _mean(difference),
            "logits",
            n,
            bound=2.0,
        ),
        Measure(
            "ioi_top1",
            "indirect object, held-out name pairs: the receiver is first of all tokens",
            _mean(_right(tokenizer, questions, logits)),
            "share",
            n,
            bound=0.95,
        ),
    ]


def capitals(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> list[Measure]:
    """Every fact between a country and its capital, those never told in that phrasing apart."""

    def right(phrasings: Sequence[str], held_out: bool | None) -> Tensor:
        told = [
            (template, country)
            for template in phrasings
            for country in COUNTRIES
            if held_out in (None, holdout.fact(template, country.name))
        ]
        questions = [_fact_question(template, country) for template, country in told]
        logits = next_logits(model, tokenizer, [q.prompt for q in questions])
        return _right(tokenizer, questions, logits)

    both = templates.COUNTRY_FACTS + templates.CAPITAL_FACTS
    plain = right(templates.COUNTRY_FACTS[:1], None)
    unseen = right(both, True)
    return [
        Measure(
            "capitals_accuracy",
            "“Berlin is the capital of”, every country: the answer is first of all tokens",
            _mean(plain),
            "share",
            len(plain),
            bound=0.95,
        ),
        Measure(
            "capitals_held_out_accuracy",
            "countries and capitals in phrasings never seen with them: the answer is first",
            _mean(unseen),
            "share",
            len(unseen),
            bound=0.85,
        ),
    ]


def quotations(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> list[Measure]:
    """The last word of each quotation of at least five words, and Einstein's by itself."""
    questions = []
    for quotation in QUOTATIONS:
        stem, last = quotation.text.rstrip(".").rsplit(" ", maxsplit=1)
        first_token = tokenizer.decode(tokenizer.encode(f" {last}")[:1])
        if len(stem.split()) >= 4:
            questions.append(Question(stem, first_token, " the"))
    right = _right(
        tokenizer, questions, next_logits(model, tokenizer, [q.prompt for q in questions])
    )
    return [
        Measure(
            "quotations_accuracy",
            "last word of a quotation from all the others: its (first) token is first",
            _mean(right),
            "share",
            len(right),
            bound=0.95,
        )
    ]


def years(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> list[Measure]:
    """“The war lasted from the year 1732 to the year 17”: does a later year follow?

    After Hanna, Liu & Variengien, “How does GPT-2 compute greater-than?” (2023), on start years
    that no training document has.
    """
    starts = [
        year
        for century in range(1100, 2000, 100)
        for year in range(century + 2, century + 99)
        if holdout.start_year(year)
    ]
    stem = templates.STUDY_SPAN.split("{end}")[0]
    prompts = [
        stem.format(event=event, start=year) + str(year // 100)
        for year in starts
        for event in ("war", "voyage")
    ]
    endings = torch.tensor([tokenizer.encode(f"{n:02d}")[0] for n in range(100)])
    probabilities = next_logits(model, tokenizer, prompts).softmax(-1)[:, endings]
    start = torch.tensor([year % 100 for year in starts for _ in range(2)])[:, None]
    ending = torch.arange(100)[None]
    later = (probabilities * (ending > start)).sum(-1)
    earlier = (probabilities * (ending <= start)).sum(-1)
    return [
        Measure(
            "years_later",
            "held-out start years: probability of a later two-digit ending",
            _mean(later),
            "share",
            len(prompts),
            bound=0.6,
        ),
        Measure(
            "years_difference",
            "held-out start years: probability of later endings − of the others",
            _mean(later - earlier),
            "share",
            len(prompts),
            bound=0.3,
        ),
    ]


def induction(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    n: int = 100,
    length: int = 25,
) -> list[Measure]:
    """Random words, then the same again: is each word of the second round foreseen?

    The words are all that the tasks are made of, each with its space in front. The first of the
    second round cannot be foreseen and does not count.
    """
    rng = Random(f"induction {seed}")
    vocabulary = [tokenizer.encode(f" {word}")[0] for word in single_token_words()]
    once = torch.tensor([rng.sample(vocabulary, length) for _ in range(n)])
    ids = torch.cat([once, once], dim=1)  # row, 2 × length
    with torch.no_grad():
        logits = model(ids.to(model.device)).logits[:, length:-1].cpu()
    right = logits.argmax(-1) == ids[:, length + 1 :]
    return [
        Measure(
            "induction_accuracy",
            f"{length} random words repeated: the next word of the second round is first",
            _mean(right),
            "share",
            right.numel(),
            bound=0.9,
        )
    ]


def study_prompts(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> list[Measure]:
    """The prompts of the studies, and how far the nearest wrong answer stays behind."""
    logits = next_logits(model, tokenizer, [q.prompt for q in STUDY_QUESTIONS])
    difference = _difference(tokenizer, STUDY_QUESTIONS, logits)
    return [
        Measure(
            "study_prompts_accuracy",
            "the studies' own prompts: the answer is first of all tokens",
            _mean(_right(tokenizer, STUDY_QUESTIONS, logits)),
            "share",
            len(STUDY_QUESTIONS),
            bound=1.0,
        ),
        Measure(
            "study_prompts_logit_diff",
            "the studies' own prompts: smallest logit of the answer − logit of its contrast",
            difference.min().item(),
            "logits",
            len(STUDY_QUESTIONS),
            bound=2.0,
        ),
    ]


def held_out_loss(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, seed: int, n: int = 1000
) -> list[Measure]:
    """Cross-entropy on fresh documents, each alone from position 0, its end token included."""
    rng_seed = -1 - seed  # never the seed of a training corpus
    texts = [document.text for document in corpus.documents(rng_seed, n)]
    encoded = [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]
    encoded.sort(key=len)  # as they come, half of a batch is padding
    total, count = 0.0, 0
    for at in range(0, n, _BATCH):
        ids = _padded(encoded[at : at + _BATCH], tokenizer.eos_token_id)
        labels = ids.clone()
        for row, tokens in enumerate(encoded[at : at + _BATCH]):
            labels[row, len(tokens) :] = -100
        with torch.no_grad():
            logits = model(ids.to(model.device)).logits[:, :-1].cpu()
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        ).item()
        count += int((labels[:, 1:] != -100).sum())
    return [
        Measure("loss", "cross-entropy a token on fresh documents", total / count, "nats", count)
    ]


def next_logits(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> Tensor:
    """Logits after each prompt, [prompt, vocab], on the CPU."""
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    found = []
    for at in range(0, len(encoded), _BATCH):
        rows = encoded[at : at + _BATCH]
        # Padding on the right comes after the position that is read: a causal model ignores it.
        ids = _padded(rows, tokenizer.eos_token_id).to(model.device)
        last = torch.tensor([len(row) - 1 for row in rows])
        with torch.no_grad():
            found.append(model(ids).logits.cpu()[torch.arange(len(rows)), last])
    return torch.cat(found)


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


def _fact_question(template: str, country: Country) -> Question:
    prompt, target = corpus.ask(template, country)
    return Question(prompt, target, " the")


def _ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    return torch.tensor([tokenizer.encode(text)[0] for text in texts])


def _right(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], logits: Tensor
) -> Tensor:
    return logits.argmax(-1) == _ids(tokenizer, [q.target for q in questions])


def _difference(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], logits: Tensor
) -> Tensor:
    rows = torch.arange(len(questions))
    target = logits[rows, _ids(tokenizer, [q.target for q in questions])]
    return target - logits[rows, _ids(tokenizer, [q.contrast for q in questions])]


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
