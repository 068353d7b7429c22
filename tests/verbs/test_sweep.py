"""Sweeps against loops of hooks written by hand, cell by cell, on every engine."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT, D_MODEL, HEADS, LAYERS, PARIS
from microtome.errors import AddressError, EditError, MetricError, PromptError, SweepError
from oracles.plain_hooks import Change, Op, everything, log_softmax
from oracles.plain_hooks import run as plainly

ROME = "Rome is the capital of"
GERMANY = {"target": " Germany", "contrast": " France"}
PROMPT = mt.Prompt(BERLIN, donor=PARIS, **GERMANY)
SHORT = mt.Prompt(CAT, donor="The dog sat", **GERMANY)
METRICS = [
    "logit",
    "logit_diff",
    "prob",
    "prob(contrast)",
    "logprob",
    "loss",
    "kl@-2",
    "rank",
    "top1",
    "logit_corr",
]

engines = pytest.mark.parametrize("engine", ["auto", "reference"])


def ids_of(model, text: str) -> list[int]:
    return model.tokenizer(text)["input_ids"]


def by_hand(model, logits: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Every metric of METRICS from logits ``[pos, vocab]``."""
    target, contrast = (model.tokenizer(GERMANY[name])["input_ids"][0] for name in GERMANY)
    last, logprobs = logits[-1], log_softmax(logits[-1])
    before, after = log_softmax(clean[-2]), log_softmax(logits[-2])
    return {
        "logit": last[target],
        "logit_diff": last[target] - last[contrast],
        "prob": np.exp(logprobs[target]),
        "prob(contrast)": np.exp(logprobs[contrast]),
        "logprob": logprobs[target],
        "loss": -logprobs[target],
        "kl@-2": (np.exp(before) * (before - after)).sum(),
        "rank": 1 + (last > last[target]).sum(),
        "top1": last.argmax(),
        "logit_corr": np.corrcoef(last, clean[-1])[0, 1],
    }


def index(model, site: str, text: str, units=None, places=None) -> list[list[int]]:
    found = everything(model.hf, site, len(ids_of(model, text)))
    found[0] = found[0] if places is None else places
    found[1] = found[1] if units is None else units
    return found


@functools.cache
def unedited(hf, ids: tuple[int, ...]):
    return plainly(hf, ids)


def held(model, effects, prompt: int, where: dict[str, int], text: str, changes) -> None:
    """Hold one cell against hooks written by hand: metrics, clean metrics and receipts."""
    ids = ids_of(model, text)
    edited, clean = plainly(model.hf, ids, changes), unedited(model.hf, tuple(ids))
    cell = effects.data.isel(prompt=prompt, **where)
    logits, bare = edited.logits.numpy(), clean.logits.numpy()
    for name, wanted in by_hand(model, logits, bare).items():
        np.testing.assert_allclose(float(cell[name]), wanted, rtol=0, atol=1e-9, err_msg=name)
    for name, wanted in by_hand(model, bare, bare).items():
        found = float(cell[f"clean_{name}"])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9, err_msg=f"clean {name}")
    assert str(cell["top1_token"].item()) == model.tokenizer.decode([int(cell["top1"])])


ONE = list(range(D_MODEL))
SWEEPS: dict[str, tuple[str, Op]] = {
    "L*.z.h*@-1": ("zero", np.zeros_like),
    "L*.k.h*": ("scale(0.5)", lambda x: x * 0.5),
    "L*.resid_post": ("add(1)", lambda x: x + 1),
    "L*.z.h*@*": ("scale(-1)", lambda x: -x),
    "L*.mlp_out@*": ("replace(0.25)", lambda x: np.full_like(x, 0.25)),
    "L*.v.h*@1": ("mean", lambda x: np.full_like(x, x.mean())),
    "L*.q.h*@2": ("zero", np.zeros_like),
    "L*.attn_out": ("mean(over='positions')", lambda x: np.broadcast_to(x.mean(0), x.shape)),
    "L*.resid_mid@1": ("scale(3)", lambda x: x * 3),
    "L*.resid_pre@0": ("add(-1)", lambda x: x - 1),
    "L1.mlp_post.n{3,64}@*": ("zero", np.zeros_like),
    "embed@*": ("scale(0.5)", lambda x: x * 0.5),
    "logits@-1": ("scale(0.5)", lambda x: x * 0.5),
}


