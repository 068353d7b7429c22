"""The table of families: a row per Hugging Face architecture.

A row says in which module's input or output each site lives and which part of that tensor it is.
The load-time probe proves a row on the model at hand; nothing else in microtome knows module names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from microtome.model.families import encoders, gpt2, llama, parallel
from microtome.model.families.family import Family

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        row.model_type: row
        for row in (
            gpt2.GPT2,
            gpt2.GPT_NEO,
            gpt2.OPT,
            gpt2.BLOOM,
            llama.LLAMA,
            llama.MISTRAL,
            llama.QWEN2,
            llama.QWEN3,
            llama.PHI3,
            llama.GEMMA,
            llama.GEMMA2,
            llama.GEMMA3,
            llama.OLMO,
            llama.OLMO2,
            llama.GRANITE,
            llama.MIXTRAL,
            llama.QWEN3_MOE,
            parallel.GPT_NEOX,
            parallel.GPTJ,
            parallel.PHI,
            parallel.STABLELM,
            parallel.FALCON,
            parallel.COHERE,
            encoders.BERT,
            encoders.ROBERTA,
            encoders.DISTILBERT,
            encoders.MODERNBERT,
        )
    }
)
"""Hugging Face ``config.model_type`` → family."""
