"""What people write who come from other tools, and what it is called here.

Nothing here is accepted in the place of our own names: it is what a refusal says.

| tool | writes |
|---|---|
| TransformerLens | ``blocks.5.attn.hook_z``, ``blocks.5.hook_resid_post``, ``resid_pre.5`` |
| Hugging Face, nnsight | ``model.layers.5.self_attn.o_proj``, ``transformer.h[5].output[0]`` |
| pyvene | ``block_output``, ``mlp_activation`` |
| papers, ACDC | ``L5H3``, ``5.3``, ``a5.h3``, ``m5`` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

LENS, MODULES, PYVENE, PAPERS = (
    "TransformerLens' name", "the name of a module", "pyvene's name", "a paper's shorthand"
)  # fmt: skip

_HOOKS: Mapping[str, str] = MappingProxyType(
    {
        "resid_pre": "resid_pre",
        "resid_mid": "resid_mid",
        "resid_post": "resid_post",
        "attn_in": "q_in",
        "q_input": "q_in",
        "k_input": "k_in",
        "v_input": "v_in",
        "mlp_in": "mlp_in",
        "attn_out": "attn_out",
        "mlp_out": "mlp_out",
        "q": "q",
        "k": "k",
        "v": "v",
        "rot_q": "q",
        "rot_k": "k",
        "z": "z",
        "result": "head_out",
        "pattern": "pattern",
        "attn": "pattern",
        "attn_scores": "pattern",
        "pre": "mlp_post",
        "pre_linear": "mlp_post",
        "post": "mlp_post",
        "embed": "embed",
        "pos_embed": "embed",
        "tokens": "embed",
    }
)
"""What follows ``hook_`` → the nearest site."""

_UNLIKE: Mapping[str, str] = MappingProxyType(
    {
        "attn_in": "with k_in and v_in, what attention reads",
        "rot_q": "before the rotary embedding",
        "rot_k": "before the rotary embedding",
        "attn_scores": "behind the softmax; its 'knockout' is a score of −∞",
        "pre": "behind the activation",
        "pre_linear": "behind the activation, times the gate",
        "embed": "with the position embedding, where there is one",
        "pos_embed": "with the tokens' embedding",
        "tokens": "as vectors, what enters block 0",
        "normalized": "before the norm",
        "scale": "before the norm, whose scale is no site",
    }
)
"""What follows ``hook_`` and is no site → what the nearest one is instead."""

_PARTS: tuple[tuple[str, str], ...] = (
    (r"(q_proj|q_lin|query)", "q"),
    (r"(k_proj|k_lin|key)", "k"),
    (r"(v_proj|v_lin|value)", "v"),
    (r"(c_attn|qkv_proj|query_key_value|[wW]qkv)", "q, beside L_.k and L_.v"),
    (r"(ln_?1|input_layernorm|norm1|attn_norm|attention_norm).*", "resid_pre, before the norm"),
    (r"(ln_?2|post_attention_layernorm|norm2|mlp_norm|ffn_norm).*", "resid_mid, before the norm"),
    (r"((mlp|feed_forward|ffn)\.(c_fc|fc1|fc_in|up_proj|gate_proj|act\w*|dense_h_to_4h|lin1|w1|w3"
     r"|Wi)|fc1|intermediate(\..*)?)", "mlp_post, behind the activation"),
    (r"(mlp|feed_forward|ffn|block_sparse_moe|output)(\..*)?", "mlp_out"),
)  # fmt: skip
"""What a module in a block is called, as a pattern → the nearest site; L_ is its layer there."""

_ATTENTION = r"(attn|self_attn|attention|self_attention|self)"
_OUTWARDS = r"(c_proj|o_proj|out_proj|out_lin|dense|[wW]o)"
_OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "wte": "embed", "wpe": "embed", "embed_tokens": "embed", "embed_in": "embed",
        "embeddings": "embed", "embedding": "embed", "hook_embed": "embed",
        "hook_pos_embed": "embed", "embed": "embed", "hook_tokens": "embed",
        "ln_f": "L-1.resid_post", "norm": "L-1.resid_post", "ln_final": "L-1.resid_post",
        "final_layer_norm": "L-1.resid_post", "final_layernorm": "L-1.resid_post",
        "lm_head": "logits", "embed_out": "logits", "unembed": "logits", "output": "logits",
    }
)  # fmt: skip
"""Modules outside of the blocks → the nearest address."""

_PYVENE: Mapping[str, str] = MappingProxyType(
    {
        "block_input": "resid_pre", "block_output": "resid_post", "mlp_activation": "mlp_post",
        "mlp_output": "mlp_out", "mlp_input": "resid_mid", "attention_output": "attn_out",
        "attention_input": "resid_pre", "attention_value_output": "z",
        "head_attention_value_output": "z", "attention_weight": "pattern", "query_output": "q",
        "key_output": "k", "value_output": "v", "head_query_output": "q", "head_key_output": "k",
        "head_value_output": "v",
    }
)  # fmt: skip

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "attn": "attn_out", "attention": "attn_out", "self_attn": "attn_out", "head": "z",
        "heads": "z", "result": "head_out", "mlp": "mlp_out", "ffn": "mlp_out",
        "neuron": "mlp_post", "neurons": "mlp_post", "act": "mlp_post", "post": "mlp_post",
        "resid": "resid_post", "residual": "resid_post", "residual_stream": "resid_post",
        "hidden_state": "resid_post", "hidden_states": "resid_post", "output": "resid_post",
        "block": "resid_post", "layer": "resid_post", "input": "resid_pre",
        "query": "q", "queries": "q", "key": "k", "keys": "k", "value": "v", "values": "v",
        "attn_weights": "pattern", "attention_weights": "pattern", "weights": "pattern",
        "attn_pattern": "pattern", "attention_pattern": "pattern", "attn_scores": "pattern",
        "scores": "pattern", "attentions": "pattern", "embedding": "embed", "embeddings": "embed",
        "tokens": "embed", "unembed": "logits", "lm_head": "logits", "logit": "logits",
    }
)  # fmt: skip
"""What a site may be called elsewhere → its name here."""

EDITS: Mapping[str, str] = MappingProxyType(
    {
        "ablate": "zero", "ablation": "zero", "zero_ablate": "zero", "zero_ablation": "zero",
        "zeros": "zero", "remove": "zero", "delete": "zero", "mean_ablate": "mean",
        "mean_ablation": "mean", "average": "mean", "resample": "patch",
        "resample_ablation": "patch", "interchange": "patch", "interchange_intervention": "patch",
        "activation_patch": "patch", "activation_patching": "patch", "causal_trace": "patch",
        "restore": "patch", "swap": "patch", "set": "replace", "fix": "replace",
        "constant": "replace", "steer": "add", "inject": "add",
        "project_out": "project", "ablate_direction": "project",
        "directional_ablation": "project", "orthogonalize": "project", "clip": "clamp",
        "pin": "clamp", "cap": "clamp", "multiply": "scale", "mul": "scale",
        "gaussian_noise": "noise", "corrupt": "noise", "permute": "shuffle", "mask": "knockout",
        "attention_knockout": "knockout", "knock_out": "knockout", "block": "knockout",
        "cut": "knockout", "hook": "apply", "function": "apply", "intervene": "apply",
    }
)  # fmt: skip
"""What an edit may be called elsewhere → its name here."""

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "logit_difference": "logit_diff", "logits_diff": "logit_diff", "ld": "logit_diff",
        "ave_logit_diff": "logit_diff", "avg_logit_diff": "logit_diff", "margin": "logit_diff",
        "ioi_metric": "logit_diff", "normalized_logit_diff": "logit_diff", "logits": "logit",
        "score": "logit_diff", "recovered": "logit_diff", "restoration": "logit_diff",
        "kl_div": "kl", "kl_divergence": "kl", "kldiv": "kl", "js": "kl", "jsd": "kl",
        "cross_entropy": "loss", "ce": "loss", "ce_loss": "loss", "nll": "loss", "xent": "loss",
        "perplexity": "next_loss", "ppl": "next_loss", "surprisal": "next_loss",
        "lm_cross_entropy_loss": "loss",
        "probability": "prob", "p": "prob", "probs": "prob", "target_prob": "prob",
        "answer_prob": "prob", "softmax": "prob", "logprobs": "logprob", "log_prob": "logprob",
        "log_probs": "logprob", "log_softmax": "logprob", "logp": "logprob",
        "accuracy": "top1", "acc": "top1", "argmax": "top1", "top_1": "top1", "prediction": "top1",
        "pearson": "logit_corr", "correlation": "logit_corr", "corr": "logit_corr",
        "cosine_similarity": "cosine(L-1.resid_post@-1,0)",
        "cos_sim": "cosine(L-1.resid_post@-1,0)",
        "l2": "distance(L-1.resid_post@-1)", "mse": "distance(L-1.resid_post@-1)",
        "norm_diff": "distance(L-1.resid_post@-1)",
    }
)  # fmt: skip
"""What a metric may be called elsewhere → what is nearest to it here."""

_PROCESSING = "It changes weights, and the model is run here as it is: leave it out."
_ALONE = "Each prompt runs by itself, unpadded: leave it out."
_OWN = "Special tokens are those that the model's own tokenizer adds: leave it out."
LOADING: Mapping[str, str] = MappingProxyType(
    {
        "fold_ln": _PROCESSING,
        "center_writing_weights": _PROCESSING,
        "center_unembed": _PROCESSING,
        "fold_value_biases": _PROCESSING,
        "refactor_factored_attn_matrices": _PROCESSING,
        "default_padding_side": _ALONE,
        "padding_side": _ALONE,
        "default_prepend_bos": _OWN,
        "prepend_bos": _OWN,
        "hf_model": "Give the model itself: load(model, tokenizer=…).",
        "n_devices": 'Give device_map="auto" instead.',
        "move_to_device": 'Give device="cuda:0" instead.',
        "model_name": "Give the name first, by itself: load(name).",
        "checkpoint_index": "Give revision= instead.",
        "checkpoint_value": "Give revision= instead.",
        "use_attn_result": "A head's output is the site z, always there: leave it out.",
        "use_split_qkv_input": "Queries, keys and values are sites, always there: leave it out.",
    }
)
"""Arguments of other tools' loaders → what to do here."""

