"""What was done in a sweep, in sentences: each of something that was measured, or left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from microtome.amounts import many
from microtome.engines.approximate.audit import DOUBTED
from microtome.errors import listing
from microtome.figures.mapped import WHY_EXACT
from microtome.figures.noise import is_noise
from microtome.figures.view import view
from microtome.readings.registry import about
from microtome.report.cells import comparable, moving
from microtome.results.effects import Effects
from microtome.stats.aligned import lengths, positional
from microtome.stats.samples import PROMPT

HELD = "that it holds strongest"


def with_delta(effects: Effects) -> tuple[str, ...]:
    """The metrics that have an effect: all but token ids."""
    return tuple(m for m in effects.metrics if about(m).unit != "token id")


def method(effects: Effects) -> Iterator[str]:
    """What was done, a paragraph each."""
    record = effects.provenance
    yield _cells(effects)
    yield _unchanged(effects)
    yield from _aligned(effects)
    engine = record.get("engine")
    if engine:
        yield f"Engine: {engine['name']} ({engine['why']}). {_verified(record)}"
    yield from _noise(effects)
    yield from _absent(effects)
    yield from _screened(effects)
    yield from approximated(effects)


def _cells(effects: Effects) -> str:
    sizes, over = effects.data.sizes, record_over(effects)
    several = sizes[PROMPT] > 1
    axes = " × ".join(f"{name} ({sizes[name]})" for name in effects.dims[0 if several else 1 :])
    on = "on one of the prompts" if several else "on the prompt"
    each = "".join(f", with one value of {name}" for name in over)
    starred = any(name not in (PROMPT, *over) for name in effects.dims)
    where = "in one place" if starred else "made"
    if effects.n_cells == 1:
        counted = "The one cell is a run of the model"
    else:
        verb = "is" if effects.method == "exact" else "stands for"
        counted = f"Each of {many(effects.n_cells, 'cell')} {verb} one run of the model"
    return (
        f"{counted} {on} with the edits {where}{each}{f': {axes}' if axes else ''}. An effect is "
        "the metric in a cell minus the same metric without edits."
    )


def record_over(effects: Effects) -> tuple[str, ...]:
    """The parameters that are dimensions of the result."""
    return tuple(effects.provenance["spec"]["over"])


def _unchanged(effects: Effects) -> str:
    if not effects.n_unchanged:
        return "Every cell's edits changed at least one value."
    several = effects.data.sizes[PROMPT] > 1
    left_out = " They are left out of means, intervals and tests over prompts." if several else ""
    which = many(effects.n_unchanged, "cell")
    which = "the one cell" if effects.n_cells == 1 else which
    return (
        f"In {which} the edits left every value as it was: that is the run without edits, its "
        f"effect is exactly 0, and says nothing of what the edits do elsewhere.{left_out}"
    )


def _aligned(effects: Effects) -> Iterator[str]:
    """How maps over positions are averaged over prompts of several lengths."""
    if moved := moving(effects):
        yield (
            f"{listing(moved)} {'stands' if len(moved) == 1 else 'stand'} at different positions "
            "in these prompts, and a mean at a position mixes them: beside maps over positions are "
            "those over roles."
        )
    if comparable(effects) is effects:
        return
    own = lengths(effects.data, positional(effects.data)[0])
    yield (
        f"The prompts are of {own.min()} to {many(own.max(), 'token')}, so that a position of one "
        "is not the same position of another: maps and tables are over the prompts' roles, each "
        "where a prompt has it, and cells at other positions are not on them."
    )


def _noise(effects: Effects) -> Iterator[str]:
    """What cells that change nothing did, and how far the two paths were apart in others."""
    floors = {name: effects.noise_floor(name) for name in with_delta(effects)}
    known = {name: floor for name, floor in floors.items() if floor is not None}
    if not known:
        return
    if not any(known.values()):
        again = (effects.provenance.get("verification") or {}).get("cells")
        same = ", and no effect that was computed again is another" if again else ""
        yield (
            "Noise floor: cells that change nothing, computed beside the others, have no effect"
            f"{same}."
        )
        return
    each = listing(f"{floor:.2g} on {name}" for name, floor in known.items())
    yield (
        f"Noise floor: {each}. So much at most did cells that change nothing, computed beside the "
        "others, differ from no edit, and effects from the same computed again. One that is no "
        f"larger may be rounding{'; on the maps it has a grey dot' if _has_noise(effects) else ''}."
    )


def _has_noise(effects: Effects) -> bool:
    """Whether any map has an effect that may be rounding."""
    shown = comparable(effects)
    means = (view(shown, metric, {}).mean["effect"] for metric in with_delta(shown))
    return any(bool(is_noise(mean).any()) for mean in means)


def _absent(effects: Effects) -> Iterator[str]:
    predicted = effects.provenance.get("predicted") or {}
    if predicted.get("absent"):
        yield (
            f"{many(predicted['absent'], 'more cell')} of the map "
            f"{'does' if predicted['absent'] == 1 else 'do'} not exist: {predicted['why_absent']}."
        )


def _screened(effects: Effects) -> Iterator[str]:
    screen = effects.provenance.get("screen")
    if screen:
        own = effects.provenance["model"]["dtype"]
        off = [f"{name} {gap:.2g}" for name, gap in screen["largest_difference"].items()]
        yield (
            f"Screened: all cells in {screen['dtype']} first, then the {screen['refined']:,} with "
            f"the largest effects on {effects.metrics[0]} again in the model's own type, {own}; "
            "between the two their "
            f"values differ by at most {listing(off)}. Every effect is against a clean run of its "
            "own type."
        )


def approximated(effects: Effects) -> Iterator[str]:
    """What was approximated, how good that is, and which cells are exact."""
    record = effects.provenance
    audit = record.get("audit")
    if not audit:
        return
    yield (
        f"Approximated: effects are those of {effects.method}, which is not exact. "
        f"{computed(audit['cells'])} exactly as well, the strongest by the approximation and "
        "others drawn at random; on the maps these are exact, and have a ring."
    )
    yield from _refined(audit, effects)
    for metric in with_delta(effects):
        looked = _looked_at(audit, metric, effects.metrics[0])
        found, unit = effects.audit(metric), about(metric).unit
        yield f"On {metric}: {' '.join(how_good(found, unit, looked))}"


def _refined(audit: Mapping[str, Any], effects: Effects) -> Iterator[str]:
    """Which cells are exact since they were in doubt, and whether that was enough."""
    if "rounds" not in audit:
        return
    metric, below, other = effects.metrics[0], audit.get("below"), audit["against"]
    if other is None:
        which = f"that are the next strongest, as no other approximation takes them, on {metric}"
    elif below is None:
        which = f"of which {effects.method} and {other} say the most different of {metric}"
    else:
        which = (
            f"with the largest effects on {metric} by {effects.method}, each with how far {other} "
            "is from it added"
        )
    refined = int((effects.data[WHY_EXACT] == DOUBTED).sum())
    if below is None:  # of which the next strongest have the reason of the strongest
        refined = min(audit["refine"], max(0, audit["cells"] - audit["asked"] // 2))
    if refined:
        yield f"Refined: among the exact cells are {refined:,} {which}."
    if below is not None:
        told = "is reached" if audit["enough"] else "is not reached, and cells were left"
        times = "once" if audit["rounds"] == 1 else f"{audit['rounds']} times"
        yield (
            f"Cells were chosen {times}, until the bound on {metric} would be no more than "
            f"{below:.3g}, which {told}. Each time has its part of the 5 %, so that the bound "
            "holds though one could stop after any."
        )


def _looked_at(audit: Mapping[str, Any], metric: str, first: str) -> str:
    """Which cells those are among which the strong ones are looked for: all but the last draw."""
    strongest = HELD if metric == first else f"{HELD} on {first}"
    if audit.get("rounds", 1) > 1:
        return f"{strongest}, that were refined, or drawn before the last time"
    refined = audit.get("refine") and audit["against"]
    return f"{strongest}, or that were refined" if refined else strongest


def how_good(found: Mapping[str, Any], unit: str, looked: str = HELD) -> Iterator[str]:
    """What an audit says, sentence by sentence.

    Args:
        found: from `Effects.audit`.
        unit: of the metric.
        looked: which cells those are among which the strong ones were looked for.
    """
    if found["pearson"] is not None:
        yield (
            f"estimated for the whole map, approximate and exact effects correlate with "
            f"{found['pearson']:.3f} (their ranks with {found['spearman']:.3f})"
            + (
                f", and {found['signs']:.0%} have the same sign."
                if found["signs"] is not None
                else "."
            )
        )
    worst = found["worst"]
    where = listing(f"{name} {value}" for name, value in worst["cell"].items() if name != PROMPT)
    yield (
        f"The largest miss is {found['miss']:.3g} {unit}{f', at {where}' if where else ''}: "
        f"{worst['approximate']:+.3g} in the place of {worst['exact']:+.3g}."
    )
    recall, bound = found["recall"], found["bound"]
    if recall is not None:
        yield (
            f"Of the cells with an effect of {recall['effect']:.3g} or more, "
            f"{recall['share']:.0%} ({recall['low']:.0%} to {recall['high']:.0%}) are among those "
            f"{looked}."
        )
    if bound is None:
        yield "All cells are exact."
    else:
        yield (
            f"With {bound['confidence']:.0%} confidence, of the {bound['cells']:,} cells that are "
            f"approximate no more than {bound['share']:.1%} have an exact effect above "
            f"{bound['effect']:.3g}, and no more than that are off by over {bound['miss']:.3g}."
        )


def computed(cells: int) -> str:
    """So many cells were computed, in words."""
    return f"{many(cells, 'cell')} {'was' if cells == 1 else 'were'} computed"


def _verified(record: Mapping[str, Any]) -> str:
    found = record.get("verification") or {}
    if found.get("cells"):
        return (
            f"{computed(found['cells'])} again on the reference path; the largest "
            f"difference is {found['largest_difference']:.2g}, and {found['tolerance']:.2g} is "
            "allowed."
        )
    return f"Verification: {found['why']}." if found.get("why") else ""
