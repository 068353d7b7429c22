"""Texts written under edits: what edits mean while a text grows, and what is refused."""

from __future__ import annotations

import copy
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
)

import microtome as mt
from microtome.edits.growing import Growth
from microtome.errors import (
    AddressError,
    EditError,
    InertEditError,
    MicrotomeError,
    PromptError,
    PromptWarning,
    VerificationError,
)
from microtome.passes.guests import guests_on
from microtome.verbs import generate as verb
from oracles import families
from oracles.plain_hooks import log_softmax

BERLIN = "Berlin is the capital of"
CAT = "The cat sat on"
DONOR = mt.Prompt(BERLIN, donor="Paris is the capital of")
N = 5


def written(model, edits=(), steps=4, prompt=BERLIN, **how):
    """Without the token that ends texts, which a random model may well write."""
    return model.generate(prompt, edits, steps, min_new_tokens=steps, **how)


def bare(model, steps=4, prompt=BERLIN, **how):
    ids = torch.tensor([model.encode(prompt)[0].tokens.ids])
    found = model.hf.generate(ids, max_new_tokens=steps, **how)
    return tuple(found[0, ids.shape[1] :].tolist())


def left_on(model):
    return [guest for module in model.hf.modules() for guest in guests_on(module)]


# -------------------------------------------------------------------------------- the model's own


def edits_are_left_out_once_it_writes(monkeypatch):
    """A fault: they are made in the first pass, over the prompt, and in no other."""
    whole = Growth._act

    def lazy(self, number, layer, now, view):
        if not now.start:
            whole(self, number, layer, now, view)

    monkeypatch.setattr(Growth, "_act", lazy)


def test_nano_says_what_its_own_generate_says_and_ends_where_it_ends(nano):
    made = nano.generate(BERLIN, steps=10)[0]
    assert made.ids == bare(nano, 10)
    assert made.text == " Germany."
    assert made.ended == "eos"
    assert (made.logprob == made.clean_logprob).all()
    assert (made.kl == 0).all()
    assert made.apart < 1e-4


def test_several_prompts_of_different_lengths_are_each_by_itself(tiny64):
    together = written(tiny64, "scale(2) L1.mlp_out@last", prompt=[BERLIN, CAT])
    for one, prompt in zip(together.texts, (BERLIN, CAT), strict=True):
        [alone] = written(tiny64, "scale(2) L1.mlp_out@last", prompt=prompt).texts
        assert one.ids == alone.ids
        assert (one.logprob == alone.logprob).all()
    assert [one.prompt for one in together.receipts] == [0] * 4 + [1] * 4


def test_one_token_may_be_all_that_a_prompt_is(tiny64):
    prompt = mt.Prompt(ids=[7])
    made = written(tiny64, "scale(2) L1.attn_out", prompt=prompt)[0]
    assert len(made) == 4
    assert [one.step for one in made.receipts] == [0, 1, 2, 3]


def test_draws_are_the_seeds_and_leave_the_process_as_it_was(tiny64):
    how = {"do_sample": True, "top_k": 0, "temperature": 2.0}
    torch.manual_seed(3)
    own = bare(tiny64, min_new_tokens=4, **how)
    state = torch.get_rng_state()
    made = written(tiny64, seed=3, **how)
    assert made[0].ids == own
    assert torch.equal(torch.get_rng_state(), state)
    assert written(tiny64, seed=4, **how)[0].ids != own
    assert made.settings["seed"] == 3
    assert made.settings["do_sample"] is True
    # The most probable token is told, whatever was drawn.
    assert (made[0].likeliest_logprob >= made[0].logprob).all()


def test_the_models_own_settings_are_taken_and_said(tiny64, monkeypatch):
    monkeypatch.setattr(tiny64.hf.generation_config, "do_sample", True)
    monkeypatch.setattr(tiny64.hf.generation_config, "top_k", 1)
    made = written(tiny64, seed=8)
    assert made.settings["do_sample"] is True
    assert made.settings["top_k"] == 1
    monkeypatch.undo()
    assert made[0].ids == written(tiny64)[0].ids  # of one token, the likeliest is drawn
    assert "do_sample" not in written(tiny64).settings


