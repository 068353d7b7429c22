"""Means over reference prompts: against hooks written by hand in float64, and what they take."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.edits import means as module
from microtome.edits.means import Means
from microtome.errors import EditError, PromptError
from microtome.plan.memory.budget import TILES, Budget
from microtome.plan.memory.recorded import bytes_of_means, references_at_once
from microtome.verbs.sweep import asking
from oracles import plain_hooks

ROME = "Rome is the capital of"
LONG = "Berlin and Paris is the capital of"  # 7 tokens
ALIGNED = (BERLIN, LONG, "Rome is in the capital of")
ROLES = tuple(
    mt.Prompt(text, roles={"subject": subject, "verb": "is"})
    for text, subject in zip(ALIGNED, ("Berlin", "Paris", "Rome"), strict=True)
)


def seen(model, text, site, layer):
    """A site's clean values, ``[pos, *axes]``."""
    ids = model.tokenizer(text)["input_ids"]
    return plain_hooks.run(model.hf, ids).seen[site, layer]


def logits_with(model, text, site, layer, index, values):
    """The logits at the last token with these values in a site, put there by hand."""
    ids = model.tokenizer(text)["input_ids"]
    change = plain_hooks.Change(site, layer, index, lambda _: values)
    return plain_hooks.run(model.hf, ids, [change]).logits[-1].numpy()


@pytest.mark.parametrize("times", [1, 3])
def test_each_position_has_its_mean_over_the_references_one_given_twice_counts_twice(tiny64, times):
    reference = [PARIS, ROME] + (times - 1) * [ROME]
    run = tiny64.run(BERLIN, 'mean(over="prompts") L1.z.h2', reference=reference)
    wanted = np.mean([seen(tiny64, text, "z", 1)[:, [2]] for text in reference], axis=0)
    index = [list(range(5)), [2], list(range(8))]
    by_hand = logits_with(tiny64, BERLIN, "z", 1, index, wanted)
    assert np.abs(run.logits[0, -1].numpy() - by_hand).max() < 1e-12


@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_aligned_by_words_each_reference_gives_what_stands_for_the_position(tiny64, engine):
    """'is the capital of' is at 1 … 4 in the prompt, at 3 … 6 and (without 'is') 3 … 5 there."""
    edit = mt.mean("L*.attn_out@*", over="prompts", align="words")
    prompt = mt.Prompt(BERLIN, target=" Germany")
    done = mt.sweep(
        tiny64, prompt, edit, metrics="logit", reference=ALIGNED, engine=engine, progress=False
    )
    there = {1: (1, 3, 1), 2: (2, 4, 3), 3: (3, 5, 4), 4: (4, 6, 5)}
    [target] = tiny64.tokenizer(" Germany")["input_ids"]
    found = done.data["logit"].transpose("prompt", "layer", "pos").values[0]
    assert np.isnan(found[:, 0]).all()  # "Berlin" is not in the third: no cell
    for layer in range(3):
        clean = [seen(tiny64, text, "attn_out", layer) for text in ALIGNED]
        for here, places in there.items():
            wanted = np.mean([x[at] for x, at in zip(clean, places, strict=True)], axis=0)
            index = [[here], list(range(32))]
            by_hand = logits_with(tiny64, BERLIN, "attn_out", layer, index, wanted[None])
            assert abs(found[layer, here] - by_hand[target]) < 1e-9


@pytest.mark.parametrize("place", ["@subject", "@{verb,subject}", "@{subject,-1}"])
def test_a_role_is_where_each_reference_has_it(tiny64, place):
    same = place != "@{subject,-1}"
    texts = ROLES if same else (ROLES[0], mt.Prompt(PARIS, roles={"subject": "is"}))
    run = tiny64.run(ROLES[0], f'mean(over="prompts") L0.resid_post{place}', reference=texts)
    places = {
        "@subject": [(0,), (2,), (0,)],
        "@{verb,subject}": [(0, 1), (2, 3), (0, 1)],
        "@{subject,-1}": [(0, 4), (1, 4)],
    }[place]
    clean = [seen(tiny64, one.text, "resid_post", 0) for one in texts]
    wanted = np.mean([x[list(at)] for x, at in zip(clean, places, strict=True)], axis=0)
    index = [list(places[0]), list(range(32))]
    by_hand = logits_with(tiny64, BERLIN, "resid_post", 0, index, wanted)
    assert np.abs(run.logits[0, -1].numpy() - by_hand).max() < 1e-12


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        ('mean(over="prompts", align="words") L1.pattern.h1@-1,{1,2}', (4, [1, 2])),
        ('mean(over="prompts") L1.pattern.h1@verb,subject', (1, [0])),
    ],
)
def test_attention_weights_are_aligned_along_both_positions(tiny64, edit, place):
    run = tiny64.run(ROLES[0], edit, keep=["L1.pattern"], reference=ROLES[:2])
    clean = tiny64.run(ALIGNED[:2], keep=["L1.pattern"])["L1.pattern"].sel(head=1).values
    query, keys = place
    beside = clean[1, query + 2, [key + 2 for key in keys]]  # two tokens more come before
    wanted = (clean[0, query, keys] + beside) / 2
    kept = run["L1.pattern"].sel(head=1).values[0, query, keys]
    assert np.abs(kept - wanted).max() < 1e-12