_MODELS: tuple[tuple[str, str], ...] = (
    (r"gpt2-small", "gpt2"),
    (r"(pythia-[\w.-]+)", r"EleutherAI/\1"),
    (r"(gpt-neo-\w+|gpt-j-6[bB])", r"EleutherAI/\1"),
    (r"(opt-\w+)", r"facebook/\1"),
    (r"(gemma-[\w.-]+)", r"google/\1"),
    (r"((?:Llama|llama|Meta-Llama)-[\w.-]+)", r"meta-llama/\1"),
    (r"(qwen[\d.]*-[\w.-]+)", r"Qwen/\1"),
    (r"(phi-[\w.-]+)", r"microsoft/\1"),
    (r"(bloom-\w+)", r"bigscience/\1"),
)
"""TransformerLens' names of models, as patterns → the hub ids that they begin with."""

NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("HookedTransformer", "TransformerBridge", "HookedEncoder", "LanguageModel",
             "IntervenableModel", "from_pretrained", "load_model", "AutoModelForCausalLM"),
            "microtome.load(name)"),
        **dict.fromkeys(
            ("run_with_hooks", "add_hook", "trace", "patching", "intervene", "hooks", "forward"),
            "model.run(prompt, edits=[…]), or microtome.sweep(…) for a map"),
        **dict.fromkeys(
            ("run_with_cache", "ActivationCache", "cache", "get_act_name", "TraceDict", "Trace"),
            'model.run(prompt, keep=["L5.z"])'),
        **dict.fromkeys(("to_tokens", "to_str_tokens", "tokenize"), "model.encode(prompt)"),
        **dict.fromkeys(("generation", "sample", "stream"),
                        "model.generate(prompt, edits=[…])"),
        **dict.fromkeys(("to", "cuda", "half", "bfloat16"),
                        "microtome.load(name, device=…, dtype=…)"),
        **dict.fromkeys(("cfg", "config"), "model.hf.config, and model.anatomy.dims"),
        **dict.fromkeys(("named_parameters", "parameters", "W_E", "W_U", "W_O", "W_Q", "W_K",
                         "W_V", "blocks", "state_dict", "modules", "named_modules"),
                        "model.hf, the Hugging Face module with its weights"),
        **{name: f"microtome.{own}" for name, own in EDITS.items()},
        **dict.fromkeys(("logit_lens", "accumulated_resid", "tuned_lens", "TunedLens"),
                        "microtome.lens(model, prompt)"),
        **dict.fromkeys(("logit_attrs", "direct_logit_attribution", "decompose_resid",
                         "stack_head_results"), "microtome.attribute_logits(model, prompt)"),
        **dict.fromkeys(("detect_head", "head_detector"), "microtome.head_scores(model)"),
        **dict.fromkeys(("causal_trace", "trace_with_patch", "calculate_hidden_flow"),
                        "microtome.trace_facts(model, facts)"),
        **dict.fromkeys(("activation_patching", "act_patch", "generic_activation_patch"),
                        "microtome.sweep(model, prompt, 'patch L*.z.h*@-1', …)"),
    }
)  # fmt: skip
"""Names in other tools' Python → what does it here."""


