"""What blocks return, and that edits are the same whichever form it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import microtome as mt
from foreign import theirs
from microtome.passes.raw import Element, returned, table_of

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" in"
)
HIDDEN = Element("Tensor", "hidden states", ("batch", "pos", "d_model"), (1, 5, 32))
WEIGHTS = Element("Tensor", "attention weights", ("batch", "head", "query", "key"), (1, 4, 5, 5))
NONE = Element("NoneType")


@pytest.fixture
def tiny(make_gpt2, tokenizer):
    """One of its own: transformers leaves hooks on a model that was asked for attentions."""
    return mt.load(make_gpt2(), tokenizer=tokenizer)


def found(model) -> dict[tuple[str, bool, str], tuple[str, tuple[Element, ...]]]:
    return {
        (one.attention, one.output_attentions, one.module): (one.form, one.elements)
        for one in returned(model)
    }


def test_it_is_what_the_modules_return(tiny):
    """Held against transformers' own outputs, called here."""
    raw = found(tiny)
    seen: dict[str, object] = {}
    block = tiny.hf.transformer.h[0]
    handles = [
        block.register_forward_hook(lambda m, a, out: seen.__setitem__("block", out)),
        block.attn.register_forward_hook(lambda m, a, out: seen.__setitem__("attention", out)),
    ]
    try:
        with torch.no_grad():
            tiny.hf(input_ids=torch.tensor([tiny.encode(BERLIN)[0].tokens.ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for module, output in seen.items():
        form, elements = raw["sdpa", False, module]
        assert form == ("tensor" if isinstance(output, Tensor) else "tuple")
        several = output if isinstance(output, tuple) else (output,)
        shapes = [tuple(one.shape) if isinstance(one, Tensor) else () for one in several]
        assert [one.shape for one in elements] == shapes


def test_attention_weights_are_there_on_eager_alone(tiny):
    raw = found(tiny)
    assert raw["sdpa", True, "attention"] == ("tuple", (HIDDEN, NONE))
    assert raw["eager", True, "attention"] == ("tuple", (HIDDEN, WEIGHTS))
    form, elements = raw["sdpa", True, "model"]
    assert form == "tuple"
    assert set(elements) <= {NONE}  # Nothing, or None for each layer in transformers 5.0.
    assert raw["eager", True, "model"] == ("tuple", (WEIGHTS,) * 3)
    assert raw["eager", False, "model"] == ("NoneType", (NONE,))


def test_a_model_on_eager_is_asked_once(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(attn_implementation="eager"), tokenizer=tokenizer)
    assert len(returned(model)) == 6


def test_the_model_is_left_as_it_was(tiny):
    returned(tiny)  # transformers puts hooks of its own on at the first output_attentions=True
    before = [dict(module._forward_hooks) for module in tiny.hf.modules()]
    returned(tiny)
    assert [dict(module._forward_hooks) for module in tiny.hf.modules()] == before
    assert tiny.hf.config._attn_implementation == "sdpa"


def test_the_table_says_it_in_words(tiny):
    frame = table_of(returned(tiny))
    said = frame.set_index(["attention", "output_attentions", "module"])["returns"]
    whole = "hidden states [1, 5, 32]"
    assert said["sdpa", "False", "transformer.h.0"] in (f"tensor: {whole}", f"tuple ({whole})")
    assert said["sdpa", "True", "transformer.h.0.attn"] == "tuple (hidden states [1, 5, 32], None)"
    assert said["eager", "True", "model(…).attentions"] == (
        "tuple (3 × (attention weights [1, 4, 5, 5]))"
    )


# -------------------------------------------------------------------------------- blocks of tuples


class TakingTheFirst(nn.ModuleList):
    """Blocks as a model walks through them: of what each returns it goes on with the first."""

    __module__ = "transformers"  # whose other version does so

    def __iter__(self):
        return iter([lambda *args, block=block, **more: block(*args, **more)[0]
                     for block in super().__iter__()])  # fmt: skip

    __iter__ = theirs(__iter__)


@pytest.fixture(scope="module")
def tuples64(make_gpt2, tokenizer):
    """The model of `tiny64`, with blocks that return tuples, as those of other versions do."""

    def giving_tuples(forward):
        def given(*args, **more):
            return forward(*args, **more), None

        return theirs(given)

    hf = make_gpt2(dtype=torch.float64)
    model = mt.load(hf, tokenizer=tokenizer)
    if found(model)["sdpa", False, "block"][0] == "tuple":  # transformers 5.0
        return model
    for block in hf.transformer.h:
        block.forward = giving_tuples(block.forward)
    hf.transformer.h = TakingTheFirst(list(hf.transformer.h)).eval()
    return mt.load(hf, tokenizer=tokenizer)


def test_the_blocks_do_return_tuples(tuples64):
    form, elements = found(tuples64)["sdpa", False, "block"]
    assert form == "tuple"
    assert elements[0] == HIDDEN


@pytest.mark.parametrize("engine", ["walk", "reference"])
@pytest.mark.parametrize(
    "edits",
    [
        ["scale(0.5) L*.resid_post@*"],
        ["patch L*.resid_post@-1"],
        ["zero L*.z.h*@2:"],
        ["add(0.5) L*.resid_pre@1", "zero L*.resid_mid@-1"],
        ['noise(std=2) L1.resid_post@"capital"', "zero L2.mlp_out"],
        ["zero embed@1"],
    ],
    ids=str,
)
def test_sweeps_are_the_same_whichever_form_blocks_return(tiny64, tuples64, edits, engine):
    metrics = ["logit_diff", "prob", "kl", "top1", "std(L*.resid_post@*)"]
    asked = {"metrics": metrics, "engine": engine, "progress": False}
    as_tensor = mt.sweep(tiny64, BERLIN, edits, **asked).data
    as_tuple = mt.sweep(tuples64, BERLIN, edits, **asked).data
    assert as_tuple.drop_attrs(deep=False).identical(as_tensor.drop_attrs(deep=False))
    assert not np.array_equal(
        as_tensor["prob"], np.full_like(as_tensor["prob"], as_tensor["clean_prob"])
    )


@pytest.mark.parametrize("edit", ["scale(0.5) L1.resid_post", "zero L0.z.h1@-1", "patch L0.hidden"])
def test_runs_and_readings_are_the_same_whichever_form_blocks_return(tiny64, tuples64, edit):
    keep = ["L:.resid_post", "L1.resid_pre", "L2.z", "embed"]
    as_tensor = tiny64.run(BERLIN, edits=[edit], keep=keep)
    as_tuple = tuples64.run(BERLIN, edits=[edit], keep=keep)
    assert torch.equal(as_tuple.logits, as_tensor.logits)
    assert not torch.equal(as_tensor.logits, as_tensor.clean_logits)
    for address in keep:
        assert as_tuple[address].identical(as_tensor[address])
    assert as_tuple.receipts == as_tensor.receipts