def test_edits_at_several_places_of_a_site_have_the_means_of_each(tiny64):
    """What is kept reaches from the first of them to the last, whichever is asked for first."""
    reference = [PARIS, ROME]
    wanted = np.mean([seen(tiny64, text, "attn_out", 1) for text in reference], axis=0)
    for places in (("{1,2}", "{2,3,4}"), ("{2,3,4}", "{1,2}")):
        edits = [f'mean(over="prompts") L1.attn_out@{place}' for place in places]
        run = tiny64.run(BERLIN, edits, keep=["L1.attn_out"], reference=reference)
        kept = run["L1.attn_out"].values[0]
        assert np.abs(kept[1:] - wanted[1:]).max() < 1e-12


@pytest.mark.parametrize("by", ["words", "roles"])
def test_a_position_without_a_counterpart_in_a_reference_is_refused_as_in_a_donor(tiny64, by):
    prompt = mt.Prompt(LONG, roles={"subject": "Paris", "verb": "is"})
    with pytest.raises(PromptError, match=f"aligned by {by}, position 1 .*has no counterpart"):
        tiny64.run(prompt, f'mean(over="prompts", align="{by}") L0.z@1', reference=ROLES)


def test_other_lengths_are_refused_unless_they_are_aligned(tiny64):
    with pytest.raises(PromptError, match=r'differ in length, 5 and 7.*align="words".*mean over'):
        tiny64.run(BERLIN, 'mean(over="prompts") L0.z', reference=ALIGNED)


def test_align_is_for_means_over_prompts():
    for over in ("tensor", "positions"):
        with pytest.raises(EditError, match=f'over="{over}" needs none: use over="prompts"'):
            mt.mean("L0.z", over=over, align="words")
    with pytest.raises(EditError, match=r"'position' \| 'roles' \| 'words', not 'word'"):
        mt.mean("L0.z", over="prompts", align="word")
    text = 'mean(over="prompts", align="roles") L0.z@*'
    assert str(mt.edit(text)) == text


# ------------------------------------------------------------------------------------ what it takes


