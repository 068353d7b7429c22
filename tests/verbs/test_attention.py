"""Attention: patterns, what they move, scores of heads, heads on the vocabulary; by hand."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import microtome as mt
from conftest import BERLIN, CAT
from microtome.errors import AddressError, EffectsError, PromptError, SweepError, TokenError
from microtome.figures.png import png_of
from microtome.frontends import cli
from microtome.report.html import render
from microtome.report.of_head import document_of_head
from oracles import families as by_hand
from oracles.families import FAMILIES

GROUPED = "llama"


@pytest.fixture(scope="module")
def llama(of_family):
    return of_family(GROUPED)


def test_patterns_and_what_they_move_are_those_written_by_hand(llama, tokenizer):
    hand = FAMILIES[GROUPED]
    ids = llama.encode(BERLIN)[0].tokens.ids
    eager = by_hand.make(GROUPED, len(tokenizer), attention="eager")
    seen = by_hand.run(eager, hand, ids).seen
    found = mt.attention(llama, [BERLIN, CAT], "L1:.pattern").data.isel(prompt=0)
    for layer in (1, 2):
        own, pattern = found.sel(layer=layer), seen["pattern", layer]
        np.testing.assert_allclose(own["pattern"], pattern, atol=1e-6)  # a softmax in float32
        out = llama.hf.model.layers[layer].self_attn.o_proj.weight.detach().numpy()
        for head in range(4):
            columns = out[:, head * 12 : (head + 1) * 12]
            size = np.linalg.norm(seen["v", layer][:, head // 2] @ columns.T, axis=-1)
            wanted = pattern[head] * size
            np.testing.assert_allclose(own["weighted"].sel(head=head), wanted, atol=1e-5)
            spread = [scipy.stats.entropy(row) for row in pattern[head]]
            np.testing.assert_allclose(own["entropy"].sel(head=head), spread, atol=1e-5)


def test_a_prompt_among_others_and_one_head_are_as_alone(tiny64):
    several = mt.attention(tiny64, [BERLIN, CAT])
    alone = mt.attention(tiny64, CAT, "L1.pattern.h{1,3}")
    assert dict(alone.data.sizes) == {"prompt": 1, "layer": 1, "head": 2, "q_pos": 3, "k_pos": 3}
    own = several.data.isel(prompt=1).sel(layer=[1], head=[1, 3])
    for name in ("pattern", "weighted"):
        part = own[name].isel(q_pos=slice(0, 3), k_pos=slice(0, 3))
        np.testing.assert_allclose(part, alone.data[name][0].transpose(*part.dims), atol=1e-12)
    assert own["pattern"].isel(k_pos=slice(3, None)).isnull().all()
    assert several.grid(1).data[0].z.shape == (3 * 4 - 1, 4 * 4 - 1)
    figure = alone.figure(1, 3)
    assert figure.data[0].z.shape == (3, 3)
    assert png_of(several.grid())[:4] == b"\x89PNG"
    named = several.grid(1).data[0].customdata
    assert named[0, 0] == "L0.h0<br>0 The → 0 The"
    assert named[5, 6] == "L1.h1<br>1 ·cat → 2 ·sat"
    with pytest.raises(EffectsError, match="There is no head 0 here; there are: 1, 3"):
        alone.figure(1, 0)
    with pytest.raises(EffectsError, match="'pattern' or 'weighted'"):
        alone.grid(what="weights")
    with pytest.raises(AddressError, match="read whole"):
        mt.attention(tiny64, CAT, "L0.z")
    with pytest.raises(AddressError, match="read whole"):
        mt.attention(tiny64, CAT, "L0.pattern@-1")


def test_a_grid_of_too_many_weights_is_refused_and_a_large_one_names_nothing(tiny64, monkeypatch):
    seen = mt.attention(tiny64, CAT)
    monkeypatch.setattr("microtome.figures.patterns.MOST_NAMED", 100)
    assert seen.grid().data[0].customdata is None
    monkeypatch.setattr("microtome.figures.patterns.MOST", 100)
    with pytest.raises(EffectsError, match="108 weights, and a figure at most 100"):
        seen.grid()


@pytest.mark.parametrize("masked", [False, True])
def test_scores_are_means_of_the_models_own_weights(make_gpt2, make_bert, request, masked):
    tokenizer = request.getfixturevalue("wordpiece" if masked else "tokenizer")
    hf = make_bert() if masked else make_gpt2()
    found = mt.head_scores(mt.load(hf, tokenizer=tokenizer), n=2, length=4, seed=3)
    hf.set_attn_implementation("eager")
    for number, given in enumerate(found.provenance["spec"]["prompts"]):
        ids = torch.tensor([given["ids"]])
        before = ids.shape[1] - 8
        row = ids[0, before : before + 4]
        assert torch.equal(row, ids[0, before + 4 :])
        assert len(set(row.tolist())) == 4
        weights = torch.stack(hf(ids, output_attentions=True).attentions)[:, 0].detach().numpy()
        end, again = before + 8, range(before + 4, before + 8)
        wanted = {
            "previous_token": np.mean([weights[..., q, q - 1] for q in range(before + 1, end)], 0),
            "duplicate_token": np.mean([weights[..., q, q - 4] for q in again], 0),
            "induction": np.mean([weights[..., q, q - 3] for q in again], 0),
            "first_token": np.mean([weights[..., q, 0] for q in range(1, end)], 0),
        }
        for name, values in wanted.items():
            np.testing.assert_allclose(found.data[name].isel(prompt=number), values, atol=1e-6)
    table = found.table("induction", 3)
    mean = found.data["induction"].mean("prompt")
    assert table["score"][0] == pytest.approx(float(mean.max()))
    assert (table["low"] <= table["score"]).all()
    assert found.figure("previous_token").data[0].z.shape == (3, 4)
    with pytest.raises(EffectsError, match="no score 'inductoin'"):
        found.table("inductoin")


def test_rows_of_more_tokens_than_there_are_are_refused(bert64):
    with pytest.raises(PromptError, match="ordinary tokens"):
        mt.head_scores(bert64, length=30)
    with pytest.raises(SweepError, match="seed=None: expected a whole number"):
        mt.head_scores(bert64, n=2, length=4, seed=None)


def of_few_positions(n):
    """A model that adds, of so many positions; its tokenizer knows numbers and = alone."""
    known = {**{str(n): n for n in range(8)}, "=": 8}
    made = Tokenizer(models.WordLevel(known))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=8, n_positions=n, vocab_size=9,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    hf = GPT2LMHeadModel(config).eval()
    return mt.load(hf, tokenizer=PreTrainedTokenizerFast(tokenizer_object=made))


def test_rows_that_do_not_stand_twice_have_no_scores():
    """Behind the only token of a row is none: what it has itself would be its induction."""
    prompt = mt.Prompt("4 7 =", target=" 3", contrast=" 5")
    toy = of_few_positions(3)
    with pytest.raises(PromptError, match=r"takes 3 positions and has 9 .* no row of 2"):
        mt.head_scores(toy)
    card = mt.head_card(toy, "L0.h1", prompt, tokens=4)
    assert card.scores.empty
    assert "stand twice" not in render(document_of_head(card))
    assert mt.head_scores(of_few_positions(4)).provenance["spec"]["length"] == 2


def test_nano_has_heads_of_each_kind(nano):
    found = mt.head_scores(nano, n=4, length=10)
    assert found.table("previous_token", 1)["score"][0] > 0.5


def of_a_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def test_a_head_on_the_vocabulary_is_what_its_matrices_say(llama):
    ids, head = [30, 41, 7, 300], 3
    found = mt.head_circuit(llama, "L2.h3", tokens=ids, at="embed", top=3, memory=1)
    hf = llama.hf
    block, state = hf.model.layers[2], {n: w.detach().numpy() for n, w in hf.named_parameters()}
    own = "model.layers.2.self_attn."

    def projected(name: str, x: np.ndarray, number: int) -> np.ndarray:
        whole = x @ state[f"{own}{name}.weight"].T + state[f"{own}{name}.bias"]
        return whole[:, number * 12 : (number + 1) * 12]

    x = of_a_norm(
        state["model.embed_tokens.weight"][ids], block.input_layernorm.weight.detach().numpy()
    )
    values = projected("v_proj", x, head // 2)
    added = values @ state[f"{own}o_proj.weight"][:, head * 12 : (head + 1) * 12].T
    logits = of_a_norm(added, state["model.norm.weight"]) @ state["lm_head.weight"].T
    best = np.argsort(-logits, axis=-1)[:, :3]
    pieces = [[llama.tokenizer.decode([n]) for n in row] for row in best]
    assert found.table["writes"].tolist() == pieces
    ranks = [int((row > row[token]).sum()) + 1 for row, token in zip(logits, ids, strict=True)]
    assert found.table["rank"].tolist() == ranks
    scores = projected("q_proj", x, head) @ projected("k_proj", x, head // 2).T
    places = [int((row > row[n]).sum()) + 1 for n, row in enumerate(scores)]
    assert found.table["key_rank"].tolist() == places
    first = [llama.tokenizer.decode([ids[n]]) for n in scores.argmax(-1)]
    assert [row[0] for row in found.table["looks_at"]] == first
    assert found.copying.value == np.mean([rank <= 3 for rank in ranks])
    assert found.matching.n == 4


def test_a_head_that_is_not_there_is_refused_by_name(tiny):
    for text in ("L1.z.h*", "L1.resid_post", "L:.z.h1"):
        with pytest.raises(AddressError, match="does not name one head"):
            mt.head_circuit(tiny, text)
    with pytest.raises(AddressError, match="there is no head 9; there are 4"):
        mt.head_circuit(tiny, "L1.h9")
    with pytest.raises(AddressError, match="stand for a token"):
        mt.head_circuit(tiny, "L1.h1", at="L1.z")
    with pytest.raises(TokenError, match="ids from 0"):
        mt.head_circuit(tiny, "L1.h1", tokens=[10**6])
    assert mt.head_circuit(tiny, "L-1.z.h-1", tokens=3).layer == 2


def called(monkeypatch, capsys, *asked: str) -> str:
    monkeypatch.setattr(sys, "argv", ["microtome", *asked])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return capsys.readouterr().out


def test_the_command_line_draws_patterns_and_scores(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    asked = ["attention", "nano", "-p", BERLIN, "-a", "L0:2.pattern", "-o", str(out)]
    assert "Where the last token looks most" in called(monkeypatch, capsys, *asked)
    assert (out / "figures" / "weighted-0.png").stat().st_size > 5_000
    picture = tmp_path / "head.svg"
    asked = ["attention", "nano", "-p", BERLIN, "--head", "L2.h3", "-o", str(picture), "--json"]
    assert json.loads(called(monkeypatch, capsys, *asked))["picture"] == str(picture)
    asked = ["heads", "nano", "-n", "2", "--length", "6", "--json", "--top", "3"]
    assert len(json.loads(called(monkeypatch, capsys, *asked))["heads"]) == 3
