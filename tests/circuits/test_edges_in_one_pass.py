"""Edges of the whole graph by gradients in one pass: what the sweeps by gradients say of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.circuits import open_scores, score
from microtome.circuits.auditing import groups_of
from microtome.circuits.graph import Graph
from microtome.circuits.trial import Trial
from microtome.errors import CircuitError, EffectsError, MetricError, SweepError
from microtome.stats.auditing import draw
from microtome.verbs import options
from oracles import families as by_hand

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
DOG = mt.Prompt("The dog sat", donor="The cat sat", target=" on", contrast=" mat")
UNLIKE = ("gpt2", "llama, tied", "falcon", "gpt_neox", "gemma2")
"""Sequential; shared keys; those and one norm for both, parallel; parallel; norms after."""
ASKED = [*((name, mt.EAP()) for name in UNLIKE), ("gpt2", mt.EAPIG(2))]
"""How runs are averaged is no family's own."""


def swept(model, method, ablation="patch", some=slice(None)):
    """Edges of some kinds by sweeps, kind by kind, ``[prompt, edge]``, as scores; others NaN."""
    graph = Graph.of(model)
    found = np.full((2, len(graph)), np.nan)
    for kind in mt.edges(model).kinds[some]:
        effects = mt.sweep(
            model, [CAT, DOG], f"{ablation} {kind.text}", metrics="logit_diff", method=method,
            audit=1, verify=0,
        )  # fmt: skip
        names = kind.names(model.anatomy.dims)
        numbers = [graph.number(edge) for edge in names[names != ""].tolist()]
        found[:, numbers] = -effects.approximate("logit_diff").values[:, names != ""]
    return found


@pytest.mark.parametrize(("turn", "name", "method"), [(n, *one) for n, one in enumerate(ASKED)])
def test_they_are_those_of_sweeps(of_family, turn, name, method):
    """Every other kind of edge, by turns: of those with shared keys each has the other half."""
    model = of_family(name)
    scores = score(model, [CAT, DOG], method=method, audit=1, progress=False)
    wanted = swept(model, method, some=slice(turn % 2, None, 2))
    there = ~np.isnan(wanted)
    assert len(wanted[0]) // 4 < there[0].sum() < len(wanted[0])
    exact = 1e-5 if model.anatomy.family.inner else 1e-9
    apart = np.abs(scores.data["approximate"].values - wanted)[there].max()
    assert apart <= exact * max(1.0, float(np.abs(wanted[there]).max()))


def test_zeros_are_put_in_the_place_of_shares_too(tiny64):
    scores = score(tiny64, [CAT, DOG], method="eap", ablation="zero", progress=False)
    assert np.abs(scores.data["approximate"].values - swept(tiny64, "eap", "zero")).max() < 1e-9


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "olmo2"])
def test_behind_a_norm_it_is_what_hooks_by_hand_give(name, tokenizer):
    """A head's change goes through the norm of what its layer's heads add, by itself."""
    model = mt.load(by_hand.make(name, len(tokenizer)), tokenizer=tokenizer)
    theirs, _ = traced(model, CAT.donor)
    ours, slopes = traced(model, CAT.text)
    heads, rounding = model.anatomy.dims.n_heads, 1e-5
    scores = score(model, CAT, method="eap", audit=1, progress=False).data["approximate"][0]
    for layer, block in enumerate(model.hf.model.layers):
        attention = block.self_attn
        shares = attention.o_proj.weight.T.reshape(heads, -1, attention.o_proj.out_features)
        for head in range(heads):
            z = (theirs[layer] - ours[layer])[0].unflatten(-1, (heads, -1))[:, head]
            with torch.no_grad():
                whole = attention.o_proj(ours[layer])[0]
                norm = block.post_attention_layernorm
                change = norm(whole + z @ shares[head]) - norm(whole)
            for reader, slope in slopes.items():
                if reader == "logits" or int(reader[1:]) >= layer:
                    wanted = -float((change * slope[0]).sum())
                    found = float(scores.sel(edge=f"a{layer}.h{head}->{reader}"))
                    assert abs(found - wanted) < rounding * max(1, abs(wanted))
                    assert wanted != 0


