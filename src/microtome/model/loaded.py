"""What was loaded: the untouched Hugging Face module, its tokenizer and its anatomy."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.amounts import many
from microtome.errors import LoadError, MicrotomeError, TokenError
from microtome.language.sites import POSITIONS
from microtome.model.additions import (
    Addition,
    additions,
    behind_blocks,
    named,
    why_not_in_parts,
)
from microtome.model.anatomy import Anatomy
from microtome.model.families.configs import rotary_of
from microtome.model.families.taps import Tap
from microtome.model.identity import (
    Remembered,
    buffer_hash,
    modules_hash,
    tokenizer_hash,
    tokenizer_sign,
    weight_hash,
    weights_sign,
)
from microtome.model.placement import device_of, types_of
from microtome.model.proved import Said, said_by, why_not_as_proved
from microtome.prompts.encoding import Encoded, encode, piece
from microtome.prompts.prompts import Given, Prompts
from microtome.prompts.warnings import warn_of

SHORT = 60
"""Letters of a name that a message repeats."""


@dataclass(frozen=True)
class GgufSource:
    """The GGUF file that weights were unpacked from.

    Attributes:
        file: its name, without its place.
        sha256: of its content, in hexadecimal.
        types: how its numbers are packed, that of most numbers first: ``("Q4_1", "F32")``.
        package: the installed package that it is from, with its version; None of any other file.
    """

    file: str
    sha256: str
    types: tuple[str, ...]
    package: str | None = None


@dataclass(frozen=True)
class Origin:
    """How a model came here.

    Attributes:
        loaded: whether microtome read it, or somebody made it.
        asked: what `load` was told besides the name, as plain values: dtype, device, tokenizer,
            and what it passed on.
        source: the file that its weights were unpacked from, where they were packed.
    """

    loaded: Literal["from files", "given in memory"] = "given in memory"
    asked: Mapping[str, Any] = field(default_factory=dict)
    source: GgufSource | None = None


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that can be addressed.

    Attributes:
        hf: the Hugging Face module, unmodified.
        tokenizer: its tokenizer.
        anatomy: its family and dimensions.
        name: what it was loaded as.
        revision: the hub's commit, where one is known.
        origin: how it came here.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    name: str
    revision: str | None = None
    origin: Origin = Origin()

    def encode(self, prompts: Given | Iterable[Given]) -> tuple[Encoded, ...]:
        """Prompts in this model's tokens: those of the text and what the tokenizer adds, unpadded.

        Warns with `PromptWarning` where the tokenizer closes texts with a token of its own and the
        model is causal (`@last` is that token then, and what is predicted comes after it); where a
        text spells out special tokens, or the one that the tokenizer puts in front anyway (which is
        read once then); where a chat ends in what the assistant says; where a text ends in a space
        and has a target; where a target changes the
        text's own tokens, is the contrast too, or is several tokens and would be one with a space
        more or less; and where a text is longer than the model was made for.

        Raises:
            PromptError: a prompt is too long; a role is not in it; it is a chat, and the tokenizer
                has no chat template.
            TokenError: a target or contrast is no token, one that does not exist, or lacks its
                space; or
                the tokenizer was given a token that the model was not, and it is in a prompt.
            ArchitectureError: the model was given other tokens since it was loaded.
        """
        self.anatomy.check_words(self.hf)
        limit, masked = self.anatomy.dims.n_positions, not self.anatomy.dims.causal
        given = Prompts.of(prompts)
        words = self.anatomy.dims.d_vocab
        encoded = tuple(encode(one, self.tokenizer, limit, masked, words) for one in given)
        for one in encoded:
            self._check_known(one)
        warn_of(encoded, masked, self._made_for, stacklevel=2)
        return encoded

    def _check_known(self, one: Encoded) -> None:
        """Raise `TokenError` for a token that the tokenizer has and the model does not."""
        d_vocab = self.anatomy.dims.d_vocab
        donor = () if one.donor is None else one.donor.ids
        for token in (*one.tokens.ids, *donor, *one.reads):
            if token >= d_vocab:
                raise TokenError(
                    f"{piece(token, self.tokenizer)!r} is token {token} of the tokenizer, and "
                    f"{self.name!r} knows {d_vocab}, up to {d_vocab - 1}: it was added to the "
                    "tokenizer and not to the model. Write the prompt without it, or give the "
                    "model a row for it, hf.resize_token_embeddings(len(tokenizer)), and load "
                    "that: load(hf, tokenizer=tokenizer)."
                )

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
        """The longest text that its configuration names, where the model takes longer ones too.

        Not of a rotary embedding that follows the text's length, which is made for any.
        """
        if self.anatomy.dims.n_positions is not None:
            return None
        config = self.hf.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None)
        stretched = [_stretched(one) for one in rotary_of(config)]
        if not isinstance(longest, int) or math.inf in stretched:
            return None
        return int(max(longest, *stretched, 0))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the residual stream, which is that of the blocks' weights.

        Norms, embeddings or the unembedding may be of another one: see `dtypes`.
        """
        return self.anatomy.dtype(self.hf)

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """All floating-point types that its weights have, the coarsest first."""
        return tuple(sorted(types_of([self.hf]), key=lambda kind: -torch.finfo(kind).eps))

    @property
    def itemsize(self) -> int:
        """Bytes of the largest of the types that activations and logits may have."""
        return max(kind.itemsize for kind in (self.dtype, *self.dtypes))

    @property
    def device(self) -> torch.device:
        """Where the model takes its tokens, which is where its weights are unless it is spread."""
        return device_of(self.hf)

    @property
    def additions(self) -> tuple[Addition, ...]:
        """Hooks, functions and classes of somebody's own that are on the model now."""
        return additions(self.hf)

    @property
    def whole(self) -> str | None:
        """Why the model can only be run whole, by the reference path; None where it need not be."""
        return why_not_in_parts(self.hf) or why_not_as_proved(self.proved, self.hf)

    def check_end(self, what: str) -> None:
        """Raise where what stands behind the last block cannot be run by itself, on other states.

        Args:
            what: is done so, in words.

        Raises:
            MicrotomeError: somebody has added to it.
        """
        steps = [step for step in self.anatomy.family.final if isinstance(step, str)]
        own = behind_blocks(self.hf, self.anatomy.family.blocks, steps)
        if own:
            raise MicrotomeError(
                f"{what} by running what stands behind the last block by itself, and the model has "
                f"{named(own)}: what that does, it may do by position, or to all states together. "
                "Take it off (a hook that only looks may say so: microtome.watching)."
            )

    @property
    def weight_hash(self) -> str:
        """sha256 over the names, shapes and bytes of all weights, in hexadecimal: as they are now.

        Wherever they are: the same for a model on one device and one that is spread or offloaded.
        Of packed (quantised) weights, what is packed. Computed again where weights have changed.

        >>> from microtome import load
        >>> len(load("nano").weight_hash)
        64
        """
        return self.hashes[0]

    @property
    def buffer_hash(self) -> str:
        """The same of the buffers that no file has and that decide numbers: rotary frequencies."""
        return self.hashes[1]

    @property
    def hashes(self) -> tuple[str, str]:
        """`weight_hash` and `buffer_hash`, from one look at the weights."""
        return self.hashes_of(self.weights_sign)

    def hashes_of(self, sign: Hashable) -> tuple[str, str]:
        """The same, where the weights' sign is known: to take one takes milliseconds."""
        return (
            self._hashes["weights"].get(sign, lambda: weight_hash(self.hf)),
            self._hashes["buffers"].get(sign, lambda: buffer_hash(self.hf)),
        )

    @property
    def tokenizer_hash(self) -> str:
        """sha256 of all that turns texts into tokens, special tokens included, in hexadecimal."""
        sign = tokenizer_sign(self.tokenizer)
        return self._hashes["tokenizer"].get(sign, lambda: tokenizer_hash(self.tokenizer))

    @property
    def weights_sign(self) -> Hashable:
        """Equal at two times unless the weights changed; milliseconds, where a hash takes seconds.

        See `microtome.model.identity.weights_sign` for what it cannot see.
        """
        return weights_sign(self.hf)

    @property
    def modules_hash(self) -> str:
        """sha256 of the configuration, and of modules' classes and settings, as they are now."""
        return modules_hash(self.hf)

    @cached_property
    def first_sign(self) -> tuple[Hashable, str]:
        """The sign of the weights, and what modules were, when first asked for: `load` does."""
        return self.weights_sign, self.modules_hash

    @cached_property
    def proved(self) -> Said:
        """What modules said of themselves when first asked for: `load` does, once it is proved."""
        return said_by(self.hf)

    @property
    def is_as_loaded(self) -> bool:
        """Whether weights, configuration and modules are as they were loaded."""
        return self.first_sign == (self.weights_sign, self.modules_hash)

    @cached_property
    def _hashes(self) -> dict[str, Remembered]:
        return {name: Remembered() for name in ("weights", "buffers", "tokenizer")}

    def __repr__(self) -> str:
        dims = self.anatomy.dims
        return (
            f"<{type(self).__name__} {self.name!r}: {self.anatomy.family.model_type}, "
            f"{many(dims.n_layers, 'layer')} × {many(dims.n_heads, 'head')}, d_model "
            f"{dims.d_model}, {self.dtype}, {self.device}>"
        )


def _stretched(rotary: Mapping[str, Any]) -> float:
    """The longest text that a rotary embedding says it is stretched to."""
    if rotary.get("rope_type") == "dynamic":
        return math.inf
    original = rotary.get("original_max_position_embeddings") or 0
    return float(original * (rotary.get("factor") or 1))


def _module(tap: Tap) -> str:
    return f"{tap.side} of {tap.module or 'the model'}"


def check_loaded(model: object) -> None:
    """Raise `LoadError` where something is given in the place of what `load` gives.

    >>> check_loaded("nano")
    Traceback (most recent call last):
    microtome.errors.LoadError: A model comes first, one from load(…), and not a str: load('nano').
    """
    if isinstance(model, Loaded):
        return
    how = "load(model, tokenizer=…)" if hasattr(model, "forward") else "load(…)"
    how = f"load({model!r})" if isinstance(model, str) and len(model) < SHORT else how
    raise LoadError(
        f"A model comes first, one from load(…), and not a {type(model).__name__}: {how}."
    )