def counts(model, monkeypatch, texts, **options) -> Counter[str]:
    """How often a map of means runs references, and looks at them."""
    calls: Counter[str] = Counter()

    def counting(name, own):
        def call(*args, **kwargs):
            calls[name] += 1
            return own(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("record", "counterpart", "_chosen"):
            patched.setattr(module, name, counting(name, getattr(module, name)))
        edit = 'mean(over="prompts") L*.attn_out@*'
        mt.sweep(model, texts, edit, metrics="kl", verify=0, progress=False, **options)
    return calls


NAMES = ("Berlin", "Paris", "Rome", "The")
TEXTS = [f"{name} is the capital{end}" for end in (" of", " in") for name in NAMES]


def test_references_run_once_each_and_are_looked_at_once(tiny64, monkeypatch):
    """Twice as many prompts that are their own references: twice the passes and looks, not four."""
    four, eight = (counts(tiny64, monkeypatch, TEXTS[:n], engine="reference") for n in (4, 8))
    assert four == {"record": 4, "counterpart": 4, "_chosen": 4 * 3}
    assert eight == {name: 2 * calls for name, calls in four.items()}


def test_references_of_one_length_go_through_the_model_together(tiny64, monkeypatch):
    """With little memory, fewer at a time: as many as are planned."""
    one_pass = counts(tiny64, monkeypatch, TEXTS, engine="walk")
    assert (one_pass["record"], one_pass["_chosen"]) == (1, 3)
    asked = asking(tiny64, TEXTS, 'mean(over="prompts") L*.attn_out@*', metrics="kl")
    few = Budget(memory=1_200_000, itemsize=8)
    assert references_at_once(asked, few) == 3
    in_threes = counts(tiny64, monkeypatch, TEXTS, engine="walk", memory=few.memory)
    assert (in_threes["record"], in_threes["_chosen"]) == (3, 3 * 3)


def test_a_thousand_references_run_once_each_whatever_is_asked(tiny64, monkeypatch):
    """Many in a pass, for all heads of all prompts; the mean is that of one batch by hand."""
    words = ("is", "the", "capital", "of", "cat", "sat", "dog", "in")
    each = itertools.product(("Berlin", "The"), words, words, words)
    texts = [" ".join(four) for four in each][:1000]
    assert {len(tiny64.tokenizer(text)["input_ids"]) for text in texts} == {4}
    ran, own = [], module.record
    monkeypatch.setattr(
        module,
        "record",
        lambda hf, anatomy, some, pieces: ran.append(some) or own(hf, anatomy, some, pieces),
    )
    prompts = [mt.Prompt(text, target=" of") for text in ("The cat sat in", "The dog sat in")]
    effects = mt.sweep(
        tiny64, prompts, 'mean(over="prompts") L1.attn_out@*', metrics="logit",
        reference=texts, progress=False,
    )  # fmt: skip
    assert len([text for some in ran for text in some]) == 1000
    assert len(ran) == math.ceil(1000 / (TILES["cpu"] // 4))
    kept = []
    with tiny64.hf.transformer.h[1].attn.register_forward_hook(
        lambda module, args, out: kept.append(out[0])
    ):
        tiny64.hf(**tiny64.tokenizer(texts, return_tensors="pt"))
    wanted = kept[0].detach().mean(axis=0).numpy()
    by_hand = logits_with(
        tiny64, "The cat sat in", "attn_out", 1, [[2], list(range(32))], wanted[[2]]
    )
    [of] = tiny64.tokenizer(" of")["input_ids"]
    found = float(effects.data["logit"].sel(prompt=0, pos=2))
    assert abs(found - by_hand[of]) < 1e-12


def test_however_many_run_together_the_mean_is_the_same(tiny64):
    """Of several lengths and roles elsewhere, one of them twice."""
    edit = mt.mean("L*.z.h*@{subject,verb}", over="prompts")
    encoded = tiny64.encode([*ROLES, ROLES[1], *(swapped(one) for one in ROLES)])
    tokens = [one.tokens for one in encoded]
    found = []
    for at_once in (1, 2, 64):
        means = Means(tiny64.hf, tiny64.anatomy, [(edit, encoded[0])], tokens)
        means.gather(at_once)
        found.append(means._means)
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        for key, mean in found[0].items():
            assert float((mean - other[key]).abs().max()) < 1e-13


def swapped(prompt: mt.Prompt) -> mt.Prompt:
    """The same text with its roles the other way round."""
    roles = dict(zip(prompt.roles, reversed(prompt.roles.values()), strict=True))
    return mt.Prompt(prompt.text, roles=roles)


def test_nothing_but_the_means_is_kept_and_it_is_what_was_planned(tiny64):
    prompts, edit = [BERLIN, PARIS, ROME], mt.mean("L*.z.h*@*", over="prompts")
    encoded = tiny64.encode(prompts)
    tokens = [one.tokens for one in encoded]
    means = Means(tiny64.hf, tiny64.anatomy, [(edit, one) for one in encoded], tokens)
    means.gather()
    [*kept] = means._means.values()
    held = sum(one.numel() * one.element_size() for one in kept)
    assert len(kept) == 3
    assert held == 3 * 5 * 32 * 8
    question = asking(tiny64, prompts, edit, metrics="kl")
    assert bytes_of_means(question) == 2 * held  # and what is recorded of one reference
    aligned = asking(
        tiny64, prompts, mt.mean("L*.z@-1", over="prompts", align="words"), metrics="kl"
    )
    assert bytes_of_means(aligned) == (3 + 1) * 3 * 32 * 8


def test_the_mean_is_of_the_models_own_type(tiny):
    assert tiny.dtype == torch.float32
    run = tiny.run(BERLIN, 'mean(over="prompts") L0.z', keep="L0.z", reference=[PARIS, ROME])
    wanted = tiny.run([PARIS, ROME], keep="L0.z")["L0.z"].values.astype(np.float64).mean(axis=0)
    assert run["L0.z"].dtype == np.float32
    assert np.array_equal(run["L0.z"].values[0], wanted.astype(np.float32))


# ------------------------------------------------------------------------------- several layers


@pytest.mark.parametrize("address", ["L:.z", "L{0,2}.z", "L0:2.z.h*"])
def test_one_number_for_several_layers_is_refused_on_every_engine(tiny64, address):
    words = r'over="tensor" is one number.*layers 0, .*Name one layer, star them for a map'
    for engine in ("walk", "reference", "auto"):
        with pytest.raises(EditError, match=words):
            mt.sweep(tiny64, BERLIN, f"mean {address}", metrics="kl", engine=engine)
    with pytest.raises(EditError, match=words):
        tiny64.run(BERLIN, f"mean {address.replace('*', ':')}")


def test_one_layer_or_a_star_has_a_mean_of_its_own(tiny64):
    for over in ("tensor", "positions"):
        mt.sweep(tiny64, BERLIN, mt.mean("L*.z.h*", over=over), metrics="kl", progress=False)
    tiny64.run(BERLIN, 'mean(over="positions") L:.z')
    tiny64.run(BERLIN, "mean L{1}.z")
