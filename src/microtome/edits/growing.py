"""Edits of a text that grows: each token is edited once, in the step that reads it first.

Step 0 reads the prompt, and step n the n-th token that was written. In each step an address is
resolved in the text as it is then, and what it selects of the tokens that are new is edited; the
model's cache keeps what came of it. So ``@last`` is the newest token in every step, ``@:`` is every
token once, and a place in the prompt (a number from 0, a word, a role) stays where it is, whatever
is written behind it. A pass that reads several steps at once makes the edits of all of them, which
is why one pass over the finished text gives the same logits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from microtome.edits.application import Application, Receipt, receipt_of
from microtome.edits.keys import Keys
from microtome.edits.sources import Sources
from microtome.errors import EditError, MicrotomeError
from microtome.language.addresses import Address
from microtome.language.edges import Edge
from microtome.language.operations import Operation, Source
from microtome.language.regions import Region, Regions
from microtome.language.selectors import Group, Index, Role, Selector, Word
from microtome.language.sites import POSITIONS, owner
from microtome.model.anatomy import Anatomy
from microtome.passes.hooks import Visit
from microtome.passes.now import Now
from microtome.prompts.encoding import Encoded
from microtome.prompts.resolve import regions
from microtome.prompts.tokens import Tokens


@dataclass(frozen=True)
class StepReceipt(Receipt):
    """Proof of what one edit did in one step.

    Attributes:
        step: its number: 0 reads the prompt, n the n-th token that was written.
    """

    step: int


class Growth:
    """Some edits of one prompt, while a text grows behind it.

    Args:
        hf: the model.
        anatomy: its anatomy.
        encoded: the prompt.
        edits: made together in each step.
        active: for each step that there may be, whether the edits are made in it.
        reference: the texts that a mean over prompts is of.
        read: what a token reads as.

    Raises:
        EditError: an edit has no meaning behind the prompt, or nowhere to be made.
        AddressError: an address names nothing.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        anatomy: Anatomy,
        encoded: Encoded,
        edits: Sequence[Operation],
        active: Sequence[bool],
        reference: Sequence[Tokens],
        read: Callable[[int], str],
    ) -> None:
        self._anatomy, self._encoded, self._edits = anatomy, encoded, list(edits)
        self._active, self._read = list(active), read
        tokens = encoded.tokens
        self._settled = [_settled(_place(edit), tokens) for edit in edits]
        self._texts: dict[int, Tokens] = {0: tokens}
        self._sources = Sources(hf, anatomy, [(edit, encoded) for edit in edits], reference)
        self._given: dict[tuple[int, int | None], Tensor | None] = {}
        self._there: dict[tuple[int, int], dict[int | None, Region]] = {}
        self._done: dict[tuple[int, int], list[Application]] = defaultdict(list)
        for number, edit in enumerate(self._edits):
            self._check(number, edit)
            for region in regions(_place(edit), anatomy.dims, tokens):
                self._given[number, region.layer] = self._sources.of(edit, region.layer, encoded)

    # ------------------------------------------------------------------------------ in the passes

    def visits(self, now: Now) -> Iterator[Visit]:
        """The visits of every pass; what they do depends on which tokens it reads."""
        dims, tokens = self._anatomy.dims, self._encoded.tokens
        for number, edit in enumerate(self._edits):
            for region in regions(_place(edit), dims, tokens):
                own = Application(edit, Regions.of(region), ()).visit()
                yield replace(own, act=partial(self._act, number, region.layer, now))

    def _act(self, number: int, layer: int | None, now: Now, view: Tensor) -> None:
        for step in now.steps:
            if not self._active[step]:
                continue
            region = self._regions(number, step, now).get(layer)
            if region is None or _begins(region) < _start(region, now, view):
                continue  # the logits that earlier tokens were chosen by are not computed again
            made = self._application(number, region, step, now, view)
            made.visit().act(view)
            self._done[number, step].append(made)

    def _application(
        self, number: int, region: Region, step: int, now: Now, view: Tensor
    ) -> Application:
        site, stop = region.site, len(now.ids)
        where = Regions.of(region)
        if "k_pos" in site.axes:  # a cache with a window holds the last keys alone
            axis = site.axes.index("k_pos")
            own = where.columns[axis] - (stop - view.shape[1 + axis])
            columns = [*where.columns]
            columns[axis] = own[own >= 0][None]
            where = replace(where, columns=tuple(columns))
        source = self._given[number, region.layer]
        if source is not None:  # of places that are in the prompt alone, it is nothing's now
            axis = 1 + owner(site.axes)
            n = where.shape[axis - 1]
            source = source.narrow(axis, source.shape[axis] - n, n)
        return Application(
            self._edits[number],
            where,
            Keys(Regions.of(region), [self._texts[step]]),
            source,
            start=_start(region, now, view),
            kind=self._sources.kind,
        )

    def _regions(self, number: int, step: int, now: Now) -> Mapping[int | None, Region]:
        """Where an edit lands in a step, by layer: among the tokens that are new in it."""
        if (number, step) not in self._there:
            self._there[number, step] = self._new(number, now.ids, *now.span(step))
        return self._there[number, step]

    def _new(
        self, number: int, ids: Sequence[int], first: int, stop: int
    ) -> dict[int | None, Region]:
        tokens = self._text(ids[:stop])
        found = regions(self._settled[number], self._anatomy.dims, tokens)
        # Of the prompt's logits no more are computed than those that the next token is chosen by.
        first = stop - 1 if found[0].site.name == "logits" else first
        return {one.layer: new for one in found if (new := _since(one, first)) is not None}

    def _text(self, ids: Sequence[int]) -> Tokens:
        """The text up to some token that was written."""
        n = len(self._encoded.tokens)
        step = len(ids) - n
        for later in range(max(known for known in self._texts if known <= step), step):
            token = ids[n + later]
            self._texts[later + 1] = _grown(self._texts[later], token, self._read(token))
        return self._texts[step]

    # --------------------------------------------------------------------------------- what it did

    def receipts(self, step: int, prompt: int) -> list[StepReceipt]:
        """What each edit did in a step; those that had nothing to do in it have none.

        Raises:
            EditError: an edit gave what is not a finite number.
        """
        found = []
        for number, edit in enumerate(self._edits):
            group = self._done.pop((number, step), [])
            if group:
                fields = vars(receipt_of(edit, group, prompt))
                found.append(StepReceipt(**fields, step=step))
        return found

    def forget(self) -> None:
        """Let nothing count of what was done since."""
        self._done.clear()

    # ------------------------------------------------------------------------------------- refusals

    def _check(self, number: int, edit: Operation) -> None:
        """Raise unless an edit can be made in each step in which it is to be, and in some it can.

        What can be seen from the first step behind the prompt and from the last one holds between.
        """
        ids = self._encoded.tokens.ids
        n, steps = len(ids), len(self._active)
        prompt = self._new(number, ids, 0, n) if self._active[0] else {}
        edit.check_together([*prompt.values()], self._anatomy.dims.causal)
        behind = [step for step in range(1, steps) if self._active[step]]
        is_made = bool(prompt)
        for step in dict.fromkeys([*behind[:1], *behind[-1:]]):
            text = (*ids, *([ids[-1]] * step))  # which tokens they are decides nothing here
            try:
                own = self._new(number, text, n + step - 1, n + step)
                if own:
                    self._check_behind(edit, [*own.values()])
            except MicrotomeError as error:
                raise type(error)(
                    f"{error} (In step {step}, which reads a token that was written; when= says in "
                    "which steps edits are made.)"
                ) from error
            is_made = is_made or bool(own)
        self._texts = {0: self._encoded.tokens}
        if not is_made:
            raise EditError(f"{edit} is never made. {_why_never(edit)}")

    def _check_behind(self, edit: Operation, own: Sequence[Region]) -> None:
        edit.check_together(own, self._anatomy.dims.causal)
        if edit.source is Source.NOTHING:
            return
        atoms = [one for place in _place(edit).places for one in _atoms(place)]
        named = all(isinstance(one, Role) or one == Index(-1) for one in atoms)
        if not named or edit.alignment != "position":
            whose = edit.source.value
            raise EditError(
                f"{edit} takes its values from {whose}, which has no token for one that is being "
                "written. Say when='prompt'; or address @last, and every newest token gets what "
                "the last one has there."
            )


