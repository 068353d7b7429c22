"""Tasks: what every one of them promises, in the embedded model's tokenizer and in GPT-2's."""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.nano import facts
from recipes.nano import words as nano_words
from transformers import AutoTokenizer

import microtome as mt
from microtome.errors import PromptError, TaskError
from microtome.prompts.encoding import Encoded, encode, token_id
from microtome.tasks.ioi import NAMES
from microtome.tasks.making import Filled, whole_words

TASKS = {
    "ioi": (mt.tasks.ioi, 64),
    "ioi, other names": (partial(mt.tasks.ioi, corrupt="names"), 64),
    "capitals": (mt.tasks.capitals, 64),
    "greater_than": (mt.tasks.greater_than, 64),
    "quotes": (mt.tasks.quotes, 16),
    "induction": (mt.tasks.induction, 64),
}
every_task = pytest.mark.parametrize(("task", "n"), TASKS.values(), ids=TASKS)


@pytest.fixture(scope="session", params=["nano", "gpt2"])
def own(request):
    """The tokenizer at hand: the embedded model's, and GPT-2's where it is."""
    name = "gpt2_tokenizer" if request.param == "gpt2" else "nano"
    found = request.getfixturevalue(name)
    return found if request.param == "gpt2" else found.tokenizer


@pytest.fixture(scope="session")
def made():
    """Makes a task's prompts, the same ones once."""
    return cache(lambda task, n, own: task(n, tokenizer=own))


def accuracy(model: mt.Model, prompts: mt.Prompts) -> float:
    """How often the model itself puts the target's logit above the contrast's.

    Prompts of one length are one pass.
    """
    alike: dict[int, list[Encoded]] = defaultdict(list)
    for one in model.encode(prompts):
        alike[len(one.tokens)].append(one)
    right = 0
    for some in alike.values():
        with torch.no_grad():
            last = model.hf(torch.tensor([one.tokens.ids for one in some])).logits[:, -1]
        right += sum(
            bool(logits[one.target] > logits[one.contrast])
            for logits, one in zip(last, some, strict=True)
        )
    return right / len(prompts)


@every_task
class TestEveryTask:
    def test_it_gives_as_many_different_prompts_as_asked(self, task, n, own, made):
        prompts = made(task, n, own)
        assert isinstance(prompts, mt.Prompts)
        assert len(prompts) == n
        assert len({prompt.text for prompt in prompts}) == n
        assert inspect.signature(task).parameters["n"].default == n

    def test_target_and_contrast_are_one_token_each_and_differ(self, task, n, own, made):
        for prompt in made(task, n, own):
            assert token_id(prompt.target, own) != token_id(prompt.contrast, own)

    def test_donor_and_recipient_are_equally_long_and_differ(self, task, n, own, made):
        for prompt in made(task, n, own):
            recipient, donor = own(prompt.text)["input_ids"], own(prompt.donor)["input_ids"]
            assert len(recipient) == len(donor)
            assert recipient != donor

    def test_every_role_has_the_same_place_in_both(self, task, n, own, made):
        for prompt in made(task, n, own):
            one = encode(prompt, own)
            assert one.tokens.role("end") == len(one.tokens) - 1
            for role in prompt.roles:
                assert one.tokens.role(role) == one.donor.role(role)

    def test_the_same_seed_gives_the_same_and_another_seed_others(self, task, n, own):
        once, again = (task(4, seed=3, tokenizer=own) for _ in range(2))
        assert list(once) == list(again)
        assert list(once) != list(task(4, seed=4, tokenizer=own))

    def test_fewer_are_the_first_of_more(self, task, n, own, made):
        assert list(task(5, tokenizer=own)) == list(made(task, n, own))[:5]

    def test_without_a_tokenizer_it_is_the_embedded_models(self, task, n, nano, made):
        assert list(task(5)) == list(made(task, n, nano.tokenizer))[:5]

    def test_n_and_seed_may_be_numpys_or_a_tensor_and_draw_the_same(self, task, n, own, made):
        found = task(torch.tensor(2), seed=np.int64(0), tokenizer=own)
        assert list(found) == list(made(task, n, own))[:2]

    @pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "4", None])
    def test_n_is_a_whole_number_of_at_least_one(self, task, n, wrong):
        with pytest.raises(TaskError, match="n is the number of prompts"):
            task(wrong)
        for seed in (None, 1.0, "1"):
            with pytest.raises(TaskError, match=r"seed is a whole number, .*, not"):
                task(2, seed=seed)

    def test_a_tokenizer_without_the_words_is_an_error_that_counts_them(self, task, n, tokenizer):
        if task is mt.tasks.greater_than:  # This one has a token for every digit.
            assert len(task(n, tokenizer=tokenizer)) == n
            return
        with pytest.raises(TaskError, match=rf"(\d of|reads 0) .* n is {n}\. Ask for fewer"):
            task(n, tokenizer=tokenizer)

    def test_a_sweep_takes_them_as_they_are(self, task, n, nano):
        effects = mt.sweep(
            nano, task(2), mt.patch("L*.resid_post@end"), metrics="logit_diff", progress=False
        )
        assert effects.delta("logit_diff").shape == (2, 6)
        # The last hidden state is all that the last prediction is made of.
        assert abs(effects.delta("logit_diff").isel(layer=-1)).min() > 0


