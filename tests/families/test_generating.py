"""Every family writes under edits as by hand: one hooked pass over the finished text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import MicrotomeError
from oracles import families as by_hand
from oracles.families import ENCODERS, FAMILIES, HEADS, UNLIKE, Change, turn

CAT = mt.Prompt("The cat sat on the mat, and", donor="The dog sat on the cat, and")
PROMPT, STEPS = 8, 3
READ = PROMPT + STEPS - 1
"""How many tokens are read: the last one that is written is not."""

WRITERS = [name for name in FAMILIES if name not in ENCODERS]
SOME = [name for name in UNLIKE if name not in ENCODERS]


@pytest.fixture(scope="module", params=WRITERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def rounding(hand):
    """A little more than of effects, where a family's own code computes scores in float32."""
    return hand.rounding if hand.rounding < 1e-6 else 4 * hand.rounding


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def written(model, edits=(), **how):
    """Without the token that ends texts, which a random model may well write."""
    return model.generate(CAT, edits, STEPS, min_new_tokens=STEPS, **how)[0]


def by_own_generate(model, **how):
    ids = torch.tensor([model.encode(CAT)[0].tokens.ids])
    found = model.hf.generate(ids, max_new_tokens=STEPS, min_new_tokens=STEPS, **how)
    return tuple(found[0, PROMPT:].tolist())


def logprobs(model, hand, made, changes):
    """Of each token that was written, from one pass over all that was read."""
    ids = [*model.encode(CAT)[0].tokens.ids, *made.ids]
    logits = by_hand.run(model.hf, hand, ids[:-1], changes).logits[PROMPT - 1 :].double()
    return logits.log_softmax(-1).numpy()[range(STEPS), list(made.ids)]


def test_without_edits_it_is_the_modules_own_token_for_token(model):
    assert written(model).ids == by_own_generate(model)
    torch.manual_seed(5)
    own = by_own_generate(model, do_sample=True, top_k=0)
    assert written(model, do_sample=True, top_k=0, seed=5).ids == own


EVERYWHERE, PROMPTS = range(READ), range(PROMPT)
BEHIND, NEWEST = range(PROMPT, READ), range(PROMPT - 1, READ)
CASES = {
    ("@:", "all"): EVERYWHERE,
    ("@last", "all"): NEWEST,
    ("@-1", "generated"): BEHIND,
    ("@:", "prompt"): PROMPTS,
    ('@"sat"', "all"): [2],
    ("@{1,last}", "all"): [1, *NEWEST],
    ("@5:", "all"): range(5, READ),
    ("@-2", "all"): [PROMPT - 2],
}
"""Positions and when → which tokens of the finished text are edited."""


OPERATIONS = {"scale(-1.5)": lambda x: -1.5 * x, "replace(0.75)": lambda x: 0 * x + 0.75}


def test_edits_hold_as_by_hand(model, name, hand, rounding):
    """A third of the sites in each family; each with a case and an operation, by turns."""
    clean = by_hand.run(model.hf, hand, [0, 1])
    sites = hand.sites[:-1]  # logits: in tests/verbs
    for number in range(turn(name) % 3, len(sites), 3):
        site = sites[number]
        (place, when), positions = list(CASES.items())[number % len(CASES)]
        text, op = list(OPERATIONS.items())[number % len(OPERATIONS)]
        layer = None if site == "embed" else hand.layers - 2  # one before those that read it
        where = site if layer is None else f"L{layer}.{site}"
        made = written(model, f"{text} {where}{place}", when=when)
        inner = [list(range(n)) for n in clean.seen[site, layer].shape[1:]]
        wanted = logprobs(model, hand, made, [Change(site, layer, [list(positions), *inner], op)])
        np.testing.assert_allclose(made.logprob, wanted, atol=rounding, rtol=0, err_msg=site)
        without = logprobs(model, hand, made, [])
        np.testing.assert_allclose(made.clean_logprob, without, atol=rounding, rtol=0)
        assert np.abs(wanted - without).max() > 1e-7, site
        assert made.apart <= rounding


