"""The load-time probe: proof that a model computes what its family's row says.

On a few random tokens, in some ten passes:

- every site is there, with its shape, and hooks without edits change no bit of the output; showing
  attention weights changes it by rounding;
- each site is what the row's other sites make of it: sums of the residual stream, projections of
  what is read of it and of what heads give, values mixed by attention weights that sum to 1, the
  unembedding;
- each site is live: an edit of it changes the logits, and all those relations but its own still
  hold, so the edit is where the model goes on from; an edit of q, k or v leaves the other two;
- what one head reads, changed, leaves the z of the others alone;
- heads are where they should be: half of one query or key, changed, moves the z of its own heads,
  whole, at the positions that see it, and nothing else.

Somebody's own hooks are left out of it, as far as they are on modules of transformers': the row is
proved on those modules without them, and the model then runs whole, as it is.

A pass reads all weights, which takes longer than to compute with them. So most sites are edited in
one pass for several, each in a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from microtome.errors import LoadError, MicrotomeError, ProbeError, listing
from microtome.language.sites import APART, OF_HEADS, OF_READERS, POSITIONS, Dimensions, Site
from microtome.language.sites import site as find_site
from microtome.model.additions import additions, named, unsteady, without_hooks
from microtome.model.anatomy import Anatomy
from microtome.model.families.family import Tap
from microtome.model.placement import device_of, types_of
from microtome.passes.hooks import Place, Visit, forward
from microtome.passes.relations import Seen, differences, relations
from microtome.passes.session import session

TOKENS = 6
"""Length of the random prompt, where so many fit: enough for attention to have a choice."""

CHOOSING = ("q", "k", "k_head", "pattern")
"""Sites that say what is attended to, and no more."""

TABLED = ("torch", "transformers")
"""The packages whose modules the table of families is about."""

ROWS = 6
"""How many sites are edited in one pass, each in its own row."""

READING = frozenset((None, "resid_pre", "z"))
"""Sites whose edit what heads read and write depends on; and none."""

_Shared = tuple[dict[int, Tensor], dict[int, Tensor]]
"""By layer, what an MLP gets, and what the norm before it reads."""

ALONE = ("q", "k", "k_head")
"""Sites of which no other's values tell whether an edit was heeded, but for the logits.