class TestIoi:
    def test_both_orders_take_turns(self, own):
        orders = []
        for one in (encode(p, own) for p in mt.tasks.ioi(64, tokenizer=own)):
            at = {role: one.tokens.role(role) for role in ("IO", "S1", "S2", "end")}
            assert max(at["IO"], at["S1"]) < at["S2"] < at["end"]
            orders.append("ABBA" if at["IO"] < at["S1"] else "BABA")
        assert orders == ["ABBA", "BABA"] * 32

    @pytest.mark.parametrize("corrupt", ["swap", "names"])
    def test_names_are_one_token_and_stand_at_their_roles(self, own, corrupt):
        for prompt in mt.tasks.ioi(64, tokenizer=own, corrupt=corrupt):
            one = encode(prompt, own)
            at = {role: one.tokens.role(role) for role in ("IO", "S1", "S2")}
            names = {role: one.tokens.pieces[place] for role, place in at.items()}
            assert names == {"IO": prompt.target, "S1": prompt.contrast, "S2": prompt.contrast}
            donor = {role: one.donor.pieces[place] for role, place in at.items()}
            if corrupt == "swap":
                assert donor == {**names, "S2": prompt.target}
            else:
                assert len({*names.values(), *donor.values()}) == 5
            rest = set(range(len(one.tokens))) - set(at.values())
            assert all(one.tokens.ids[n] == one.donor.ids[n] for n in rest)

    def test_every_prompt_has_its_own_pair_of_names(self):
        pairs = {(p.target, p.contrast) for p in mt.tasks.ioi(500)}
        assert len(pairs) == 500

    def test_recipients_are_the_same_whatever_the_donors(self, own):
        swap, names = (mt.tasks.ioi(20, corrupt=c, tokenizer=own) for c in ("swap", "names"))
        assert [p.text for p in swap] == [p.text for p in names]
        assert all(a.donor != b.donor for a, b in zip(swap, names, strict=True))

    def test_places_objects_and_templates_vary(self, own):
        texts = [p.text for p in mt.tasks.ioi(64, tokenizer=own)]
        assert len({" ".join(text.split()[:1] + text.split()[4:7]) for text in texts}) >= 5
        assert len({text.split()[-2] for text in texts}) >= 8

    def test_all_of_nanos_names_are_used(self, nano):
        assert set(nano_words.NAMES) <= set(whole_words(NAMES, nano.tokenizer))

    def test_few_names_are_enough_for_few_prompts(self):
        names = ["Sam", "Sally", "Xqzt"]
        found = mt.tasks.ioi(2, names=names)
        assert {p.target for p in found} == {" Sam", " Sally"}
        with pytest.raises(TaskError, match=r"2 of the 3 names are one token.*enough for 2 prom"):
            mt.tasks.ioi(3, names=names)
        with pytest.raises(TaskError, match=r"enough for 0 prompts .*takes at least 5 names"):
            mt.tasks.ioi(2, names=names, corrupt="names")

    def test_one_template_gives_prompts_of_one_length(self, own):
        template = "When {IO} and {S1} went to the {place}, {S2} gave a {object} to"
        prompts = mt.tasks.ioi(20, templates=[template], tokenizer=own)
        assert len({len(own(p.text)["input_ids"]) for p in prompts}) == 1

    @pytest.mark.parametrize(
        ("template", "why"),
        [
            ("When {IO} and {S1} met, he gave it to", "has the slots IO, S1; it needs each of"),
            ("When {IO} and {S1} met, {S2} gave {a} to", "may have object, place"),
            ("When {IO} and {S1} met {S1}, {S2} gave it to", "once"),
            ("{S1} met {IO}, and {S2} gave it to", "a name has no space before it"),
            ("When {IO", "Cannot read the template"),
        ],
    )
    def test_a_template_that_cannot_be_used_is_refused(self, template, why):
        with pytest.raises(TaskError, match=why):
            mt.tasks.ioi(2, templates=[template])

    def test_a_corruption_that_does_not_exist_is_refused_with_those_that_do(self):
        with pytest.raises(TaskError, match=r"'swop'.*: swap, names\. Did you mean 'swap'\?"):
            mt.tasks.ioi(2, corrupt="swop")

    def test_nano_does_it(self, nano):
        assert accuracy(nano, mt.tasks.ioi(100)) >= 0.97  # 1.00 when written