def traced(model, text):
    """Per layer what the heads' projection reads; and per reader, of MLPs and the logits, the
    gradient of the logit difference at what it reads, before its norm."""
    words = (model.tokenizer(word)["input_ids"][0] for word in (CAT.target, CAT.contrast))
    target, contrast = words
    read, probes, hooks = [], {}, []

    def keep(_, args):
        read.append(args[0].detach())

    def probing(name):
        def probe(_, args):
            probes[name] = torch.zeros_like(args[0], requires_grad=True)
            return (args[0] + probes[name], *args[1:])

        return probe

    for layer, block in enumerate(model.hf.model.layers):
        reader = getattr(block, "pre_feedforward_layernorm", block.mlp)
        hooks.append(block.self_attn.o_proj.register_forward_pre_hook(keep))
        hooks.append(reader.register_forward_pre_hook(probing(f"m{layer}")))
    hooks.append(model.hf.model.norm.register_forward_pre_hook(probing("logits")))
    try:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        logits = model.hf(input_ids=ids, use_cache=False).logits[0, -1]
        slopes = torch.autograd.grad(logits[target] - logits[contrast], [*probes.values()])
    finally:
        for hook in hooks:
            hook.remove()
    return read, dict(zip(probes, slopes, strict=True))


def test_its_audit_is_of_exact_cells(tiny64, tmp_path):
    exact = score(tiny64, [CAT, DOG], progress=False).data["score"].values
    scores = score(tiny64, [CAT, DOG], method="eap", progress=False)
    found, audit = scores.data["score"].values, scores.audit
    off = np.abs(found - exact)
    assert (off < 1e-9).sum() >= audit["cells"] == 64
    cell = audit["worst"]["cell"]
    at = cell["prompt"], scores.graph.number(cell["edge"])
    assert -exact[at] == pytest.approx(audit["worst"]["exact"], abs=1e-9)
    assert off[at] < 1e-9
    assert audit["bound"]["cells"] == exact.size - 64
    again = open_scores(scores.save(tmp_path / "scores.zarr"))
    assert again.audit == audit
    assert again.exact_cells().equals(scores.exact_cells())
    why = scores.data["why_exact"].values
    assert [(why == n).sum() for n in (1, 2)] == [32, 32]
    assert off[why > 0].max() < 1e-9
    assert (found[why == 0] == scores.data["approximate"].values[why == 0]).all()
    size = np.abs(scores.data["approximate"].values)
    assert size[why == 1].min() >= size[why != 1].max()


def test_nodes_have_one_audit_too(tiny64):
    exact = score(tiny64, [CAT, DOG], level="node", progress=False)
    scores = score(tiny64, [CAT, DOG], method="atp", level="node", audit=10, progress=False)
    off = np.abs(scores.data["score"] - exact.data["score"]).values
    why = scores.data["why_exact"].values
    assert [(why == n).sum() for n in (1, 2)] == [5, 5]
    assert off[why > 0].max() < 1e-9 < off[why == 0].max()
    assert scores.audit["bound"]["cells"] == why.size - 10
    assert exact.audit is None
    with pytest.raises(CircuitError, match="nothing says which are exact"):
        exact.exact_cells()
    for level, method in (("edge", "eap"), ("node", "atp")):
        with pytest.raises(SweepError, match="is not given without exact cells"):
            score(tiny64, CAT, method=method, level=level, audit=0, progress=False)


def test_a_seed_draws_others_and_the_strongest_stay(tiny64):
    one, other, again = (
        score(tiny64, CAT, method="eap", audit=16, seed=seed, progress=False).data["why_exact"]
        for seed in (0, 1, 0)
    )
    assert one.equals(again)
    assert (one == 1).equals(other == 1)
    assert not (one == 2).equals(other == 2)


def test_numbers_of_numpy_are_numbers_and_what_is_no_seed_is_refused_first(
    tiny64, tmp_path, monkeypatch
):
    plain = score(tiny64, CAT, method="eap", audit=4, seed=3, out=tmp_path, progress=False)
    asked = {"audit": np.int64(4), "seed": np.int64(3), "out": tmp_path}
    found = score(tiny64, CAT, method="eap", progress=False, **asked)
    assert found.data.drop_attrs().identical(plain.data.drop_attrs())
    monkeypatch.setattr(Trial, "by", None)  # nothing is looked at, let alone run
    for seed in (None, 1.5, "3"):
        with pytest.raises(SweepError, match=r"seed=.*expected a whole number"):
            score(tiny64, CAT, method="eap", seed=seed, progress=False)