@engines
@pytest.mark.parametrize("at", SWEEPS)
def test_a_sweep_is_a_loop_of_hooks_written_by_hand(tiny64, at, engine):
    operation, op = SWEEPS[at]
    effects = mt.sweep(tiny64, PROMPT, f"{operation} {at}", metrics=METRICS, engine=engine)
    site = at.split("@")[0].split(".")[1] if at.startswith("L") else at.split("@")[0]
    stars = [d for d in effects.dims if d != "prompt"]
    sizes = {"layer": LAYERS, "head": HEADS, "kv_head": HEADS, "pos": 5}
    assert dict(effects.data["values_changed"].sizes) == {
        "prompt": 1,
        **{s: sizes[s] for s in stars},
    }
    place = at.partition("@")[2]
    for where in itertools.product(*(range(sizes[s]) for s in stars)):
        at_cell = dict(zip(stars, where, strict=True))
        layer = at_cell.get("layer", 1 if at.startswith("L1") else None)
        unit = at_cell.get("head", at_cell.get("kv_head"))
        units = [3, 64] if site == "mlp_post" else None if unit is None else [unit]
        places = [at_cell["pos"]] if "pos" in at_cell else [int(place) % 5] if place else None
        change = Change(site, layer, index(tiny64, site, BERLIN, units, places), op)
        held(tiny64, effects, 0, at_cell, BERLIN, [change])
        clean = unedited(tiny64.hf, tuple(ids_of(tiny64, BERLIN))).seen[site, layer]
        before = clean[np.ix_(*change.index)]
        difference = op(before) - before
        cell = effects.data.isel(prompt=0, **at_cell)
        assert int(cell["values_changed"]) == np.count_nonzero(difference)
        assert float(cell["change_norm"]) == pytest.approx(np.linalg.norm(difference), abs=1e-10)


@engines
def test_patching_prompts_of_different_lengths_leaves_absent_cells_absent(tiny64, engine):
    prompts = [PROMPT, SHORT]
    effects = mt.sweep(tiny64, prompts, "patch L*.resid_pre@*", metrics=METRICS, engine=engine)
    assert dict(effects.data.sizes) == {"prompt": 2, "layer": LAYERS, "pos": 5}
    for n, prompt in enumerate(prompts):
        donor = plainly(tiny64.hf, ids_of(tiny64, prompt.donor)).seen
        for layer, pos in itertools.product(range(LAYERS), range(len(ids_of(tiny64, prompt.text)))):
            values = donor["resid_pre", layer][[pos]]
            change = Change("resid_pre", layer, [[pos], ONE], lambda x, values=values: values)
            held(tiny64, effects, n, {"layer": layer, "pos": pos}, prompt.text, [change])
    absent = effects.data.isel(prompt=1, pos=slice(3, None))
    for name in (*METRICS, "values_changed", "change_norm"):
        if name == "top1":
            assert (absent["top1"] == -1).all()
            assert (absent["top1_token"] == "").all()
        else:
            assert absent[name].isnull().all(), name
    assert effects.n_cells == LAYERS * (5 + 3)
    assert effects.data["token"].values[1].tolist() == ["The", " cat", " sat", "", ""]
    assert effects.data["text"].values.tolist() == [BERLIN, CAT]