def test_what_is_asked_to_be_none_is_none_as_in_the_modules_own_generate(tiny64, monkeypatch):
    monkeypatch.setattr(tiny64.hf.generation_config, "do_sample", True)
    monkeypatch.setattr(tiny64.hf.generation_config, "top_k", 1)
    torch.manual_seed(3)
    own = bare(tiny64, min_new_tokens=4, temperature=3.0, top_k=None)
    made = written(tiny64, temperature=3.0, top_k=None, seed=3)
    assert made[0].ids == own
    assert made[0].ids != written(tiny64, temperature=3.0, seed=3)[0].ids
    assert made.settings["top_k"] is None
    end = own[1]  # a text goes on behind it, where nothing is said to end texts
    monkeypatch.setattr(tiny64.hf.generation_config, "eos_token_id", end)
    assert tiny64.generate(BERLIN, (), 4, temperature=3.0, top_k=None, seed=3)[0].ended == "eos"
    endless = tiny64.generate(BERLIN, (), 4, temperature=3.0, top_k=None, seed=3, eos_token_id=None)
    assert (endless[0].ids, endless[0].ended) == (own, "steps")


@pytest.mark.parametrize("name", ["use_cache", "num_beams", "num_return_sequences"])
def test_what_cannot_be_none_is_as_if_nothing_was_said(tiny64, name):
    made = written(tiny64, "scale(2) L1.mlp_out", **{name: None})
    bare = written(tiny64, "scale(2) L1.mlp_out")
    assert (made[0].ids, made.settings) == (bare[0].ids, bare.settings)


def test_what_a_configuration_leaves_open_is_the_models_own(tiny64, monkeypatch):
    monkeypatch.setattr(tiny64.hf.generation_config, "do_sample", True)
    given = GenerationConfig(temperature=3.0, min_new_tokens=4)
    torch.manual_seed(3)
    own = bare(tiny64, generation_config=given)
    state = torch.get_rng_state()
    made = tiny64.generate(BERLIN, (), 4, generation_config=given, seed=3)
    assert made[0].ids == own
    assert torch.equal(torch.get_rng_state(), state)
    assert (made.settings["do_sample"], made.settings["temperature"]) == (True, 3.0)
    assert given == GenerationConfig(temperature=3.0, min_new_tokens=4)


@pytest.mark.parametrize("end", [None, 1])
def test_a_prompt_with_the_token_of_padding_is_read_whole(tiny64, monkeypatch, end):
    """Padding is put in front of texts; what stands in a prompt is one of its tokens."""
    monkeypatch.setattr(tiny64.hf.generation_config, "eos_token_id", end)
    monkeypatch.setattr(tiny64.hf.generation_config, "pad_token_id", end and 0)
    prompt = mt.Prompt(ids=[0, 5, 6, 0, 7])
    made = tiny64.generate(prompt, steps=4, suppress_tokens=[1])[0]
    mask = torch.ones(1, 5, dtype=torch.long)
    assert made.ids == bare(tiny64, prompt=prompt, attention_mask=mask, suppress_tokens=[1])
    assert made.apart < 1e-9


def test_a_stop_string_stops(nano):
    prompt = "When Sam and Sally went to the park, Sam gave a gift to"
    whole = nano.generate(prompt, steps=6)[0]
    word = whole.pieces[0].strip()
    made = nano.generate(prompt, steps=6, stop_strings=[word])[0]
    assert (made.ids, made.ended) == (whole.ids[:1], "stopped")


def test_tokens_come_one_by_one_and_a_streamer_cannot_run_the_model(tiny64):
    class Streamer:
        def __init__(self):
            self.seen, self.over, self.refused = [], False, ""

        def put(self, value):
            self.seen += value.flatten().tolist()
            if not self.refused:
                with pytest.raises(MicrotomeError) as refused:
                    tiny64.run(CAT)
                self.refused = str(refused.value)

        def end(self):
            self.over = True

    streamer = Streamer()
    made = written(tiny64, "scale(2) L1.mlp_out@last", streamer=streamer)[0]
    assert streamer.seen == [*made.encoded.tokens.ids, *made.ids]
    assert streamer.over
    assert "in the middle of a pass" in streamer.refused


