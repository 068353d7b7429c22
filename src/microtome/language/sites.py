"""Sites: the named tensors inside a transformer's forward pass, and their named axes.

A site is where an edit can be made. Its axes keep their names from here to the figure. Batch (or
cell) is always the first axis of the tensor itself and is not listed.

| letter in an address | axes it selects |
|---|---|
| ``h`` | ``head``, ``kv_head`` |
| ``n`` | ``neuron`` |
| ``d`` | ``d_model``, ``d_head`` |
| ``@`` | ``pos`` (``q_pos``, ``k_pos`` on ``pattern``) |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from microtome.errors import AddressError, did_you_mean, listing
from microtome.language.habits import WORDS

LETTERS: Mapping[str, str] = MappingProxyType(
    {"head": "h", "kv_head": "h", "neuron": "n", "d_model": "d", "d_head": "d"}
)
"""Axis → the letter that selects along it."""

POSITIONS = ("pos", "q_pos", "k_pos")
"""Axes that count tokens."""

HEADS = ("head", "kv_head")
"""Axes that count heads."""

OWNERS = ("pos", "q_pos")
"""Of these, the one that says which token a value belongs to: a weight is its query's."""


def dimension(axis: str) -> str:
    """The name that a star on this axis gives to a dimension of the result.

    >>> dimension("d_head"), dimension("kv_head")
    ('d', 'kv_head')
    """
    return "d" if axis in ("d_model", "d_head") else axis


COUNTED = ("layer", "kv_head", "head", "neuron", "q_pos", "k_pos", "pos", "d", "vocab")
"""What dimensions of a result count."""


def counted(dimension_: str) -> str | None:
    """What a dimension of a result counts, whatever label is in front; None for a parameter.

    >>> counted("other_head"), counted("at_q_pos"), counted("factor")
    ('head', 'q_pos', None)
    """
    return next((n for n in COUNTED if dimension_ == n or dimension_.endswith(f"_{n}")), None)


def owner(axes: Sequence[str]) -> int:
    """Which of a site's axes says to which token a value belongs.

    >>> owner(("pos", "d_model")), owner(("head", "q_pos", "k_pos"))
    (0, 1)
    """
    return next(number for number, axis in enumerate(axes) if axis in OWNERS)


@dataclass(frozen=True)
class Site:
    """A named tensor inside the forward pass.

    ``axes`` are the tensor's axes after the batch; ``layered`` says whether every block has one.
    """

    name: str
    axes: tuple[str, ...]
    about: str
    layered: bool = True

    def __str__(self) -> str:
        return self.name


# In the order in which a forward pass reaches them.
_TABLE = (
    Site("embed", ("pos", "d_model"), "what enters block 0", layered=False),
    Site("resid_pre", ("pos", "d_model"), "input of a block"),
    Site("q_in", ("pos", "head", "d_model"), "the stream as a head's queries read it"),
    Site("k_in", ("pos", "head", "d_model"), "the stream as a query head's keys read it"),
    Site("k_in_group", ("pos", "kv_head", "d_model"), "the stream as a group's keys read it"),
    Site("v_in", ("pos", "head", "d_model"), "the stream as a query head's values read it"),
    Site("v_in_group", ("pos", "kv_head", "d_model"), "the stream as a group's values read it"),
    Site("q", ("pos", "head", "d_head"), "queries, before any rotary embedding"),
    Site("k", ("pos", "kv_head", "d_head"), "keys, before any rotary embedding"),
    Site("k_head", ("pos", "head", "d_head"), "keys as each query head by itself sees them"),
    Site("v", ("pos", "kv_head", "d_head"), "values"),
    Site("v_head", ("pos", "head", "d_head"), "values as each query head by itself sees them"),
    Site("pattern", ("head", "q_pos", "k_pos"), "attention weights after the softmax"),
    Site("z", ("pos", "head", "d_head"), "each head's output, before W_O mixes the heads"),
    Site("head_out", ("pos", "head", "d_model"), "a head's share of attn_out, before a post-norm"),
    Site("attn_out", ("pos", "d_model"), "what attention adds to the residual stream"),
    Site("resid_mid", ("pos", "d_model"), "residual between attention and MLP"),
    Site("mlp_in", ("pos", "d_model"), "the stream as the MLP alone reads it"),
    Site("mlp_post", ("pos", "neuron"), "neuron activations, the input of the down projection"),
    Site("mlp_out", ("pos", "d_model"), "what the MLP adds to the residual stream"),
    Site("resid_post", ("pos", "d_model"), "output of a block (alias: hidden)"),
    Site("final_in", ("pos", "d_model"), "the stream as the final norm reads it", layered=False),
    Site("logits", ("pos", "vocab"), "the model's output", layered=False),
)
SITES: Mapping[str, Site] = MappingProxyType({site.name: site for site in _TABLE})
"""Name → site, in the order of the forward pass."""

