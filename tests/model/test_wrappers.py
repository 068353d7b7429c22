"""What is given in the place of a model: taken out of its wrapper, or refused with what to give."""

from __future__ import annotations

import functools
import types

import pytest
import torch
from torch import nn
from transformers import TextGenerationPipeline

import microtome as mt
from conftest import BERLIN
from foreign import theirs
from microtome.errors import ArchitectureError, LoadError, MicrotomeError
from microtome.model import wrappers

EDIT = "zero L1.z.h2@-1"


class PeftModel(nn.Module):
    """As peft's is, as far as it matters: a call goes to the model inside."""

    __module__ = "peft.peft_model"

    def __init__(self, base, is_prompt_learning=False):
        super().__init__()
        self.base = base
        self.active_peft_config = types.SimpleNamespace(is_prompt_learning=is_prompt_learning)

    def get_base_model(self):
        return self.base

    def forward(self, *args, **kwargs):
        return self.base(*args, **kwargs)


WRAPPED = {
    "compiled": lambda hf: torch.compile(hf, backend="eager"),
    "parallel": nn.DataParallel,
    "peft": PeftModel,
    "peft, compiled": lambda hf: torch.compile(PeftModel(hf), backend="eager"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapper_is_taken_off_where_the_model_inside_is_what_runs(make_gpt2, tokenizer, kind):
    hf = make_gpt2()
    wrapped = WRAPPED[kind](hf).eval()
    model = mt.load(wrapped, tokenizer=tokenizer)
    assert model.hf is hf
    edited = model.run(BERLIN, edits=EDIT)
    assert torch.equal(edited.logits, mt.load(hf, tokenizer=tokenizer).run(BERLIN, EDIT).logits)
    assert not torch.equal(edited.logits, edited.clean_logits)


def test_a_pipeline_gives_its_model_and_its_tokenizer(make_gpt2, tokenizer):
    hf = make_gpt2()
    model = mt.load(TextGenerationPipeline(model=hf, tokenizer=tokenizer, device="cpu"))
    assert (model.hf, model.tokenizer) == (hf, tokenizer)


def test_learned_prompts_are_refused(make_gpt2, tokenizer):
    with pytest.raises(LoadError, match=r"peft.*learned vectors before the prompt.*LoRA"):
        mt.load(PeftModel(make_gpt2(), is_prompt_learning=True), tokenizer=tokenizer)


class PeftMixedModel(nn.Module):
    """As peft's is: a tuner between the wrapper and the model, and no `get_base_model`."""

    __module__ = "peft.mixed_model"

    def __init__(self, hf, tuner):
        super().__init__()
        self.base_model = tuner(hf)


class MixedModel(nn.Module):
    __module__ = "peft.tuners.mixed.model"

    def __init__(self, hf):
        super().__init__()
        self.model = hf


@pytest.mark.parametrize("kind", ["mixed", "tuner"])
def test_other_wrappers_of_pefts_are_taken_off(make_gpt2, tokenizer, kind):
    hf = make_gpt2()
    wrapped = MixedModel(hf) if kind == "tuner" else PeftMixedModel(hf, MixedModel)
    assert mt.load(wrapped.eval(), tokenizer=tokenizer).hf is hf


def test_an_activated_lora_is_refused(make_gpt2, tokenizer):
    wrapped = PeftModel(make_gpt2()).eval()
    wrapped.peft_config = {"default": types.SimpleNamespace(alora_invocation_tokens=[5])}
    with pytest.raises(LoadError, match=r"peft.*activated LoRA.*every position"):
        mt.load(wrapped, tokenizer=tokenizer)


def test_a_model_that_asks_for_more_than_tokens_is_refused(make_gpt2, tokenizer):
    """As one does whose adapters are chosen by task (peft's Poly)."""
    hf = make_gpt2(seed=41)  # of weights that no other test has proved

    def forward(x):
        raise ValueError("task_ids should not be None.")

    hf.transformer.h[1].mlp.forward = theirs(forward, "peft.tuners.poly")
    with pytest.raises(
        LoadError, match=r"does not run by itself.*task_ids should not be None\. It"
    ):
        mt.load(hf, tokenizer=tokenizer)


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_hook_on_a_wrapper_is_refused_and_not_left_out(make_gpt2, tokenizer, kind):
    wrapped = WRAPPED[kind](make_gpt2()).eval()
    wrapped.register_forward_hook(lambda module, args, output: output)
    with pytest.raises(LoadError, match=r"around the model has a hook of your own.*Put it on that"):
        mt.load(wrapped, tokenizer=tokenizer)


def _whole(hf):
    hf.compile(backend="eager")


def _block(hf):
    hf.transformer.h[1].compile(backend="eager")


def _forward(hf):
    hf.forward = torch.compile(hf.forward, backend="eager")


def _replaced(hf):
    hf.transformer.h[1] = torch.compile(hf.transformer.h[1], backend="eager")


@pytest.mark.parametrize("how", [_whole, _block, _forward, _replaced])
def test_what_is_compiled_inside_is_refused(make_gpt2, tokenizer, how):
    hf = make_gpt2()
    how(hf)
    with pytest.raises(LoadError, match=r"compiled in place.*torch\.compile.*without hooks"):
        mt.load(hf, tokenizer=tokenizer)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("when", ["before load", "after load"])
def test_torchscript_is_refused(make_gpt2, tokenizer, when):
    hf = make_gpt2()
    model = mt.load(hf, tokenizer=tokenizer) if when == "after load" else None
    hf.lm_head = torch.jit.trace(hf.lm_head, torch.zeros(1, 2, hf.config.n_embd))
    with pytest.raises(LoadError, match=r"lm_head of this GPT2.* is TorchScript .*without hooks"):
        (model or mt.load(hf, tokenizer=tokenizer)).run(BERLIN, edits=EDIT)


class DTensor(torch.Tensor):
    """As torch.distributed has it; a real one needs processes that talk to each other."""

    __module__ = "torch.distributed.tensor"


def test_a_model_that_is_cut_up_between_processes_is_refused(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    weight = model.hf.lm_head.weight.detach().as_subclass(DTensor)
    model.hf.lm_head.weight = nn.Parameter(weight, requires_grad=False)
    acts = (
        lambda: mt.load(model.hf, tokenizer=tokenizer),
        lambda: model.run(BERLIN, edits=EDIT),
        lambda: mt.sweep(model, BERLIN, EDIT, metrics="kl"),
    )
    for act in acts:
        with pytest.raises(LoadError, match=r"weight of lm_head is a DTensor: torch.distributed"):
            act()


def test_flex_attention_is_refused(make_gpt2, tokenizer):
    hf = make_gpt2()
    hf.config._attn_implementation = "flex_attention"
    with pytest.raises(LoadError, match=r"flex_attention.*sdpa"):
        mt.load(hf, tokenizer=tokenizer)


class Hooked(nn.Module):
    __module__ = "transformer_lens.model_bridge"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "None is no model"),
        (object(), "What was given is of class object"),
        (3, "of class int"),
        (torch.zeros(2), "is a tensor"),
        ({"lm_head.weight": torch.zeros(2)}, r"dict of 1 entries.*load_state_dict"),
        (nn.Linear(2, 2), r"Linear is a torch module, and no model of transformers"),
        (nn.Linear, "Linear is a class"),
        (Hooked(), "Hooked is no Hugging Face model: TransformerLens"),
        (nn.DataParallel(nn.Linear(2, 2)), "Linear is a torch module"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_anything_else_is_refused_in_a_few_words(given, says):
    with pytest.raises(LoadError, match=says) as error:
        mt.load(given)
    assert len(str(error.value)) < 500


def test_a_tokenizer_is_no_model(tokenizer):
    with pytest.raises(LoadError, match="is a tokenizer"):
        mt.load(tokenizer)


def test_a_body_without_a_head_is_refused(make_gpt2, tokenizer):
    with pytest.raises(ArchitectureError, match=r"no language-model head.*AutoModelForCausalLM"):
        mt.load(make_gpt2().transformer, tokenizer=tokenizer)


def test_a_file_is_not_its_directory(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    for given in (path, str(path)):
        with pytest.raises(LoadError, match=r"is a file: give the directory"):
            mt.load(given)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5_000, "\ud800"])
def test_a_name_that_none_can_have_is_refused(name):
    with pytest.raises(LoadError, match="names no model") as error:
        mt.load(name)
    assert len(str(error.value)) < 300


class TestAModelOfOurs:
    def test_is_given_back_as_it_is(self, tiny):
        assert mt.load(tiny) is tiny
        assert mt.load(tiny, tokenizer=tiny.tokenizer) is tiny

    def test_may_get_another_tokenizer(self, tiny, tokenizer):
        other = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
        again = mt.load(tiny, tokenizer=other)
        assert (again.hf, again.tokenizer, again.name) == (tiny.hf, other, tiny.name)
        assert tiny.tokenizer is tokenizer
        assert again.weight_hash == tiny.weight_hash

    def test_is_not_changed(self, tiny):
        with pytest.raises(LoadError, match="dtype cannot be changed here"):
            mt.load(tiny, dtype="float64")


class TestAutocast:
    def test_is_refused_at_loading_and_running(self, make_gpt2, tokenizer):
        model = mt.load(make_gpt2(), tokenizer=tokenizer)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for act in (
                lambda: mt.load(model.hf, tokenizer=tokenizer),
                lambda: model.run(BERLIN),
                lambda: mt.sweep(model, BERLIN, "zero L*.z.h*", metrics="kl"),
            ):
                with pytest.raises(MicrotomeError, match=r"torch.autocast is on.*bfloat16"):
                    act()
            with torch.autocast("cpu", enabled=False):
                assert model.run(BERLIN).logits.dtype == torch.float32

    def test_of_another_kind_of_device_is_no_matter(self, tiny):
        with torch.autocast("cuda", dtype=torch.float16, enabled=torch.cuda.is_available()):
            assert tiny.run(BERLIN).logits.dtype == torch.float32


def test_every_library_in_the_table_is_named_with_a_reason():
    assert all(reason for reason in wrappers.OTHERS.values())


@pytest.mark.parametrize("path", ["", "transformer.h.1"])
def test_what_puts_autocast_on_for_itself_is_refused(make_gpt2, tokenizer, path):
    """Its parts by themselves, as they are walked, would compute in another type."""
    hf = make_gpt2()
    model = mt.load(hf, tokenizer=tokenizer)
    part = hf.get_submodule(path)
    part.forward = functools.wraps(part.forward)(
        torch.autocast("cpu", dtype=torch.bfloat16)(part.forward)
    )
    for use in (lambda: mt.load(hf, tokenizer=tokenizer), lambda: mt.lens(model, "Berlin is")):
        with pytest.raises(LoadError, match=r"puts torch\.autocast on while it runs"):
            use()