def test_a_processor_of_ones_own_decides_tokens_and_not_log_probabilities(tiny64):
    class Only(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([7]), 0.0)

    made = tiny64.generate(BERLIN, steps=3, logits_processor=LogitsProcessorList([Only()]))[0]
    assert made.ids == (7, 7, 7)
    logits = tiny64.run(BERLIN).logits[0, -1].numpy()
    np.testing.assert_allclose(made.logprob[0], log_softmax(logits)[7], atol=1e-12)


def test_transformers_processor_takes_the_place_of_the_settings_own(tiny64, monkeypatch):
    monkeypatch.setattr(tiny64.hf.generation_config, "repetition_penalty", 9.0)
    how = {"logits_processor": LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1 / 9)])}
    own = bare(tiny64, **how, min_new_tokens=4)
    assert written(tiny64, **how)[0].ids == own
    assert own != written(tiny64)[0].ids


def test_a_text_keeps_the_space_between_the_prompt_and_itself(real_models):
    """Tokenizers that put a space in front of every text take the first one away again."""
    stories = mt.load(real_models / "stories260K")
    made = stories.generate("Once upon", steps=4)[0]
    assert made.text.startswith(" a time")
    ids = stories.encode("Once upon")[0].tokens.ids
    whole = stories.tokenizer.decode([*ids, *made.ids], skip_special_tokens=True)
    assert "Once upon" + made.text == whole


# --------------------------------------------------------------------------------- what edits mean


def test_the_first_step_is_a_run_of_the_prompt(tiny64):
    for edit in ("noise L1.resid_post", "shuffle L0.mlp_out", 'mean(over="positions") L1.z.h2'):
        made = written(tiny64, edit, when="prompt")[0]
        run = tiny64.run(BERLIN, edits=[edit])
        wanted = log_softmax(run.logits[0, -1].numpy())[made.ids[0]]
        np.testing.assert_allclose(made.logprob[0], wanted, atol=1e-12)
        [receipt] = made.receipts
        assert (receipt.step, receipt.changed) == (0, run.receipts[0].changed)


def test_noise_is_drawn_anew_for_each_token_and_is_the_same_each_time(tiny64):
    first, second = (written(tiny64, "noise L1.resid_post@last")[0] for _ in range(2))
    assert first.ids == second.ids
    assert (first.logprob == second.logprob).all()
    assert len({one.norm for one in first.receipts}) == 4
    other = written(tiny64, "noise(seed=1) L1.resid_post@last")[0]
    assert other.receipts[0].norm != first.receipts[0].norm


def test_prompt_positions_stay_where_a_word_comes_again(nano):
    edit = 'scale(3) L1.resid_post@"Germany"'
    prompt = "Berlin is in Germany and Berlin is the capital of"
    made = nano.generate(prompt, edit, steps=3)[0]
    assert " Germany" in made.pieces  # the word is in the text twice now
    place = nano.encode(prompt)[0].tokens.find("Germany")
    by_number = nano.generate(prompt, f"scale(3) L1.resid_post@{place}", steps=3)[0]
    assert by_number.ids == made.ids
    assert (by_number.logprob == made.logprob).all()
    assert [one.step for one in made.receipts] == [0]


def test_a_role_stays_too_and_pairs_of_positions_grow_on_one_side(tiny64):
    prompt = mt.Prompt(BERLIN, roles={"city": "Berlin", "late": -2})
    by_role = written(tiny64, "knockout L1.pattern.h1@last,{city,late}", prompt=prompt)[0]
    by_number = written(tiny64, "knockout L1.pattern.h1@last,{0,3}", prompt=prompt)[0]
    assert (by_role.logprob == by_number.logprob).all()
    assert [one.step for one in by_role.receipts] == [0, 1, 2, 3]


def test_a_knockout_of_all_keys_but_the_first_grows_with_them(tiny64):
    made = written(tiny64, "knockout L1.pattern.h1@last,1:")[0]
    assert [one.selected for one in made.receipts] == [4, 5, 6, 7]


