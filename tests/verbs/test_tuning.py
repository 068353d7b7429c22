"""The tuned lens: its translators, their files, their training."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from recipes.nano.corpus import documents

import microtome as mt
from conftest import BERLIN, D_MODEL, LAYERS
from microtome.errors import AddressError, LoadError, MicrotomeError, PromptError
from microtome.frontends import cli
from microtome.frontends.guard import Stopped
from microtome.verbs import tuning


@pytest.fixture(scope="module")
def texts():
    return [one.text for one in islice(documents(5, 24), 24)]


@pytest.fixture(scope="module")
def random(tiny64):
    """Translators that change something, drawn at random."""
    torch.manual_seed(0)
    nothing = mt.Translators.nothing(tiny64.anatomy.dims, tiny64.hf)
    return replace(
        nothing,
        weight=torch.randn_like(nothing.weight) * 0.3,
        bias=torch.randn_like(nothing.bias),
        source="random",
    )


def test_a_state_is_translated_by_that_of_the_block_that_it_enters(tiny64, random):
    kept = tiny64.run(BERLIN, keep=["L*.resid_post", "embed"])
    norm, head = tiny64.hf.transformer.ln_f, tiny64.hf.lm_head

    def entropy(state: np.ndarray, block: int | None) -> np.ndarray:
        x = torch.tensor(state)
        if block is not None:
            x = x + x @ random.weight[block].T + random.bias[block]
        probs = scipy.special.softmax(head(norm(x)).detach().numpy(), axis=-1)
        return -(probs * np.log(probs)).sum(-1)

    found = mt.lens(tiny64, BERLIN, tuned=random).data["entropy"][0]
    for layer in range(LAYERS):
        state = kept["L*.resid_post"].values[0, layer]
        wanted = entropy(state, layer + 1 if layer + 1 < LAYERS else None)
        np.testing.assert_allclose(found.sel(layer=layer), wanted, atol=1e-10)
    before = mt.lens(tiny64, BERLIN, "L*.resid_pre@*", tuned=random).data["entropy"][0]
    np.testing.assert_allclose(before.sel(layer=1), found.sel(layer=0), atol=1e-12)
    embed = mt.lens(tiny64, BERLIN, "embed@*", tuned=random).data["entropy"][0]
    np.testing.assert_allclose(embed, entropy(kept["embed"].values[0], 0), atol=1e-10)
    with pytest.raises(AddressError, match="translators are of the stream between blocks"):
        mt.lens(tiny64, BERLIN, "L*.mlp_out@*", tuned=random)


def test_they_come_back_from_their_files_and_from_those_of_the_package(tiny64, random, tmp_path):
    back = mt.Translators.load(random.save(tmp_path / "own"))
    assert torch.equal(back.weight, random.weight)
    assert torch.equal(back.bias, random.bias)
    published = tmp_path / "published"
    published.mkdir()
    named = {f"{n}.weight": random.weight[n] for n in range(LAYERS)}
    named |= {f"{n}.bias": random.bias[n] for n in range(LAYERS)}
    torch.save(named, published / "params.pt")
    config = {"num_hidden_layers": LAYERS, "d_model": D_MODEL, "bias": True}
    (published / "config.json").write_text(json.dumps(config), encoding="utf-8")
    other = mt.Translators.load(published)
    own = mt.lens(tiny64, BERLIN, tuned=random).data
    np.testing.assert_array_equal(mt.lens(tiny64, BERLIN, tuned=other).data["kl"], own["kl"])
    there = mt.lens(tiny64, BERLIN, tuned=str(tmp_path / "own")).data
    np.testing.assert_array_equal(there["kl"], own["kl"])
    with pytest.raises(LoadError, match="holds no translators that can be read"):
        mt.Translators.load(tmp_path)
    torch.save(named | {"final.weight": random.bias[0]}, published / "params.pt")
    assert torch.equal(mt.Translators.load(published).weight, random.weight)
    config["num_hidden_layers"] = LAYERS - 1
    (published / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(LoadError, match=rf"says {LAYERS - 1} blocks.* translators of {LAYERS}:"):
        mt.Translators.load(published)


def test_another_config_is_not_written_over(random, tmp_path, monkeypatch, capsys):
    random.save(random.save(tmp_path / "own"))  # its own is
    for text in ('{"model_type": "gpt2"}', "no json", "[]"):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(LoadError, match=r"config\.json is not of translators"):
            random.save(tmp_path)
        assert (tmp_path / "config.json").read_text(encoding="utf-8") == text
    (tmp_path / "texts.jsonl").write_text('{"text": "Berlin is"}\n', encoding="utf-8")
    given = ["tune", "nowhere", "--prompts", str(tmp_path / "texts.jsonl"), "-o", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["microtome", *given])
    with pytest.raises(SystemExit):
        cli.main()
    assert "is not of translators" in capsys.readouterr().err


def test_who_is_stopped_while_they_are_written_leaves_what_was_there(random, tmp_path, monkeypatch):
    random.save(tmp_path)
    write = Path.write_text

    def stopped(place, text, **how):
        write(place, text[:20], **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        replace(random, weight=random.weight + 1).save(tmp_path)
    monkeypatch.undo()
    assert torch.equal(mt.Translators.load(tmp_path).weight, random.weight)


def test_who_is_stopped_between_the_two_files_leaves_nobody_elses_numbers(tiny, tmp_path):
    """In the place of others: what is there says what it is, whatever the older file says."""
    texts, other = [BERLIN, "Paris is the capital of France"], tmp_path / "other"
    asked = {"steps": 1, "blocks": [1]}
    first = mt.train_translators(tiny, texts, **asked, out=tmp_path / "own")
    mt.train_translators(tiny, texts[::-1], **asked, out=other)
    (other / "params.safetensors").replace(tmp_path / "own" / "params.safetensors")
    with pytest.raises(LoadError, match="trained differently"):
        mt.train_translators(tiny, texts, **asked, out=tmp_path / "own")
    again = mt.train_translators(tiny, texts, **asked, out=tmp_path / "own", overwrite=True)
    assert torch.equal(again.weight, first.weight)
    assert mt.Translators.load(tmp_path / "own").about == again.about


@pytest.mark.parametrize("at", [200, -1])
def test_a_byte_that_changed_is_found(random, tmp_path, at):
    file = replace(random, about={"seed": 4}).save(tmp_path) / "params.safetensors"
    told = file.read_bytes()
    damaged = bytearray(told.replace(b"seed", b"sead", 1) if at > 0 else told)
    damaged[at] ^= at < 0
    file.write_bytes(damaged)
    with pytest.raises(LoadError, match=r"params\.safetensors is damaged: its checksum differs"):
        mt.Translators.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_file_that_was_cut_is_refused_as_one(random, tmp_path, keep):
    file = random.save(tmp_path) / "params.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(LoadError, match="holds no translators that can be read"):
        mt.Translators.load(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.parametrize("name", ["params.safetensors", "config.json"])
def test_a_full_disk_is_one_error_and_costs_nothing(random, tmp_path, name):
    random.save(tmp_path)
    (tmp_path / f"{name}.new").symlink_to("/dev/full")
    with pytest.raises(LoadError, match=r"Cannot write translators.*No space left"):
        replace(random, weight=random.weight + 1).save(tmp_path)
    assert torch.equal(mt.Translators.load(tmp_path).weight, random.weight)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    torch.save({"0.weight": print}, tmp_path / "params.pt")
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 1}', encoding="utf-8")
    with pytest.raises(LoadError, match="holds no translators"):
        mt.Translators.load(tmp_path)


def test_translators_of_another_model_are_refused(nano, random):
    why = "for 3 blocks of d_model 32, and this model has 6 of 192. Give those of this model"
    with pytest.raises(LoadError, match=why):
        mt.lens(nano, BERLIN, tuned=random)
    known = replace(random, about={"model": "small"})
    with pytest.raises(LoadError, match=r"of 'random' \(trained on small\) are for 3 blocks"):
        mt.lens(nano, BERLIN, tuned=known)


def test_a_folder_that_somebody_trains_into_is_nobody_elses(tiny, tmp_path, monkeypatch):
    texts, out = [BERLIN, "Paris is the capital of France"], tmp_path / "tuned"
    train = tuning._train

    def meeting(*given):
        with pytest.raises(LoadError, match=rf"is being written by process {os.getpid()} on"):
            mt.train_translators(tiny, texts, steps=2, seed=1, out=out, overwrite=True)
        train(*given)

    monkeypatch.setattr(tuning, "_train", meeting)
    made = mt.train_translators(tiny, texts, steps=2, out=out)
    assert torch.equal(mt.Translators.load(out).weight, made.weight)
    monkeypatch.undo()
    assert sorted(one.name for one in out.iterdir()) == ["config.json", "params.safetensors"]
    again = mt.train_translators(tiny, texts, steps=2, seed=1, out=out, overwrite=True)
    assert not torch.equal(again.weight, made.weight)


def test_a_folder_of_a_model_with_another_hook_is_refused(tiny, tmp_path):
    asked = {"texts": ["a b c", "d e f"], "steps": 1, "blocks": [1], "out": tmp_path / "tuned"}
    mt.train_translators(tiny, **asked)
    hook = tiny.hf.transformer.h[0].mlp.register_forward_hook(lambda m, a, out: out * 0.5)
    try:
        with pytest.raises(LoadError, match="trained differently"):
            mt.train_translators(tiny, **asked)
    finally:
        hook.remove()


def test_a_folder_of_a_model_with_another_setting_is_refused(make_gpt2, tokenizer, tmp_path):
    """No weight tells of a norm's epsilon."""
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    asked = {"texts": ["a b c", "d e f"], "steps": 1, "blocks": [1], "out": tmp_path / "tuned"}
    mt.train_translators(model, **asked)
    model.hf.transformer.h[0].ln_1.eps = 1.0
    with pytest.raises(LoadError, match="trained differently"):
        mt.train_translators(model, **asked)