@engines
def test_padded_is_unpadded(tiny64, engine):
    both = mt.sweep(tiny64, [PROMPT, SHORT], "zero L*.z.h*@*", metrics=METRICS, engine=engine)
    for n, prompt in enumerate((PROMPT, SHORT)):
        alone = mt.sweep(tiny64, prompt, "zero L*.z.h*@*", metrics=METRICS, engine=engine)
        length = alone.data.sizes["pos"]
        for name in METRICS:
            mine = both.data[name].isel(prompt=n, pos=slice(length)).values
            np.testing.assert_allclose(mine, alone.data[name].values[0], rtol=0, atol=1e-12)


@engines
def test_over_is_a_dimension_with_its_values(tiny64, engine):
    effects = mt.sweep(
        tiny64, PROMPT, mt.scale("L*.resid_post", 1), metrics=METRICS, engine=engine,
        over={"factor": [0.1, 1.0, 10.0]},
    )  # fmt: skip
    assert effects.dims == ("prompt", "layer", "factor")
    assert effects.data["factor"].values.tolist() == [0.1, 1.0, 10.0]
    for layer, n in itertools.product(range(LAYERS), range(3)):
        factor = (0.1, 1.0, 10.0)[n]
        where = index(tiny64, "resid_post", BERLIN)
        change = Change("resid_post", layer, where, lambda x, factor=factor: x * factor)
        held(tiny64, effects, 0, {"layer": layer, "factor": n}, BERLIN, [change])
    np.testing.assert_array_equal(effects.data["values_changed"].sel(factor=1.0), 0)
    assert effects.n_unchanged == LAYERS


@engines
def test_several_edits_are_one_cell(tiny64, engine):
    edits = ["zero L*.z.h*@-1", "scale(2) L1.mlp_out", "add(1) L1.mlp_out@-1"]
    effects = mt.sweep(tiny64, PROMPT, edits, metrics=METRICS, engine=engine)
    assert effects.dims == ("prompt", "layer", "head")
    everywhere = index(tiny64, "mlp_out", BERLIN)
    for layer, head in itertools.product(range(LAYERS), range(HEADS)):
        changes = [
            Change("z", layer, index(tiny64, "z", BERLIN, [head], [4]), np.zeros_like),
            Change("mlp_out", 1, everywhere, lambda x: x * 2),
            Change("mlp_out", 1, [[4], ONE], lambda x: x + 1),
        ]
        held(tiny64, effects, 0, {"layer": layer, "head": head}, BERLIN, changes)


@engines
def test_the_mean_over_prompts_is_the_mean_of_their_clean_runs(tiny64, engine):
    texts = (BERLIN, PARIS, ROME)
    prompts = [mt.Prompt(text, **GERMANY) for text in texts]
    traces = [plainly(tiny64.hf, ids_of(tiny64, text)).seen for text in texts]
    edit = mt.mean("L*.z.h*@-1", over="prompts")
    of_themselves = mt.sweep(tiny64, prompts, edit, metrics=METRICS, engine=engine)
    of_others = mt.sweep(
        tiny64, prompts[0], edit, metrics=METRICS, engine=engine, reference=texts[1:]
    )
    for layer, head in itertools.product(range(LAYERS), range(HEADS)):
        where = index(tiny64, "z", BERLIN, [head], [4])
        found = np.array([trace["z", layer][np.ix_(*where)] for trace in traces])
        for n, text in enumerate(texts):
            change = Change("z", layer, where, lambda x, found=found: found.mean(axis=0))
            held(tiny64, of_themselves, n, {"layer": layer, "head": head}, text, [change])
        change = Change("z", layer, where, lambda x, found=found: found[1:].mean(axis=0))
        held(tiny64, of_others, 0, {"layer": layer, "head": head}, BERLIN, [change])


