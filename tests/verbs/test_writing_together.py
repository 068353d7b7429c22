"""Texts that are written in one batch: each is what it is alone, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, SynthIDTextWatermarkingConfig
from transformers.generation import (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    SuppressTokensAtBeginLogitsProcessor,
)
from transformers.generation import utils as theirs

import microtome as mt
from microtome.errors import MicrotomeError
from microtome.passes.now import Now
from microtome.passes.rows import Row, Rows, _Streams

TEXTS = [
    mt.Prompt("Berlin is the capital of", donor="Paris is the capital of"),
    mt.Prompt("The cat sat", donor="The dog sat"),
    mt.Prompt(ids=[7], donor_ids=[9]),
    mt.Prompt("When Mary and John went to the store", donor="When John and Mary went to the store"),
]
STEPS = 3


def pair(model, edits=(), batch=4, prompts=TEXTS, **how):
    """The texts written together, and one after another."""
    how = {"steps": STEPS, **how}
    return [model.generate(prompts, edits, batch=n, **how) for n in (batch, 1)]


def check_alike(together, alone, rounding=1e-9):
    assert len(together) == len(alone)
    for one, own in zip(together, alone, strict=True):
        assert (one.ids, one.text, one.ended) == (own.ids, own.text, own.ended)
        np.testing.assert_allclose(one.logprob, own.logprob, atol=rounding, rtol=0)
        np.testing.assert_allclose(one.clean_logprob, own.clean_logprob, atol=rounding, rtol=0)
        assert one.apart <= rounding
        made, wanted = (
            [(r.edit, r.prompt, r.step, r.layers, r.selected, r.changed) for r in text.receipts]
            for text in (one, own)
        )
        assert made == wanted
        norms = [[r.norm for r in text.receipts] for text in (one, own)]
        np.testing.assert_allclose(*norms, rtol=1e-6)


EDITS = {
    "none": [],
    "at the newest": ["scale(2) L1.mlp_out@last", "zero L2.z.h1@-1"],
    "at places of each prompt": ["scale(-1) L1.resid_post@{0,last}", "add(0.5) L0.k"],
    "weights": ["knockout L1.pattern.h1@last,0", "scale(0.5) L2.pattern.h{0,3}"],
    "what heads read and write": ["scale(3) L1.q_in.h{1,2}", "scale(-2) L1.head_out.h3@last"],
    "drawn": ["noise L1.resid_post", "shuffle L2.mlp_post@last"],
    "from donors": ["patch L1.resid_post@last"],
    "logits": ["scale(-1) logits"],
}


@pytest.mark.parametrize("case", EDITS)
def test_edits_are_made_in_each_text_as_if_it_were_alone(tiny64, case):
    prompts = TEXTS[:2] + TEXTS[3:] if case == "weights" else TEXTS
    how = {"when": "generated"} if case == "weights" else {}
    together, alone = pair(tiny64, EDITS[case], prompts=prompts, min_new_tokens=STEPS, **how)
    check_alike(together, alone)
    assert together.settings == {**alone.settings, "batch": 4}
    assert len(together.receipts) == len(alone.receipts) >= len(EDITS[case]) * len(prompts)


SETTINGS = {
    "repeated tokens": {"repetition_penalty": 1.7},
    "repeated pairs": {"no_repeat_ngram_size": 1},
    "a bias": {"sequence_bias": [[[3, 5], 9.0], [[11], 6.0]]},
    "drawn": {"do_sample": True, "top_k": 0, "temperature": 3.0, "seed": 3},
    "no cache": {"use_cache": False},
    "at the beginning": {"begin_suppress_tokens": [60, 67]},
    "a forced end": {"forced_eos_token_id": 5},
    "a watermark": {
        "watermarking_config": SynthIDTextWatermarkingConfig(ngram_len=3, keys=[5, 7, 11]),
        "do_sample": True,
        "top_k": 0,
    },
    "sooner or later": {"exponential_decay_length_penalty": (1, 40.0), "eos_token_id": 5},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_see_the_text_and_no_padding(tiny64, case):
    how = SETTINGS[case] if case == "sooner or later" else {"min_new_tokens": STEPS}
    together, alone = pair(tiny64, "scale(2) L1.mlp_out", **{**how, **SETTINGS[case]})
    check_alike(together, alone)
    plain = tiny64.generate(TEXTS, "scale(2) L1.mlp_out", STEPS, min_new_tokens=STEPS)
    if case != "no cache":  # so that these settings do something to some text
        assert [one.ids for one in together] != [one.ids for one in plain]


def test_each_text_ends_by_itself_and_what_comes_behind_is_nobodys(tiny64):
    long = tiny64.generate(TEXTS, "scale(2) L1.mlp_out", 6, min_new_tokens=6)
    ends = [long[0].ids[1], long[3].ids[3]]
    together, alone = pair(tiny64, "scale(2) L1.mlp_out", steps=6, eos_token_id=ends)
    check_alike(together, alone)
    lengths = [len(one) for one in together]
    assert len(set(lengths)) > 1
    assert [len(one.receipts) for one in together] == lengths
    assert {one.ended for one in together} >= {"eos"}


def test_a_stop_string_stops_its_own_text(nano):
    prompts = [
        "Berlin is the capital of",
        "When Sam and Sally went to the park, Sam gave a gift to",
    ]
    whole = nano.generate(prompts, steps=4)
    word = whole[1].pieces[0].strip()
    together, alone = pair(nano, prompts=prompts, batch=2, stop_strings=[word])
    check_alike(together, alone, 1e-4)
    assert [one.ended for one in together] == ["eos", "stopped"]


def test_more_prompts_than_a_batch_are_several(tiny64):
    together, alone = pair(tiny64, "scale(2) L1.mlp_out@last", batch=3, min_new_tokens=STEPS)
    check_alike(together, alone)
    assert [one.prompt for one in together.receipts] == [n for n in range(4) for _ in range(STEPS)]


class Streamer:
    def __init__(self):
        self.seen, self.over = [], 0

    def put(self, value):
        self.seen += value.flatten().tolist()

    def end(self):
        self.over += 1


@pytest.mark.parametrize("batch", [1, 4])
def test_each_prompts_tokens_come_to_its_own_streamer(tiny64, batch):
    ends = tiny64.generate(TEXTS[0], steps=STEPS, min_new_tokens=STEPS)[0].ids[1]
    streamers = [Streamer() for _ in TEXTS]
    made = tiny64.generate(TEXTS, steps=STEPS, batch=batch, streamer=streamers, eos_token_id=ends)
    assert len(made[0]) < STEPS
    for one, streamer in zip(made, streamers, strict=True):
        assert streamer.seen == [*one.encoded.tokens.ids, *one.ids]
        assert streamer.over == 1


def test_ones_own_processors_and_criteria_get_each_text_by_itself(tiny64):
    seen: list[tuple[int, ...]] = []

    class Looking(LogitsProcessor):
        def __call__(self, input_ids, scores):
            [own] = input_ids.tolist()
            seen.append(tuple(own))
            assert scores.shape[0] == 1
            return scores

    def after_two(input_ids, scores):
        [own] = input_ids.tolist()
        return torch.tensor([own[-3:-2] in ([one.tokens.ids[-1]] for one in encoded)])

    encoded = tiny64.encode(TEXTS)
    how = {"logits_processor": LogitsProcessorList([Looking()]), "min_new_tokens": STEPS}
    together, alone = pair(tiny64, stopping_criteria=StoppingCriteriaList([after_two]), **how)
    check_alike(together, alone)
    half = len(seen) // 2
    assert sorted(seen[:half]) == sorted(seen[half:])


def test_what_ones_own_processor_draws_is_drawn_by_each_text(tiny64):
    class Drawing(LogitsProcessor):
        def __call__(self, input_ids, scores):
            chosen = torch.multinomial(scores[0].softmax(-1), num_samples=1)
            return torch.full_like(scores, -torch.inf).index_fill(1, chosen, 0.0)

    how = {"logits_processor": LogitsProcessorList([Drawing()]), "do_sample": True, "seed": 3}
    together, alone = pair(tiny64, **how)
    check_alike(together, alone)
    assert len({one.ids for one in together}) > 1


END = 5
COUNTING = {
    "at least so long": MinLengthLogitsProcessor(6, END, device="cpu"),
    "so many new ones": MinNewTokensLengthLogitsProcessor(3, 2, END, device="cpu"),
    "not behind one token": SuppressTokensAtBeginLogitsProcessor([END], 1),
    "the sixth is the end": ForcedEOSTokenLogitsProcessor(6, END),
    "sooner or later": ExponentialDecayLengthPenalty((1, 40.0), END, 3),
    "other than behind the third": RepetitionPenaltyLogitsProcessor(9.0, 3),
    "at most so long": MaxLengthCriteria(6),
}
"""Processors and criteria of the caller's that count tokens of a text."""