def test_a_function_says_in_which_steps(tiny64):
    made = written(tiny64, "scale(2) L1.mlp_out@last", when=lambda step: step % 2 == 1)[0]
    assert [one.step for one in made.receipts] == [1, 3]
    clean = written(tiny64)[0]
    assert made.ids[0] == clean.ids[0]
    assert made.kl[0] == pytest.approx(0, abs=1e-12)
    assert (made.kl[1:] > 0).all()


def test_logits_are_edited_where_the_next_token_is_chosen(tiny64):
    made = written(tiny64, "scale(-1) logits", steps=2)[0]
    logits = tiny64.run(BERLIN).logits[0, -1]
    assert made.ids[0] == int(logits.argmin())
    np.testing.assert_allclose(made.logprob[0], log_softmax(-logits.numpy()).max(), atol=1e-12)
    with pytest.raises(EditError, match=r"never made.*logits@last"):
        written(tiny64, "zero logits@0")
    patched = written(tiny64, "patch logits", when="prompt", prompt=DONOR)[0]
    donor = tiny64.run(DONOR.donor).logits[0, -1].numpy()
    np.testing.assert_allclose(patched.logprob[0], log_softmax(donor).max(), atol=1e-12)


@pytest.mark.parametrize("place", ["", "@last", "@{1,-1}"])
def test_logits_are_edited_without_a_cache_as_with_it(tiny64, place):
    cached, whole = (
        written(tiny64, f"scale(-1) logits{place}", use_cache=use)[0] for use in (True, False)
    )
    assert cached.ids == whole.ids
    np.testing.assert_allclose(cached.logprob, whole.logprob, atol=1e-9, rtol=0)
    assert [one.step for one in whole.receipts] == [0, 1, 2, 3]


@pytest.mark.parametrize("edit", ["patch", 'mean(over="prompts")'])
def test_of_several_roles_a_newest_token_gets_what_the_last_has(tiny64, edit):
    prompt = mt.Prompt(BERLIN, donor=DONOR.donor, roles={"subject": ("Berlin", "Paris")})
    if edit != "patch":
        prompt = mt.Prompt(BERLIN, roles={"subject": "Berlin"})
    reference = [prompt, mt.Prompt("Paris is the capital of", roles={"subject": "Paris"})]
    both, each = (
        written(tiny64, edits, prompt=prompt, reference=reference)[0]
        for edits in (
            f"{edit} L1.resid_post@{{subject,last}}",
            [f"{edit} L1.resid_post@subject", f"{edit} L1.resid_post@last"],
        )
    )
    assert both.ids == each.ids
    np.testing.assert_allclose(both.logprob, each.logprob, atol=1e-9, rtol=0)
    assert [(one.step, one.selected) for one in both.receipts] == [
        (0, 64),
        (1, 32),
        (2, 32),
        (3, 32),
    ]


def test_a_mean_over_prompts_stands_for_each_newest_token(tiny64):
    reference = [BERLIN, "Rome is the capital of"]
    edit = 'mean(over="prompts") L1.resid_post@last'
    made = written(tiny64, edit, reference=reference)[0]
    kept = tiny64.run(reference, keep=["L1.resid_post@last"])["L1.resid_post@last"]
    vector = kept.values.mean(0).squeeze(0)
    [zeroed] = written(tiny64, ["zero L1.resid_post@last", mt.add("L1.resid_post@last", vector)])
    np.testing.assert_allclose(made.logprob, zeroed.logprob, atol=1e-12)


def test_a_receipt_tells_how_far_a_vector_moved_each_new_token(tiny64):
    vector = np.arange(32.0)
    made = written(tiny64, mt.add("L{0,1}.resid_post@last", vector))[0]
    for one in made.receipts:
        assert (one.layers, one.selected) == ((0, 1), 64)
        assert one.norm == pytest.approx(np.sqrt(2) * np.linalg.norm(vector))
    table = made.table()
    assert table["norm"].tolist() == pytest.approx([one.norm for one in made.receipts])
    assert table["position"].tolist() == [N, N + 1, N + 2, N + 3]