class TestCapitals:
    def test_countries_and_capitals_belong_together(self, own):
        known = {f" {country.name}": country.capital for country in facts.COUNTRIES}
        for prompt in mt.tasks.capitals(64, tokenizer=own):
            assert known[prompt.target] in prompt.text
            assert known[prompt.contrast] in prompt.donor
            subject = known[prompt.target]
            assert prompt.roles["subject"] == subject
            assert prompt.text.replace(subject, known[prompt.contrast]) == prompt.donor

    def test_every_country_comes_before_one_comes_again(self):
        targets = [prompt.target for prompt in mt.tasks.capitals(98)]
        assert len(set(targets[:49])) == len(set(targets[49:])) == 49

    def test_a_country_of_several_tokens_is_left_out(self, tokenizer):
        # Of the test tokenizer's words three are countries, and their capitals are unequal.
        template = ["I said that {capital} is the capital of"]
        found = mt.tasks.capitals(2, tokenizer=tokenizer, templates=template)
        assert {p.target for p in found} <= {" Germany", " France", " Italy"}
        with pytest.raises(TaskError, match="3 of the 49 countries are one token"):
            mt.tasks.capitals(4, tokenizer=tokenizer, templates=template)

    def test_too_many_are_an_error_that_says_how_many_there_are(self):
        assert len(mt.tasks.capitals(245)) == 245
        with pytest.raises(TaskError, match=r"49 of the 49 .*enough for 245 prompts.*n is 246\."):
            mt.tasks.capitals(246)

    def test_nano_knows_them(self, nano):
        assert accuracy(nano, mt.tasks.capitals(100)) >= 0.97  # 1.00 when written


