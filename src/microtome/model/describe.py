"""The anatomy of a model in words: what `microtome sites` prints above its table."""

from __future__ import annotations

from transformers import PretrainedConfig

from microtome.amounts import many
from microtome.model.anatomy import Anatomy
from microtome.model.families.family import Family


def described(anatomy: Anatomy, config: PretrainedConfig) -> dict[str, str]:
    """A model's family and the shape of its blocks, as its row has it.

    >>> from microtome import load
    >>> model = load("nano")
    >>> described(model.anatomy, model.hf.config)["block"]
    'sequential: attention, then the MLP'
    """
    row, dims = anatomy.family, anatomy.dims
    grouped = "" if dims.n_kv_heads == dims.n_heads else f", {dims.n_kv_heads} key/value heads"
    return {
        "family": f"{row.model_type}, {'causal' if dims.causal else 'sees both ways'}",
        "layers": f"{dims.n_layers}, at {row.blocks}",
        "block": _block(row),
        "norms": _norms(row),
        "attention": f"{many(dims.n_heads, 'head')} of {dims.d_head}{grouped}",
        "q, k, v": _projections(row),
        "mlp": _mlp(anatomy, config),
        "d_model": str(dims.d_model),
        "vocabulary": many(dims.d_vocab, "token"),
        "longest prompt": "no limit of its own"
        if dims.n_positions is None
        else many(dims.n_positions, "token"),
    }


def _block(row: Family) -> str:
    if "resid_mid" in row.taps:
        return "sequential: attention, then the MLP"
    return "parallel: attention and MLP read the same input"


def _norms(row: Family) -> str:
    if row.mid_norm is not None:
        return "after each sum: the residual stream itself is normed (post-norm)"
    added = "on what attention and MLP add"
    if row.down_proj is not None and "resid_mid" in row.taps:
        mlp = row.down_proj.rpartition(".")[0]
        if row.taps["resid_mid"].module == mlp:
            return added
    before = "before attention and MLP (pre-norm)"
    return before if row.attn_norm is None else f"{before}, and {added}"


def _projections(row: Family) -> str:
    paths = {row.taps[name].module for name in ("q", "k", "v")}
    names = ", ".join(path.rpartition(".")[2] for path in sorted(paths))
    return f"one projection: {names}" if len(paths) == 1 else f"a projection each: {names}"


def _mlp(anatomy: Anatomy, config: PretrainedConfig) -> str:
    dims = anatomy.dims
    gated = ", gated" if dims.mlp_matrices == 3 else ""
    if anatomy.family.down_proj is not None:
        return f"{many(dims.d_mlp, 'neuron')}{gated}"
    names = ("num_local_experts", "num_experts")
    total = next(n for n in (getattr(config, name, None) for name in names) if n)
    inside = f"{many(dims.d_mlp, 'neuron')}{gated}"
    return f"{many(total, 'expert')} of {inside}; a token takes {dims.experts}"