def test_what_would_have_been_is_of_the_same_text(nano):
    """Its clean columns are a pass over prompt and text, written here by hand."""
    made = nano.generate(BERLIN, "scale(0.2) L:.attn_out@last", steps=4)[0]
    ids = torch.tensor([[*made.encoded.tokens.ids, *made.ids[:-1]]])
    with torch.no_grad():
        logits = nano.hf(ids).logits[0, N - 1 :].double().numpy()
    for step, row in enumerate(logits):
        logprobs = log_softmax(row)
        assert made.clean_likeliest[step] == row.argmax()
        assert made.clean_logprob[step] == pytest.approx(logprobs[made.ids[step]], abs=1e-6)
        assert made.clean_likeliest_logprob[step] == pytest.approx(logprobs.max(), abs=1e-6)
    assert made.table()["clean_token"].tolist() == list(made.clean_pieces)


# -------------------------------------------------------------------------------------- refusals

REFUSED = {
    "when='always' is no word": ({"when": "always"}, "when must be 'all' | 'prompt' | 'generated'"),
    "steps": ({"steps": 0}, "steps is how many tokens are written, from 1"),
    "a text longer than time": ({"steps": 10**30}, "takes 32: say steps=28"),
    "seed": ({"seed": 2**64}, "seed is a whole number of at most 64 bits"),
    "max_new_tokens": ({"max_new_tokens": 3}, "steps= says"),
    "beams": ({"num_beams": 3}, "beam search"),
    "several": ({"num_return_sequences": 2, "do_sample": True}, "another seed"),
    "static cache": ({"cache_implementation": "static"}, "the cache that grows"),
    "guidance": ({"guidance_scale": 1.5}, "a second time"),
    "a typo": ({"temprature": 1.0}, "no temprature=.*Did you mean 'temperature'"),
    "a number": ({"temperature": -1.0, "do_sample": True}, "cannot generate so"),
    "a temperature of nothing": (
        {"temperature": 0.7, "do_sample": False},
        "temperature=0.7 is of what",
    ),
    "a share of nothing": ({"top_p": 0.9, "do_sample": False}, "say do_sample=True"),
    "a share beyond 1": ({"top_p": 2.0, "do_sample": True}, "from 0 to 1, and is 2.0"),
    "words of a setting": ({"watermarking_config": 3}, "cannot generate so"),
    "another loop": ({"is_assistant": True}, "cannot generate so .is_assistant=True."),
    "a list that is none": ({"stop_strings": 3}, "cannot generate so .stop_strings=3."),
    "what only the first step reads": (
        {"exponential_decay_length_penalty": (1,)},
        "cannot generate so .exponential_decay_length_penalty=.1,.*out of range",
    ),
    "too long": ({"steps": 40}, "takes 32: say steps=28"),
    "when=3 is no word": ({"when": 3}, "when must be 'all' | .*function of the step, not 3"),
    "a function by itself": ({"logits_processor": max}, "LogitsProcessorList.*put a function into"),
    "what is no function": ({"stopping_criteria": [3]}, "StoppingCriteriaList.*not .3.: put"),
    "tokens that are allowed": ({"prefix_allowed_tokens_fn": [7]}, "is a function, not .7."),
    "no streamer": ({"streamer": print}, "put.tokens. and end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ways_to_write_that_edits_have_no_meaning_in_are_refused(tiny64, case):
    how, why = REFUSED[case]
    with pytest.raises(MicrotomeError, match=why.replace("|", r"\|").replace("(", r"\(")):
        tiny64.generate(BERLIN, "zero L1.z.h1@last", **how)


def test_an_error_of_ones_own_processor_stays_what_it_is(tiny64):
    def own(ids, scores):
        raise TypeError("of mine")

    with pytest.raises(TypeError, match="of mine"):
        tiny64.generate(BERLIN, "zero L1.z.h1@last", logits_processor=[own])


def test_a_setting_with_which_no_model_runs_is_named(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    model.hf.config.return_dict = False
    try:
        model.hf(torch.tensor([[1, 2]]))
    except AttributeError:
        pass
    else:
        pytest.skip("transformers 5.2 runs such a model")
    with pytest.raises(MicrotomeError, match=r"does not run.*return_dict=False: set it True"):
        written(model)


@pytest.mark.parametrize(
    "how", [{"temperature": 0}, {"temperature": 1.0}, {"top_k": 50, "top_p": 1}]
)
def test_what_asks_for_nothing_may_be_said_of_the_likeliest_tokens(nano, how):
    assert nano.generate(BERLIN, steps=2, **how)[0].ids == nano.generate(BERLIN, steps=2)[0].ids


def test_what_a_checkpoint_says_of_sampling_is_no_wish_where_nothing_is_drawn(make_gpt2, tokenizer):
    """Many ship a temperature in their generation_config.json."""
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    wanted = written(model)[0].ids
    model.hf.generation_config.update(temperature=0.6, top_p=0.9)
    assert written(model)[0].ids == wanted


MEANINGLESS = {
    ("patch L1.resid_post", "all"): "no token for one that is being written",
    ("patch L1.resid_post@{0,last}", "generated"): "no token for one",
    ('patch(align="words") L1.resid_post@last', "all"): "no token for one",
    ('mean(over="positions") L1.z.h1', "all"): r"mean over one position.*In step 1",
    ("zero L1.z.h1@0", "generated"): r"never made.*address @last",
    ("zero L1.z.h1@7", "all"): "position|pos 7 does not exist",
    ('zero L1.z.h1@"Paris"', "all"): "not in the prompt",
    ("zero L*.z.h1", "all"): "stars",
    ("knockout L1.pattern.h1@last,:", "all"): "nothing that the token",
    ("knockout L1.pattern.h1@last,{0,1,2,3,last}", "generated"): None,
}


@pytest.mark.parametrize(("edit", "when"), MEANINGLESS)
def test_edits_without_a_meaning_behind_the_prompt_are_refused_before_anything_runs(
    tiny64, edit, when, monkeypatch
):
    why = MEANINGLESS[edit, when]
    if why is None:
        assert len(written(tiny64, edit, when=when).receipts) == 3
        return
    monkeypatch.setattr(verb, "write", None)
    with pytest.raises((EditError, AddressError, PromptError), match=why):
        written(tiny64, edit, when=when, prompt=DONOR)


def test_an_edit_that_overflows_is_named(tiny64):
    with pytest.raises(EditError, match="not all finite"):
        written(tiny64, mt.apply("L1.resid_post@last", lambda x: x / 0), steps=3)


def test_a_text_that_ends_before_any_edit_is_warned_of(nano):
    with pytest.warns(
        PromptWarning,
        match="ended after 1 token, before any step in which the edits are made: nothing",
    ):
        made = nano.generate(BERLIN + " Germany.", "zero L1.z.h1@last", steps=5, when="generated")
    assert made[0].ended == "eos"
    assert not made.receipts


def test_masked_models_do_not_write(bert64):
    with pytest.raises(MicrotomeError, match="fills in masks"):
        bert64.generate("pay no attention to [MASK]")


def test_an_edit_that_is_left_out_of_one_step_is_noticed(tiny64, monkeypatch):
    """The finished text is read once more, and there it is made."""
    whole = Growth._act

    def lazy(self, number, layer, now, view):
        if not (len(now.passes) == 3 and now.start):
            whole(self, number, layer, now, view)

    monkeypatch.setattr(Growth, "_act", lazy)
    with pytest.raises(VerificationError, match="not what one pass"):
        written(tiny64, "scale(2) L1.mlp_out@last")
    assert len(written(tiny64, "scale(2) L1.mlp_out@last", verify=False)[0]) == 4


def test_what_all_logits_have_in_common_is_no_difference_in_half_precision(tiny):
    """SmolLM2 in bfloat16 has hardly anything of it in some steps, and rounding of it in all."""
    model = mt.load(copy.deepcopy(tiny.hf).bfloat16(), tokenizer=tiny.tokenizer)
    own = SimpleNamespace(model=model, encoded=model.encode(BERLIN)[0])
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert 0.3 < verb._Writer._compare(own, logits + 0.5, logits, logits) < 0.7
    other = logits.clone()
    other[1, 7] += 8
    with pytest.raises(VerificationError, match=r"differ by [78]\S*, where 1\.\d+ is rounding"):
        verb._Writer._compare(own, other, logits, logits)


def test_a_step_that_rounding_alone_moves_far_may_be_as_far_off_in_half_precision(tiny):
    """The finished text is read again, rounded otherwise, where a step is in doubt."""
    model = mt.load(copy.deepcopy(tiny.hf).bfloat16(), tokenizer=tiny.tokenizer)
    own = SimpleNamespace(model=model, encoded=model.encode(BERLIN)[0])
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(0)).bfloat16()
    written, shaken = logits.clone(), logits.clone()
    written[1, 7] += 8
    shaken[1, 9] += 4
    elsewhere = logits.clone()
    elsewhere[2, 9] += 4
    read = iter([logits, shaken, logits])
    assert verb._Writer._compare(own, written, logits, logits, read) > 7.9
    assert next(read, None) is None
    for rows in ([], [logits], [elsewhere]):  # none, at no step, at another
        with pytest.raises(VerificationError, match=r"differ by [78]\S*, where 1\.\d+ is"):
            verb._Writer._compare(own, written, logits, logits, rows)
    undoubted = (pytest.fail("read in no doubt") for _ in range(3))
    assert verb._Writer._compare(own, logits, logits, logits, undoubted) == 0


@pytest.mark.parametrize(("moved", "is_rounding"), [(0.3, True), (0.2, False)])
def test_rounding_excuses_four_times_as_far_as_it_moves_a_logit(tiny64, moved, is_rounding):
    own = SimpleNamespace(model=tiny64, encoded=tiny64.encode(BERLIN)[0])
    logits = torch.zeros(2, 9, dtype=torch.float64)
    written, shaken = logits.clone(), logits.clone()
    written[1, 7], shaken[1, 2] = 1.0, moved
    if is_rounding:
        assert verb._Writer._compare(own, written, logits, logits, [shaken]) == 1
        return
    with pytest.raises(VerificationError, match=r"differ by 1, where 0\.8 is rounding"):
        verb._Writer._compare(own, written, logits, logits, [shaken])


def test_a_model_that_rounding_moves_far_writes_in_half_precision_and_no_edit_is_left_out(
    tokenizer, monkeypatch
):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=40, num_hidden_layers=12,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    hf = LlamaForCausalLM(config).eval()
    for name, own in hf.named_parameters():
        own.data *= 12 if "proj" in name else 1
    model, edit = mt.load(hf.bfloat16(), tokenizer=tokenizer), "scale(0.5) L0.resid_post"
    made = written(model, edit, 12)[0]
    assert (made.kl > 0).all()
    edits_are_left_out_once_it_writes(monkeypatch)
    with pytest.raises(VerificationError, match="not what one pass"):
        written(model, edit, 12)


@pytest.mark.parametrize("name", ["gpt_neo", "gptj"])
def test_large_scores_in_float32_are_rounding_and_an_edit_left_out_is_not(
    name, tokenizer, monkeypatch
):
    """Whatever the model's type, these multiply queries with keys in float32."""
    hf = families.make(name, len(tokenizer))
    for path, own in hf.named_parameters():
        own.data *= 10 if "q_proj" in path or "k_proj" in path else 1
    model = mt.load(hf, tokenizer=tokenizer)
    prompts = [mt.Prompt(ids=[*range(n, n + 8)]) for n in range(3, 83, 8)]
    made = written(model, "scale(0.5) L0.resid_post@last", prompt=prompts)
    if any(hasattr(module, "_attn") for module in hf.modules()):  # not GPT-J of 5.24
        assert max(one.apart for one in made) > 8e-6  # more than is allowed without a look
    edits_are_left_out_once_it_writes(monkeypatch)
    with pytest.raises(VerificationError, match="not what one pass"):
        written(model, "scale(0.999) L0.resid_post@last", prompt=prompts)


def test_large_scores_are_rounding_in_a_model_of_float32_too(tokenizer):
    """Every family multiplies queries with keys in that type there."""
    hf = families.make("gemma", len(tokenizer)).float()
    for path, own in hf.named_parameters():
        own.data *= 10 if "q_proj" in path or "k_proj" in path else 1
    model = mt.load(hf, tokenizer=tokenizer)
    prompts = [mt.Prompt(ids=[*range(n, n + 6)]) for n in range(3, 300, 4)]
    made = written(model, "add(5) L0.resid_pre@last", 6, prompts)
    assert max(one.apart for one in made) > 1.4e-4  # more than is allowed without a look


def test_a_part_that_is_not_run_in_every_pass_is_noticed(tiny64, monkeypatch):
    block = tiny64.hf.transformer.h[1]
    plain, calls = block.forward, []

    def skipping(hidden_states, *args, **kwargs):
        calls.append(1)
        return hidden_states if len(calls) == 3 else plain(hidden_states, *args, **kwargs)

    monkeypatch.setattr(block, "forward", skipping)
    with pytest.raises(InertEditError, match="3 times in 4 passes"):
        written(tiny64, "scale(2) L1.mlp_out@last")


# ---------------------------------------------------------------------------------- nothing is left


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_stops_it_nothing_stays(tiny64, error):
    def stop(batch, ids):
        if ids.shape[-1] == N + 2:
            raise error
        return list(range(20))

    with pytest.raises((error, MicrotomeError)):
        written(tiny64, "scale(2) L1.z.h1", prefix_allowed_tokens_fn=stop)
    assert not left_on(tiny64)
    assert written(tiny64)[0].ids == bare(tiny64, min_new_tokens=4)
    assert torch.is_grad_enabled()


def test_two_threads_write_as_each_would_alone(tiny64):
    how = {"do_sample": True, "top_k": 0, "temperature": 2.0}
    edits = ["scale(3) L1.mlp_out@last", "zero L2.attn_out"]
    alone = [written(tiny64, edit, 8, seed=n, **how)[0].ids for n, edit in enumerate(edits)]
    found: dict[int, tuple[int, ...]] = {}

    def run(number: int) -> None:
        found[number] = written(tiny64, edits[number], 8, seed=number, **how)[0].ids

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[0], found[1]] == alone


# ----------------------------------------------------------------------- caches that are not plain


def _llama(tokenizer, **changes):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=0, pad_token_id=0,
        **changes,
    )  # fmt: skip
    return mt.load(LlamaForCausalLM(config).double().eval(), tokenizer=tokenizer)