Each has a pass of its own, of one row as the clean one's: so every bit that differs is the edit's.
"""


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
        blocks = anatomy.n_blocks(hf)
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
    shared = _shared(hf, anatomy, ids) if anatomy.family.mlp_reads is not None else None
    alone = tuple(site for site in anatomy.sites if site.name in ALONE)
    edited = [_edited(hf, anatomy, ids, [site]) for site in alone]
    for site, seen in zip(alone, edited, strict=True):
        _check_edits([site], clean, seen)
    _check_relations(hf, anatomy, _together([clean, *edited]), (None, *map(_site_name, alone)))
    for sites in _rounds(anatomy):
        seen = _edited(hf, anatomy, ids, sites)
        _check_edits(sites, clean, seen)
        _check_relations(hf, anatomy, seen, tuple(map(_site_name, sites)))
    if shared is not None:
        _check_shared(hf, anatomy, shared)
    _check_readers(hf, anatomy, ids)
    if ids.shape[1] > 1:
        _check_heads(hf, anatomy, ids)


def _rounds(anatomy: Anatomy) -> Iterator[Sequence[Site]]:
    """Sites that are edited in the same pass. Those of single heads have copies of rows there."""
    others = [s for s in anatomy.sites if s.name not in (*ALONE, *OF_HEADS, *APART)]
    for start in range(0, len(others), ROWS):
        yield others[start : start + ROWS]
    of_heads = [s for s in anatomy.sites if s.name in OF_HEADS and s.name not in ALONE]
    if of_heads:
        yield of_heads


def _site_name(site: Site) -> str:
    return site.name


def _together(passes: Sequence[Seen]) -> Seen:
    """What several passes had, as if they had been rows of one."""
    return {place: torch.cat([seen[place] for seen in passes]) for place in passes[0]}


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

    forward(hf, anatomy, ids, [*edits, *map(keeper, places or _places(anatomy))])
    return seen


def _places(anatomy: Anatomy) -> list[Place]:
    """Every (site, layer) but those that are as wide as the stream for every head."""
    return [place for place in anatomy.places() if place[0].name not in APART]


def _check_shapes(anatomy: Anatomy, seen: Seen, length: int) -> None:
    for site, layer in _places(anatomy):
        sizes = [length if axis in POSITIONS else anatomy.dims.size(axis) for axis in site.axes]
        found = list(seen[site.name, layer].shape)
        _expect(found == [1, *sizes], f"{_name(site, layer)} has shape {found}, not {[1, *sizes]}")


def _check_attention(anatomy: Anatomy) -> None:
    taps = anatomy.family.taps
    inside = [taps[site].module for site in ("q", "k", "v")]
    for site in ("q", "k", "v"):
        _expect(taps[site].side == "output", f"{site} is not what a projection gives")
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
    places = [place for place in _places(anatomy) if place[0].name != "pattern"]
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


def _check_relations(
    hf: PreTrainedModel, anatomy: Anatomy, seen: Seen, edited: Sequence[str | None]
) -> None:
    """All relations hold, but for those that give the edited site, which the edit overrules.

    ``edited`` has the name of each row's.
    """
    for relation in relations(hf, anatomy, seen, projected=not READING.isdisjoint(edited)):
        apart = differences(relation.value, relation.seen)
        for site, (difference, allowed) in zip(edited, apart, strict=True):
            if relation.site != site:
                after = f"after an edit of {site}, " if site else ""
                _expect_within(difference, allowed, after + relation.text)


# ----------------------------------------------------------------------------------------- edits


def _edited(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor, sites: Sequence[Site]) -> Seen:
    """What a pass has that adds to one site in each of its rows, in every layer."""
    pushes = [push for row, site in enumerate(sites) for push in _pushes(anatomy, site, row)]
    return _activations(hf, anatomy, ids.expand(len(sites), -1), pushes)


def _check_edits(sites: Sequence[Site], clean: Seen, edited: Seen) -> None:
    """Adding to a site changes the logits.

    Among other rows they change by rounding too, so there the site itself has to have changed; that
    what comes after it followed is the relations' matter.
    """
    for row, site in enumerate(sites):
        changed = not torch.equal(edited["logits", None][row], clean["logits", None][0])
        heeded = changed and (site.name in ALONE or _moved(site.name, clean, edited, row))
        idle = site.name in CHOOSING and not _has_choice(clean)
        _expect(heeded or idle, f"changing {site} does not change the logits")
        _check_apart(site.name, clean, edited, row)


def _moved(site: str, clean: Seen, edited: Seen, row: int) -> bool:
    """Whether a site is seen to have changed by something like what was added, in some layer."""
    pairs = [(edited[place][row], x[0]) for place, x in clean.items() if place[0] == site]
    return any(_by_much(found, was) for found, was in pairs)


def _by_much(found: Tensor, was: Tensor) -> bool:
    # Logits may be minus infinity, which is as far from itself as any number: 0.
    apart = (found - was).abs().masked_fill(found == was, 0).max()
    return not bool(apart <= was[was.isfinite()].std() / 4)


def _has_choice(clean: Seen) -> bool:
    """Whether it matters what is attended to: there are several tokens, of different values."""
    values = [values for (name, _), values in clean.items() if name == "v"]
    return any(not torch.equal(own, own[:, :1].expand_as(own)) for own in values)


def _pushes(anatomy: Anatomy, site: Site, row: int) -> tuple[Visit, ...]:
    def push(view: Tensor) -> None:
        # A ramp, not a constant: adding one number everywhere is what a layer norm takes out.
        own = view[row]
        ramp = torch.linspace(-1, 1, own.numel(), dtype=torch.float64, device="cpu").to(own)
        # Logits may be minus infinity, which has no deviation, and stays what it is.
        own += own[own.isfinite()].std() * ramp.reshape(own.shape)

    layers = range(anatomy.dims.n_layers) if site.layered else [None]
    heads = np.array([row]), np.arange(anatomy.dims.n_heads)[None]
    own = heads if site.name in OF_HEADS else None
    return tuple(Visit((site, layer), push, True, own) for layer in layers)


def _check_apart(site: str, clean: Seen, edited: Seen, row: int) -> None:
    """Queries, keys and values are made side by side: an edit of one leaves the others alone."""
    triple = ("q", "k", "v")
    for other in triple if site in triple else ():
        if other != site:
            text = f"an edit of L0.{site} changes L0.{other}"
            _expect_close(edited[other, 0][row], clean[other, 0][0], text)


def _check_readers(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """What the first head of each kind reads in the first block is pushed, each in its own row."""
    dims, sites = anatomy.dims, [site for site in anatomy.sites if site.name in OF_READERS]
    seen: list[Tensor] = []

    def push(view: Tensor) -> None:
        ramp = torch.linspace(-1, 1, view.shape[-1], dtype=torch.float64, device="cpu").to(view)
        view += view.std() * ramp

    edits = [
        Visit((site, 0), push, True, (np.array([row]), np.array([[0]])))
        for row, site in enumerate(sites, start=1)
    ]
    keeper = Visit((find_site("z"), 0), lambda view: seen.append(view.clone()))
    forward(hf, anatomy, ids.expand(1 + len(sites), -1), [*edits, keeper])
    [z] = seen
    for row, site in enumerate(sites, start=1):
        own = dims.n_heads // dims.size(site.axes[1])
        text = f"an edit of L0.{site}.h0 changes L0.z of heads that do not read it"
        if own < dims.n_heads:
            _expect_close(z[row, :, own:], z[0, :, own:], text)


def _shared(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> _Shared:
    """What the MLP gets where it shares its norm with attention, and what that norm reads."""
    stream, mlp = find_site("resid_pre"), find_site("mlp_in")
    got: dict[int, Tensor] = {}
    read: dict[int, Tensor] = {}

    def keeper(site: Site, layer: int, into: dict[int, Tensor], tap: Tap) -> Visit:
        def keep(view: Tensor) -> None:
            into[layer] = view.clone()

        return Visit((site, layer), keep, tap=tap)

    visits = []
    for layer in range(anatomy.dims.n_layers):
        visits.append(keeper(stream, layer, read, anatomy.tap(stream, layer)))
        visits.append(keeper(mlp, layer, got, anatomy.tap(mlp, layer)))
    forward(hf, anatomy, ids, visits)
    for layer, own in got.items():
        found, wanted = list(own.shape), list(read[layer].shape)
        _expect(found == wanted, f"the MLP gets L{layer}.mlp_in of shape {found}, not {wanted}")
    return got, read


def _check_shared(hf: PreTrainedModel, anatomy: Anatomy, shared: _Shared) -> None:
    """The MLP gets what the norm that it shares makes of the stream, in every block."""
    got, read = shared
    for layer, own in got.items():
        made = anatomy.mlp_normed(hf, layer, read[layer])
        _expect_close(made, own, f"L{layer}: the norm of mlp_in is not what the MLP gets")


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
    [(difference, allowed)] = differences(found[None], wanted[None], eps)
    _expect_within(difference, allowed, complaint)


def _expect_within(difference: float, allowed: float, complaint: str) -> None:
    _expect(difference <= allowed, f"{complaint} (they differ by {difference:.2g})")


def _expect(holds: bool, complaint: str) -> None:
    if not holds:
        row = "The model is not what its row in microtome/model/families says"
        raise _Unlike(complaint, f"{row}: {complaint}.")


def _name(site: Site, layer: int | None) -> str:
    return site.name if layer is None else f"L{layer}.{site.name}"