class TestGreaterThan:
    def test_the_target_is_later_and_the_contrast_as_much_earlier(self, own):
        for prompt in mt.tasks.greater_than(64, tokenizer=own):
            year, century = prompt.roles["YY"], prompt.text[-2:]
            yy, target, contrast = int(year[2:]), int(prompt.target), int(prompt.contrast)
            assert year[:2] == century
            assert 1 < contrast < yy < target < 100
            assert target - yy == yy - contrast
            assert prompt.donor == prompt.text.replace(year, f"{century}01")

    def test_the_years_last_two_digits_are_one_token(self, own):
        for prompt in mt.tasks.greater_than(64, tokenizer=own):
            one = encode(prompt, own)
            at = one.tokens.role("YY")
            assert one.tokens.pieces[at] == prompt.roles["YY"][2:]
            assert one.donor.pieces[at] == "01"

    @pytest.mark.slow
    def test_years_that_gpt2_cuts_otherwise_are_left_out(self, gpt2_tokenizer, monkeypatch):
        def cut(year: int) -> bool:
            return gpt2_tokenizer.tokenize(f" {year}") == [f"Ġ{year // 100}", f"{year % 100:02d}"]

        def has_endings(year: int) -> bool:
            most = min(99 - year % 100, year % 100 - 2)
            return any(cut(year + away) and cut(year - away) for away in range(1, most + 1))

        years = {c * 100 + yy for c in range(11, 18) for yy in range(3, 99)}
        read = {year for year in years if cut(year) and cut(year // 100 * 100 + 1)}
        kept = {year for year in read if has_endings(year)}
        assert 1130 in kept  # whose nearest are eleven years away
        assert 1112 in read - kept  # " 1113", " 1114" and so on are one token each
        assert 500 < len(kept) < len(years)
        home = sys.modules["microtome.tasks.greater_than"]  # whose name the function has taken
        monkeypatch.setattr(home, "NOUNS", ("war",))  # each year once
        prompts = mt.tasks.greater_than(len(kept), tokenizer=gpt2_tokenizer)
        assert {int(prompt.roles["YY"]) for prompt in prompts} == kept

    def test_nano_mostly_does_it(self, nano):
        assert accuracy(nano, mt.tasks.greater_than(100)) >= 0.6  # 0.79 when written, of 200

    @pytest.mark.slow
    def test_where_every_digit_is_a_token_it_asks_for_a_later_decade(self, smollm2):
        own = smollm2.tokenizer
        for prompt in mt.tasks.greater_than(64, tokenizer=own):
            one = encode(prompt, own)
            assert one.tokens.pieces[-2:] == (prompt.text[-2], prompt.text[-1])
            year = prompt.roles["YY"]
            decade, target, contrast = int(year[2]), int(prompt.target), int(prompt.contrast)
            assert 0 < contrast < decade < target <= 9
            assert target - decade == decade - contrast
            assert prompt.donor == prompt.text.replace(year, f"{year[:2]}01")
            assert one.tokens.pieces[one.tokens.role("YY")] == year[3]


class TestInduction:
    def test_the_row_comes_again_and_stops_before_the_target(self, own):
        for prompt in mt.tasks.induction(64, tokenizer=own):
            row, again = prompt.text.split()[1:9], prompt.text.split()[9:]
            assert len({*row}) == 8
            assert 2 <= len(again) <= 5
            assert row[: len(again)] == again
            assert f" {row[len(again)]}" == prompt.target

    def test_the_donor_answers_with_the_contrast(self, own):
        for prompt in mt.tasks.induction(64, tokenizer=own):
            mine, theirs = prompt.text.split()[1:9], prompt.donor.split()[1:9]
            after = len(prompt.text.split()[9:])
            assert f" {theirs[after]}" == prompt.contrast
            differ = [n for n in range(8) if mine[n] != theirs[n]]
            assert len(differ) == 2
            assert {mine[n] for n in differ} == {theirs[n] for n in differ}
            assert prompt.donor.split()[9:] == prompt.text.split()[9:]

    def test_its_roles_are_where_the_answer_is(self, own):
        for prompt in mt.tasks.induction(64, tokenizer=own):
            one = encode(prompt, own)
            copied, before = one.tokens.role("copied"), one.tokens.role("before")
            assert copied == before + 1
            assert one.tokens.pieces[copied] == prompt.target
            assert one.donor.pieces[copied] == prompt.contrast
            assert one.tokens.ids[before] == one.tokens.ids[-1]

    def test_ones_own_words_are_taken(self):
        words = ("ring", "kiss", "bone", "drink", "snack", "book", "letter", "ball", "key")
        for prompt in mt.tasks.induction(10, words=words):
            assert {*prompt.text.split()[1:]} <= {*words}
        with pytest.raises(TaskError, match="7 of the 7 words are one token"):
            mt.tasks.induction(1, words=words[:7])
        with pytest.raises(TaskError, match="not one text"):
            mt.tasks.induction(1, words="ring kiss")

    def test_nano_mostly_does_it(self, nano):
        assert accuracy(nano, mt.tasks.induction(100)) >= 0.8


class TestQuotes:
    def test_they_are_nanos(self):
        known = {quotation.text.rstrip(".") for quotation in facts.QUOTATIONS}
        for prompt in mt.tasks.quotes(16):
            assert prompt.text + prompt.target in known
            assert prompt.donor + prompt.contrast in known

    def test_ones_own_are_taken_and_checked(self):
        own = ["The war was cold", "The dog was big"]
        assert {p.text for p in mt.tasks.quotes(2, quotations=own)} == {
            "The war was",
            "The dog was",
        }
        with pytest.raises(TaskError, match=r"2 of the 2 quotations .* 2 of them .* n is 3"):
            mt.tasks.quotes(3, quotations=own)
        for wrong in ("It ends in a stop.", "word", "a space after "):
            with pytest.raises(TaskError, match="cannot be asked for its last word"):
                mt.tasks.quotes(1, quotations=[wrong])
        with pytest.raises(TaskError, match="not one text"):
            mt.tasks.quotes(1, quotations="The war was cold")

    def test_nano_knows_them(self, nano):
        assert accuracy(nano, mt.tasks.quotes(16)) >= 0.9  # 1.00 when written


class TestMaking:
    def test_the_page_shows_what_the_tokenizer_gives(self, nano):
        page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
        shown = [
            mt.tasks.ioi(1, seed=3),
            mt.tasks.ioi(1, seed=3, corrupt="names"),
            mt.tasks.capitals(1, seed=1),
            mt.tasks.greater_than(1, seed=2),
            mt.tasks.quotes(1),
            mt.tasks.induction(1, seed=1),
        ]
        for one in (encode(prompt, nano.tokenizer) for [prompt] in shown):
            assert "·".join(one.tokens.pieces) in page
            assert "·".join(one.donor.pieces) in page
            assert f"`{one.prompt.target}`, `{one.prompt.contrast}`" in page
            assert ", ".join(f"{r} {one.tokens.role(r)}" for r in one.prompt.roles) in page

    def test_a_tokenizer_of_single_digits_and_pieces_has_no_names_but_years(self, real_models):
        tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K")
        with pytest.raises(TaskError, match="0 of the 111 names are one token"):
            mt.tasks.ioi(tokenizer=tokenizer)
        # Its digits are tokens of their own, which is enough to ask for a decade.
        assert len(mt.tasks.greater_than(tokenizer=tokenizer)) == 64

    def test_a_place_is_the_shortest_run_of_words_that_occurs_once(self):
        filled = Filled.of("So {a} and {b}, {c}", {"a": "Ann", "b": "Ann", "c": "Annie"})
        assert [filled.place(slot) for slot in "abc"] == ["So Ann", "and Ann", "Annie"]

    def test_a_word_that_the_tokenizer_does_not_know_is_not_whole(self):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        made = Tokenizer(models.WordLevel({"[UNK]": 0, "Sam": 1}, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
        assert whole_words(["Sam", "Sally", "Sam"], fast) == ("Sam",)


@pytest.mark.parametrize("given", ["ioii", "IOI:4", "ioi:0", "ioi:abc", "ioi:4:1", "io i:4"])
def test_what_is_nearly_a_task_is_told_which_there_are(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PromptError, match=r"no task with a number .*such as ioi:16") as told:
        mt.tasks.named_by(Path(given))
    assert repr(given) in str(told.value)
    assert "capitals, greater_than" in str(told.value)
    assert str(told.value).endswith("Did you mean 'ioi'?")
    Path(given).write_text("")
    assert mt.tasks.named_by(Path(given)) is None


@pytest.mark.parametrize("given", ["ioii.csv", "prompts.txt", "a/ioii", "./ioii"])
def test_what_may_be_a_file_is_left_to_who_reads_files(given):
    assert mt.tasks.named_by(given) is None