def test_with_the_cache_is_without_it(model, rounding):
    edits = ["scale(-1.5) L1.z.h1@last", "add(0.5) L0.resid_post", "shuffle L1.resid_post@last"]
    cached, whole = (written(model, edits, use_cache=u, verify=False) for u in (True, False))
    assert cached.ids == whole.ids
    np.testing.assert_allclose(cached.logprob, whole.logprob, atol=rounding, rtol=0)
    assert [one.step for one in cached.receipts] == [one.step for one in whole.receipts]
    norms = [[one.norm for one in made.receipts] for made in (cached, whole)]
    np.testing.assert_allclose(*norms, rtol=1e-6)


@pytest.mark.parametrize("name", SOME, indirect=True)
def test_attention_weights_are_edited_as_by_hand(name, tokenizer, hand, rounding):
    eager = mt.load(by_hand.make(name, len(tokenizer), attention="eager"), tokenizer=tokenizer)
    made = written(eager, "scale(0.5) L1.pattern.h2@last,last", when="generated")
    ids = [*eager.encode(CAT)[0].tokens.ids, *made.ids][:-1]
    changes = [
        Change("pattern", 1, [[2], [position], [position]], lambda weights: 0.5 * weights)
        for position in BEHIND
    ]
    found = by_hand.run(eager.hf, hand, ids, changes).logits[PROMPT - 1 :].double()
    wanted = found.log_softmax(-1).numpy()[range(STEPS), list(made.ids)]
    np.testing.assert_allclose(made.logprob, wanted, atol=rounding, rtol=0)
    assert np.abs(wanted - made.clean_logprob).max() > 1e-9


@pytest.mark.parametrize("name", SOME, indirect=True)
def test_what_single_heads_read_and_write_is_edited_in_the_cache_too(model, hand, rounding):
    """Branches and detours: the finished text, read in one pass, gives the same."""
    edits = ["scale(3) L1.q_in.h1", "scale(-2) L1.head_out.h3@last", "add(1) L1.v_in.h2"]
    if hand.kv_heads < HEADS:
        edits.append("scale(0.5) L1.k_head.h1")
    made = written(model, edits)
    assert made.apart <= rounding
    assert all(one.changed for one in made.receipts)


@pytest.mark.parametrize("name", SOME, indirect=True)
def test_a_patch_gives_the_prompt_its_donor_and_each_new_token_the_donors_last(
    model, hand, rounding
):
    donor = by_hand.run(model.hf, hand, model.encode(CAT)[0].donor.ids).seen["resid_post", 1]
    width = list(range(donor.shape[1]))
    whole = Change("resid_post", 1, [list(PROMPTS), width], lambda x: donor)
    made = written(model, "patch L1.resid_post", when="prompt")
    wanted = logprobs(model, hand, made, [whole])
    np.testing.assert_allclose(made.logprob, wanted, atol=rounding, rtol=0)
    newest = Change("resid_post", 1, [list(NEWEST), width], lambda x: 0 * x + donor[-1])
    made = written(model, "patch L1.resid_post@last")
    wanted = logprobs(model, hand, made, [newest])
    np.testing.assert_allclose(made.logprob, wanted, atol=rounding, rtol=0)


def test_in_a_batch_each_text_is_the_one_that_it_is_alone(model, name, rounding, tokenizer):
    """Padded on the left, with branches, detours and weights besides: of each its own tokens."""
    if name in ("gemma2", "bloom"):  # their padding is no number in float64: see test_padding
        with pytest.raises(MicrotomeError, match=r"are no numbers.*batch=1"):
            model.generate([CAT, "When Mary"], (), 1, batch=2)
        model = mt.load(by_hand.make(name, len(tokenizer), torch.float32), tokenizer=tokenizer)
        rounding = 1e-4
    prompts = [CAT, "When Mary"]
    edits = [
        "scale(-1.5) L1.z.h1@last",
        "scale(3) L1.q_in.h1",
        "scale(0.5) L0.pattern.h2@last,last",
    ]
    how = {"when": "generated", "min_new_tokens": STEPS}
    together, alone = (
        model.generate(prompts, edits, STEPS, batch=n, verify=n > 1, **how) for n in (2, 1)
    )
    for one, own in zip(together, alone, strict=True):
        assert one.ids == own.ids
        np.testing.assert_allclose(one.logprob, own.logprob, atol=rounding, rtol=0)
        assert [r.step for r in one.receipts] == [r.step for r in own.receipts]
