"""Every row of the table, wrong in one field after the other: the probe finds it and names it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import microtome as mt
from microtome.errors import ProbeError
from microtome.model.anatomy import Anatomy
from microtome.model.families import FAMILIES
from microtome.model.families.taps import Tap, View
from microtome.passes.probe import probe
from oracles import families as by_hand

HEADED = ("q", "k", "v", "z")
ANY = ("",)
"""Words of any complaint."""


@dataclass(frozen=True)
class Wrong:
    """A row with one mistake in it, and the words one of which must be in the complaint."""

    what: str
    anatomy: Anatomy
    words: tuple[str, ...]


def turned(view: View) -> View:
    """Heads interleaved: a view of the right shape whose two axes are laid out the other way."""
    return lambda x, dims: view(x, dims).flatten(-2).unflatten(-1, (dims.d_head, -1)).mT


def mistakes(right: Anatomy) -> Iterator[Wrong]:
    yield from wrong_taps(right)
    yield from wrong_modules(right)
    yield from wrong_sizes(right)


def wrong_taps(right: Anatomy) -> Iterator[Wrong]:
    def tapped(what: str, site: str, tap: Tap) -> Wrong:
        # Queries and keys are tried against each other, so either is to be looked at.
        words = ("q", "k") if site in ("q", "k") else (site,)
        return Wrong(what, replace(right, family=right.family.tapped(**{site: tap})), words)

    for site, tap in right.family.taps.items():
        for other, its in right.family.taps.items():
            layer = 0 if site in ("embed", "logits") else "{layer}"
            its = replace(its, module=its.module.format(layer=layer))
            # Of another rank, it is found out by its shape alone.
            if its != tap and (site in HEADED) == (other in HEADED):
                yield tapped(f"{site} as {other}", site, its)
        whole_heads = right.dims.n_kv_heads if site in ("k", "v") else right.dims.n_heads
        if site in HEADED and whole_heads > 1:
            yield tapped(f"{site} turned", site, replace(tap, view=turned(tap.view), put=None))
        if tap.in_place:
            yield tapped(f"{site} not in place", site, replace(tap, in_place=False))
        if tap.flat:
            yield tapped(f"{site} not flat", site, replace(tap, flat=False))
        if tap.put is not None and 1 < right.dims.n_kv_heads < right.dims.n_heads:
            yield tapped(f"{site} not put back", site, replace(tap, put=None))


def wrong_modules(right: Anatomy) -> Iterator[Wrong]:
    def other(words: str, **changes: Any) -> Wrong:
        family = replace(right.family, **changes)
        what = re.sub(" at 0x[0-9a-f]+", "", f"{changes}")  # the same in each run
        return Wrong(what, replace(right, family=family), (words,))

    row = right.family
    paths = ("blocks", "out_proj", "down_proj", "attn_norm", "mlp_norm", "mid_norm", "post_norm")
    paths += ("reads",)
    for name in paths:
        if getattr(row, name) is not None:
            yield other("nowhere", **{name: "nowhere"})
    for elsewhere in ("nowhere", row.blocks + ".{layer}.mlp"):
        yield other("is not what q, k and v are made in", attention=elsewhere)
    for number, step in enumerate(row.final):
        before, after = row.final[:number], row.final[number + 1 :]
        yield other("is not logits", final=before + after)
        if isinstance(step, str):
            yield other("nowhere", final=(*before, "nowhere", *after))
    if row.mid_norm is not None:
        yield other("attn_out is not resid_mid", mid_norm=None)
        yield other("mlp_out is not resid_post", post_norm=None)
        yield other("attn_out is not resid_mid", mid_norm=row.post_norm)
        yield other("mlp_out is not resid_post", post_norm=row.mid_norm)
    if row.attn_norm is not None:
        yield other("adds is not attn_out", attn_norm=None)
        yield other("adds is not mlp_out", mlp_norm=None)
    if row.reads is not None:
        yield other("read of resid_pre is not q", reads=None)
    elif row.mid_norm is not None:
        yield other("read of resid_pre is not q", reads=row.mid_norm)
    if row.mlp_reads is not None:
        yield other("mlp_in", mlp_reads=None)
        yield other("what the MLP gets", mlp_reads=row.blocks + ".{layer}.mlp")
    for part in row.joint:
        yield other("nowhere", joint={**row.joint, part: "nowhere"})
        rest = {site: norm for site, norm in row.joint.items() if site != part}
        yield other(f"L0.{part}_in", joint=rest)
    yield other("is not logits", logits=lambda x, config: x * 1.01)
    yield other("pattern · v is not z", values=lambda x, config: x * 1.01)


def wrong_sizes(right: Anatomy) -> Iterator[Wrong]:
    dims = right.dims
    half, twice = dims.d_head // 2, dims.d_head * 2
    fewer = max(1, dims.n_kv_heads // 2)
    changes: list[dict[str, int]] = [
        {"n_layers": dims.n_layers - 1},
        {"n_layers": dims.n_layers + 1},
        {"n_heads": 2},
        {"n_heads": 8},
        {"n_heads": 8, "d_head": half},
        {"n_heads": 2, "d_head": twice},
        {"n_heads": 8, "n_kv_heads": 2 * dims.n_kv_heads, "d_head": half},
        {"n_heads": 2, "n_kv_heads": fewer, "d_head": twice},
        {"n_kv_heads": 2 * dims.n_kv_heads},
        {"d_head": half},
        {"d_model": dims.d_model // 2},
        {"d_vocab": dims.d_vocab // 2},
        {"causal": not dims.causal},
    ]
    if right.family.down_proj is not None:
        changes.append({"d_mlp": dims.d_mlp // 2})
    for change in changes:
        yield Wrong(str(change), replace(right, dims=replace(dims, **change)), ANY)


def complaint(hf: PreTrainedModel, anatomy: Anatomy) -> str | None:
    try:
        probe(hf, anatomy)
    except ProbeError as error:
        return str(error)
    return None


def mine(wrong: Wrong, name: str) -> bool:
    """Whether a mistake is tried in a family: what has to do with its own way to put values, or to
    unembed them, always; in those that are unlike, of q, k and v for each other a half, of other
    sites for each other a twelfth, of sizes and of what any row may get wrong a third, and all
    others; in those that are like one of them, a sixth as many, and of what any row may get wrong
    a sixth."""
    if " not " in wrong.what or wrong.what.startswith("{'final'"):
        return True
    unlike = name in by_hand.UNLIKE
    any_rows = "nowhere" in wrong.what or wrong.what.startswith(("{'logits'", "{'values'"))
    share = 3 if wrong.words == ANY or (any_rows and unlike) else 1
    if " as " in wrong.what:
        share = 2 if re.fullmatch("[qkv] as [qkv]", wrong.what) else 12
    share *= 1 if unlike else 6
    return zlib.crc32(f"{name} {wrong.what}".encode()) % share == 0


@pytest.mark.parametrize("name", by_hand.FAMILIES)
def test_every_mistake_in_a_row_is_found_and_named(name, tokenizer):
    hf = by_hand.make(name, len(tokenizer), short=True)
    right = mt.load(hf, tokenizer=tokenizer).anatomy  # proved, with none
    tried = 0
    for wrong in (wrong for wrong in mistakes(right) if mine(wrong, name)):
        message = complaint(hf, wrong.anatomy)
        assert message is not None, f"{wrong.what} is not found out"
        assert any(word in message for word in wrong.words), f"{wrong.what}: {message}"
        tried += 1
    assert tried > (18 if name in by_hand.UNLIKE else 2)


def test_every_row_is_tried():
    """A family that is added to the table is added to the oracle as well."""
    assert {name.split(",")[0] for name in by_hand.FAMILIES} == set(FAMILIES)


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text", "olmo2"])
@pytest.mark.parametrize("gain", [0.5, 8.0])
def test_norms_of_queries_and_keys_may_have_any_size(name, gain, tokenizer):
    """Large ones make attention choose one position, whatever half of a query says."""
    hf = by_hand.make(name, len(tokenizer), torch.bfloat16)
    with torch.no_grad():
        for path, weight in hf.named_parameters():
            if "q_norm" in path or "k_norm" in path:
                weight.mul_(gain)
    probe(hf, Anatomy.of(hf))
