"""A proof that is kept is of the same model and the same code; anything else is proved again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes.floors import ROOT
from transformers.models.gpt2 import modeling_gpt2

import microtome as mt
from microtome.errors import ProbeError
from microtome.model import cache
from microtome.model.code import code_of
from microtome.model.families.taps import Tap
from microtome.passes import probe as probing
from microtome.passes import probed_sites, proof
from microtome.verbs import load as loading


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """The cache of this test alone, which tiny models are worth; and every load proves."""
    monkeypatch.setattr(loading, "prove", proof.prove)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(proof, "WORTH", 0)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(make_gpt2, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_gpt2(n_layer=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def proved(monkeypatch):
    """What the probe was run for, in order."""
    seen = deque()  # a list in a closure would be part of the code that proves

    def counted(hf, anatomy):
        seen.append(type(hf).__name__)
        probing.probe(hf, anatomy)

    monkeypatch.setattr(proof, "probe", counted)
    return seen


def load(folder, **options):
    return mt.load(folder, device="cpu", **options)


def test_what_was_proved_is_not_proved_again(folder, proved):
    for _ in range(3):
        load(folder)
    assert len(proved) == 1


def other_weights(monkeypatch, folder, make_gpt2):
    make_gpt2(seed=1, n_layer=1).save_pretrained(folder)


def other_configuration(monkeypatch, folder, make_gpt2):
    make_gpt2(layer_norm_epsilon=1e-3, n_layer=1).save_pretrained(folder)


def another_release(monkeypatch, folder, make_gpt2):
    known = proof.importlib.metadata.version
    other = lambda name: "99" if name == "transformers" else known(name)  # noqa: E731
    monkeypatch.setattr(proof.importlib.metadata, "version", other)


def another_function_of_the_models_code(monkeypatch, folder, make_gpt2):
    own = modeling_gpt2.eager_attention_forward
    monkeypatch.setattr(modeling_gpt2, "eager_attention_forward", lambda *a, **k: own(*a, **k))


def another_method_of_its_classes(monkeypatch, folder, make_gpt2):
    own = modeling_gpt2.GPT2MLP.forward
    monkeypatch.setattr(modeling_gpt2.GPT2MLP, "forward", lambda self, x: own(self, x))


def another_method_of_torchs(monkeypatch, folder, make_gpt2):
    own = torch.nn.LayerNorm.forward
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda self, x: own(self, x))


def another_prover(monkeypatch, folder, make_gpt2):
    own = probed_sites._moved
    monkeypatch.setattr(probed_sites, "_moved", lambda *given: own(*given))


def other_settings_of_torch(monkeypatch, folder, make_gpt2):
    monkeypatch.setattr(proof, "modes", lambda: {"threads": 99})


CHANGES = (
    other_weights,
    other_configuration,
    another_release,
    another_function_of_the_models_code,
    another_method_of_its_classes,
    another_method_of_torchs,
    another_prover,
    other_settings_of_torch,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changed_is_proved_again(
    folder, proved, change, monkeypatch, make_gpt2, tokenizer, tmp_path
):
    own = tmp_path / "own"
    make_gpt2(n_layer=1).save_pretrained(own)
    tokenizer.save_pretrained(own)
    load(own)
    change(monkeypatch, own, make_gpt2)
    load(own)
    assert len(proved) == 2


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"attn_implementation": "eager"}])
def test_another_type_or_attention_is_proved_again(folder, proved, options):
    load(folder)
    load(folder, **options)
    assert len(proved) == 2
    load(folder, **options)
    assert len(proved) == 2


def test_a_module_that_computes_otherwise_is_found_out_though_the_model_was_proved(
    folder, monkeypatch
):
    load(folder)
    own = modeling_gpt2.GPT2MLP.forward
    monkeypatch.setattr(modeling_gpt2.GPT2MLP, "forward", lambda self, x: own(self, x) * 0.5)
    with pytest.raises(ProbeError):
        load(folder)


def test_another_row_of_the_table_is_another_proof(folder):
    model = load(folder)
    taps = {"z": Tap("transformer.h.{layer}.attn.c_attn", "input")}
    wrong = replace(model.anatomy, family=model.anatomy.family.tapped(**taps))
    assert proof._mark(model) != proof._mark(replace(model, anatomy=wrong))


def test_a_proof_that_is_damaged_is_none(folder, proved, kept):
    load(folder)
    [mark] = kept.iterdir()
    mark.write_text(mark.name[:-1])
    load(folder)
    assert len(proved) == 2


def test_what_somebody_made_or_hooked_is_always_proved(folder, proved, kept):
    hf = load(folder).hf
    tokenizer = load(folder).tokenizer
    before = len(proved)
    for _ in range(2):
        mt.load(hf, tokenizer=tokenizer)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        for _ in range(2):
            load(folder)
    finally:
        handle.remove()
    assert len(proved) == before + 4
    assert len([*kept.iterdir()]) == 1


@pytest.mark.parametrize("of", ["trust_remote_code", "hf_device_map", "quantization_method"])
def test_of_foreign_spread_or_packed_models_no_proof_is_kept(folder, of, monkeypatch):
    """What runs there is not all in the code and the weights that a proof is of."""
    model = load(folder)
    assert proof._mark(model) is not None
    if of == "trust_remote_code":
        model = replace(model, origin=replace(model.origin, asked={of: True}))
    else:
        monkeypatch.setattr(model.hf, of, "cpu", raising=False)
    assert proof._mark(model) is None


def test_small_models_and_no_cache_leave_nothing(folder, proved, kept, monkeypatch):
    monkeypatch.setattr(proof, "WORTH", 10**9)
    load(folder)
    monkeypatch.setattr(proof, "WORTH", 0)
    monkeypatch.setenv(cache.VARIABLE, cache.OFF)
    load(folder)
    assert len(proved) == 2
    assert not kept.exists()


def test_some_are_kept_and_those_that_are_used(folder, proved, kept, monkeypatch):
    monkeypatch.setattr(proof, "MOST", 3)
    kept.mkdir()
    for age, name in enumerate(("proof-a", "proof-b.123", "proof-c", "other", "gguf-d")):
        (kept / name).write_text(name)
        os.utime(kept / name, ns=(age, age))
    load(folder)
    [own] = {one.name for one in kept.glob("proof-*")} - {"proof-b.123", "proof-c"}
    assert {one.name for one in kept.iterdir()} == {
        "proof-b.123",
        "proof-c",
        "other",
        "gguf-d",
        own,
    }
    os.utime(kept / own, ns=(0, 0))
    load(folder)  # it is looked up, so it is the newest
    load(folder, dtype="float64")
    left = {one.name for one in kept.glob("proof-*")}
    assert (len(left), {own, "proof-c"} < left, len(proved)) == (3, True, 2)


def test_two_processes_may_remove_the_oldest_at_once(kept, monkeypatch):
    monkeypatch.setattr(proof, "MOST", 1)
    kept.mkdir()
    for name in "abc":
        (kept / f"proof-{name}").write_text(name)
    own = Path.stat

    def stat(self, **how):  # the other one is just ahead
        found = own(self, **how)
        if self.name.startswith("proof-") and self.name != "proof-c":
            self.unlink()
        return found

    monkeypatch.setattr(Path, "stat", stat)
    proof._remove_oldest(kept)
    assert os.listdir(kept) == ["proof-c"]


def test_where_nothing_can_be_written_it_is_proved_each_time(folder, proved, kept):
    kept.write_text("a file in its place")
    load(folder)
    load(folder)
    assert len(proved) == 2


def test_the_same_code_has_the_same_hash_in_another_process():
    """Which has another order in its sets, and other addresses in memory."""
    code = (
        "import argparse, json.decoder, pkgutil, microtome.language as own\n"
        "from importlib import import_module as load\n"
        "from microtome.model.code import code_of, modules_in\n"
        "for one in pkgutil.walk_packages(own.__path__, 'microtome.language.'): load(one.name)\n"
        "def one_of(text): return text in {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}\n"
        "found = code_of([one_of, argparse, json.decoder, *modules_in(['microtome.language'])])"
    )
    # Nothing of torch's is in it, and to import that takes longer than all else.
    without = (
        "import sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "sys.modules['torch'].Tensor = type('Tensor', (), {})\n"
    )
    here: dict[str, object] = {}
    exec(code, here)
    there = subprocess.run(
        [sys.executable, "-c", f"{without}{code}\nprint(found)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": "1"},
    ).stdout
    assert there.strip() == here["found"]


def test_every_part_of_a_function_counts():
    def plus(n, of=None):
        return lambda x, y=n: x + y + n + (x in {"a", "b"})

    def other(n, of=None):
        return lambda x, y=n: x - y + n + (x in {"a", "b"})

    assert code_of([plus(1)]) == code_of([plus(1)])
    assert len({code_of([one]) for one in (plus(1), plus(2), other(1), plus)}) == 4
