"""The load-time probe: proof that a model computes what its family's row says.

On a few random tokens, in one pass for each site and four more:

- every site is there, with its shape, and hooks without edits change no bit of the output; showing
  attention weights changes it by rounding;
- each site is what the row's other sites make of it: sums of the residual stream, projections,
  values mixed by attention weights that sum to 1, the unembedding;
- each site is live: an edit of it changes the logits, and all those relations but its own still
  hold, so the edit is where the model goes on from; an edit of q, k or v leaves the other two;
- heads are where they should be: half of one query or key, changed, moves the z of its own heads,
  whole, at the positions that see it, and nothing else.

Somebody's own hooks are left out of it, as far as they are on modules of transformers': the row is
proved on those modules without them, and the model then runs whole, as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from microtome.errors import LoadError, MicrotomeError, ProbeError, listing
from microtome.language.sites import POSITIONS, Dimensions, Site
from microtome.language.sites import site as find_site
from microtome.model.additions import additions, named, unsteady, without_hooks
from microtome.model.anatomy import Anatomy
from microtome.model.placement import device_of, types_of
from microtome.passes.hooks import Place, Visit, forward
from microtome.passes.session import session

TOKENS = 6
"""Length of the random prompt, where so many fit: enough for attention to have a choice."""

CHOOSING = ("q", "k", "k_head", "pattern")
"""Sites that say what is attended to, and no more."""

TABLED = ("torch", "transformers")
"""The packages whose modules the table of families is about."""

Seen = dict[tuple[str, int | None], Tensor]
"""What a pass had at each site, by name, of each layer."""


@torch.no_grad()
def probe(hf: PreTrainedModel, anatomy: Anatomy) -> None:
    """Check a model against its row in the table of families.

    Raises:
        LoadError: the model does not run by itself, or not the same way each time.
        ProbeError: it differs; the message names the site, the layer and what was found, or what
            somebody has put on the model.
    """
    ids, own = _ids(anatomy.dims).to(device_of(hf)), additions(hf)
    if own:
        _check_steady(hf, anatomy, ids, named(own))
    hooked = any(one.kind == "hook" for one in own)
    # A function in a method's place may know the module that it is on, whatever it is called for.
    apart = hooked and all(one.kind != "method" for one in own)
    try:
        _prove_either(without_hooks(hf) if apart else hf, hf, anatomy, ids)
    except _Unlike as error:
        if not hooked:
            _check_runs(hf, ids)
        foreign = named(own) if own else _others(hf)
        if not foreign:
            raise ProbeError(error.message) from error.__cause__
        raise ProbeError(
            f"This {type(hf).__name__} has {foreign}, and with that it does not compute what the "
            f"modules of its family do: {error.complaint}. So its sites are not where they should "
            "be: load it without; a hook (register_forward_hook) may stay where it is."
        ) from error.__cause__


def _ids(dims: Dimensions) -> Tensor:
    """A random prompt, of at least two different tokens where there are two."""
    length = min(TOKENS, dims.n_positions or TOKENS)
    generator = torch.Generator("cpu").manual_seed(0)
    ids = torch.randint(dims.d_vocab, (1, length), generator=generator, device="cpu")
    if dims.d_vocab > 1 and bool((ids == ids[0, 0]).all()):
        ids[0, -1] = (ids[0, 0] + 1) % dims.d_vocab
    return ids


def _check_steady(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, own: str) -> None:
    """What somebody has added does the same each time, also after another text."""
    other = ids.repeat(1, 2)[:, : anatomy.dims.n_positions].flip(1)
    try:
        with session(hf, anatomy):
            first, _, again = (hf(input_ids=text, use_cache=False) for text in (ids, other, ids))
    except Exception:  # a hook may be for longer texts; if nothing runs, the proof will say so
        return
    if not torch.equal(first.logits.nan_to_num(), again.logits.nan_to_num()):
        raise LoadError(unsteady(own))


def _check_runs(hf: PreTrainedModel, ids: Tensor) -> None:
    """A model that does not run by itself is not at odds with its row."""
    try:
        hf(input_ids=ids, use_cache=False)
    except Exception as error:  # of anybody's module, which may raise anything
        kinds = listing(types_of([hf])).replace("torch.", "")
        raise LoadError(
            f"This {type(hf).__name__} does not run by itself, before anything is looked at: "
            f"{type(error).__name__}: {error}. Its weights are of {kinds}, on "
            f"{listing({str(weight.device): 0 for weight in hf.parameters()})}."
        ) from error


def _others(hf: PreTrainedModel) -> str:
    """Modules of other packages than those that the table of families is about."""
    kinds = {type(part): type(part).__module__.partition(".")[0] for part in hf.modules()}
    own = [f"{kind.__name__} ({at})" for kind, at in kinds.items() if at not in TABLED]
    return listing(dict.fromkeys(own))


def _prove_either(
    bare: PreTrainedModel, hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    """The modules by themselves; or with the hooks that they need, such as one that casts.

    Raises:
        _Unlike: something differs either way; what is told is of the modules by themselves.
    """
    try:
        _prove(bare, anatomy, ids)
    except _Unlike as error:
        if bare is hf:
            raise
        try:
            _prove(hf, anatomy, ids)
        except _Unlike:
            raise error from error.__cause__


def _prove(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """Everything that is checked.

    Raises:
        _Unlike: something differs.
    """
    try:
        blocks = len(list(hf.get_submodule(anatomy.family.blocks).children()))
        _expect(blocks == anatomy.dims.n_layers, f"there are {blocks} blocks")
        _check_attention(anatomy)
        _check_apart_modules(hf, anatomy)
        with session(hf, anatomy):
            _check_all(hf, anatomy, ids)
    except _Unlike:
        raise
    # What a wrong path or a wrong size leads to, in the model's code or in ours.
    except (MicrotomeError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        message = f"{type(hf).__name__} cannot be tapped as its family says: {error}"
        raise _Unlike(str(error), message) from error


class _Unlike(Exception):  # noqa: N818  (whether it is an error of the model's is still to be said)
    """What was found; and how that is told where the row of the table must be wrong."""

    def __init__(self, complaint: str, message: str) -> None:
        super().__init__(complaint)
        self.complaint, self.message = complaint, message


def _check_all(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    clean = _activations(hf, anatomy, ids)
    _check_shapes(anatomy, clean, ids.shape[1])
    _check_untouched(hf, anatomy, ids, clean)
    _check_relations(hf, anatomy, clean)
    for site in anatomy.sites:
        _check_edit(hf, anatomy, ids, site, clean)
    if ids.shape[1] > 1:
        _check_heads(hf, anatomy, ids)


def _activations(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    ids: Tensor,
    edits: Sequence[Visit] = (),
    places: Sequence[Place] = (),
) -> Seen:
    seen: Seen = {}

    def keeper(place: Place) -> Visit:
        site, layer = place
        return Visit(
            place, lambda view: seen.__setitem__((site.name, layer), view.clone().to(ids.device))
        )

    forward(hf, anatomy, ids, [*edits, *map(keeper, places or anatomy.places())])
    return seen


def _check_shapes(anatomy: Anatomy, seen: Seen, length: int) -> None:
    for site, layer in anatomy.places():
        sizes = [length if axis in POSITIONS else anatomy.dims.size(axis) for axis in site.axes]
        found = list(seen[site.name, layer].shape)
        _expect(found == [1, *sizes], f"{_name(site, layer)} has shape {found}, not {[1, *sizes]}")


def _check_attention(anatomy: Anatomy) -> None:
    inside = [anatomy.family.taps[site].module for site in ("q", "k", "v")]
    around = anatomy.family.attention
    holds = all(path.startswith(f"{around}.") for path in inside)
    _expect(holds, f"{around} is not what q, k and v are made in: {inside[0]}")


def _check_apart_modules(hf: PreTrainedModel, anatomy: Anatomy) -> None:
    """No module with weights is a part of two layers, where a hook would be at work twice."""
    found: dict[nn.Module, str] = {}
    for path, module in hf.named_modules(remove_duplicate=False):
        if not path.startswith(f"{anatomy.family.blocks}.") or not [*module.parameters()]:
            continue
        first = found.setdefault(module, path)
        if first != path:
            complaint = f"{first} and {path} are one module, so that an edit of one is of the other"
            raise _Unlike(complaint, f"This {type(hf).__name__} shares parts: {complaint}.")


def _check_untouched(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, seen: Seen) -> None:
    bare: Tensor = hf(input_ids=ids).logits
    places = [place for place in anatomy.places() if place[0].name != "pattern"]
    hooked = _activations(hf, anatomy, ids, places=places)["logits", None]
    _expect(torch.equal(bare, hooked), "a pass without edits is not the bare model's")
    # Which it does in the blocks: the head may be of a finer type.
    eps = max(torch.finfo(kind).eps for kind in types_of([hf]))
    complaint = "showing attention weights changes the logits"
    _expect_close(seen["logits", None], bare, complaint, eps)
    for layer in range(anatomy.dims.n_layers):
        weights = seen["pattern", layer]
        # Many a model takes its softmax in float32, whatever its type.
        sums = weights.sum(-1, dtype=min(weights.dtype, torch.float32, key=lambda t: t.itemsize))
        complaint = f"L{layer}: weights of pattern do not sum to 1"
        _expect_close(sums, torch.ones_like(sums), complaint)
        ahead = weights.triu(1).any() if anatomy.dims.causal else False
        _expect(not ahead, f"L{layer}: pattern has attention to later tokens")


# ------------------------------------------------------------------------------------- relations


@dataclass(frozen=True)
class Relation:
    """How a site follows from others: ``value`` should be what was ``seen`` there."""

    site: str
    text: str
    value: Tensor
    seen: Tensor


def _relations(hf: PreTrainedModel, anatomy: Anatomy, seen: Seen) -> Iterator[Relation]:
    dims = anatomy.dims
    stream = seen["embed", None]
    for layer in range(dims.n_layers):
        at = {name: x for (name, where), x in seen.items() if where == layer}
        before = "embed" if layer == 0 else f"resid_post of L{layer - 1}"
        values = anatomy.family.values(at.get("v_head", at["v"]), hf.config)
        values = values.repeat_interleave(dims.n_heads // values.shape[2], dim=2)
        mixed = torch.einsum("bhqk,bkhd->bqhd", at["pattern"], values)
        attended = anatomy.attention_adds(hf, layer, at["z"])
        found = [
            ("resid_pre", before, stream),
            ("attn_out", "what z · W_O + b adds", attended),
        ]
        middle, text = at["resid_pre"] + at["attn_out"], "resid_pre + attn_out"
        middle = anatomy.middle(hf, layer, middle)
        if "resid_mid" in at:
            found.append(("resid_mid", text, middle))
            middle, text = at["resid_mid"], "resid_mid"
        if "mlp_post" in at:
            projected = anatomy.mlp_adds(hf, layer, at["mlp_post"])
            found.append(("mlp_out", "what the down projection of mlp_post adds", projected))
        after = anatomy.after(hf, layer, middle + at["mlp_out"])
        found.append(("resid_post", f"{text} + mlp_out", after))
        for name, text, value in found:
            yield Relation(name, f"L{layer}: {text} is not {name}", value, at[name])
        yield Relation("z", f"L{layer}: pattern · v is not z", mixed, at["z"])
        stream = at["resid_post"]
    logits = anatomy.unembed(hf, anatomy.final(hf, stream))
    text = "the unembedding of the normed last resid_post is not logits"
    yield Relation("logits", text, logits, seen["logits", None])


def _check_relations(
    hf: PreTrainedModel, anatomy: Anatomy, seen: Seen, edited: str | None = None
) -> None:
    """All relations hold, but for those that give the edited site, which the edit overrules."""
    after = f"after an edit of {edited}, " if edited else ""
    for relation in _relations(hf, anatomy, seen):
        if relation.site != edited:
            _expect_close(relation.value, relation.seen, after + relation.text)


# ----------------------------------------------------------------------------------------- edits


def _check_edit(
    hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, site: Site, clean: Seen
) -> None:
    """Adding to the site, in every layer, changes the logits, by the way of the sites after it."""

    edited = _activations(hf, anatomy, ids, _pushes(anatomy, site))
    changed = not torch.equal(edited["logits", None], clean["logits", None])
    idle = site.name in CHOOSING and not _has_choice(anatomy, clean)
    _expect(changed or idle, f"changing {site} does not change the logits")
    _check_relations(hf, anatomy, edited, site.name)
    _check_apart(site.name, clean, edited)


def _has_choice(anatomy: Anatomy, clean: Seen) -> bool:
    """Whether it matters what is attended to: there are several tokens, of different values."""
    values = [clean["v", layer] for layer in range(anatomy.dims.n_layers)]
    return any(not torch.equal(own, own[:, :1].expand_as(own)) for own in values)


def _pushes(anatomy: Anatomy, site: Site) -> tuple[Visit, ...]:
    def push(view: Tensor) -> None:
        # A ramp, not a constant: adding one number everywhere is what a layer norm takes out.
        size = view[0].numel()
        ramp = torch.linspace(-1, 1, size, dtype=torch.float64, device="cpu").to(view)
        view += view.std() * ramp.reshape(view[0].shape)

    layers = range(anatomy.dims.n_layers) if site.layered else [None]
    return tuple(Visit((site, layer), push, True) for layer in layers)


def _check_apart(site: str, clean: Seen, edited: Seen) -> None:
    """Queries, keys and values are made side by side: an edit of one leaves the others alone."""
    triple = ("q", "k", "v")
    for other in triple if site in triple else ():
        if other != site:
            text = f"an edit of L0.{site} changes L0.{other}"
            _expect_close(edited[other, 0], clean[other, 0], text)


def _check_heads(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """Part of a query moves one head at one position; of a key, its group's where it is seen.

    The first block's attention is fed numbers made up: all queries and the key of position 0 are
    one vector, other keys are zero, values are their position. So each position attends to position
    0 above all, until half of a query's numbers, or of that key's, change their sign. Row 0 is as
    it is, rows 1 and 3 have another query, rows 2 and 4 another key. A change of sign is seen
    through norms of queries and keys too, and leaves other heads alone there; half a head tells a
    head from two.
    """
    dims = anatomy.dims
    length = ids.shape[1]
    positions = torch.arange(length, device=ids.device).view(1, -1, 1, 1)
    signs = torch.ones(dims.d_head, device=ids.device)
    signs[1::2] = -1  # their mean is zero: a norm takes means out
    half = dims.d_head // 2
    halves = (slice(None, half), slice(half, None)) if half else (slice(None),)
    rows = 1 + 2 * len(halves)
    seen: list[Tensor] = []

    def feed_q(view: Tensor) -> None:
        view.copy_(signs)
        for row, numbers in zip(range(1, rows, 2), halves, strict=True):
            view[row, 1, 0, numbers] *= -1

    def feed_k(view: Tensor) -> None:
        view.zero_()
        view[:, 0] = signs.to(view)
        for row, numbers in zip(range(2, rows, 2), halves, strict=True):
            view[row, 0, 0, numbers] *= -1

    def feed_v(view: Tensor) -> None:
        view.copy_(positions)

    feeds = (("q", feed_q), ("k", feed_k), ("v", feed_v))
    edits = [Visit((find_site(name), 0), feed, True) for name, feed in feeds]
    keeper = Visit((find_site("z"), 0), lambda view: seen.append(view.clone()))
    forward(hf, anatomy, ids.expand(rows, -1), [*edits, keeper])

    [z] = seen
    moved = (z - z[0]).abs() > 2 * length * torch.finfo(z.dtype).eps
    one, group = torch.zeros_like(moved[0]), torch.zeros_like(moved[0])
    one[1, 0] = True
    # Position 0 itself has a choice only where it sees those after it.
    group[int(dims.causal) :, : dims.n_heads // dims.n_kv_heads] = True
    queries, keys = moved[1::2], moved[2::2]
    # The scores of the two halves are each other's negative, so at least one of them turns away.
    _expect(
        bool((queries <= one).all() and (queries >= one).flatten(1).all(1).any()),
        "half of L0.q.h0@1 does not move L0.z.h0@1, all of it and no more",
    )
    # In a sliding window of two positions, the next one sees it, and those after do not.
    _expect(
        bool((keys <= group).all() and (keys >= group)[:, :2].flatten(1).all(1).any()),
        "half of L0.k.h0@0 does not move the z of its heads at the next positions, and no more",
    )


# -------------------------------------------------------------------------------------- complain


def _expect_close(found: Tensor, wanted: Tensor, complaint: str, eps: float = 0.0) -> None:
    """Equal but for rounding, of their own type unless that of another is larger."""
    wanted = wanted.to(found.device)
    rounding = 64 * max(torch.finfo(found.dtype).eps, eps)
    finite = wanted[wanted.isfinite()]
    scale = max(1.0, float(finite.abs().max())) if len(finite) else 1.0
    # An output bias may be minus infinity, which is as far from itself as any number: 0.
    difference = float((found - wanted).abs().masked_fill(found == wanted, 0).max())
    _expect(difference <= rounding * scale, f"{complaint} (they differ by {difference:.2g})")


def _expect(holds: bool, complaint: str) -> None:
    if not holds:
        row = "The model is not what its row in microtome/model/families says"
        raise _Unlike(complaint, f"{row}: {complaint}.")


def _name(site: Site, layer: int | None) -> str:
    return site.name if layer is None else f"L{layer}.{site.name}"
