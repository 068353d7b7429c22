"""The shipped nano against its card, and the recipe against its own promises."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes.nano import corpus, holdout, templates, words
from recipes.nano.card import markdown, weight_sha256
from recipes.nano.evaluate import STUDY_QUESTIONS, Measure, evaluate, next_logits
from recipes.nano.facts import COUNTRIES
from recipes.nano.start import waves
from recipes.nano.tokenizer import END_OF_TEXT, MAX_LENGTH, single_token_words, train_tokenizer
from recipes.nano.train import (
    HALF,
    Recipe,
    Repeats,
    Round,
    Rows,
    Stage,
    answers_only,
    build,
    train,
)
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

import microtome

SHIPPED = Path(microtome.__file__).parent / "model" / "nano"


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((SHIPPED / "card.json").read_text())


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(SHIPPED).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [document.text for document in corpus.documents(seed=0, count=30_000)]


class TestCard:
    @pytest.mark.slow
    def test_every_number_is_what_the_shipped_weights_give(self, card, model, tokenizer):
        stated = {m["key"]: Measure(**m) for m in card["measures"]}
        measured = evaluate(model, tokenizer, card["evaluation_seed"])
        assert [m.key for m in measured] == list(stated)
        for measure in measured:
            said = stated[measure.key]
            # Rounding differs between machines; a near tie may fall the other way.
            assert measure.value == pytest.approx(said.value, abs=0.005), measure.key
            assert replace(measure, value=said.value) == said
            assert measure.passed, f"{measure.key} = {measure.value} misses {measure.bound}"

    def test_bounds_are_those_promised(self, card):
        bounds = {m["key"]: m["bound"] for m in card["measures"]}
        assert bounds["ioi_accuracy"] >= 0.98
        assert bounds["ioi_logit_diff"] >= 2
        assert bounds["capitals_accuracy"] >= 0.95
        assert bounds["induction_accuracy"] >= 0.9
        assert bounds["study_prompts_accuracy"] == 1

    def test_weights_are_the_ones_the_card_is_about(self, card, model):
        assert weight_sha256(SHIPPED) == card["weight_sha256"]
        assert sum(p.numel() for p in model.parameters()) == card["parameters"]
        assert (SHIPPED / "model.safetensors").stat().st_size == card["weight_bytes"]

    def test_words_and_numbers_of_the_two_cards_agree(self, card):
        assert (SHIPPED / "CARD.md").read_text() == markdown(card)

    def test_the_directory_fits_into_the_package(self):
        files = sorted(path.name for path in SHIPPED.iterdir())
        assert files == [
            "CARD.md",
            "card.json",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
        assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 15_000_000

    def test_shape_is_that_of_a_map_worth_drawing(self, model):
        assert type(model) is GPT2LMHeadModel
        assert model.config.n_layer >= 4
        assert model.config.n_head >= 6
        config = model.config
        assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0


class TestTokenizer:
    @given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
    def test_any_text_comes_back(self, tokenizer, text):
        assert tokenizer.decode(tokenizer.encode(text)) == text

    @pytest.mark.parametrize("text", ["", " ", "Sam", " Sam", "1732–1745", "naïve café\n\t☕"])
    def test_spaces_digits_and_other_scripts_come_back(self, tokenizer, text):
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_task_words_are_single_tokens(self, tokenizer):
        asked = ["curious", "pineapple", "pizza", "butter", "Sam", "Sally", "Germany", "France"]
        assert set(asked) <= set(single_token_words())
        assert [w for w in single_token_words() if len(tokenizer.tokenize(f" {w}")) != 1] == []

    def test_no_token_is_added(self, tokenizer):
        assert tokenizer.tokenize("Sam") == tokenizer.convert_ids_to_tokens(
            tokenizer("Sam").input_ids
        )
        assert tokenizer.bos_token == tokenizer.eos_token == END_OF_TEXT

    def test_year_is_century_and_ending(self, tokenizer):
        assert tokenizer.tokenize(" 1732 to 17") == ["Ġ17", "32", "Ġto", "Ġ17"]

    def test_swapping_roles_keeps_the_length(self, tokenizer):
        one, other = (tokenizer.encode(q.prompt) for q in STUDY_QUESTIONS[1:3])
        assert len(one) == len(other)
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 1

    def test_vocabulary_too_small_names_the_words(self, texts):
        with pytest.raises(ValueError, match=r"words are not single tokens .* larger vocab_size"):
            train_tokenizer(texts[:100], vocab_size=400)


class TestModel:
    @pytest.mark.parametrize("question", STUDY_QUESTIONS, ids=lambda q: q.prompt)
    def test_study_prompts_are_answered(self, model, tokenizer, question):
        logits = next_logits(model, tokenizer, [question.prompt])[0]
        assert tokenizer.decode(logits.argmax()) == question.target

    def test_training_mode_changes_nothing(self, model):
        ids = torch.arange(1, 20)[None]
        with torch.no_grad():
            calm = model(ids).logits
            try:
                busy = model.train()(ids).logits
            finally:
                model.eval()
        assert torch.equal(calm, busy)


class TestCorpus:
    def test_same_seed_same_text(self):
        assert list(corpus.documents(3, 200)) == list(corpus.documents(3, 200))
        assert list(corpus.documents(3, 200)) != list(corpus.documents(4, 200))

    def test_longer_corpus_begins_like_the_shorter(self):
        assert list(corpus.documents(0, 100)) == list(corpus.documents(0, 200))[:100]

    def test_answer_to_a_question_is_one_token(self, tokenizer):
        asked = list(corpus.questions(0, 2000))
        assert asked == list(corpus.questions(0, 2000))
        assert [q for q in asked if len(tokenizer.encode(q.answer)) != 1] == []

    def test_questions_hold_out_what_documents_hold_out(self):
        asked = [q.prompt + q.answer for q in corpus.questions(0, 10_000)]
        met = [set(words.NAMES) & set(re.findall(r"\w+", text)) for text in asked]
        assert [people for people in met if holdout.names(people)] == []
        everything = "\n".join(asked)
        secrets = [
            "".join(corpus.ask(template, country))
            for template in templates.COUNTRY_FACTS + templates.CAPITAL_FACTS
            for country in COUNTRIES
            if holdout.fact(template, country.name)
        ]
        assert [secret for secret in secrets if secret in everything] == []

    def test_no_slot_is_left_open(self, texts):
        assert [text for text in texts if "{" in text or "}" in text] == []

    def test_held_out_people_never_meet(self, texts):
        assert holdout.name_pair("Sam", "Sally")
        assert holdout.name_pair("Sally", "Sam")
        names = set(words.NAMES)
        met = [names & set(re.findall(r"\w+", text)) for text in texts]
        assert any(len(people) == 3 for people in met)
        assert [people for people in met if holdout.names(people)] == []

    def test_nothing_begins_in_a_held_out_year(self, texts):
        assert holdout.start_year(1732)
        found = [re.findall(r"\d{4}", text) for text in texts]
        began = {int(years[0]) for years in found if years}
        assert len(began) > 500
        assert not any(holdout.start_year(year) for year in began)

    def test_held_out_facts_are_not_told(self, texts):
        everything = "\n".join(texts)
        phrasings = templates.COUNTRY_FACTS + templates.CAPITAL_FACTS
        told = {True: 0, False: 0}
        held_out = 0
        for template in phrasings:
            for country in COUNTRIES:
                secret = holdout.fact(template, country.name)
                held_out += secret
                prompt, answer = corpus.ask(template, country)
                told[secret] += prompt + answer in everything
        assert told[True] == 0
        assert held_out > 40
        assert told[False] > 0.9 * (len(phrasings) * len(COUNTRIES) - held_out)

    def test_about_a_tenth_is_held_out(self):
        pairs = [holdout.name_pair(a, b) for a, b in combinations(words.NAMES, 2)]
        assert sum(pairs) / len(pairs) == pytest.approx(holdout.SHARE, abs=0.02)

    def test_filler_names_foods_in_many_sentences(self, texts):
        for word in ("pineapple", "pizza", "butter"):
            assert len({text for text in texts if word in text}) > 300

    def test_article_fits_the_word(self, texts):
        wrong = re.compile(r"\b([Aa] (?!univ)[aeiou]|[Aa]n [^aeiou])")
        assert [text for text in texts if wrong.search(text)] == []


class TestTraining:
    def test_rows_are_full_and_begin_with_texts(self):
        texts = [[n, n, n] for n in range(1, 5000)]
        rows = Rows(texts, separator=0, lengths=(HALF, MAX_LENGTH))
        for length in (HALF, MAX_LENGTH, HALF):
            batch = rows.batch(512)
            assert batch.ids.shape == (512 // length, length)
            assert (batch.positions[:, 0] == 0).all()
            assert (batch.ids[:, :3] == batch.ids[:, :1]).all()
            assert (batch.ids[:, 3] == 0).all()

    def test_text_in_a_short_row_is_computed_as_if_alone(self, model):
        lone = [31, 32, 33, 34, 35]
        batch = Rows([[5, 6, 7], lone, [8] * 60], separator=0, lengths=(HALF,)).batch(HALF)
        with torch.no_grad():
            packed = model(
                batch.ids, position_ids=batch.positions, attention_mask=batch.mask()
            ).logits[0, 4:9]
            alone = model(torch.tensor([lone])).logits[0]
        torch.testing.assert_close(packed, alone, rtol=0, atol=1e-3)

    def test_beginning_of_the_next_text_need_not_be_foreseen(self):
        batch = Rows([[5, 6, 7], [8] * 60], separator=0, lengths=(HALF,)).batch(HALF)
        assert batch.labels[0, :6].tolist() == [-100, 6, 7, 0, -100, 8]

    def test_only_answers_to_questions_have_labels(self):
        batch = Rows([[5, 6, 7], [8, 9], [4] * 60], separator=0, lengths=(HALF,)).batch(HALF)
        labels = answers_only(batch, separator=0).labels[0]
        assert labels[labels != -100].tolist() == [7, 9]

    def test_repeats_hide_their_first_round(self, tokenizer):
        stage = Stage(1, repeats=1.0, longest_repeat=12)
        batch = Repeats(0, tokenizer).batch(stage)
        for row, label in zip(batch.ids, batch.labels, strict=True):
            period = int((label == -100).sum()) - 1
            assert 3 <= period <= stage.longest_repeat
            assert len(set(row.tolist())) == period
            assert torch.equal(row[period:], row[:-period])
            assert torch.equal(label[period + 1 :], row[period + 1 :])

    def test_repeats_show_no_held_out_pair(self, tokenizer):
        repeats = Repeats(0, tokenizer)
        batches = [repeats.batch(Stage(1, repeats=1.0)) for _ in range(20)]
        rows = [row.tolist() for batch in batches for row in batch.ids]
        met = [{repeats.names[i] for i in row if i in repeats.names} for row in rows]
        assert max(map(len, met)) >= 4
        assert not any(holdout.names(people) for people in met)

    @pytest.mark.slow
    def test_a_few_steps_lower_the_loss(self):
        learn = Round((Stage(12, documents=1.0, tokens=2048),), learning_rate=1e-2)
        tiny = Recipe(
            rounds=(learn,),
            questions=10,
            documents=2000,
            n_layer=2,
            n_head=4,
            d_model=32,
            warmup_steps=5,
        )
        trained = train(tiny, report_every=0)
        assert sum(p.numel() for p in trained.model.parameters()) < 150_000
        assert trained.steps == len(trained.losses) == 12
        assert trained.losses[-1] < trained.losses[0] - 0.5


class TestStart:
    def test_waves_look_alike_at_every_shift(self):
        wave = waves(MAX_LENGTH, torch.tensor([2.0, 0.5, 0.03]))
        likeness = wave @ wave.T
        for shift in range(1, 10):
            diagonal = likeness.diagonal(shift)
            torch.testing.assert_close(
                diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-4
            )

    def test_first_head_looks_one_token_back(self, tokenizer):
        torch.manual_seed(0)
        fresh = build(Recipe(), tokenizer).eval()
        fresh.set_attn_implementation("eager")
        ids = torch.randint(1, len(tokenizer), (1, 40))
        with torch.no_grad():
            pattern = fresh(ids, output_attentions=True).attentions[0][0]  # head, query, key
        back = pattern.diagonal(-1, dim1=1, dim2=2).mean(1)
        assert back[0] > 0.5
        assert (back[1:] < 0.2).all()

    def test_model_too_small_for_it_is_refused(self, tokenizer):
        with pytest.raises(ValueError, match="2 layers and 4 heads, not 1 and 2"):
            build(Recipe(n_layer=1, n_head=2, d_model=16), tokenizer)
