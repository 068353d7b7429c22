"""The report of direct logit attribution."""

from __future__ import annotations

from typing import Any

from microtome.amounts import many
from microtome.figures.view import visible_line
from microtome.report.document import Document, Picture, Section, Table
from microtome.report.reading import MOST_PROMPTS, again, token_rows
from microtome.verbs.attribution import Attribution

METHOD = (
    "At the position that is read, the residual stream is the sum of what was written to it. With "
    "the scale of every norm held at what it was, so is the logit: each share is the product of "
    "what a part wrote with the direction that the unembedding reads. All shares sum to the "
    "model's own logit.\n\n"
    "A share is what a part writes by itself. It is not what would change without the part, since "
    "other parts read it too: a sweep measures that."
)
CAPTION = (
    "Heads by number, the neurons of each layer's MLP, and its biases; red is for the target. "
    "What is not in the map stands over it."
)
ROWS = 20


def document_of_attribution(found: Attribution) -> Document:
    """The mean over prompts, then the first of them one by one."""
    metric, n = found.provenance["spec"]["metric"], len(found.encoded)
    several = () if n == 1 else (_section(found, None),)
    each = (_section(found, prompt) for prompt in range(min(n, MOST_PROMPTS)))
    asked = ", sources=True" if found.provenance["spec"]["sources"] else ""
    return Document(
        title=f"What adds to {metric}, on {found.provenance['model']['name']}",
        question=f"What does each part of the model write for {metric}, by itself?",
        method=METHOD,
        sections=(*several, *each),
        snippets=again(
            found.provenance, f"mt.attribute_logits(model, prompts, {metric!r}{asked}).figure()"
        ),
        provenance=found.provenance,
        tokens=token_rows(found.encoded),
        n_prompts=n,
        exports={"shares": found.table()},
    )


def summary_of_attribution(found: Attribution) -> dict[str, Any]:
    """The largest shares, and what all of them sum to, for ``summary.json``."""
    return {
        "model": found.provenance["model"],
        "spec": found.provenance["spec"],
        "logit": found.data["logit"].values,
        "total": found.total.values,
        "shares": found.table(ROWS).to_dict(orient="records"),
    }


def _section(found: Attribution, prompt: int | None) -> Section:
    n = len(found.encoded)
    whole = prompt is None
    title = (
        f"Mean over {many(n, 'prompt')}" if prompt is None else found.encoded[prompt].tokens.text
    )
    return Section(
        visible_line(title),
        pictures=(Picture(f"shares-{'mean' if whole else prompt}", found.figure(prompt), CAPTION),),
        tables=(Table("The largest shares", found.table(ROWS, prompt)),),
    )