OF_HEADS: Mapping[str, str] = MappingProxyType({"k_head": "k", "v_head": "v"})
"""What one head sees of what its group shares → the site of the group."""

OF_READERS: Mapping[str, str] = MappingProxyType(
    {"q_in": "q", "k_in": "k", "k_in_group": "k", "v_in": "v", "v_in_group": "v"}
)
"""The residual stream as something reads it → the site of what is made of it."""

OF_GROUPS: Mapping[str, str] = MappingProxyType({"k_in_group": "k_in", "v_in_group": "v_in"})
"""What a group's key or value reads → what each query head's by itself does."""

APART = frozenset({*OF_READERS, "head_out"})
"""Sites that are as wide as the stream for every head: nobody holds more heads than are named."""

BEHIND = ("resid_post", "final_in")
"""Sites that leave a block: all of it has been run before they are reached."""

ALIASES: Mapping[str, str] = MappingProxyType({"hidden": "resid_post"})


def site(name: str) -> Site:
    """The site of this name or alias.

    Raises:
        AddressError: no site has this name.

    >>> site("hidden").name
    'resid_post'
    """
    try:
        return SITES[ALIASES.get(name, name)]
    except KeyError:
        meant = WORDS.get(name.lower())
        hint = f" Did you mean {meant!r}?" if meant else did_you_mean(name, [*SITES, *ALIASES], 0.6)
        raise AddressError(f"No site is called {name!r}. Sites: {listing(SITES)}.{hint}") from None


@dataclass(frozen=True)
class Dimensions:
    """How large a model is along every axis: all that addresses and plans need to know of it.

    ``d_head`` is per head, ``d_mlp`` the number of neurons of one block (of one expert, in a
    mixture of experts, where a token takes ``experts`` of them), ``mlp_matrices`` how many each of
    them has, ``n_positions`` the longest prompt that the model takes (None: no limit of its own).
    ``causal`` says that no position sees a later one (not so in an encoder), ``copies_prefix`` that
    the walk has to copy keys and values for every cell, ``shapes_logits`` that something is done to
    the unembedding's output, ``reaches`` per layer how many tokens away a token sees, where its
    attention has a window (None: all), ``lacks`` which sites the model does not have, each with
    the reason, ``sums`` that the residual stream is the sum of what was written to it.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_positions: int | None = None
    mlp_matrices: int = 2
    experts: int = 1
    causal: bool = True
    copies_prefix: bool = False
    shapes_logits: bool = False
    reaches: tuple[int | None, ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()
    sums: bool = True

    @property
    def is_parallel(self) -> bool:
        """Whether attention and MLP of a block read the same stream."""
        return any(name == "resid_mid" for name, _ in self.lacks)

    def size(self, axis: str) -> int:
        """The number of indices along an axis other than positions.

        >>> Dimensions(12, 12, 12, 768, 64, 3072, 50257).size("neuron")
        3072
        """
        return {
            "layer": self.n_layers,
            "head": self.n_heads,
            "kv_head": self.n_kv_heads,
            "d_model": self.d_model,
            "d_head": self.d_head,
            "neuron": self.d_mlp,
            "vocab": self.d_vocab,
        }[axis]
