"""The report of a plain sweep: what was asked, what was done, the maps, how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from microtome.amounts import many
from microtome.errors import EditError, listing
from microtome.figures.view import visible_line
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens
from microtome.readings.registry import about
from microtome.report import code
from microtome.report.cells import comparable, moving, told, visible_tokens
from microtome.report.document import Document, Picture, Section, Snippet, Table, TokenRow
from microtome.report.exports import exports
from microtome.report.groups import by_groups
from microtome.report.maps import of_each_prompt, pictures
from microtome.report.method import method, with_delta
from microtome.report.names import distinct, slug
from microtome.results.effects import Effects
from microtome.results.over_prompts import largest
from microtome.stats.samples import PROMPT
from microtome.texts import brief, number, signed, visible
from microtome.verbs.run import Run

MOST_PROMPTS = 3
"""How many prompts are shown token by token, with what the model predicts after them."""
TOP = 10
MOST_ROWS = 50
"""Rows of a table of changed tokens."""


def document_of_sweep(effects: Effects, run: Run) -> Document:
    """The report of a sweep.

    Args:
        effects: the result.
        run: the clean run of its prompts (of the first few, where they are many), from
            ``model.run(prompts)``: what the model predicts without edits, and the tokens.
    """
    spec = effects.provenance["spec"]
    edits = listing(map(brief, spec["edits"]))
    return Document(
        title=f"{edits} on {effects.provenance['model']['name']}",
        question=f"What does {edits} do to {listing(spec['metrics'])}, cell by cell?",
        method="\n\n".join(method(effects)),
        sections=_named_apart(
            (
                _clean_section(effects, run),
                *(_map_section(effects, metric) for metric in with_delta(effects)),
                *_audit_sections(effects),
                *_token_sections(comparable(effects)),
            )
        ),
        snippets=tuple(_snippets(effects)),
        provenance=effects.provenance,
        tokens=tuple(_token_rows(effects, run)),
        n_prompts=effects.data.sizes[PROMPT],
        exports=exports(effects),
    )


def summary_of_sweep(effects: Effects) -> dict[str, Any]:
    """The numbers of a sweep, for ``summary.json``: model, cells, clean values, top cells.

    Of many prompts the cells are means over them, aligned by their roles where the map is over
    positions and they differ in length.
    """
    record = effects.provenance
    shown = comparable(effects)
    return {
        "model": record["model"],
        "spec": record["spec"],
        "created": record.get("created"),
        "versions": record.get("versions"),
        "verification": record.get("verification"),
        "method": effects.method,
        "audit": record.get("audit"),
        "noise_floor": {name: effects.noise_floor(name) for name in with_delta(effects)},
        "dims": {name: effects.data.sizes[name] for name in effects.dims},
        "cells": effects.n_cells,
        "cells_without_change": effects.n_unchanged,
        "clean": {metric: effects.clean(metric).values for metric in effects.metrics},
        "top_cells": {
            metric: shown.top(TOP, metric).to_dict(orient="records")
            for metric in with_delta(effects)
        },
    }


def _token_rows(effects: Effects, run: Run) -> Iterator[TokenRow]:
    patched = any(text.startswith("patch") for text in effects.provenance["spec"]["edits"])
    for one in run.encoded[:MOST_PROMPTS]:
        yield TokenRow("recipient", one.tokens.pieces)
        if patched and one.donor is not None:
            yield TokenRow("donor", one.donor.pieces)


def _clean_section(effects: Effects, run: Run) -> Section:
    tables = tuple(
        Table(_after(one.tokens, place), _readable(run.top(TOP, prompt=number, position=place)))
        for number, one in enumerate(run.encoded[:MOST_PROMPTS])
        for place in one.tokens.predicted
    )
    total, some = effects.data.sizes[PROMPT], len(run.encoded[:MOST_PROMPTS])
    more = f" The first {some} of {total} prompts are shown." if total > some else ""
    # A metric inside the model has many values, of which no one number is the mean.
    single = [m for m in with_delta(effects) if effects.clean(m).ndim == 1]
    clean = "; ".join(f"{m} {_mean(effects, m)}" for m in single)
    averaged = f" (mean over the {many(total, 'prompt')})" if total > 1 else ""
    text = f"The metrics without edits{averaged}: {clean}." if clean else ""
    asked = _asked(run.encoded[0]) if total == 1 else ""
    return Section("Without edits", tuple(filter(None, (asked, text + more))), (), tables)


def _asked(one: Encoded) -> str:
    """The tokens that metrics are of, where a prompt has them."""
    given = {name: one.measured(name) for name in ("target", "contrast")}
    named = [f"the {name} is {text}" for name, text in given.items() if text]
    return f"Here {listing(named)}." if named else ""


def _mean(effects: Effects, metric: str) -> str:
    unit = about(metric).unit
    return f"{number(float(effects.clean(metric).mean()))} ({unit})".replace("-", "−")


def _after(tokens: Tokens, place: int) -> str:
    which = f" at position {place}" if len(tokens.masks) > 1 else ""
    where = f"for {tokens.mask}{which} in" if tokens.masks else "after"
    return f"The most probable tokens {where} “{visible_line(tokens.text)}”"


def _readable(top: pd.DataFrame) -> pd.DataFrame:
    shown_columns = top[["rank", "token", "id", "logit", "prob"]]
    return shown_columns.assign(token=[visible(token) for token in top["token"]])


# ------------------------------------------------------------------------------------------ maps


def _map_section(effects: Effects, metric: str) -> Section:
    known = about(metric)
    whole = comparable(effects)
    several = effects.data.sizes[PROMPT] > 1
    first = f"{metric} ({known.unit}): {known.about}; {known.direction}."
    drawn = (
        *pictures(whole, metric),
        *(pictures(whole.by_role(), metric) if moving(effects) else ()),
        *of_each_prompt(effects, whole, metric, MOST_PROMPTS),
    )
    if several:
        frame = whole.table(metric)
        said, table = told(whole, metric, frame), _means(_first(frame), frame)
        groups = [
            replace(t, frame=visible_tokens(t.frame))
            for _, t in by_groups(whole, metric, frame, TOP)
        ]
    else:
        said, table, groups = (), _strongest(effects, metric), []
    tables = () if table.frame.empty else (table, *groups)
    return Section(f"Effects on {metric}", (first, *said), drawn, tables)


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    """The largest effects, those that are any."""
    return largest(frame[frame["effect"] != 0], TOP)


def _means(top: pd.DataFrame, frame: pd.DataFrame) -> Table:
    unchanged = ["unchanged"] if frame["unchanged"].any() else []
    numbers = ["effect", "low", "high", "p", "n", *unchanged, "clean", "edited"]
    places = [c for c in top if c not in (*numbers, "unchanged", "above_noise", "significant")]
    also = "; unchanged: in how many more they changed nothing" if unchanged else ""
    return Table(
        "The largest mean effects",
        visible_tokens(top[[*places, *numbers]]),
        "By size, of all cells, whether they are significant or not. low … high: the 95 % t "
        "interval of the effect; p: that it is 0, corrected for all cells; n: the prompts in which "
        f"the edits changed something{also}.",
    )


def _strongest(effects: Effects, metric: str) -> Table:
    top = _first(effects.top(TOP, metric))
    dims = [name for name in map(str, effects.delta(metric).dims) if name != PROMPT]
    tokens = [name for name in top if str(name).endswith("token")]
    columns = [*dims, *tokens, "clean", "edited", "effect"]
    return Table(
        "The strongest cells",
        visible_tokens(top[columns]),
        "The largest effects of all cells, up or down.",
    )


def _named_apart(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """The same with no two pictures of one name: ``loss@2`` and ``loss@-2`` are slugs alike."""
    names = iter(distinct(picture.name for one in sections for picture in one.pictures))
    return tuple(
        replace(one, pictures=tuple(replace(each, name=next(names)) for each in one.pictures))
        for one in sections
    )


def _audit_sections(effects: Effects) -> Iterator[Section]:
    """Approximate effects against exact ones, metric by metric."""
    if not effects.provenance.get("audit"):
        return
    drawn = tuple(
        Picture(
            slug(f"audit {metric}"),
            effects.audit_figure(metric),
            f"Each point is a cell that was computed exactly: what {effects.method} says of its "
            f"effect on {metric}, and what it is. On the dashed line they are equal.",
        )
        for metric in with_delta(effects)
    )
    yield Section("How good the approximation is", (), drawn, ())


def _token_sections(effects: Effects) -> Iterator[Section]:
    """For metrics that are token ids: which cells have another one, in how many prompts."""
    for metric in effects.metrics:
        if metric in with_delta(effects):
            continue
        frame = effects.to_dataframe()
        changed = frame[frame[metric] != frame[f"clean_{metric}"]]
        count = (
            f"In {len(changed):,} of {many(len(frame), 'cell')} it is another than without edits."
        )
        several = effects.data.sizes[PROMPT] > 1
        table = (
            _how_often(effects, frame, metric) if several else _changed(effects, changed, metric)
        )
        yield Section(
            f"Changes of {metric}", (f"{metric}: {about(metric).about}.", count), (), (table,)
        )


def _changed(effects: Effects, changed: pd.DataFrame, metric: str) -> Table:
    dims = effects.dims[1:]
    columns = [*dims, f"clean_{metric}_token", f"{metric}_token"]
    table = changed[columns].set_axis([*dims, "clean", "edited"], axis=1).head(MOST_ROWS)
    table = table.assign(**{c: [visible(t) for t in table[c]] for c in ("clean", "edited")})
    more = f"The first {MOST_ROWS} are listed." if len(changed) > len(table) else ""
    return Table("Cells with another token", table, more)


def _how_often(effects: Effects, frame: pd.DataFrame, metric: str) -> Table:
    """A row per cell of the map: in how many prompts it has another token."""
    dims = list(effects.dims[1:])
    other = frame.assign(prompts=frame[metric] != frame[f"clean_{metric}"], of=1)
    if dims:
        each = other.groupby(dims, sort=False)[["prompts", "of"]].sum().reset_index()
    else:
        each = other[["prompts", "of"]].sum().to_frame().T
    each = each[each["prompts"] > 0].sort_values("prompts", ascending=False, kind="stable")
    shown = each.head(MOST_ROWS)
    more = f" The first {MOST_ROWS} are listed." if len(each) > len(shown) else ""
    caption = f"In how many of the prompts that have the cell; those in which any has.{more}"
    return Table("Cells with another token", shown, caption)


# -------------------------------------------------------------------------------------- snippets


def _snippets(effects: Effects) -> Iterator[Snippet]:
    try:
        for metric in with_delta(effects)[:1]:
            for cell in effects.top(1, metric, over=None).to_dict(orient="records"):
                where = {str(name): cell[name] for name in effects.dims}
                if not cell["effect"]:
                    continue
                one = f"on prompt {cell[PROMPT]}, " if effects.data.sizes[PROMPT] > 1 else ""
                yield Snippet(
                    f"The strongest cell by itself ({one}{metric} {signed(cell['effect'])})",
                    code.rerun(effects, where),
                )
        yield Snippet("The sweep in Python", code.again_in_python(effects))
        command = code.again_in_shell(effects)
        if command is not None:
            yield Snippet("The sweep on the command line", command)
        sheet = code.again_in_yaml(effects)
        if sheet is not None:
            yield Snippet("The sweep as a file, experiment.yaml", sheet)
    except EditError:
        return  # an edit with a function made on the spot, which no text can bring back
