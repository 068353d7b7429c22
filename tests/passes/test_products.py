"""Products by oneDNN are the modules' own, are taken in the walk alone, and end with it.

So are activation functions that are made on their way.
"""

from __future__ import annotations

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import microtome as mt
from microtome.errors import SweepError
from microtome.passes import products
from microtome.passes.activations import in_one_pass
from microtome.passes.hooks import quiet
from microtome.passes.modes import stack
from microtome.passes.products import ACTIVATED, ROWS, by_onednn
from microtome.passes.session import session
from oracles import families

PROMPT = mt.Prompt("When Mary and John went to", donor="When John and Mary gave to", target=" Mary")
EDIT = "zero L*.z.h*@{-1,-2}"
WIDE = 64
ROUNDING = 1e-5

needs_onednn = pytest.mark.skipif(products.onednn() is None, reason="no oneDNN in this torch")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    """So that tiny models have products that are taken."""
    monkeypatch.setattr(products, "WEIGHTS", WIDE * WIDE // 8)


class Taken(list):
    """The rows of all products that oneDNN took, and of how many it activated what they gave."""

    activated = 0


@pytest.fixture
def taken(monkeypatch):
    found, plain = Taken(), products.onednn()

    def noted(x, weight, bias, activated):
        found.append(x.numel() // x.shape[-1])
        found.activated += activated
        return plain(x, weight, bias, activated)

    monkeypatch.setattr(products, "onednn", lambda: None if plain is None else noted)
    return found


@pytest.fixture
def fresh(make_gpt2, tokenizer):
    """A model to put hooks on."""
    return mt.load(make_gpt2(), tokenizer=tokenizer)


def linear(n: int, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(n)
    return torch.nn.Linear(WIDE, n, bias=bias).requires_grad_(False)


def conv(n: int) -> Conv1D:
    torch.manual_seed(n)
    made = Conv1D(n, WIDE).requires_grad_(False)
    made.bias.uniform_(-1, 1)
    return made


def inside(module: torch.nn.Module, model: mt.Model, x: torch.Tensor) -> torch.Tensor:
    with session(model.hf, model.anatomy), by_onednn(model.hf):
        return module(x)


@needs_onednn
@pytest.mark.parametrize("shape", [(ROWS, WIDE), (3, 7, WIDE), (1, 65, WIDE)])
@pytest.mark.parametrize("module", [linear(WIDE), linear(320, bias=False), conv(WIDE), conv(77)])
def test_products_are_the_modules_own(tiny, taken, module, shape):
    x = torch.randn(*shape)
    found = inside(module, tiny, x)
    assert len(taken) == 1
    assert found.shape == module(x).shape
    wanted = module.to(torch.float64)(x.double())
    module.to(torch.float32)
    assert float((found - wanted).abs().max()) < ROUNDING


def strided_bias() -> torch.nn.Linear:
    made = linear(WIDE)
    made.bias = torch.nn.Parameter(torch.randn(WIDE, 2)[:, 0], requires_grad=False)
    return made


def strided_weight() -> torch.nn.Linear:
    made = linear(WIDE)
    made.weight = torch.nn.Parameter(torch.randn(WIDE, 2 * WIDE)[:, ::2], requires_grad=False)
    return made


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (linear(WIDE), torch.randn(ROWS - 1, WIDE)),
        (linear(4), torch.randn(ROWS, WIDE)),
        (linear(WIDE).double(), torch.randn(ROWS, WIDE).double()),
        (linear(WIDE).bfloat16(), torch.randn(ROWS, WIDE).bfloat16()),
        (linear(WIDE), torch.randn(WIDE, ROWS).T),
        (strided_bias(), torch.randn(ROWS, WIDE)),
        (strided_weight(), torch.randn(ROWS, WIDE)),
    ],
)
def test_what_is_small_or_lies_otherwise_is_left_to_the_module(tiny, taken, module, x):
    assert torch.equal(inside(module, tiny, x), module(x))
    assert not taken


@needs_onednn
def test_they_are_taken_in_the_walk_and_nowhere_else(tiny, taken):
    walked = mt.sweep(tiny, PROMPT, EDIT, metrics="kl", verify=0)
    assert taken
    assert len(tiny.encode(PROMPT)[0].tokens.read) not in taken  # the clean run
    in_walk = [*taken]
    taken.clear()
    slow = mt.sweep(tiny, PROMPT, EDIT, metrics="kl", engine="reference")
    tiny.run(PROMPT, edits=[EDIT.replace("*", ":")])
    assert not taken
    assert float(abs(walked.data["kl"] - slow.data["kl"]).max()) < ROUNDING
    mt.sweep(tiny, PROMPT, EDIT, metrics="kl", verify="all")
    assert taken == in_walk


def effects(model: mt.Model, engine: str) -> torch.Tensor:
    """Cells with rows enough for each product, from two layers on."""
    found = mt.sweep(model, PROMPT, "patch L*.z.h*@-1", metrics="kl", verify=0, engine=engine)
    return torch.tensor(found.data["kl"].values)


@needs_onednn
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gptj", "phi", "llama", "mixtral"])
def test_activation_functions_are_made_on_the_way(family, tokenizer, taken):
    made = families.make(family, len(tokenizer), torch.float32)
    model = mt.load(made, tokenizer=tokenizer)
    known = {type(module).__name__ for module in made.modules()} & {*ACTIVATED}
    assert bool(known) == (family not in ("llama", "mixtral"))
    walked = effects(model, "walk")
    assert taken.activated == (model.anatomy.dims.n_layers if known else 0)
    assert float((walked - effects(model, "reference")).abs().max()) < ROUNDING


def on_what_enters(mlp, note):
    mlp.act.register_forward_pre_hook(mt.watching(lambda _, args: note(args[0])))


def on_what_leaves(mlp, note):
    mlp.c_fc.register_forward_hook(mt.watching(lambda _, args, out: note(out)))


def on_what_it_reads(mlp, note):
    mlp.act.register_forward_hook(mt.watching(lambda _, args, out: note(args[0])))


@needs_onednn
@pytest.mark.parametrize("look", [on_what_enters, on_what_leaves, on_what_it_reads])
def test_who_looks_before_an_activation_function_sees_what_is_there(fresh, taken, look):
    seen = []
    look(fresh.hf.transformer.h[1].mlp, lambda x: seen.append(x.clone()))
    walked = effects(fresh, "walk")
    assert taken.activated == fresh.anatomy.dims.n_layers - 1
    assert any(bool((x < -0.2).any()) for x in seen)  # which no activated number is
    assert float((walked - effects(fresh, "reference")).abs().max()) < ROUNDING


@needs_onednn
def test_a_projection_of_another_kind_is_not_activated_on_the_way(fresh, taken):
    class Adapted(Conv1D):
        def forward(self, x):
            return super().forward(x) - 0.5

    fresh.hf.transformer.h[1].mlp.c_fc.__class__ = Adapted
    with session(fresh.hf, fresh.anatomy), quiet(fresh.hf):
        mlp, x = fresh.hf.transformer.h[1].mlp, torch.randn(1, ROWS, fresh.anatomy.dims.d_model)
        with in_one_pass(fresh.hf), by_onednn(fresh.hf):
            found = mlp(x)
        assert taken.activated == 0
        assert torch.allclose(found, mlp(x), atol=ROUNDING)


@needs_onednn
@pytest.mark.parametrize("times", [1, 2])
def test_what_nobody_takes_as_activated_is_refused(tiny, taken, times):
    up, x = tiny.hf.transformer.h[0].mlp.c_fc, torch.randn(ROWS, tiny.anatomy.dims.d_model)

    def run() -> None:
        with quiet(tiny.hf), in_one_pass(tiny.hf), by_onednn(tiny.hf):
            for _ in range(times):
                up(x)

    with session(tiny.hf, tiny.anatomy), pytest.raises(SweepError, match="not activated as it was"):
        run()
    assert taken.activated == 1
    assert torch.equal(up(x), type(up).forward(up, x))


def test_a_model_without_large_matrices_has_no_mode_over_it(tiny, monkeypatch):
    dims = tiny.anatomy.dims
    for least, modes in ((dims.d_model * dims.d_mlp, 1), (dims.d_model * dims.d_mlp + 1, 0)):
        monkeypatch.setattr(products, "WEIGHTS", least)
        with session(tiny.hf, tiny.anatomy), by_onednn(tiny.hf):
            assert len(stack()) == (0 if products.onednn() is None else modes)


def test_torchs_own_switch_turns_them_off(tiny, taken, monkeypatch):
    torch._C._set_mkldnn_enabled(False)
    try:
        mt.sweep(tiny, PROMPT, EDIT, metrics="kl", verify=0)
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert not taken


@pytest.mark.parametrize("answer", [AttributeError(), RuntimeError(), torch.zeros(16, 3)])
def test_an_operator_that_is_missing_or_wrong_is_not_used(monkeypatch, answer):
    class Operators:
        @staticmethod
        def _linear_pointwise(*given):
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(torch.ops, "mkldnn", Operators, raising=False)
    assert products.onednn.__wrapped__() is None


@needs_onednn
def test_they_end_with_their_block_and_with_their_session(tiny, taken):
    module, x = linear(WIDE), torch.randn(ROWS, WIDE)
    with pytest.raises(KeyboardInterrupt), session(tiny.hf, tiny.anatomy), by_onednn(tiny.hf):
        raise KeyboardInterrupt
    assert stack() == []
    with session(tiny.hf, tiny.anatomy) as own, own.block():
        left = products._Products(own, products.onednn())
        left.put_on()
    try:  # one that an interrupt has left behind, of a session that is over
        module(x)
        assert not taken
    finally:
        left.take_off()
    assert stack() == []
