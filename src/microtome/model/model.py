"""A loaded model: the untouched Hugging Face module, its tokenizer and its anatomy."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome import outcome
from microtome.edits import Edit, as_edits
from microtome.errors import PromptWarning
from microtome.model.anatomy import Anatomy
from microtome.model.families.family import Tap
from microtome.model.placed import device_of, weights
from microtome.prompts import Encoded, Prompt, Prompts, Tokens, encode
from microtome.sites import POSITIONS


@dataclass(frozen=True, eq=False)
class Model:
    """What `load` gives.

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

    def run(
        self,
        prompts: Prompt | str | Iterable[Prompt | str],
        edits: Edit | str | Iterable[Edit | str] = (),
        keep: str | Iterable[str] = (),
        reference: Iterable[Prompt | str] = (),
    ) -> outcome.Run:
        """Run prompts with edits, one full forward pass each, and keep some activations.

        Args:
            prompts: one or several; each runs by itself, so nothing is padded.
            edits: applied together, in the order of the forward pass; edits of one tensor apply
                in the order given. Addresses without stars.
            keep: addresses of the activations to keep, as they are after the edits.
            reference: the prompts that `mean(over="prompts")` averages over; by default the
                prompts themselves.

        Raises:
            AddressError, EditError, PromptError: something names what is not there.

        >>> import microtome as mt
        >>> model = mt.load("nano")
        >>> run = model.run("Berlin is the capital of", edits=[mt.zero("L0.z.h3")], keep=["L0.z"])
        >>> run["L0.z"].sel(head=3).values.any()
        np.False_
        """
        encoded = self.encode(prompts)
        others = list(reference)
        return outcome.run(
            self.hf,
            self.anatomy,
            self.tokenizer,
            encoded,
            as_edits(edits),
            keep,
            self.encode(others) if others else encoded,
        )

    def encode(self, prompts: Prompt | str | Iterable[Prompt | str]) -> tuple[Encoded, ...]:
        """Prompts in this model's tokens: those of the text and what the tokenizer adds, unpadded.

        Warns with `PromptWarning` where the tokenizer closes texts with a token of its own and the
        model is causal: `@last` is that token then, and what is predicted comes after it.

        Raises:
            PromptError: a prompt is too long; a role is not in it.
            TokenError: a target or contrast is not one token.
        """
        limit, masked = self.anatomy.dims.n_positions, not self.anatomy.dims.causal
        given = Prompts.of(prompts)
        encoded = tuple(encode(prompt, self.tokenizer, limit, masked) for prompt in given)
        closed = next((one.tokens for one in encoded if one.tokens.added[-1]), None)
        if closed is not None and not masked:
            warnings.warn(_closing(closed), PromptWarning, stacklevel=2)
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
            f"<Model {self.name!r}: {self.anatomy.family.model_type}, {dims.n_layers} layers × "
            f"{dims.n_heads} heads, d_model {dims.d_model}, {self.dtype}, {self.device}>"
        )


def _module(tap: Tap) -> str:
    return f"{tap.side} of {tap.module or 'the model'}"


def _closing(tokens: Tokens) -> str:
    end = -1 - next(n for n, added in enumerate(reversed(tokens.added)) if not added)
    return (
        f"The tokenizer puts {tokens.pieces[-1]!r} after every text, so the last position, where "
        "metrics are read, is that token, and not the end of the text. Load the tokenizer without "
        "it, AutoTokenizer.from_pretrained(…, add_eos_token=False), and give it to "
        f"load(…, tokenizer=…); or read metrics at the text's own end, such as prob@{end}."
    )