def model_of(name: str) -> str:
    """The hub id of a model by its name in TransformerLens; or nothing.

    >>> model_of("gpt2-small"), model_of("pythia-70m"), model_of("gpt2")
    ('gpt2', 'EleutherAI/pythia-70m', '')
    """
    for pattern, hub in _MODELS:
        found = re.fullmatch(pattern, name)
        if found is not None:
            return found.expand(hub)
    return ""


def here(name: str) -> str:
    """What does here what a name does in another tool's Python, as the end of a sentence.

    >>> here("HookedTransformer"), here("zeros_like")
    ('; here: microtome.load(name)', '')
    """
    return f"; here: {NAMES[name]}" if name in NAMES else ""


def address_of(text: str) -> str:
    """What an address in another tool's words is called here, in a sentence; or nothing.

    >>> address_of("blocks.5.attn.hook_z")
    "'blocks.5.attn.hook_z' is TransformerLens' name; here: L5.z."
    >>> address_of("model.layers.5.self_attn.o_proj")
    "'model.layers.5.self_attn.o_proj' is the name of a module; here: L5.attn_out, what it gives, \
or L5.z, what it reads."
    >>> address_of("L5.z")
    ''
    """
    before, at, where = text.strip().partition("@")
    plain = re.sub(r"\[(-?\d+|\*|:)\]", r".\1", before)
    for reader in (_head, _hidden, _hook, _module, _pyvene, _turned):
        found = reader(plain)
        if found is not None:
            is_place = re.fullmatch(r'-?\d+|[*:]|[A-Za-z_]\w*|"[^"]*"', where)
            is_whole = is_place and re.fullmatch(r"[\w*:.-]+", found[1])
            return f"{text!r} is {found[0]}; here: {found[1]}{at + where if is_whole else ''}."
    return ""


