"""Models of GPT-2's published shapes with random weights, and a tokenizer of numbered words.

The time does not depend on the weights' values, and no network is needed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.questions import Shape


@dataclass(frozen=True)
class Subject:
    """The model that every tool is asked about."""

    shape: Shape
    device: str
    original: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast

    def twin(self) -> GPT2LMHeadModel:
        """Modules of one's own over the same weights: no tool sees another's hooks or wrappers."""
        shared = [*self.original.parameters(), *self.original.buffers()]
        return copy.deepcopy(self.original, {id(tensor): tensor for tensor in shared})


def subject(shape: Shape, device: str = "cpu", context: int = 1024) -> Subject:
    """Made anew; the same each time."""
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
    model = GPT2LMHeadModel(config).eval().to(device).requires_grad_(False)
    return Subject(shape, device, model, tokenizer(shape.vocabulary))


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token for each of ``" w1"``, ``" w2"``…"""
    ids = {"<unk>": 0, **{f" w{n}": n for n in range(1, vocabulary)}}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_next")
    special = dict.fromkeys(["unk_token", "bos_token", "eos_token", "pad_token"], "<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)