@engines
@pytest.mark.parametrize("edit", ["noise(seed=2) L*.z.h*@*", "shuffle(seed=2) L*.resid_mid@*"])
def test_a_cell_of_a_sweep_draws_what_the_edit_alone_draws(tiny64, edit, engine):
    effects = mt.sweep(tiny64, PROMPT, edit, metrics="logit", engine=engine)
    target = tiny64.tokenizer(" Germany")["input_ids"][0]
    stars = [d for d in effects.dims if d != "prompt"]
    for where in ({"layer": 2, "pos": 4}, {"layer": 1, "pos": 2}, {"layer": 0, "pos": 0}):
        cell = {**where, "head": 3} if "head" in stars else where
        alone = tiny64.run(BERLIN, edits=[mt.edit(edit).at(**cell)])
        found = float(effects.data["logit"].isel(prompt=0, **cell))
        assert found == pytest.approx(float(alone.logits[0, -1, target]), abs=1e-9)


@engines
@pytest.mark.parametrize(
    ("at", "sizes"),
    [
        ("L*.z.h*@-1", {"prompt": 1, "layer": 3, "head": 4}),
        ("L2.z.h3", {"prompt": 1}),
        ("L1.k.h2", {"prompt": 1}),
        ("L2.mlp_post.n::2", {"prompt": 1}),
        ("L*.resid_post", {"prompt": 1, "layer": 3}),
        ("L*.z.h*@*", {"prompt": 1, "layer": 3, "head": 4, "pos": 5}),
        ('L2.z.h:@"capital"', {"prompt": 1}),
        ("L0.mlp_post.n*@2", {"prompt": 1, "neuron": 128}),
        ("L0.resid_pre.d*@2", {"prompt": 1, "d": 32}),
        ("L0.k.h*", {"prompt": 1, "kv_head": 4}),
    ],
)
def test_a_star_is_a_dimension_named_after_what_it_ranges_over(tiny, at, sizes, engine):
    effects = mt.sweep(tiny, PROMPT, f"zero {at}", metrics=["prob"], engine=engine)
    assert dict(effects.data["prob"].sizes) == sizes
    assert effects.dims == tuple(sizes)
    for name, size in sizes.items():
        assert effects.data[name].values.tolist() == list(range(size))
    assert dict(effects.data["clean_prob"].sizes) == {"prompt": 1}
    if "pos" in sizes:
        assert effects.data["token"].values.tolist() == [
            ["Berlin", " is", " the", " capital", " of"]
        ]


def test_a_small_memory_budget_changes_nothing(tiny64):
    large = mt.sweep(tiny64, PROMPT, "zero L*.z.h*@*", metrics=METRICS)
    small = mt.sweep(tiny64, PROMPT, "zero L*.z.h*@*", metrics=METRICS, memory=100_000)
    for name in METRICS:
        np.testing.assert_allclose(small.data[name], large.data[name], rtol=0, atol=1e-12)


def test_provenance_has_what_is_needed_to_repeat_it(tiny):
    effects = mt.sweep(
        tiny, PROMPT, "scale(1) L*.z", metrics="prob", over={"factor": [0.0, 2.0]}, seed=7
    )
    record = effects.provenance
    assert record["seed"] == 7
    assert record["model"]["weight_hash"] == tiny.weight_hash
    assert record["model"]["dtype"] == "float32"
    assert record["model"]["attention"] == "sdpa"
    assert set(record["versions"]) >= {"microtome", "torch", "transformers", "python"}
    spec = record["spec"]
    again = mt.sweep(
        tiny,
        [mt.Prompt(**p) for p in spec["prompts"]],
        spec["edits"],
        metrics=spec["metrics"],
        over=spec["over"],
    )
    np.testing.assert_array_equal(again.data["prob"], effects.data["prob"])