def spelled(given: object) -> str:
    """What a pair that TransformerLens' cache takes is called here, in a sentence; or nothing.

    >>> spelled(("resid_post", 5)), spelled(7)
    (" Here: 'L5.resid_post'.", '')
    """
    match given:
        case str(name), int(layer), *_ if name in _HOOKS:
            return f" Here: 'L{layer}.{_HOOKS[name]}'."
    return ""


_Found = tuple[str, str] | None
_N = r"(?P<layer>-?\d+|\*|:|\{\w*\})"
"""A layer: a number, all, or a place in a template that was not filled in."""


def _layer(found: re.Match[str]) -> str:
    given = found["layer"]
    return "*" if given.startswith("{") else given


def _head(text: str) -> _Found:
    found = re.fullmatch(rf"(?:[LlaA]|layer|head)?\.?{_N}[.,]?\s*[Hh]?\.?(?P<head>\d+)", text)
    if found is not None and re.search(r"\D", text):
        return PAPERS, f"L{_layer(found)}.z.h{found['head']}"
    found = re.fullmatch(rf"(?:m|mlp|MLP)[._]?{_N}", text)
    return None if found is None else (PAPERS, f"L{_layer(found)}.mlp_out")


def _hidden(text: str) -> _Found:
    """Hugging Face's hidden states: the first of them is what enters block 0."""
    found = re.fullmatch(r"(?:outputs?\.)?hidden_states\.(-?\d+)", text)
    if found is None:
        return None
    number = int(found[1])
    here = "embed" if number == 0 else f"L{number - (number > 0)}.resid_post"
    return "Hugging Face's count, from the embedding on", here


def _hook(text: str) -> _Found:
    found = re.search(r"\bhook_([a-z_]+)(?P<part>\W.*)?$", text)
    layer = re.match(rf"(?:blocks\.|L){_N}(?=\.)", text)
    if found is None:
        return None
    unlike = f", the nearest that there is: {_UNLIKE[found[1]]}" if found[1] in _UNLIKE else ""
    if "ln1" in text or "ln2" in text:
        site = "resid_pre" if "ln1" in text else "resid_mid"
    elif "ln_final" in text:
        return LENS, f"final_in{unlike}"
    else:
        site = _HOOKS.get(found[1], "resid_post")
    if site == "embed":
        return LENS, f"{site}{unlike}"
    whose = f"L{_layer(layer) if layer else '5'}.{site}"
    example = "" if layer else ", for layer 5"
    return LENS, f"{whose}{_unit(site, found['part'])}{example}{unlike}"


