"""Claims judged, on one prompt or on many."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from microtome.figures.view import visible_line
from microtome.report import Finding, Section
from microtome.stats import Estimate
from microtome.studies import telling
from microtome.studies.study import Claim, Data, Measured, Study
from microtome.texts import Texts

Table = Mapping[str, Sequence[Measured]]
"""Claim's name → what was measured on each prompt."""


def measure(claims: Sequence[Claim[Any]], data: Data[Any]) -> Table:
    """Every claim on every prompt."""
    each = [data.of(n) for n in range(len(data.encoded))]
    return {claim.name: [claim.measure(one) for one in each] for claim in claims}


def judge(
    study: Study[Any], measured: Table, comparable: bool, texts: Texts
) -> tuple[Finding, ...]:
    """Every claim with what was measured, and the verdict where there can be one."""
    own = (study.published.model, *study.also_on)
    return tuple(
        Finding(
            texts(f"claims.{claim.name}.text"),
            _shown(f"claims.{claim.name}", measured[claim.name], texts),
            verdict_of(claim, measured[claim.name], comparable),
            texts(f"claims.{claim.name}.rule"),
            texts("published", models=" · ".join(claim.on or own)),
        )
        for claim in study.claims
    )


def verdict_of(claim: Claim[Any], found: Sequence[Measured], comparable: bool) -> str:
    """What is to be said of a claim, one of `microtome.report.VERDICTS`.

    Over several prompts a claim holds if it does on each.

    Args:
        claim: the claim.
        found: what was measured, prompt by prompt.
        comparable: whether this is where it was published; elsewhere it is judged by the same
            rule, and the verdict says that it is about the model here.
    """
    if claim.of_checkpoint and not comparable:
        return "not comparable on this model"
    held = [one.holds for one in found]
    if None in held and False not in held:
        return "not judged"
    verdict = "holds" if all(held) else "does not hold"
    return verdict if comparable and not claim.on else f"{verdict} here"


def _shown(key: str, found: Sequence[Measured], texts: Texts) -> str:
    if len(found) == 1:
        return texts(f"{key}.{found[0].wording}", **found[0].words)
    judged = [one for one in found if one.holds is not None]
    return texts(
        "over_prompts.measured" if len(judged) == len(found) else "over_prompts.some",
        holds=sum(bool(one.holds) for one in judged),
        judged=len(judged),
        n=len(found),
        value=texts(f"{key}.value"),
        mean=telling.mean_of([one.value for one in found]),
    )


def by_prompt(
    claims: Sequence[Claim[Any]], measured: Table, data: Data[Any], texts: Texts
) -> Section:
    """What each claim's number is on each prompt, and over them."""
    labels = [texts(f"claims.{claim.name}.value") for claim in claims]
    rows = [
        {
            texts("columns.prompt"): visible_line(one.prompt.text),
            **{
                label: float(measured[claim.name][n].value)
                for label, claim in zip(labels, claims, strict=True)
            },
        }
        for n, one in enumerate(data.encoded)
    ]
    means = []
    for label, claim in zip(labels, claims, strict=True):
        found = measured[claim.name]
        mean = telling.mean_of([one.value for one in found])
        means.append(
            {
                "value": label,
                "mean": mean.value,
                "low": mean.low,
                "high": mean.high,
                "n": mean.n,
                "holds_on": sum(bool(one.holds) for one in found),
            }
        )
    return telling.section(
        texts,
        "over_prompts",
        tables=(
            telling.table(texts, "over_prompts.means", pd.DataFrame(means)),
            telling.table(texts, "over_prompts.each", pd.DataFrame(rows)),
        ),
        n=len(data.encoded),
    )


def numbers(measured: Table) -> dict[str, Any]:
    """What the summary keeps of each claim: per prompt, whether it holds, and its numbers."""
    return {
        name: [
            {
                "holds": None if one.holds is None else bool(one.holds),
                "value": float(one.value),
                **{word: _number(value) for word, value in one.words.items()},
            }
            for one in found
        ]
        for name, found in measured.items()
    }


def _number(value: Any) -> Any:
    if isinstance(value, Estimate):
        return dataclasses.asdict(value)
    return value.item() if isinstance(value, np.generic) else value