@pytest.mark.parametrize("level", ["edge", "node"])
def test_each_kind_is_drawn_from_as_it_is_large(level):
    """Of queries, keys, values, what else reads; of the input and MLPs, and heads."""
    graph = Graph(n_layers=4, n_heads=3, d_model=8)
    groups = np.tile(groups_of(graph, level), 9)
    kinds = groups // (graph.n_layers + 1)
    assert len(np.unique(kinds)) == (4 if level == "edge" else 2)
    values = np.random.default_rng(0).standard_normal(len(groups))
    for seed in range(20):
        drawn = draw(values, groups, 64, np.random.default_rng(seed))
        rest = np.setdiff1d(np.arange(len(groups)), drawn.strongest)
        for kind in np.unique(kinds):
            wanted = len(drawn.sample) * (kinds[rest] == kind).mean()
            assert abs((kinds[drawn.sample] == kind).sum() - wanted) < 2


class Stops(mt.Observer):
    """Wants no more after so many units, or cells."""

    def __init__(self, units: int = 99, cells: int = 10**9) -> None:
        self.units, self.cells = units, cells
        self.done, self.there, self.over = 0, 0, 0.0

    def advanced(self, cells: float) -> None:
        self.over += cells

    def unit_done(self, number: int, of: int) -> None:
        self.done += 1

    def unit_there(self, number: int, of: int) -> None:
        self.there += 1

    @property
    def cancelled(self) -> bool:
        return self.done >= self.units or self.over >= self.cells


@pytest.mark.parametrize(
    ("level", "method", "stop"), [("edge", "eap", Stops(units=1)), ("node", "atp", Stops(cells=9))]
)
def test_a_stopped_one_goes_on_bit_for_bit(tiny64, tmp_path, monkeypatch, level, method, stop):
    asked = {"method": method, "level": level, "audit": 8}
    whole = score(tiny64, [CAT, DOG], progress=False, **asked)
    out = tmp_path / "kept"
    with pytest.raises(mt.Cancelled):
        score(tiny64, [CAT, DOG], out=out, progress=stop, **asked)
    later = Stops()
    found = score(tiny64, [CAT, DOG], out=out, progress=later, **asked)
    assert (later.done, later.there) == ((2, 1) if level == "edge" else (1, 0))
    # What is all there is opened: nothing is run again, and it says the same of itself.
    monkeypatch.setattr(Trial, "measure_pairs", None)
    monkeypatch.setattr("microtome.circuits.gradients.Slopes", None)
    monkeypatch.setattr("microtome.circuits.methods.sweep", None)
    again = score(tiny64, [CAT, DOG], out=out, progress=False, **asked)
    for one in (found, again):
        assert one.data.drop_attrs().identical(whole.data.drop_attrs())
        for name in ("audit", "verification", "noise"):
            assert one.data.attrs[name] == whole.data.attrs[name]
    with pytest.raises(EffectsError, match="seed is 0 there and 1 here"):
        score(tiny64, [CAT, DOG], out=out, seed=1, progress=False, **asked)


def test_little_memory_gives_the_same(tiny64):
    whole, little = (
        score(tiny64, [CAT, CAT, DOG], method="eap", memory=memory, progress=False)
        for memory in (None, "3MB")
    )
    assert np.abs(whole.data["score"].values - little.data["score"].values).max() < 1e-9


def test_half_precision_has_gradients_in_float32(make_gpt2, tokenizer):
    half = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    single = mt.load(make_gpt2(dtype=torch.bfloat16).float(), tokenizer=tokenizer)
    one, two = (
        score(m, CAT, method="eap", progress=False).data["score"].values for m in (half, single)
    )
    assert (np.abs(one - two) > 1e-4).sum() <= 128


@pytest.mark.parametrize(("level", "method"), [("edge", "eap"), ("node", "atp")])
def test_the_copy_in_float32_is_planned(make_gpt2, tokenizer, monkeypatch, level, method):
    half = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    copied = 4 * sum(own.numel() for own in half.hf.parameters())
    monkeypatch.setattr(options, "memory_left", lambda: copied)
    with pytest.raises(SweepError, match=r"MiB left.*Or do without the copy"):
        score(half, CAT, method=method, level=level, progress=False)


def test_what_a_sweep_refuses_is_refused(tiny64):
    with pytest.raises(MetricError, match="approximate kl: without edits it has its best value"):
        score(tiny64, CAT, "kl", method="eap", progress=False)
    with pytest.raises(SweepError, match="is of edges"):
        score(tiny64, CAT, method="eap", level="node", progress=False)
    lone = mt.Prompt("The cat sat", target=" on", contrast=" mat")
    with pytest.raises(SweepError, match="has no donor"):
        score(tiny64, lone, method="eap_ig", ablation="zero", progress=False)