def test_on_nano_they_come_nearer_to_the_output_on_other_texts(nano, texts):
    weights = nano.weight_hash
    made = mt.train_translators(nano, texts, steps=40, blocks=[1, 4])
    assert nano.weight_hash == weights
    assert all(weight.grad is None for weight in nano.hf.parameters())
    for before, after in zip(made.about["kl_before"], made.about["kl_after"], strict=True):
        assert after < 0.6 * before
    other = [one.text for one in islice(documents(6, 8), 8)]
    plain = mt.lens(nano, other, "L{0,3}.resid_post@1:").data["kl"].mean(["prompt", "pos"])
    tuned = mt.lens(nano, other, "L{0,3}.resid_post@1:", tuned=made).data["kl"]
    assert (tuned.mean(["prompt", "pos"]) < 0.7 * plain).all()
    untrained = mt.lens(nano, BERLIN, "L1.resid_post@*", tuned=made).data["kl"]
    same = mt.lens(nano, BERLIN, "L1.resid_post@*").data["kl"]
    np.testing.assert_array_equal(untrained, same)


def test_a_seed_gives_the_same_ones(tiny, texts):
    def made(seed: int) -> mt.Translators:
        some = [BERLIN, "Paris is the capital of France"]
        return mt.train_translators(tiny, some, steps=3, batch=2, seed=seed)

    assert torch.equal(made(1).weight, made(1).weight)
    assert not torch.equal(made(1).weight, made(2).weight)