ROTARY = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "longrope": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "factor": 2.0,
        "long_factor": [3.0] * 4, "original_max_position_embeddings": 6,
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::microtome.errors.PromptWarning")
@pytest.mark.parametrize("kind", ROTARY)
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_rotary_embedding_that_follows_the_text_is_read_again_as_it_was_read(
    tokenizer, kind, use_cache
):
    """Its cached keys are turned as the text was long then, so one pass is another computation."""
    model = _llama(tokenizer, max_position_embeddings=6, rope_parameters=ROTARY[kind])
    fresh = _llama(tokenizer, max_position_embeddings=6, rope_parameters=ROTARY[kind])
    how = {"steps": 6, "use_cache": use_cache}
    assert written(model, **how)[0].ids == bare(fresh, 6, min_new_tokens=6, use_cache=use_cache)
    made = written(model, "scale(2) L1.mlp_out@last", **how)[0]
    assert made.apart <= 1e-9
    assert (made.kl > 0).all()
    assert written(model, **how)[0].ids == bare(fresh, 6, min_new_tokens=6, use_cache=use_cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_write_within_their_rounding(make_gpt2, tokenizer, dtype):
    model = mt.load(make_gpt2(dtype=dtype), tokenizer=tokenizer)
    assert written(model)[0].ids == bare(model, min_new_tokens=4)
    made = written(model, "scale(3) L1.mlp_out@last")[0]
    assert (made.kl > 0).all()
    assert len(made.receipts) == 4


def test_edges_have_no_meaning_in_a_text_that_is_being_written(tiny64):
    with pytest.raises(EditError, match="made on an edge"):
        written(tiny64, "zero L0.z.h0 -> L1.q_in.h0", steps=2)