def _unit(site: str, part: str | None) -> str:
    """The one head, neuron or position that an index behind a hook point picks: ``[:, :, 6]``."""
    indices = re.fullmatch(r"\[:, *(:|-?\d+)(?:, *(-?\d+))?(?:, *:)?\]", part or "")
    if indices is None:
        return ""
    letter = {"z": "h", "q": "h", "k": "h", "v": "h", "head_out": "h", "mlp_post": "n"}.get(site)
    unit = f".{letter}{indices[2]}" if letter and indices[2] else ""
    return f"{unit}@{indices[1]}" if indices[1] != ":" else unit


def _module(text: str) -> _Found:
    path = re.sub(r"(\.(output|input|inputs|out))?(\.\d+)?$", "", text) if "." in text else text
    reads = bool(re.search(r"\.inputs?(\.\d+)*$", text))
    found = re.fullmatch(
        rf"(?:(?:model|transformer|gpt_neox|base_model|decoder|encoder|bert|roberta|distilbert)\.)*"
        rf"(?P<kind>h|layers?|blocks?)\.{_N}(?:\.(?P<rest>.+))?", path if _ends(path) else text
    )  # fmt: skip
    if found is None:
        last = text.removesuffix(".output").rpartition(".")
        known = _OUTSIDE.get(last[2])
        ours = re.match(r"L[-\d*:{]", text) or (not last[0] and known == last[2])
        return (MODULES, known) if known and not ours else None
    layer = _layer(found)
    whose = LENS if found["kind"] == "blocks" else MODULES
    rest = found["rest"]
    if rest is None or rest in ("output", "input"):
        return whose, f"L{layer}.{'resid_pre' if reads else 'resid_post'}"
    attention = re.fullmatch(rf"{_ATTENTION}(\.(?P<inner>.+))?", rest)
    inner = rest if attention is None else attention["inner"]
    if inner is None or (attention is not None and re.fullmatch(_OUTWARDS, inner)):
        return whose, f"L{layer}.attn_out, what it gives, or L{layer}.z, what it reads"
    if re.fullmatch(
        rf"(mlp|feed_forward|ffn)\.({_OUTWARDS}|down_proj|fc2|fc_out|dense_4h_to_h|lin2|w2)|fc2",
        inner,
    ):
        return whose, f"L{layer}.mlp_out, what it gives, or L{layer}.mlp_post, what it reads"
    for pattern, site in _PARTS:
        if re.fullmatch(rf"(self\.)?{pattern}", inner):
            return whose, f"L{layer}.{site}".replace("L_", f"L{layer}")
    site = WORDS.get(inner, inner)
    if site in _HOOKS.values():
        return "not how a layer is written", f"L{layer}.{site}"
    return whose, f"L{layer}.resid_post, or another of the sites that 'microtome sites MODEL' lists"


def _ends(path: str) -> bool:
    """Whether a path still has its layer after what follows it was taken away."""
    return bool(re.search(r"(h|layers?|blocks?)\.(-?\d+|\*|:|\{\w*\})", path))


def _pyvene(text: str) -> _Found:
    site = _PYVENE.get(text.rpartition(".")[2])
    return None if site is None else (PYVENE, f"L5.{site}, for layer 5")


def _turned(text: str) -> _Found:
    """``resid_pre.5``, ``z5``, ``layer5.z``: the site before its layer, or the layer without L."""
    sites = {**{site: site for site in _HOOKS.values()}, **WORDS}
    names = "|".join(sorted(map(re.escape, sites), key=len, reverse=True))
    found = re.fullmatch(rf"(?P<site>{names})[._]?{_N}", text) or re.fullmatch(
        rf"(?:layers?|block|l|Layer)?[._ ]?{_N}[._ ](?P<site>{names})", text
    )
    if found is None:
        return None
    here = sites[found["site"]]
    return LENS if found.start("site") == 0 else "not how a layer is written", (
        here if here in ("embed", "logits") else f"L{_layer(found)}.{here}"
    )
