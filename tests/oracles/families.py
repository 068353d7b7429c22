"""Interventions on every family as one would write them by hand: the oracle of the table's rows.

Nothing of microtome is used: module names are written out again here, with the columns of each head
in a projection counted by a formula. Sites are tapped elsewhere than in the package where a module
allows it: neurons at the activation function, what attention adds at the attention module or as a
difference, the residual stream between attention and MLP not at all: the rest of the block is
computed again from it. Attention weights are what `softmax` gives inside a layer's attention, in a
model with ``attention="eager"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

Op = Callable[[np.ndarray], np.ndarray]
Columns = Callable[[int, int, int], np.ndarray]
"""Head count, key head count, head size → the columns of each head, ``[head, d_head]``."""


@dataclass(frozen=True)
class Change:
    """``op`` maps the chosen block of a site's array, an index list per axis, to new values."""

    site: str
    layer: int | None
    index: Sequence[Sequence[int]]
    op: Op


@dataclass
class Hooked:
    logits: torch.Tensor
    seen: dict[tuple[str, int | None], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ByHand:
    """A tiny model of a family, and where its sites are.

    Attributes:
        model: the Hugging Face class.
        config: its settings.
        blocks: path of the blocks.
        q, k, v: module whose output they are in, and their columns there.
        z: module that reads the heads' outputs.
        attn_out, mlp_out: module whose output is added to the residual stream.
        neurons: module, and whether they are its input or its output; None where there are none.
        rest: a block's output, from the residual stream before the MLP; None if parallel.
        attention: the module that computes attention weights, if it is not the one around ``z``.
        middle: that stream, from the sum of what enters the block and what attention adds.
        kv_heads: how many key heads.
        adds_residual: what ``attn_out`` and ``mlp_out`` give has the residual stream in it already.
        factor: what is given is multiplied by this when it is added.
        first_position: the number of a text's first position.
        rounding: how exact a float64 model of this family is.
    """

    model: str
    config: Mapping[str, Any]
    blocks: str
    q: tuple[str, Columns]
    k: tuple[str, Columns]
    v: tuple[str, Columns]
    z: str
    attn_out: str
    mlp_out: str
    neurons: tuple[str, str] | None
    rest: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None
    middle: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] = lambda block, x: x
    attention: str = ""
    kv_heads: int = 4
    adds_residual: bool = False
    factor: float = 1.0
    first_position: int = 0
    rounding: float = 1e-9

    @property
    def layers(self) -> int:
        return next(own for name, own in self.config.items() if name in _NUMBERS)

    @property
    def sites(self) -> list[str]:
        middle = [] if self.rest is None else ["resid_mid"]
        neurons = [] if self.neurons is None else ["mlp_post"]
        return [
            "embed", "resid_pre", "q", "k", "v", "z", "attn_out", *middle, *neurons, "mlp_out",
            "resid_post", "logits",
        ]  # fmt: skip


# -------------------------------------------------------------------- columns of a head, by hand


def plain(heads: int, keys: int, width: int) -> np.ndarray:
    return np.array([[h * width + j for j in range(width)] for h in range(heads)])


def plain_keys(heads: int, keys: int, width: int) -> np.ndarray:
    return plain(keys, keys, width)


def after_queries(heads: int, keys: int, width: int) -> np.ndarray:
    return plain(keys, keys, width) + heads * width


def after_keys(heads: int, keys: int, width: int) -> np.ndarray:
    return plain(keys, keys, width) + (heads + keys) * width


def every_third(number: int) -> Columns:
    return lambda heads, keys, width: np.array(
        [[(3 * h + number) * width + j for j in range(width)] for h in range(heads)]
    )