def _why_never(edit: Operation) -> str:
    if _place(edit).site.name == "logits":
        return "Of the prompt no logits but the last token's are computed: address logits@last."
    return (
        "Its positions are the prompt's, which step 0 reads, and when= says that edits are made in "
        "later steps: say when='all' or when='prompt', or address @last, the newest token of each "
        "step."
    )


def _atoms(place: Selector) -> Sequence[Selector]:
    return place.members if isinstance(place, Group) else (place,)


def _place(edit: Operation) -> Address:
    """The address of an edit.

    Raises:
        EditError: it is an edge, whose shares are those of passes that came before.
    """
    if isinstance(edit.address, Edge):
        raise EditError(
            f"{edit} is made on an edge, whose change is known from runs over the whole text; of a "
            "text that is being written there are none yet. Edit the reader's or the writer's site."
        )
    return edit.address


def _settled(address: Address, tokens: Tokens) -> Address:
    """An address with numbers in the place of words and roles, which stay where they are."""

    def settled(selector: Any) -> Any:
        match selector:
            case Word(text):
                return Index(tokens.find(text))
            case Role(name) if name != "last":
                return Index(tokens.role(name))
            case Group(members):
                return Group(tuple(map(settled, members)))
            case _:
                return selector

    pairs = zip(address.site.axes, address.selectors, strict=True)
    chosen = tuple(settled(one) if axis in POSITIONS else one for axis, one in pairs)
    return replace(address, selectors=chosen)


def _grown(tokens: Tokens, token: int, piece: str) -> Tokens:
    """A text with one more token."""
    end = len(tokens.text)
    return replace(
        tokens,
        text=tokens.text + piece,
        ids=(*tokens.ids, token),
        pieces=(*tokens.pieces, piece),
        offsets=(*tokens.offsets, (end, end + len(piece))),
        added=(*tokens.added, False),
    )


def _start(region: Region, now: Now, view: Tensor) -> int:
    """The position that a view begins with."""
    return len(now.ids) - view.shape[1 + owner(region.site.axes)]


def _begins(region: Region) -> int:
    """The first position of a region."""
    return min(region.indices[owner(region.site.axes)])


def _since(region: Region, first: int) -> Region | None:
    """The part of a region that belongs to tokens from a position on; None where there is none."""
    axis = owner(region.site.axes)
    kept = tuple(index for index in region.indices[axis] if index >= first)
    if not kept:
        return None
    indices = (*region.indices[:axis], kept, *region.indices[axis + 1 :])
    return replace(region, indices=indices)
