"""What was loaded: the untouched Hugging Face module, its tokenizer and its anatomy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.language.sites import POSITIONS
from microtome.model.anatomy import Anatomy
from microtome.model.families.family import Tap
from microtome.model.placement import device_of, weights
from microtome.prompts.encoding import Encoded, encode
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.prompts.warnings import warn_of


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that can be addressed.

    Attributes:
        hf: the Hugging Face module, unmodified.
        tokenizer: its tokenizer.
        anatomy: its family and dimensions.
        name: what it was loaded as.
        revision: the hub's commit, where one is known.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    name: str
    revision: str | None = None

    def encode(self, prompts: Prompt | str | Iterable[Prompt | str]) -> tuple[Encoded, ...]:
        """Prompts in this model's tokens: those of the text and what the tokenizer adds, unpadded.

        Warns with `PromptWarning` where the tokenizer closes texts with a token of its own and the
        model is causal (`@last` is that token then, and what is predicted comes after it); where a
        text spells out special tokens, or the one that the tokenizer puts in front anyway; and
        where it is longer than the model was made for.

        Raises:
            PromptError: a prompt is too long; a role is not in it.
            TokenError: a target or contrast is not one token.
        """
        limit, masked = self.anatomy.dims.n_positions, not self.anatomy.dims.causal
        given = Prompts.of(prompts)
        encoded = tuple(encode(prompt, self.tokenizer, limit, masked) for prompt in given)
        warn_of(encoded, masked, self._made_for, stacklevel=2)
        return encoded

    def sites(self) -> pd.DataFrame:
        """What can be addressed: per site its axes, their sizes, its module and what it is.

        >>> from microtome import load
        >>> load("nano").sites().loc["z", "axes"]
        'pos, head, d_head'
        """
        rows = [
            {
                "site": site.name,
                "layers": self.anatomy.dims.n_layers if site.layered else None,
                "axes": ", ".join(site.axes),
                "sizes": ", ".join(
                    axis if axis in POSITIONS else str(self.anatomy.dims.size(axis))
                    for axis in site.axes
                ),
                "module": _module(self.anatomy.tap(site, "*")),
                "what it is": site.about,
            }
            for site in self.anatomy.sites
        ]
        return pd.DataFrame(rows).set_index("site").astype({"layers": "Int64"})

    @property
    def _made_for(self) -> int | None:
        """The longest text that its configuration names, where the model takes longer ones too."""
        if self.anatomy.dims.n_positions is not None:
            return None
        config = self.hf.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) else None

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        dtype: torch.dtype = self.hf.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the model takes its tokens, which is where its weights are unless it is spread."""
        return device_of(self.hf)

    @cached_property
    def weight_hash(self) -> str:
        """sha256 over the names, shapes and bytes of all weights, in hexadecimal.

        Wherever they are: the same for a model on one device and one that is spread or offloaded.
        Of packed (quantised) weights, what is packed.
        """
        digest = hashlib.sha256()
        for name, weight in weights(self.hf):
            digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
            raw = weight.contiguous().cpu().flatten().view(torch.uint8)
            digest.update(raw.numpy().data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        dims = self.anatomy.dims
        return (
            f"<{type(self).__name__} {self.name!r}: {self.anatomy.family.model_type}, "
            f"{dims.n_layers} layers × {dims.n_heads} heads, d_model {dims.d_model}, "
            f"{self.dtype}, {self.device}>"
        )


def _module(tap: Tap) -> str:
    return f"{tap.side} of {tap.module or 'the model'}"
