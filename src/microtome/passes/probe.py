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

import torch
from torch import Tensor
from transformers import PreTrainedModel

from microtome.errors import LoadError, MicrotomeError, ProbeError, listing
from microtome.language.sites import Dimensions
from microtome.model.additions import additions, named, unsteady, without_hooks
from microtome.model.anatomy import Anatomy
from microtome.model.placement import device_of, types_of
from microtome.passes.probed_sites import check_all
from microtome.passes.session import session
from microtome.passes.unlike import Unlike

TOKENS = 6
"""Length of the random prompt, where so many fit: enough for attention to have a choice."""

TABLED = ("torch", "transformers")
"""The packages whose modules the table of families is about."""


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
    except Unlike as error:
        if not hooked:
            _check_runs(hf, ids)
        foreign = named(own) if own else _others(hf)
        if not foreign:
            raise ProbeError(error.message) from error.__cause__
        raise ProbeError(
            f"This {type(hf).__name__} has {foreign}, and with that it does not compute what the "
            f"modules of its family do: {error.complaint.rstrip('.')}. So its sites are not where "
            "they should be: load it without; a hook (register_forward_hook) may stay where it is."
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
        logits = getattr(hf(input_ids=ids, use_cache=False), "logits", None)
    except Exception as error:  # of anybody's module, which may raise anything
        kinds = listing(types_of([hf])).replace("torch.", "")
        raise LoadError(
            f"This {type(hf).__name__} does not run by itself, before anything is looked at: "
            f"{type(error).__name__}: {str(error).rstrip('.')}. Its weights are of {kinds}, on "
            f"{listing({str(weight.device): 0 for weight in hf.parameters()})}."
        ) from error
    if logits is not None and bool(logits.isnan().all()):
        raise LoadError(
            f"This {type(hf).__name__} gives no numbers: all its logits are NaN, before anything "
            "is looked at. See whether its files are whole, and its config.json theirs; of types "
            "of two bytes, try dtype='float32'."
        )


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
        Unlike: something differs either way; what is told is of the modules by themselves.
    """
    try:
        _prove(bare, anatomy, ids)
    except Unlike as error:
        if bare is hf:
            raise
        try:
            _prove(hf, anatomy, ids)
        except Unlike:
            raise error from error.__cause__


def _prove(hf: PreTrainedModel, anatomy: Anatomy, ids: Tensor) -> None:
    """Everything that is checked.

    Raises:
        Unlike: something differs.
    """
    try:
        check_all(hf, anatomy, ids)
    except Unlike:
        raise
    # What a wrong path or a wrong size leads to, in the model's code or in ours.
    except (
        MicrotomeError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        message = f"{type(hf).__name__} cannot be tapped as its family says: {error}"
        raise Unlike(str(error), message) from error
