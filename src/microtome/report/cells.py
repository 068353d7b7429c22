"""What a table of cells says in sentences: the largest effect, and, apart from it, what is sure."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from microtome.amounts import many
from microtome.figures.labels import shown
from microtome.results.effects import Effects
from microtome.results.roles import beside
from microtome.stats import LEVEL
from microtome.stats.aligned import positional, why_apart
from microtome.stats.samples import PROMPT
from microtome.texts import brief, number, signed, visible


def comparable(effects: Effects) -> Effects:
    """The result whose means over prompts are of the same places: by roles, where that takes it.

    The same object where positions are those of every prompt.
    """
    apart = any(why_apart(effects.data[metric]) for metric in effects.metrics)
    return effects.by_role() if apart else effects


def moving(effects: Effects) -> tuple[str, ...]:
    """Roles that do not stand at the same position in all prompts, though positions are averaged.

    None where prompts are of different lengths: there nothing is averaged by position.
    """
    if comparable(effects) is not effects:
        return ()
    places = [
        effects.data[beside(name)]
        for name in positional(effects.data)
        if beside(name) in effects.data.coords
    ]
    names = {
        role
        for roles in places
        for both in roles.values.T.tolist()
        if len(set(both)) > 1
        for role in both
        if role
    }
    return tuple(sorted(names))


def told(effects: Effects, metric: str, frame: pd.DataFrame) -> tuple[str, ...]:
    """What there is to say of the cells of a map over many prompts.

    Args:
        effects: the sweep's.
        metric: the one that is told of.
        frame: all cells, as `Effects.table` has them.
    """
    if frame.empty:
        return ()
    largest = _first(frame, "effect")
    if not frame["n"].any():
        return ("In no prompt did the edits change anything, so every effect is 0.",)
    if not largest["effect"]:
        return ("Every mean effect is 0.", *_unchanged(frame))
    dims = [name for name in map(str, effects.data[metric].dims) if name != PROMPT]
    where = f" is at {_place(largest, dims)}:" if dims else " is"
    quiet = "" if largest["above_noise"] else " No effect is above the noise floor."
    return (
        f"The largest mean effect{where} {_size(largest)}.{quiet}",
        *_significance(frame, dims, int(effects.data.sizes[PROMPT])),
        *_unchanged(frame),
        *_repeated(effects),
    )


def _significance(frame: pd.DataFrame, dims: list[str], prompts: int) -> Iterator[str]:
    cells, least = int(frame["p"].notna().sum()), 2.0 ** (1 - prompts)
    if not cells:
        yield "No cell has the two prompts that a test takes."
        return
    if least >= LEVEL:
        yield (
            f"With {many(prompts, 'prompt')} no p value below {least:.3g} is possible, whatever "
            "the effects: 6 prompts are the fewest that can show an effect to differ from 0."
        )
        return
    among = f"after correction for {many(cells, 'cell')}" if cells > 1 else "by a sign-flip test"
    passed = frame[frame["significant"]]
    if passed.empty:
        yield f"No effect differs from 0 at p < {LEVEL} {among}."
    elif cells == 1:
        yield f"It differs from 0 at p < {LEVEL} {among} (p = {passed['p'].iloc[0]:.2g})."
    else:
        first = _first(passed, "effect")
        yield (
            f"{len(passed):,} of {many(cells, 'effect')} "
            f"{'differs' if len(passed) == 1 else 'differ'} from 0 at p < {LEVEL} {among} "
            "(max-statistic sign flips over prompts), the largest of them at "
            f"{_place(first, dims)}: {signed(first['effect'])} (p = {first['p']:.2g})."
        )


def _unchanged(frame: pd.DataFrame) -> Iterator[str]:
    never = int((frame["n"] == 0).sum())
    some = int((frame["unchanged"] > 0).sum()) - never
    if never:
        yield (
            f"In {never:,} of {many(len(frame), 'cell')} the edits changed nothing in any prompt: "
            "their effect is exactly 0, their n is 0, and they are not among the cells tested."
        )
    if some:
        whose, mean = ("cells'", "their means") if some > 1 else ("cell's", "its mean")
        yield (
            f"In {some:,} cell{'s' if some > 1 else ''} the edits changed nothing in some of the "
            f"prompts; these are not among the {whose} n, nor in {mean}."
        )


def _repeated(effects: Effects) -> Iterator[str]:
    """How many prompts are others over again, so that n is larger than what is known."""
    given = effects.provenance.get("spec", {}).get("prompts", [])
    numbers = [int(number) for number in effects.data[PROMPT].values]
    if max(numbers) >= len(given):
        return
    asked = [{k: v for k, v in given[number].items() if k != "meta"} for number in numbers]
    again = len(asked) - len({json.dumps(one, sort_keys=True) for one in asked})
    if again:
        yield (
            f"{again:,} of the {many(len(asked), 'prompt')} {'is' if again == 1 else 'are'} the "
            "same as an earlier one, and still counted as independent: intervals are narrower, "
            "and p smaller, than the different prompts allow. Leave the repeated ones out."
        )


def _first(frame: pd.DataFrame, column: str) -> pd.Series:
    """The row with the largest value, whatever its sign."""
    return frame.iloc[int(np.argmax(np.abs(frame[column].to_numpy())))]


def _place(row: pd.Series, dims: list[str]) -> str:
    return ", ".join(f"{name} {shown(row[name])}" for name in dims)


def _size(row: pd.Series) -> str:
    interval = ""
    if not np.isnan(row["low"]):
        low, high = (number(row[end]).replace("-", "−") for end in ("low", "high"))
        interval = f"95 % interval {low} … {high}, uncorrected; "
    return f"{signed(row['effect'])} ({interval}n = {int(row['n'])})"


def visible_tokens(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with the white space of tokens to be seen."""
    tokens = [name for name in frame if str(name).endswith("token")]
    shown = frame.map(lambda value: brief(value) if isinstance(value, str) else value)
    for name in tokens:
        shown[name] = [visible(text) if text else "" for text in frame[name]]
    return shown