@pytest.mark.parametrize("case", COUNTING)
def test_what_one_has_made_for_a_length_counts_each_text_and_no_padding(tiny64, case):
    made = COUNTING[case]
    how = {"steps": STEPS, "eos_token_id": END}
    if case.startswith(("at least", "so many", "not behind")):  # which do something before an end
        how["sequence_bias"] = [[[END], 50.0]]
    if isinstance(made, MaxLengthCriteria):
        own = {"stopping_criteria": StoppingCriteriaList([made])}
    else:
        own = {"logits_processor": LogitsProcessorList([made])}
    together, alone = pair(tiny64, "scale(2) L1.mlp_out@last", **how, **own)
    check_alike(together, alone)
    plain = tiny64.generate(TEXTS, "scale(2) L1.mlp_out@last", **how)
    assert [one.ids for one in together] != [one.ids for one in plain]
    assert max(map(len, together)) <= STEPS


@pytest.mark.parametrize("batch", [1, 4])
def test_a_criterion_may_say_true(tiny64, batch):
    """As transformers' own list takes it."""

    class Plain(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return input_ids.shape[1] >= 5

    how = {"stopping_criteria": StoppingCriteriaList([Plain()]), "min_new_tokens": STEPS}
    made = tiny64.generate(TEXTS, steps=STEPS, batch=batch, **how)
    lengths = [len(one.encoded.tokens) for one in made]
    assert [len(one) for one in made] == [min(STEPS, max(1, 5 - n)) for n in lengths]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_pass_behind_the_end_is_nobodys(tiny64, batch, monkeypatch):
    """Where reading from a device takes long, transformers asks one pass late whether all ended."""

    class Late(theirs.StopCheck):
        over, late = False, 0

        def __call__(self, *given):
            self.over, self.late = super().__call__(*given), int(self.over)
            return bool(self.late)

        def finish(self):
            return self.late

    edit = "scale(2) L1.mlp_out@last"
    long = tiny64.generate(TEXTS, edit, 6, min_new_tokens=6)
    how = {"steps": 6, "eos_token_id": [long[0].ids[1], *(one.ids[4] for one in long)]}
    wanted = tiny64.generate(TEXTS, edit, **how)
    monkeypatch.setattr(theirs, "StopCheck", Late)
    streamers = [Streamer() for _ in TEXTS]
    made = tiny64.generate(TEXTS, edit, batch=batch, streamer=streamers, **how)
    check_alike(made, wanted)


def test_a_pass_of_other_rows_is_none_that_comes_next():
    rows = Rows([Row([7], Now(1))])
    assert not rows.read([[7], [7]])
    assert rows.read([[7]])


def test_a_text_that_has_ended_streams_no_more_in_whatever_order():
    """Transformers 5.2 streams a token before it asks whether that is the last one."""
    streamer, row = Streamer(), Row([7], Now(1))
    streams = _Streams([row], [streamer])
    streams.put(torch.tensor([3]))
    row.written = 1
    streams.put(torch.tensor([0]))
    assert (streamer.seen, streamer.over) == ([3], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_are_read_again_by_themselves(make_gpt2, tokenizer, dtype):
    model = mt.load(make_gpt2(dtype=dtype), tokenizer=tokenizer)
    made = model.generate(TEXTS, "scale(3) L1.mlp_out@last", STEPS, batch=4, min_new_tokens=STEPS)
    assert all(len(one) == STEPS for one in made)
    if dtype == torch.float32:
        alone = model.generate(TEXTS, "scale(3) L1.mlp_out@last", STEPS, min_new_tokens=STEPS)
        check_alike(made, alone, 1e-4)


def test_an_edit_that_lands_in_another_row_is_noticed(tiny64, monkeypatch):
    from microtome.errors import VerificationError
    from microtome.passes.rows import Rows

    def wrong(self, each, view):
        each[0].act(view[:1])
        each[1].act(view[:1])

    monkeypatch.setattr(Rows, "_act", wrong)
    with pytest.raises(VerificationError, match="not what one pass"):
        tiny64.generate([TEXTS[1]] * 2, "scale(2) L1.mlp_out@last", 2, batch=2, min_new_tokens=2)


REFUSED = {
    "no batch": ({"batch": 0}, "batch=0"),
    "one streamer": ({"streamer": Streamer()}, "come by turns"),
    "too few streamers": ({"streamer": [Streamer()]}, "one for each prompt: 4, not 1"),
    "a length with the prompt": ({"min_length": 9}, "say min_new_tokens"),
    "all prompts": ({"encoder_repetition_penalty": 2.0}, "prompts of all rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_batch_would_make_another_thing_of_is_refused(tiny64, case):
    how, why = REFUSED[case]
    with pytest.raises(MicrotomeError, match=why):
        tiny64.generate(TEXTS, (), 2, **{"batch": 4, **how})


def test_a_rotary_embedding_that_follows_the_longest_text_is_refused(tokenizer):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=40, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=6,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    )  # fmt: skip
    model = mt.load(LlamaForCausalLM(config).double().eval(), tokenizer=tokenizer)
    with pytest.raises(MicrotomeError, match="follows the length of the text"):
        model.generate(TEXTS, (), 2, batch=2)