def test_who_stops_training_hears_what_is_kept_and_the_same_again_goes_on(
    tmp_path, monkeypatch, capsys
):
    rows = [json.dumps({"text": text}) for text in (BERLIN, "Paris is the capital of France")]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = ["tune", "nano", "--prompts", str(tmp_path / "texts.jsonl"), "--steps", "1"]
    train, calls = tuning._train, []

    def call(out, *more) -> tuple[int, str]:
        given = ["microtome", *asked, "-o", str(tmp_path / out), *more]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err.replace("\n", " ")

    def stopping(*given):
        calls.append(given[2])
        if len(calls) == 3:
            raise Stopped(signal.SIGINT)
        train(*given)

    assert call("whole")[0] == 0
    monkeypatch.setattr(tuning, "_train", stopping)
    code, said = call("parts")
    assert code == 130
    assert "translators of blocks 0, 1; 2, 3, 4, 5 are left. To go on, the same again:" in said
    code, said = call("parts", "--seed", "3")
    assert code == 2
    assert "trained differently" in said
    assert call("parts")[0] == 0
    assert calls == [0, 1, 2, 2, 3, 4, 5]
    for name in ("config.json", "params.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert tuning.trained_in(tmp_path / "parts") == "translators of blocks 0, 1, 2, 3, 4, 5"


def test_what_cannot_be_trained_is_refused(tiny, monkeypatch):
    with pytest.raises(PromptError, match="at least two; given: 1"):
        mt.train_translators(tiny, [BERLIN, "Berlin"])
    with pytest.raises(AddressError, match=r"blocks=\[3\]: there are 3, from 0 to 2"):
        mt.train_translators(tiny, [BERLIN, BERLIN], blocks=[3])
    with pytest.raises(PromptError, match="several texts: give a list"):
        mt.train_translators(tiny, BERLIN)
    for wrong in ([1.5], "1", 3, []):
        with pytest.raises(AddressError, match="there are 3, from 0 to 2"):
            mt.train_translators(tiny, [BERLIN, BERLIN], blocks=wrong)
    for wrong in (float("nan"), 0, -1, float("inf"), "1", True):
        with pytest.raises(MicrotomeError, match=r"lr=.*: expected a number above 0"):
            mt.train_translators(tiny, [BERLIN, BERLIN], lr=wrong)
    with pytest.raises(MicrotomeError, match=r"seed=.*at most 64 bits"):
        mt.train_translators(tiny, [BERLIN, BERLIN], seed=1 << 70)
    made = mt.train_translators(
        tiny, [BERLIN, BERLIN], steps=np.int64(1), batch=torch.tensor(4), lr=torch.tensor(0.5),
        seed=np.int64(3), blocks=torch.tensor([1]),
    )  # fmt: skip
    assert json.loads(json.dumps(made.about))["seed"] == 3
    monkeypatch.setattr(tuning, "_train", lambda model, made, block, *_: made.bias.fill_(np.nan))
    with pytest.raises(MicrotomeError, match="block 1 has become numbers that are none"):
        mt.train_translators(tiny, [BERLIN, BERLIN], blocks=[1])


def test_without_gradients_nothing_is_trained(tiny):
    with torch.inference_mode(), pytest.raises(MicrotomeError, match="inference_mode is on"):
        mt.train_translators(tiny, [BERLIN] * 8, steps=1)


def test_the_command_line_trains_and_uses_them(tmp_path, monkeypatch, capsys):
    out = tmp_path / "tuned"
    asked = ["tune", "nano", "--prompts", "ioi:6", "--steps", "2", "-o", str(out)]
    lens = ["lens", "nano", "-p", BERLIN, "--tuned", str(out), "--json"]
    for given in (asked, lens):
        monkeypatch.setattr(sys, "argv", ["microtome", *given])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        said = capsys.readouterr().out
    assert json.loads(said)["spec"]["tuned"] == str(out)
    before = (out / "params.safetensors").read_bytes()
    refused = {
        "holds translators already": asked,
        "holds no translators": [*lens[:-2], str(tmp_path / "nowhere")],
    }
    for why, given in refused.items():
        monkeypatch.setattr(sys, "argv", ["microtome", *given])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert why in capsys.readouterr().err.replace("\n", " ")
    assert (out / "params.safetensors").read_bytes() == before
    monkeypatch.setattr(sys, "argv", ["microtome", *asked, "--seed", "5", "--overwrite"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert (out / "params.safetensors").read_bytes() != before


@pytest.mark.slow
def test_on_a_real_model_they_come_nearer_too(smollm2):
    facts = mt.tasks.capitals(24, tokenizer=smollm2.tokenizer)
    texts = [f"{one.text}{one.target}." for one in facts]
    made = mt.train_translators(smollm2, texts, steps=20, batch=16, blocks=[24])
    assert made.about["kl_after"][0] < 0.7 * made.about["kl_before"][0]