def in_groups(heads: int, keys: int, width: int) -> np.ndarray:
    size = heads // keys
    starts = [(h // size) * (size + 2) + h % size for h in range(heads)]
    return np.array([[s * width + j for j in range(width)] for s in starts])


def end_of_group(number: int) -> Columns:
    def columns(heads: int, keys: int, width: int) -> np.ndarray:
        size = heads // keys
        starts = [g * (size + 2) + size + number for g in range(keys)]
        return np.array([[s * width + j for j in range(width)] for s in starts])

    return columns


# ----------------------------------------------------------------------------------- the families

D_MODEL, LAYERS, HEADS = 32, 3, 4
_NUMBERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_PLAIN = {"hidden_size": D_MODEL, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
_GATED = {
    **_PLAIN,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
_WIDE = {**_GATED, "head_dim": 12}


def _llama_rest(block, x):
    return x + block.mlp(block.post_attention_layernorm(x))


def _gemma_rest(block, x):
    inner = block.mlp(block.pre_feedforward_layernorm(x))
    return x + block.post_feedforward_layernorm(inner)


def _opt_rest(block, x):
    inner = block.fc2(block.activation_fn(block.fc1(block.final_layer_norm(x[0]))))
    return x + inner[None]


def _llama(model: str, config: Mapping[str, Any], **changes: Any) -> ByHand:
    given: dict[str, Any] = {
        "blocks": "model.layers",
        "q": ("self_attn.q_proj", plain),
        "k": ("self_attn.k_proj", plain_keys),
        "v": ("self_attn.v_proj", plain_keys),
        "z": "self_attn.o_proj",
        "attn_out": "self_attn",
        "mlp_out": "mlp",
        "neurons": ("mlp.down_proj", "input"),
        "rest": _llama_rest,
        "kv_heads": 2,
    }
    return ByHand(model, config, **{**given, **changes})


_BERT = {
    "q": ("attention.self.query", plain),
    "k": ("attention.self.key", plain),
    "v": ("attention.self.value", plain),
    "z": "attention.output.dense",
    "attn_out": "attention.output.dropout",
    "mlp_out": "output.dropout",
    "neurons": ("intermediate", "output"),
    "rest": lambda block, x: block.output(block.intermediate(x), x),
    "middle": lambda block, x: block.attention.output.LayerNorm(x),
    "attention": "attention.self",
}
_ENCODER = {**_PLAIN, "intermediate_size": 40, "max_position_embeddings": 64}
_NEOX = {
    "blocks": "gpt_neox.layers",
    "q": ("attention.query_key_value", every_third(0)),
    "k": ("attention.query_key_value", every_third(1)),
    "v": ("attention.query_key_value", every_third(2)),
    "z": "attention.dense",
    "attn_out": "attention",
    "mlp_out": "mlp",
    "neurons": ("mlp.act", "output"),
}
_FALCON = {
    "blocks": "transformer.h",
    "q": ("self_attention.query_key_value", in_groups),
    "k": ("self_attention.query_key_value", end_of_group(0)),
    "v": ("self_attention.query_key_value", end_of_group(1)),
    "z": "self_attention.dense",
    "attn_out": "self_attention",
    "mlp_out": "mlp",
    "neurons": ("mlp.act", "output"),
}
_EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": False}

_TABLE: Mapping[str, ByHand] = {
    "gpt2": ByHand(
        "GPT2LMHeadModel",
        {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64},
        blocks="transformer.h",
        q=("attn.c_attn", plain),
        k=("attn.c_attn", after_queries),
        v=("attn.c_attn", after_keys),
        z="attn.c_proj",
        attn_out="attn",
        mlp_out="mlp",
        neurons=("mlp.act", "output"),
        rest=lambda block, x: x + block.mlp(block.ln_2(x)),
    ),
    "gpt_neo": ByHand(
        "GPTNeoForCausalLM",
        {
            "hidden_size": D_MODEL,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "max_position_embeddings": 64,
            "window_size": 4,
            "attention_types": [[["global", "local", "local"], 1]],
        },
        blocks="transformer.h",
        q=("attn.attention.q_proj", plain),
        k=("attn.attention.k_proj", plain),
        v=("attn.attention.v_proj", plain),
        z="attn.attention.out_proj",
        attn_out="attn",
        mlp_out="mlp",
        neurons=("mlp.act", "output"),
        rest=lambda block, x: x + block.mlp(block.ln_2(x)),
        rounding=1e-6,
    ),
    "opt": ByHand(
        "OPTForCausalLM",
        {**_PLAIN, "ffn_dim": 40, "word_embed_proj_dim": D_MODEL, "max_position_embeddings": 64},
        blocks="model.decoder.layers",
        q=("self_attn.q_proj", plain),
        k=("self_attn.k_proj", plain),
        v=("self_attn.v_proj", plain),
        z="self_attn.out_proj",
        attn_out="self_attn",
        mlp_out="fc2",
        neurons=("activation_fn", "output"),
        rest=_opt_rest,
    ),
    "bloom": ByHand(
        "BloomForCausalLM",
        {"hidden_size": D_MODEL, "n_layer": LAYERS, "n_head": HEADS},
        blocks="transformer.h",
        q=("self_attention.query_key_value", every_third(0)),
        k=("self_attention.query_key_value", every_third(1)),
        v=("self_attention.query_key_value", every_third(2)),
        z="self_attention.dense",
        attn_out="self_attention",
        mlp_out="mlp",
        neurons=("mlp.gelu_impl", "output"),
        rest=lambda block, x: block.mlp(block.post_attention_layernorm(x), x),
        adds_residual=True,
    ),
    "llama": _llama("LlamaForCausalLM", {**_WIDE, "attention_bias": True, "mlp_bias": True}),
    "llama, tied": _llama("LlamaForCausalLM", {**_GATED, "tie_word_embeddings": True}),
    "mistral": _llama("MistralForCausalLM", {**_WIDE, "sliding_window": 4}),
    "qwen2": _llama(
        "Qwen2ForCausalLM",
        {**_GATED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": _llama("Qwen3ForCausalLM", _WIDE),
    "phi3": _llama(
        "Phi3ForCausalLM",
        {**_GATED, "sliding_window": 5},
        q=("self_attn.qkv_proj", plain),
        k=("self_attn.qkv_proj", after_queries),
        v=("self_attn.qkv_proj", after_keys),
    ),
    "gemma": _llama("GemmaForCausalLM", _WIDE),
    "gemma2": _llama(
        "Gemma2ForCausalLM",
        {
            **_WIDE,
            "sliding_window": 4,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        rest=_gemma_rest,
    ),
    "gemma3_text": _llama(
        "Gemma3ForCausalLM",
        {
            **_WIDE,
            "sliding_window": 4,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        rest=_gemma_rest,
    ),
    "olmo": _llama("OlmoForCausalLM", {**_GATED, "clip_qkv": 1.5}),
    "olmo2": _llama(
        "Olmo2ForCausalLM",
        _GATED,
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        rest=lambda block, x: x + block.post_feedforward_layernorm(block.mlp(x)),
    ),
    "granite": _llama(
        "GraniteForCausalLM",
        {
            **_GATED,
            "residual_multiplier": 0.3,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
            "embedding_multiplier": 3.0,
        },
        rest=lambda block, x: x + block.mlp(block.post_attention_layernorm(x)) * 0.3,
        factor=0.3,
    ),
    "mixtral": _llama(
        "MixtralForCausalLM", {**_WIDE, **_EXPERTS, "num_local_experts": 4}, neurons=None
    ),
    "qwen3_moe": _llama(
        "Qwen3MoeForCausalLM",
        {
            **_WIDE,
            **_EXPERTS,
            "num_experts": 4,
            "moe_intermediate_size": 16,
            "mlp_only_layers": [1],
        },
        neurons=None,
    ),
    "gpt_neox": ByHand(
        "GPTNeoXForCausalLM", {**_PLAIN, "intermediate_size": 40}, rest=None, **_NEOX
    ),
    "gpt_neox, sequential": ByHand(
        "GPTNeoXForCausalLM",
        {**_PLAIN, "intermediate_size": 40, "use_parallel_residual": False},
        rest=_llama_rest,
        **_NEOX,
    ),
    "gptj": ByHand(
        "GPTJForCausalLM",
        {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64, "rotary_dim": 4},
        blocks="transformer.h",
        q=("attn.q_proj", plain),
        k=("attn.k_proj", plain),
        v=("attn.v_proj", plain),
        z="attn.out_proj",
        attn_out="attn",
        mlp_out="mlp",
        neurons=("mlp.act", "output"),
        rest=None,
        rounding=1e-6,
    ),
    "phi": _llama(
        "PhiForCausalLM",
        {**_GATED, "qk_layernorm": True},
        z="self_attn.dense",
        neurons=("mlp.activation_fn", "output"),
        rest=None,
    ),
    "stablelm": _llama("StableLmForCausalLM", {**_GATED, "use_qkv_bias": True}),
    "stablelm, parallel": _llama(
        "StableLmForCausalLM",
        {**_GATED, "use_parallel_residual": True, "qk_layernorm": True},
        rest=None,
    ),
    "cohere": _llama(
        "CohereForCausalLM", {**_GATED, "use_qk_norm": True, "logit_scale": 0.3}, rest=None
    ),
    "falcon": ByHand(
        "FalconForCausalLM",
        {**_PLAIN, "new_decoder_architecture": True, "num_kv_heads": 2},
        rest=None,
        kv_heads=2,
        **_FALCON,
    ),
    "falcon, one key head": ByHand(
        "FalconForCausalLM",
        {**_PLAIN, "multi_query": True, "parallel_attn": True, "bias": True},
        rest=None,
        kv_heads=1,
        **_FALCON,
    ),
    "falcon, sequential": ByHand(
        "FalconForCausalLM",
        {**_PLAIN, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
        rest=_llama_rest,
        **_FALCON,
    ),
    "bert": ByHand("BertForMaskedLM", _ENCODER, blocks="bert.encoder.layer", **_BERT),
    "roberta": ByHand(
        "RobertaForMaskedLM",
        _ENCODER,
        blocks="roberta.encoder.layer",
        first_position=1,  # the one after the padding token's id
        **_BERT,
    ),
    "distilbert": ByHand(
        "DistilBertForMaskedLM",
        {"dim": D_MODEL, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 40},
        blocks="distilbert.transformer.layer",
        q=("attention.q_lin", plain),
        k=("attention.k_lin", plain),
        v=("attention.v_lin", plain),
        z="attention.out_lin",
        attn_out="attention",
        mlp_out="ffn.dropout",
        neurons=("ffn.activation", "output"),
        rest=lambda block, x: block.output_layer_norm(block.ffn(x) + x),
        middle=lambda block, x: block.sa_layer_norm(x),
    ),
    "modernbert": ByHand(
        "ModernBertForMaskedLM",
        {
            **_ENCODER,
            "cls_token_id": 0,
            "sep_token_id": 0,
            "local_attention": 4,
            "global_attn_every_n_layers": 3,
            "mlp_bias": True,
            "norm_bias": True,
        },
        blocks="model.layers",
        q=("attn.Wqkv", plain),
        k=("attn.Wqkv", after_queries),
        v=("attn.Wqkv", after_keys),
        z="attn.Wo",
        attn_out="attn",
        mlp_out="mlp",
        neurons=("mlp.drop", "output"),
        rest=lambda block, x: x + block.mlp(block.mlp_norm(x)),
        rounding=1e-6,
    ),
}

ENCODERS = ("bert", "roberta", "distilbert", "modernbert")
UNLIKE = (
    "gpt2", "gpt_neo", "bloom", "llama", "gemma2", "olmo2", "mixtral", "gpt_neox",
    "falcon, one key head", "bert", "modernbert",
)  # fmt: skip
"""One of each kind, for what is no family's own: one projection for q, k and v; windows, and
float32 in attention; slopes for positions; shared keys; norms behind, and caps; queries normed
together; experts; parallel; one key head; a stream that is normed; an encoder with windows."""


def _of_two_layers(hand: ByHand) -> ByHand:
    """A family that is like another one, which has a layer between the first and the last."""
    config = {name: 2 if name in _NUMBERS else own for name, own in hand.config.items()}
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:2]
    if "attention_types" in config:
        [[kinds, times]] = config["attention_types"]
        config["attention_types"] = [[kinds[:2], times]]
    return replace(hand, config=config)


FAMILIES: Mapping[str, ByHand] = {
    name: hand if name in UNLIKE else _of_two_layers(hand) for name, hand in _TABLE.items()
}
"""Family, and a variant where it has several → its model and its sites."""


def turn(name: str) -> int:
    """A family's number, by which families take the rows of a table by turns."""
    return [*FAMILIES].index(name)


def make(
    name: str,
    vocabulary: int,
    dtype: torch.dtype = torch.float64,
    attention: str | None = None,
    short: bool = False,
) -> PreTrainedModel:
    """A random model of a family, none of whose weights is zero or one; ``short``: two layers."""
    hand = _of_two_layers(FAMILIES[name]) if short else FAMILIES[name]
    kind = getattr(transformers, hand.model)
    config = kind.config_class(
        vocab_size=vocabulary, bos_token_id=0, eos_token_id=0, pad_token_id=0, **hand.config
    )
    if attention is not None:
        config._attn_implementation = attention
    config._experts_implementation = "eager"  # the grouped product refuses float64
    state = torch.get_rng_state()
    hf = kind(config)
    torch.set_rng_state(state)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, weight in sorted(hf.named_parameters()):
            norm = path.endswith("weight") and ("norm" in path.lower() or ".ln_" in path)
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * 0.25 + float(norm))
    assert sum(weight.numel() for weight in hf.parameters()) < 120_000
    return hf.to(dtype).eval()


def dimensions(hf: PreTrainedModel, hand: ByHand) -> tuple[int, int, int]:
    """Heads, key heads, head size."""
    read = hf.get_submodule(f"{hand.blocks}.0.{hand.z}")
    width = read.weight.shape[0 if type(read).__name__ == "Conv1D" else 1]
    return HEADS, hand.kv_heads, width // HEADS


def run(
    hf: PreTrainedModel,
    hand: ByHand,
    ids: Sequence[int],
    changes: Iterable[Change] = (),
    shape: tuple[int, int, int] | None = None,
) -> Hooked:
    """The logits ``[pos, vocab]`` under these changes, and every site's values after them."""
    heads, keys, width = dimensions(hf, hand) if shape is None else shape
    changes, length = list(changes), len(ids)
    changed = {(change.site, change.layer) for change in changes}
    found = Hooked(torch.empty(0))

    def at(site: str, layer: int | None, full: torch.Tensor) -> torch.Tensor:
        array = full.detach().reshape(length, -1).numpy().copy()
        if site in ("q", "k", "v", "z"):
            array = array.reshape(length, -1, width)
        for change in changes:
            if (change.site, change.layer) == (site, layer):
                where = np.ix_(*change.index)
                array[where] = change.op(array[where])
        found.seen[site, layer] = array
        return torch.from_numpy(array).reshape(full.shape)

    def before(layer: int, site: str):
        def hook(module, args):
            x = at("embed", None, args[0]) if (layer, site) == (0, "resid_pre") else args[0]
            return (at(site, layer, x), *args[1:])

        return hook

    def projection(layer: int, parts: Mapping[str, Columns]):
        def hook(module, args, output):
            output = output.clone()
            for site, columns in parts.items():
                chosen = torch.from_numpy(columns(heads, keys, width).ravel())
                output[..., chosen] = at(site, layer, output[..., chosen])
            return output

        return hook

    def added(layer: int, site: str):
        def hook(module, args, output):
            given = output[0] if isinstance(output, tuple) else output
            base = args[1] if hand.adds_residual else 0
            old = (given - base) * hand.factor
            new = at(site, layer, old)
            if not torch.equal(old, new):
                given = new / hand.factor + base
            return (given, *output[1:]) if isinstance(output, tuple) else given

        return hook

    def after(layer: int, site: str):
        return lambda module, args, output: at(site, layer, output)

    def block(layer: int):
        def hook(module, args, output):
            given = output[0] if isinstance(output, tuple) else output
            if hand.rest is not None:
                start = torch.from_numpy(found.seen["resid_pre", layer])[None]
                middle = start + torch.from_numpy(found.seen["attn_out", layer])[None]
                middle = at("resid_mid", layer, hand.middle(module, middle))
                if ("resid_mid", layer) in changed:
                    # The MLP runs again; its own hooks fire again.
                    given = hand.rest(module, middle)
            given = at("resid_post", layer, given)
            return (given, *output[1:]) if isinstance(output, tuple) else given

        return hook

    softmax, attending = torch.nn.functional.softmax, []

    def weights(*args, **kwargs):
        given = softmax(*args, **kwargs)
        if not attending:
            return given
        array = given[0].to(hf.dtype).numpy().copy()
        for change in changes:
            if (change.site, change.layer) == ("pattern", attending[-1]):
                where = np.ix_(*change.index)
                array[where] = change.op(array[where])
        found.seen["pattern", attending[-1]] = array
        return torch.from_numpy(array)[None]

    handles = []
    try:
        for n, module in enumerate(hf.get_submodule(hand.blocks)):
            part = module.get_submodule(hand.attention or hand.z.rpartition(".")[0])
            begin, end = (lambda *_, n=n: attending.append(n)), (lambda *_: attending.clear())
            handles.append(part.register_forward_pre_hook(begin))
            handles.append(part.register_forward_hook(end))
            handles.append(module.register_forward_pre_hook(before(n, "resid_pre")))
            fused: dict[str, dict[str, Columns]] = {}
            for site in ("q", "k", "v"):
                path, columns = getattr(hand, site)
                fused.setdefault(path, {})[site] = columns
            for path, parts in fused.items():
                hook = projection(n, parts)
                handles.append(module.get_submodule(path).register_forward_hook(hook))
            z = module.get_submodule(hand.z)
            handles.append(z.register_forward_pre_hook(before(n, "z")))
            for site in ("attn_out", "mlp_out"):
                part = module.get_submodule(getattr(hand, site))
                handles.append(part.register_forward_hook(added(n, site)))
            if hand.neurons is not None:
                path, side = hand.neurons
                part = module.get_submodule(path)
                if side == "input":
                    handles.append(part.register_forward_pre_hook(before(n, "mlp_post")))
                else:
                    handles.append(part.register_forward_hook(after(n, "mlp_post")))
            handles.append(module.register_forward_hook(block(n)))
        with torch.no_grad(), mock.patch.object(torch.nn.functional, "softmax", weights):
            found.logits = at("logits", None, hf(torch.tensor([list(ids)])).logits)[0]
    finally:
        for handle in handles:
            handle.remove()
    return found