@pytest.mark.parametrize(
    ("over", "edit"),
    [
        ({"seed": np.arange(2)}, "noise L0.z"),
        ({"factor": np.linspace(0, 1, 2)}, "scale(1) L0.z"),
        ({"how": ["replace", "add"]}, "noise L0.z"),
        ({"relative": [True, False]}, "noise L0.z"),
        ({"vector": [[0.0] * D_MODEL, [1.0] * D_MODEL]}, "add(1) L0.resid_post"),
    ],
    ids=str,
)
def test_over_takes_whatever_the_parameter_takes(tiny, tmp_path, over, edit):
    effects = mt.sweep(tiny, PROMPT, edit, metrics="prob", over=over, out=tmp_path / "e.zarr")
    [(name, values)] = over.items()
    assert effects.data.sizes[name] == 2
    json.dumps(effects.provenance)
    assert len(values) == mt.open_effects(tmp_path / "e.zarr").data.sizes[name]


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"engine": "wlak"}, SweepError, "'wlak' does not exist"),
        ({"engine": 5}, SweepError, "engine=5 does not exist; there are: auto, walk"),
        ({"metrics": "porb"}, MetricError, "Did you mean 'prob'"),
        ({"edit": []}, SweepError, "needs an edit"),
        ({"edit": "zero L9.z"}, AddressError, "layer 9"),
        ({"edit": "zero L*.z@9"}, AddressError, "pos 9"),
        ({"edit": "patch L*.z", "prompts": BERLIN, "metrics": "kl"}, PromptError, "donor"),
        ({"over": {"factor": [1]}}, SweepError, "no parameter"),
        ({"prompts": []}, PromptError, "no prompts"),
        ({"prompts": [PROMPT, BERLIN]}, MetricError, "needs a target"),
        ({"edit": "replace([1]) L*.z"}, EditError, "Nothing is broadcast"),
    ],
)
def test_what_does_not_fit_is_found_before_the_model_runs(tiny, monkeypatch, more, error, says):
    def ran(*_, **__):
        raise AssertionError("the model ran")

    monkeypatch.setattr(tiny.hf, "forward", ran)
    given = {"prompts": PROMPT, "edit": "zero L*.z.h*", "metrics": "prob", **more}
    with pytest.raises(error, match=says):
        mt.sweep(tiny, given.pop("prompts"), given.pop("edit"), **given)


HEAD = "zero L0.z.h0"
MISTAKEN = {
    "no prompts": ((None, HEAD, "prob"), PromptError, "token ids, .* not None"),
    "no edit": ((CAT, None, "prob"), EditError, "None is no edit: give an object, zero"),
    "a function": ((CAT, [HEAD, mt.zero], "prob"), EditError, "is no edit"),
    "no metric": ((CAT, HEAD, None), MetricError, "goes by its name, such as 'prob', not by None"),
    "a number": ((CAT, HEAD, ["top1", 3]), MetricError, "not by 3"),
}


@pytest.mark.parametrize("case", MISTAKEN)
def test_what_is_no_prompt_edit_or_metric_is_told_as_that(tiny, case):
    (prompts, edit, metrics), error, says = MISTAKEN[case]
    with pytest.raises(error, match=says):
        mt.sweep(tiny, prompts, edit, metrics=metrics)


def test_the_walk_refuses_what_it_cannot_take(tiny):
    with pytest.raises(SweepError, match="reference"):
        mt.sweep(tiny, PROMPT, mt.apply("L*.z", torch.tanh), metrics="prob", engine="walk")


@engines
def test_hooks_are_gone_after_a_sweep_also_after_an_error(tiny, engine):
    def broken(x):
        raise ZeroDivisionError

    mt.sweep(tiny, PROMPT, "zero L*.z.h*@*", metrics="prob", engine=engine)
    with pytest.raises(ZeroDivisionError):
        mt.sweep(tiny, PROMPT, mt.apply("L*.z", broken), metrics="prob", engine=engine)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.hf.modules())
    assert tiny.hf.config._attn_implementation == "sdpa"
    with torch.no_grad():
        direct = tiny.hf(torch.tensor([ids_of(tiny, BERLIN)])).logits
    assert torch.equal(tiny.run(BERLIN).logits, direct)


def test_nothing_is_printed_where_there_is_no_terminal(tiny, capfd, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    mt.sweep(tiny, PROMPT, "zero L*.z.h*", metrics="prob", progress=True)
    assert capfd.readouterr() == ("", "")
