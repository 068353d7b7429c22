"""Interventions against hooks written by hand, and what a run leaves behind: nothing."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import xarray as xr

import microtome as mt
from conftest import BERLIN, CAT, D_MODEL, HEADS, LAYERS, PARIS
from microtome.errors import AddressError, EditError, InertEditError, MicrotomeError, PromptError
from oracles.plain_hooks import ALL_SITES, LAYERED, Change, everything
from oracles.plain_hooks import run as plainly

ROME = "Rome is the capital of"
D_HEAD = D_MODEL // HEADS
PLACES = [1, 3]
UNITS = {"q": [1, 3], "k": [1, 3], "v": [1, 3], "z": [1, 3], "mlp_post": [0, 5, 127]}
LETTERS = {"q": "h", "k": "h", "v": "h", "z": "h", "mlp_post": "n"}
OTHERS = [2, 31]  # coordinates of the residual stream


def ids_of(model, text: str) -> list[int]:
    return model.tokenizer(text)["input_ids"]


def part(model, site: str, layer: int = 1) -> tuple[str, list[list[int]], int | None]:
    """An address that picks a part of a site, the same as index lists, and the layer."""
    index = everything(model.hf, site, 5)
    index[0] = PLACES
    place = "@{1,3}"
    if site == "logits":
        return "logits" + place, index, None
    index[1] = UNITS.get(site, OTHERS)
    units = f".{LETTERS.get(site, 'd')}{{{','.join(map(str, index[1]))}}}"
    if site == "embed":
        return "embed" + units + place, index, None
    return f"L{layer}.{site}{units}{place}", index, layer


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


# ----------------------------------------------------------------------- every edit at every site

VECTOR = np.linspace(-1, 1, 7)


def cases(at: str):
    """Edits, and what each makes of the block of values that it addresses, of donor and means."""
    return {
        "zero": (mt.zero(at), lambda x, donor, mean: np.zeros_like(x)),
        "scale": (mt.scale(at, -2.5), lambda x, donor, mean: x * -2.5),
        "mean": (mt.mean(at), lambda x, donor, mean: np.full_like(x, x.mean())),
        "mean over positions": (
            mt.mean(at, over="positions"),
            lambda x, donor, mean: np.broadcast_to(x.mean(axis=0), x.shape),
        ),
        "mean over prompts": (mt.mean(at, over="prompts"), lambda x, donor, mean: mean),
        "patch": (mt.patch(at), lambda x, donor, mean: donor),
        "replace": (mt.replace(at, 0.75), lambda x, donor, mean: np.full_like(x, 0.75)),
        "add": (mt.add(at, 1.5), lambda x, donor, mean: x + 1.5),
        "apply": (mt.apply(at, torch.tanh), lambda x, donor, mean: np.tanh(x)),
    }


@pytest.fixture(scope="module")
def traces(tiny64):
    return {text: plainly(tiny64.hf, ids_of(tiny64, text)).seen for text in (BERLIN, PARIS, ROME)}


@pytest.mark.parametrize("site", ALL_SITES)
@pytest.mark.parametrize("name", cases("embed"))
def test_an_edit_does_what_a_hook_written_by_hand_does(tiny64, traces, name, site):
    at, index, layer = part(tiny64, site)
    edit, op = cases(at)[name]
    where = np.ix_(*index)
    donor = traces[PARIS][site, layer][where]
    mean = np.mean([traces[t][site, layer][where] for t in (PARIS, ROME)], axis=0)
    wanted = plainly(
        tiny64.hf,
        ids_of(tiny64, BERLIN),
        [Change(site, layer, index, lambda x: op(x, donor, mean))],
    )
    prompt = mt.Prompt(BERLIN, donor=PARIS)
    keep = [at]
    if [*cases(at)].index(name) == ALL_SITES.index(site) % len(cases(at)):  # each site once
        others = (s if s in ("embed", "logits") else f"L{n}.{s}" for s in ALL_SITES for n in (1, 2))
        keep += dict.fromkeys(others)
    run = tiny64.run(prompt, edits=[edit], keep=keep, reference=[PARIS, ROME])

    close(run.logits[0], wanted.logits)
    for address in keep:  # what is kept is what the rest of the model saw
        if address == at:
            continue
        key = (address, None) if address in ("embed", "logits") else (address[3:], int(address[1]))
        np.testing.assert_allclose(run[address].values[0], wanted.seen[key], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        run[at].values[0], wanted.seen[site, layer][where], rtol=0, atol=1e-12
    )

    [receipt] = run.receipts
    change = wanted.seen[site, layer][where] - traces[BERLIN][site, layer][where]
    assert receipt.edit == str(edit)
    assert receipt.prompt == 0
    assert receipt.layers == (() if layer is None else (layer,))
    assert receipt.selected == change.size
    assert receipt.changed == np.count_nonzero(change)
    assert receipt.norm == pytest.approx(np.linalg.norm(change), abs=1e-12)


@pytest.mark.parametrize("site", ALL_SITES)
@pytest.mark.parametrize("make", [mt.noise, mt.shuffle], ids=["noise", "shuffle"])
def test_a_random_edit_puts_in_what_it_says_that_it_put_in(tiny64, make, site):
    at, index, layer = part(tiny64, site)
    run = tiny64.run(BERLIN, edits=[make(at, seed=4)], keep=[at])
    drawn = run[at].values[0]
    wanted = plainly(
        tiny64.hf, ids_of(tiny64, BERLIN), [Change(site, layer, index, lambda x: drawn)]
    )
    close(run.logits[0], wanted.logits)
    assert torch.equal(run.logits, tiny64.run(BERLIN, edits=[make(at, seed=4)]).logits)
    others = (tiny64.run(BERLIN, edits=[make(at, seed=seed)]).logits for seed in range(5, 10))
    assert not all(torch.equal(run.logits, other) for other in others)  # 2 values: ½ stay


@pytest.mark.parametrize("site", LAYERED)
def test_layers_together_are_edited_each_on_top_of_the_last(tiny64, site):
    at, index, _ = part(tiny64, site)
    at = at.replace("L1", "L{0,2}")
    changes = [Change(site, layer, index, lambda x: x * 0.5 + 1) for layer in (0, 2)]
    wanted = plainly(tiny64.hf, ids_of(tiny64, BERLIN), changes)
    run = tiny64.run(BERLIN, edits=[mt.apply(at, lambda x: x * 0.5 + 1)])
    close(run.logits[0], wanted.logits)
    assert run.receipts[0].layers == (0, 2)
    assert run.receipts[0].selected == 2 * math.prod(map(len, index))


def test_patch_goes_from_role_to_role_where_lengths_differ(tiny64):
    prompt = mt.Prompt(BERLIN, donor=CAT, roles={"subject": ("Berlin", "cat")})
    donor = plainly(tiny64.hf, ids_of(tiny64, CAT)).seen["resid_pre", 1]
    for role, here, there in (("subject", 0, 1), ("last", 4, 2)):
        index = [[here], list(range(D_MODEL))]
        change = Change("resid_pre", 1, index, lambda x, there=there: donor[[there]])
        wanted = plainly(tiny64.hf, ids_of(tiny64, BERLIN), [change])
        run = tiny64.run(prompt, edits=[f"patch L1.resid_pre@{role}"])
        close(run.logits[0], wanted.logits)


def test_patch_of_several_roles_goes_from_each_role_to_itself(tiny64):
    # In the donor the two roles stand the other way round.
    prompt = mt.Prompt(
        "Berlin is in Germany",
        donor="Germany is in Berlin",
        roles={"city": ("Berlin", "Berlin"), "land": ("Germany", "Germany")},
    )
    encoded = tiny64.encode(prompt)[0]
    here = [encoded.tokens.role(r) for r in ("city", "land")]
    there = [encoded.donor.role(r) for r in ("city", "land")]
    assert here == sorted(here)
    assert there == sorted(there, reverse=True)
    donor = plainly(tiny64.hf, encoded.donor.ids).seen["resid_pre", 1]
    change = Change("resid_pre", 1, [here, list(range(D_MODEL))], lambda x: donor[there])
    wanted = plainly(tiny64.hf, encoded.tokens.ids, [change])
    close(tiny64.run(prompt, edits=["patch L1.resid_pre@{city,land}"]).logits[0], wanted.logits)


def test_two_roles_at_one_place_of_the_donor_both_take_it(tiny64):
    prompt = mt.Prompt(BERLIN, donor=PARIS, roles={"a": (0, 2), "b": (1, 2)})
    donor = plainly(tiny64.hf, ids_of(tiny64, PARIS)).seen["resid_pre", 1]
    change = Change("resid_pre", 1, [[0, 1], list(range(D_MODEL))], lambda x: donor[[2, 2]])
    wanted = plainly(tiny64.hf, ids_of(tiny64, BERLIN), [change])
    close(tiny64.run(prompt, edits=["patch L1.resid_pre@{a,b}"]).logits[0], wanted.logits)


# --------------------------------------------------------------------------- nothing is changed


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
class TestPromiseOne:
    """No edit, and the self-patch: bit-identical to the Hugging Face model called directly."""

    @pytest.fixture
    def model(self, make_gpt2, tokenizer, attention, dtype):
        model = mt.load(make_gpt2(dtype=dtype, attn_implementation=attention), tokenizer=tokenizer)
        assert model.hf.config._attn_implementation == attention
        return model

    def direct(self, model) -> torch.Tensor:
        with torch.no_grad():
            return model.hf(torch.tensor([ids_of(model, BERLIN)])).logits

    def test_no_edit(self, model):
        assert torch.equal(model.run(BERLIN).logits, self.direct(model))
        keep = ["embed", "logits", *(f"L:.{site}" for site in LAYERED)]
        assert torch.equal(model.run(BERLIN, keep=keep).logits, self.direct(model))

    def test_self_patch(self, model):
        prompt = mt.Prompt(BERLIN, donor=BERLIN)
        for site in ALL_SITES:
            at = site if site in ("embed", "logits") else f"L:.{site}"
            run = model.run(prompt, edits=[mt.patch(at)])
            assert torch.equal(run.logits, self.direct(model)), site
            assert (run.receipts[0].changed, run.receipts[0].norm) == (0, 0.0)
            assert run.receipts[0].selected > 0


# -------------------------------------------------------------------------------- several edits


def test_edits_of_different_sites_all_act(tiny64):
    everywhere = []
    for site in ALL_SITES:
        _, index, layer = part(tiny64, site)
        everywhere.append(Change(site, layer, index, lambda x: x * 0.5))
    wanted = plainly(tiny64.hf, ids_of(tiny64, BERLIN), everywhere)
    edits = [mt.scale(part(tiny64, site)[0], 0.5) for site in reversed(ALL_SITES)]
    run = tiny64.run(BERLIN, edits=edits)
    close(run.logits[0], wanted.logits)
    assert [receipt.edit for receipt in run.receipts] == [str(edit) for edit in edits]


@pytest.mark.parametrize("site", ALL_SITES)
def test_edits_of_one_tensor_apply_in_the_order_given(tiny64, site):
    at, index, layer = part(tiny64, site)
    add, double = mt.add(at, 1.0), mt.scale(at, 2.0)
    for edits, op in (([add, double], lambda x: (x + 1) * 2), ([double, add], lambda x: x * 2 + 1)):
        wanted = plainly(tiny64.hf, ids_of(tiny64, BERLIN), [Change(site, layer, index, op)])
        close(tiny64.run(BERLIN, edits=edits).logits[0], wanted.logits)


def test_each_receipt_is_of_its_own_edit(tiny64):
    run = tiny64.run(BERLIN, edits=["replace(3) L0.z.h1@2", "add(2) L0.z.h1@2", "zero L0.z.h0@2"])
    three, two, zero = run.receipts
    assert two.norm == pytest.approx(2 * math.sqrt(D_HEAD))
    assert (three.changed, two.changed, zero.changed) == (D_HEAD, D_HEAD, D_HEAD)
    before = tiny64.run(BERLIN, keep=["L0.z"])["L0.z"].values[0, 2]
    assert three.norm == pytest.approx(np.linalg.norm(3 - before[1]))
    assert zero.norm == pytest.approx(np.linalg.norm(before[0]))


def test_embed_and_the_first_blocks_input_are_two_places_one_after_the_other(tiny64):
    edits = ["add(1) embed@2", "scale(2) L0.resid_pre@2"]
    index = [[2], list(range(D_MODEL))]
    change = Change("resid_pre", 0, index, lambda x: (x + 1) * 2)
    wanted = plainly(tiny64.hf, ids_of(tiny64, BERLIN), [change])
    for given in (edits, edits[::-1]):
        run = tiny64.run(BERLIN, edits=given, keep=["embed", "L0.resid_pre"])
        close(run.logits[0], wanted.logits)
        np.testing.assert_allclose(
            run["L0.resid_pre"].values[0, 2], 2 * run["embed"].values[0, 2], rtol=1e-14
        )


def test_what_is_kept_is_a_copy_that_later_edits_do_not_reach(tiny64):
    run = tiny64.run(BERLIN, edits=["zero L0.resid_post"], keep=["L0.resid_mid", "L0.mlp_out"])
    clean = tiny64.run(BERLIN, keep=["L0.resid_mid", "L0.mlp_out"])
    for address in ("L0.resid_mid", "L0.mlp_out"):
        xr.testing.assert_identical(run[address], clean[address])


# --------------------------------------------------------------------------- what stays as it was


def hooks_of(hf) -> list[int]:
    return [
        len(hooks)
        for module in hf.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]


def test_hooks_are_gone_afterwards_also_after_an_error(tiny):
    before = hooks_of(tiny.hf)
    assert sum(before) == 0
    tiny.run(BERLIN, edits=["zero L0.z"], keep=["L1.z"])
    assert hooks_of(tiny.hf) == before

    def broken(x):
        raise ZeroDivisionError("inside the pass")

    with pytest.raises(ZeroDivisionError, match="inside the pass"):
        tiny.run(BERLIN, edits=[mt.zero("L0.z"), mt.apply("L1.resid_mid", broken)])
    assert hooks_of(tiny.hf) == before
    with torch.no_grad():
        direct = tiny.hf(torch.tensor([ids_of(tiny, BERLIN)])).logits
    assert torch.equal(tiny.run(BERLIN).logits, direct)


def test_the_users_own_hooks_survive_and_fire(tiny):
    fired = []
    block = tiny.hf.transformer.h[1]
    handles = [
        block.register_forward_hook(lambda *_: fired.append("output")),
        block.register_forward_pre_hook(lambda *_: fired.append("input")),
        block.ln_2.register_forward_pre_hook(lambda *_: fired.append("ln_2")),
    ]
    try:
        tiny.run(BERLIN, edits=["zero L1.resid_post", "zero L1.resid_pre", "zero L1.resid_mid"])
        assert fired == ["input", "ln_2", "output"]
        assert sum(hooks_of(tiny.hf)) == 3
        tiny.hf(torch.tensor([[1, 2]]))
        assert len(fired) == 6
    finally:
        for handle in handles:
            handle.remove()


def test_weights_stay_as_they_are_bit_for_bit(tiny):
    before = copy.deepcopy(tiny.hf.state_dict())
    edits = [f"noise(how='add') L:.{site}" for site in LAYERED]
    tiny.run(BERLIN, edits=["zero embed", *edits])
    after = tiny.hf.state_dict()
    assert list(before) == list(after)
    for name, weight in before.items():
        assert torch.equal(weight, after[name]), name
    assert not any(p.grad is not None for p in tiny.hf.parameters())


def test_arguments_are_not_mutated(tiny):
    prompt = mt.Prompt(BERLIN, donor=PARIS, roles={"s": 0})
    edits, keep, reference = [mt.patch("L0.z@s"), "zero L1.z"], ["L1.z"], [PARIS, ROME]
    given = ([prompt], edits, keep, reference)
    copies = (
        [mt.Prompt(BERLIN, donor=PARIS, roles={"s": 0})],
        list(edits),
        ["L1.z"],
        [PARIS, ROME],
    )
    tiny.run(given[0], edits=edits, keep=keep, reference=reference)
    assert given == copies


def test_no_gradient_is_recorded(tiny):
    assert not tiny.run(BERLIN, edits=["scale(2) L0.z"]).logits.requires_grad


# ------------------------------------------------------------------------------------- refusals


def test_a_model_in_training_mode_is_refused(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    model.hf.train()
    with pytest.raises(MicrotomeError, match=r"training mode.*eval\(\)"):
        model.run(BERLIN)


def test_a_part_of_the_model_in_training_mode_is_refused(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    model.hf.transformer.h[1].train()
    with pytest.raises(MicrotomeError, match="training mode"):
        model.run(BERLIN)


@pytest.mark.parametrize("site", LAYERED)
def test_an_edit_that_never_fires_raises(make_gpt2, tokenizer, site):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    block = model.hf.transformer.h[1]
    with torch.no_grad():
        gives_tuples = isinstance(block(torch.zeros(1, 1, D_MODEL)), tuple)  # transformers 5.0
    model.hf.transformer.h[1] = torch.nn.Identity().eval()  # the model no longer runs this block …
    model.hf.transformer.h[1].forward = lambda x, *args, **kwargs: (x,) if gives_tuples else x
    for name, child in block.named_children():  # … whose parts are still there
        model.hf.transformer.h[1].add_module(name, child)
    if site in ("resid_pre", "resid_post"):
        model.run(BERLIN, edits=[f"zero L1.{site}"])  # what stands there has these two
        return
    with pytest.raises(InertEditError, match=rf"{site} of layer 1.*0 times"):
        model.run(BERLIN, edits=[f"zero L1.{site}"])


def test_an_edit_that_fires_twice_raises(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    layers = model.hf.transformer.h
    layers[2].mlp.c_proj = layers[1].mlp.c_proj  # one module, in two layers
    with pytest.raises(InertEditError, match="2 times"):
        model.run(BERLIN, edits=["zero L1.mlp_post"])


@pytest.mark.parametrize(
    ("prompt", "edit", "error", "says"),
    [
        (BERLIN, "patch L0.z", PromptError, "donor"),
        (mt.Prompt(BERLIN, donor=CAT), "patch L0.z@0", PromptError, "differ in length"),
        (BERLIN, "mean(over='prompts') L0.z", EditError, "at least two reference prompts"),
        (BERLIN, "zero L*.z", AddressError, "has stars"),
        (BERLIN, "zero L3.z", AddressError, "layer 3 does not exist"),
        (BERLIN, "zero L0.z@5", AddressError, "pos 5 does not exist"),
        (BERLIN, "zero L0.z@object", PromptError, "no role 'object'"),
        (BERLIN, "replace([1, 2]) L0.z", EditError, "Nothing is broadcast"),
        (BERLIN, "mean(over='positions') L0.z@2", EditError, "mean over one position"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(tiny, prompt, edit, error, says):
    with pytest.raises(error, match=says):
        tiny.run(prompt, edits=[edit])
    assert sum(hooks_of(tiny.hf)) == 0


# ----------------------------------------------------------------------------- several prompts


def test_prompts_of_different_lengths_run_as_if_alone(tiny):
    prompts = [mt.Prompt(BERLIN, donor=PARIS), mt.Prompt(CAT, donor="The dog sat"), PARIS]
    edits = ["scale(0.5) L1.z.h2@-1", "noise(seed=1) L0.resid_post@0"]
    together = tiny.run(prompts, edits=edits, keep=["L1.z", "L:.resid_post@-1"])
    assert together.logits.shape == (3, 5, len(tiny.tokenizer))
    for n, prompt in enumerate(prompts):
        alone = tiny.run(prompt, edits=edits, keep=["L1.z", "L:.resid_post@-1"])
        length = alone.logits.shape[1]
        assert torch.equal(together.logits[n, :length], alone.logits[0])
        assert together.logits[n, length:].isnan().all()
        np.testing.assert_array_equal(together["L1.z"].values[n, :length], alone["L1.z"].values[0])
        assert np.isnan(together["L1.z"].values[n, length:]).all()
        np.testing.assert_array_equal(
            together["L:.resid_post@-1"].values[n], alone["L:.resid_post@-1"].values[0]
        )
        assert [r.prompt for r in together.receipts[2 * n : 2 * n + 2]] == [n, n]
        for mine, its in zip(together.receipts[2 * n :], alone.receipts, strict=False):
            assert (mine.edit, mine.changed, mine.norm) == (its.edit, its.changed, its.norm)


def test_what_is_kept_has_names_and_coordinates(tiny):
    run = tiny.run([BERLIN, CAT], keep=["L2.z.h{1,3}", "L*.resid_post@-1", "embed", "logits@0"])
    z = run["L2.z.h{1,3}"]
    assert z.dims == ("prompt", "pos", "head", "d_head")
    assert z.sizes == {"prompt": 2, "pos": 5, "head": 2, "d_head": D_HEAD}
    assert z["head"].values.tolist() == [1, 3]
    assert int(z["layer"]) == 2
    assert z["token"].values[1].tolist() == ["The", " cat", " sat", "", ""]
    assert z["text"].values.tolist() == [BERLIN, CAT]
    post = run["L*.hidden@-1"]
    assert post.dims == ("prompt", "layer", "pos", "d_model")
    assert post["layer"].values.tolist() == list(range(LAYERS))
    assert post["token"].values.ravel().tolist() == [" of", " sat"]
    assert run["embed"].dims == ("prompt", "pos", "d_model")
    assert run["logits@0"].dims == ("prompt", "pos", "vocab")
    with pytest.raises(AddressError, match=r"L2.z was not kept.*Did you mean"):
        run["L2.z"]


def test_the_same_place_may_be_asked_for_twice(tiny):
    run = tiny.run(BERLIN, keep=["L0.hidden", "L0.resid_post", "L0.resid_post"])
    assert run["L0.hidden"].shape == (1, 5, D_MODEL)


# ------------------------------------------------------------------------------- top, clean


def test_top_lists_tokens_before_and_after(tiny):
    run = tiny.run([BERLIN, CAT], edits=["zero L:.z"])
    with torch.no_grad():
        clean = tiny.hf(torch.tensor([ids_of(tiny, CAT)])).logits[0, 1].double()
    table = run.top(4, prompt=1, position=1)
    edited = run.logits[1, 1].double()
    assert table["id"].tolist() == edited.topk(4).indices.tolist()
    assert table["token"].tolist() == [tiny.tokenizer.decode([i]) for i in table["id"]]
    assert table["rank"].tolist() == [1, 2, 3, 4]
    for name, row in (("", edited), ("clean_", clean)):
        ids = table["id"].tolist()
        np.testing.assert_allclose(table[f"{name}logit"], row[ids])
        np.testing.assert_allclose(table[f"{name}prob"], row.softmax(-1)[ids])
        order = (-row).argsort().tolist()
        assert table[f"{name}rank"].tolist() == [order.index(i) + 1 for i in ids]
    assert run.top(1, prompt=1, position=-2)["id"].tolist() == [table["id"][0]]


def test_top_is_of_the_run_without_edits_where_that_is_asked(tiny):
    run = tiny.run([BERLIN, CAT], edits=["zero L:.z"])
    table = run.top(3, prompt=1, by="clean")
    bare = tiny.run(CAT).top(3)
    assert table["id"].tolist() == bare["id"].tolist()
    assert table["clean_rank"].tolist() == [1, 2, 3]
    assert table["clean_prob"].tolist() == bare["prob"].tolist()
    edited = run.logits[1, 2].double()
    assert table["logit"].tolist() == edited[table["id"].tolist()].tolist()
    with pytest.raises(MicrotomeError, match="by is 'edited' or 'clean', not 'before'"):
        run.top(by="before")


@pytest.mark.parametrize(
    ("where", "says"),
    [({"prompt": 2}, "no prompt 2; there are 2"), ({"prompt": 1, "position": 3}, "3 tokens")],
)
def test_top_of_what_is_not_there_is_refused(tiny, where, says):
    with pytest.raises(PromptError, match=says):
        tiny.run([BERLIN, CAT]).top(**where)


def test_one_edit_or_one_place_needs_no_list(tiny):
    alone = tiny.run(BERLIN, edits="zero L0.z", keep=["L0.z"])
    assert torch.equal(alone.logits, tiny.run(BERLIN, edits=[mt.zero("L0.z")]).logits)
    assert torch.equal(alone.logits, tiny.run(BERLIN, edits=mt.zero("L0.z")).logits)
    assert tiny.run(BERLIN, keep="L0.z")["L0.z"].shape == (1, 5, HEADS, D_HEAD)
