"""The report of a dose sweep."""

from __future__ import annotations

from typing import Any

from microtome.report.document import Document, Picture, Section, Snippet, Table
from microtome.verbs.dose import COSTS, Dose

METHOD = (
    "Every dose is a cell of a sweep. What it gains is read after the last token of each prompt, "
    "and averaged over prompts. What it costs is read at every token of neutral texts, with the "
    "same edit where its address says: KL(clean ‖ edited) of the prediction, averaged over tokens, "
    "and the perplexity, exp of the mean −log probability of the texts' own next tokens."
)
AFFORDABLE = 0.25
"""Nats per token that the doses of the first table cost at most."""


def document_of_dose(found: Dose, command: str) -> Document:
    """Maps of gains and costs, and the doses that gain most for little.

    Args:
        found: the doses.
        command: that repeats it: an edit's vectors may be larger than the page.
    """
    record = found.provenance
    return Document(
        title=f"{found.title}, dose by dose, on {record['model']['name']}",
        question="What does a dose do for the behaviour, and what does it cost elsewhere?",
        method=METHOD,
        sections=(_gains(found), _costs(found)),
        snippets=(Snippet("On the command line", command),),
        provenance=record,
        n_prompts=int(found.behaviour.data.sizes["prompt"]),
        exports={"doses": found.table()},
    )


def summary_of_dose(found: Dose) -> dict[str, Any]:
    """All doses, for ``summary.json``."""
    record = found.provenance
    clean = {name: float(one) for name, one in found.data.items() if str(name).startswith("clean_")}
    return {
        "model": record["model"],
        "spec": record["spec"],
        "neutral": [str(one.data["text"].values[0]) for one in found.damage],
        "without_edits": clean,
        "doses": found.table().to_dict(orient="records"),
    }


def _gains(found: Dose) -> Section:
    pictures = [
        Picture(f"gain-{number}", found.figure(metric), f"The mean change of {metric}.")
        for number, metric in enumerate(found.metrics)
        if found.is_map
    ]
    trade = Picture(
        "trade", found.trade(), "Each dose: what it costs to the right, what it gains upwards."
    )
    best = found.best(kl=AFFORDABLE, top=10)
    table = Table(f"The largest effects at {AFFORDABLE} nat per token or less", best)
    return Section("What it gains", pictures=(*pictures, trade), tables=(table,))


def _costs(found: Dose) -> Section:
    pictures = tuple(
        Picture(f"cost-{name}", found.figure(name), f"{about[0].upper()}{about[1:]}.")
        for name, about in COSTS.items()
        if found.is_map
    )
    clean = float(found.data["clean_perplexity"])
    paragraph = f"Without edits the perplexity of the neutral texts is {clean:.4g}."
    return Section("What it costs", (paragraph,), pictures)
