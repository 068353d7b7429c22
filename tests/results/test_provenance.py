"""The record of a result: which model, which tokenizer, how torch was set."""

from __future__ import annotations

import importlib.metadata
import json
from types import MethodType

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

import microtome as mt
from conftest import BERLIN
from microtome.errors import Cancelled, SweepError
from microtome.model.modes import set_modes
from microtome.results import provenance

PROMPT = mt.Prompt(BERLIN, target=" Germany")


@pytest.fixture
def model(make_gpt2, tokenizer):
    return mt.load(make_gpt2(), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(make_gpt2, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_gpt2().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def swept(model):
    return mt.sweep(model, PROMPT, "zero L*.z.h*", metrics="prob").provenance


def test_a_sweep_after_the_weights_changed_has_another_record(model):
    before = swept(model)["model"]["weight_hash"]
    model.hf.lm_head.weight.data.mul_(0.5)
    assert swept(model)["model"]["weight_hash"] == model.weight_hash != before


def test_weights_that_change_during_a_sweep_are_refused(model):
    passes = []

    def train(module, args, output):
        passes.append(module)
        if len(passes) > 2:  # the first two are compared
            module.weight.data.add_(1e-3)

    with (
        pytest.raises(SweepError, match=r"changed while it was running.*Nothing of it is kept"),
        provenance.held(model),
    ):
        model.hf.transformer.ln_f.weight.data.add_(1)
    model.hf.transformer.ln_f.register_forward_hook(train)
    with pytest.raises(SweepError, match=r"changed while it was running"):
        swept(model)


def doubled(layer, states):
    return 2 * type(layer).forward(layer, states)


CHANGES = {
    "hooks": lambda hf: hf.transformer.ln_f.register_forward_hook(lambda *_: None),
    r"settings: transformer\.ln_f\.eps": lambda hf: setattr(hf.transformer.ln_f, "eps", 0.1),
    "adapters": lambda hf: setattr(hf.transformer.h[0], "disable_adapters", True),
    "put on it": lambda hf: setattr(hf.lm_head, "forward", MethodType(doubled, hf.lm_head)),
}


@pytest.mark.parametrize("engine", ["walk", "reference"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_model_that_is_set_otherwise_during_a_sweep_is_refused(model, what, engine):
    """Half of the cells would be another model's, and no verification sees it on this path."""

    class Changing(mt.Observer):
        def advanced(self, cells):
            CHANGES[what](model.hf)

    model.hf.transformer.h[0].disable_adapters = False  # as one of peft's layers has it
    model = mt.load(model.hf, tokenizer=model.tokenizer)
    asked = {"metrics": "prob", "verify": 0, "engine": engine, "memory": "3MiB"}
    with pytest.raises(SweepError, match=rf"changed while it was running \(.*{what}"):
        mt.sweep(model, PROMPT, "zero L*.z.h*", progress=Changing(), **asked)


@pytest.mark.parametrize("ends", [None, Cancelled])
def test_what_was_kept_of_a_model_that_is_set_otherwise_is_discarded(model, ends):
    """Also where it was cancelled: to go on would make one result of two models."""

    def act():
        model.hf.transformer.ln_f.eps = 0.1
        if ends:
            raise ends

    discarded = []
    with pytest.raises(ends or SweepError), provenance.held(model, lambda: discarded.append("all")):
        act()
    assert discarded == ["all"]


def test_what_a_hook_leaves_on_a_module_is_no_change(model):
    def count(module, *_):
        module.seen = getattr(module, "seen", 0) + 1

    for hook in (mt.watching(count), count):
        handle = model.hf.transformer.ln_f.register_forward_hook(hook)
        assert swept(model)
        handle.remove()
    look = mt.watching(lambda *_: None)
    with provenance.held(model):
        model.hf.transformer.ln_f.register_forward_hook(look)


def test_what_a_model_s_own_code_counts_is_no_change(model):
    """It sets that in every pass: no sweep of such a model would have a result."""

    class Counting(GPT2MLP):
        calls = 0

        def forward(self, states):
            self.count()
            self.shape = tuple(states.shape)
            return super().forward(states)

        def count(self):
            self.calls += 1

    mlp = model.hf.transformer.h[1].mlp
    mlp.__class__ = Counting
    model = mt.load(model.hf, tokenizer=model.tokenizer)
    assert swept(model)
    with (
        pytest.raises(SweepError, match=r"settings: transformer.h.0.attn.scale"),
        provenance.held(model),
    ):
        mlp.calls, model.hf.transformer.h[0].attn.scale = 0, 2.0


def test_an_error_inside_is_not_hidden(model):
    def fail():
        model.hf.transformer.ln_f.weight.data.add_(1)
        raise KeyError

    with pytest.raises(KeyError), provenance.held(model):
        fail()


@pytest.mark.parametrize("changes", [True, False])
def test_what_was_kept_of_a_model_that_changed_goes_whatever_ended_it(model, changes):
    """A sweep that is cancelled would be gone on with."""
    gone = []

    def cancelled():
        model.hf.transformer.ln_f.weight.data.add_(float(changes))
        raise Cancelled("enough")

    with pytest.raises(Cancelled), provenance.held(model, lambda: gone.append(True)):
        cancelled()
    assert gone == [True] * changes


def test_a_model_in_memory_is_recorded_as_one_whatever_it_is_called(make_gpt2, tokenizer):
    hf = make_gpt2()
    hf.config.name_or_path = "gpt2"
    record = swept(mt.load(hf, tokenizer=tokenizer))["model"]
    assert (record["name"], record["loaded"], record["asked"]) == ("gpt2", "given in memory", {})


def test_how_a_model_was_loaded_is_recorded(folder):
    model = mt.load(
        folder, device="cpu", dtype=torch.float64, attn_implementation="eager", token="secret"
    )
    record = provenance.of_model(model)
    assert record["loaded"] == "from files"
    assert record["asked"] == {
        "device": "cpu", "dtype": "float64", "attn_implementation": "eager",
    }  # fmt: skip
    assert (record["dtype"], record["dtypes"]) == ("float64", ["float64"])
    assert (record["attention"], record["device"]) == ("eager", "cpu")
    assert (record["quantization"], record["device_map"]) == (None, {})
    assert "secret" not in json.dumps(record)


def test_a_tokenizer_that_was_given_is_recorded(folder, tokenizer, tiny):
    record = provenance.of_model(mt.load(folder, device="cpu", tokenizer=tokenizer))
    assert record["asked"]["tokenizer"] == type(tokenizer).__name__
    other = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    again = provenance.of_model(mt.load(tiny, tokenizer=other))
    assert again["asked"]["tokenizer"] == type(tokenizer).__name__
    assert record["tokenizer"]["size"] == again["tokenizer"]["size"]
    assert record["tokenizer"]["hash"] != again["tokenizer"]["hash"]  # it has no end of text
    assert record["tokenizer"]["settings"]["eos_token"] == "<|endoftext|>"


def test_how_torch_is_set_is_recorded(tiny):
    modes = swept(tiny)["modes"]
    assert (modes["threads"], modes["autocast"], modes["tf32"]) == (1, False, False)
    assert (modes["inference_mode"], modes["grad"]) == (False, True)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.inference_mode():
            modes = provenance.of_machine()["modes"]
    finally:
        torch.use_deterministic_algorithms(False)
    assert (modes["deterministic"], modes["inference_mode"], modes["grad"]) == (True, True, False)


def test_the_record_is_plain(tiny):
    record = {**provenance.of_model(tiny), **provenance.of_machine()}
    assert json.loads(json.dumps(record)) == record


def test_a_screened_map_says_which_cells_were_open_to_verification(tiny):
    screened = mt.sweep(
        tiny, PROMPT, "zero L*.z.h*", metrics="prob", screen="bfloat16", refine=3
    ).provenance["screen"]
    assert screened["verifiable"] == "the refined cells alone"


def test_a_checkout_that_is_not_installed_is_said_to_be_none(monkeypatch):
    """As in a bare clone, whose benchmarks run all the same."""

    def version(name: str) -> str:
        if name == "microtome":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = provenance._versions.__wrapped__()
    assert found == dict.fromkeys(provenance.PACKAGES, "1.0") | {"microtome": "not installed"}


def test_whether_products_are_onednns_is_recorded(tiny):
    torch._C._set_mkldnn_enabled(False)
    try:
        off = provenance.of_machine()["modes"]["onednn"]
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert (off, provenance.of_machine()["modes"]["onednn"]) == (False, True)


def test_which_kernels_of_attention_are_off_is_recorded_and_workers_have_them_off_too():
    usual = provenance.of_machine()["modes"]
    with sdpa_kernel(SDPBackend.MATH):
        plain = provenance.of_machine()["modes"]
        set_modes(usual)
        assert provenance.of_machine()["modes"] == usual
    assert "math" not in plain["sdpa_without"]
    assert "flash" in plain["sdpa_without"]
    try:
        set_modes(plain)
        assert provenance.of_machine()["modes"] == plain
    finally:
        set_modes(usual)
    assert provenance.of_machine()["modes"] == usual  # stores of before this was said go on
    assert "sdpa_without" not in usual
