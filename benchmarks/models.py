"""Models of GPT-2's published shapes with random weights, and a tokenizer of numbered words.

The time does not depend on the weights' values, and no network is needed. One model is a small
trained Llama, read from a directory; its tokens are numbered words, too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from benchmarks.questions import Shape

TRAINED = Path(__file__).parents[2] / "shared/models"
"""Where directories of trained models are looked for."""

PLACES = {
    "gpt2": {"blocks": "transformer.h", "z": "attn.c_proj", "mlp_post": "mlp.c_proj"},
    "llama": {"blocks": "model.layers", "z": "self_attn.o_proj", "mlp_post": "mlp.down_proj"},
}
"""Family → the list of blocks, and in a block the modules that read a site."""


def block_of(model: Any, shape: Shape, layer: int) -> Any:
    """A block of a Hugging Face model, or of what a tool makes of it."""
    return attrgetter(PLACES[shape.family]["blocks"])(model)[layer]


def reader_of(model: Any, shape: Shape, site: str, layer: int) -> Any:
    """The module whose input is ``z`` or ``mlp_post``."""
    return attrgetter(PLACES[shape.family][site])(block_of(model, shape, layer))


@dataclass(frozen=True)
class Subject:
    """The model that every tool is asked about."""

    shape: Shape
    device: str
    original: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    def twin(self) -> PreTrainedModel:
        """Modules of one's own over the same weights: no tool sees another's hooks or wrappers."""
        shared = [*self.original.parameters(), *self.original.buffers()]
        return copy.deepcopy(self.original, {id(tensor): tensor for tensor in shared})


def subject(shape: Shape, device: str = "cpu", context: int = 1024) -> Subject:
    """Made anew; the same each time.

    Raises:
        FileNotFoundError: a trained model is not there.
    """
    model = _trained(shape) if shape.trained else _random(shape, context)
    model = model.eval().to(device).requires_grad_(False)
    return Subject(shape, device, model, tokenizer(shape.vocabulary))


def _trained(shape: Shape) -> PreTrainedModel:
    folder = TRAINED / shape.name
    if not folder.is_dir():
        raise FileNotFoundError(f"{shape.name} is not in {TRAINED}")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _random(shape: Shape, context: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.width,
        vocab_size=shape.vocabulary,
        n_positions=context,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token for each of ``" w1"``, ``" w2"``…"""
    ids = {"<unk>": 0, **{f" w{n}": n for n in range(1, vocabulary)}}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_next")
    special = dict.fromkeys(["unk_token", "bos_token", "eos_token", "pad_token"], "<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)
