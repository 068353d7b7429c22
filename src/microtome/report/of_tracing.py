"""The report of causal tracing."""

from __future__ import annotations

from typing import Any

import pandas as pd

from microtome.amounts import many
from microtome.figures.view import visible_line
from microtome.report.document import Document, Picture, Section, Table
from microtome.report.reading import MOST_PROMPTS, PROMPTS, again, token_rows
from microtome.verbs.tracing import Traces

METHOD = (
    "Gaussian noise is added to what enters the first block at the subject's tokens: {samples} "
    "samples, of {noise} standard deviations of the subjects' own. In that run one state at a time "
    "is put back as it was in the clean one: a hidden state, or what {window} layers of MLPs, or "
    "of attention, around a layer add at one token. The indirect effect is how much of the "
    "answer's probability comes back, the mean over samples, which are the same in every cell "
    "(Meng et al., 2022)."
)
ROWS = 10


def document_of_traces(traces: Traces) -> Document:
    """Averages by part of the text, then the first facts token by token."""
    spec, n = traces.provenance["spec"], len(traces.encoded)
    asked = ", ".join(f"{name}={spec[name]!r}" for name in ("kinds", "samples", "window", "seed"))
    several = () if n == 1 else (_section(traces, None),)
    return Document(
        title=f"Causal tracing on {traces.provenance['model']['name']}",
        question="Where does a fact come back, in a run that has forgotten what it is about?",
        method=METHOD.format(
            samples=spec["samples"], noise=spec["noise_std"], window=spec["window"]
        ),
        sections=(*several, *(_section(traces, fact) for fact in range(min(n, MOST_PROMPTS)))),
        snippets=again(
            traces.provenance,
            f"mt.trace_facts(model, prompts, {asked}, noise_std={spec['noise_std']!r})",
        ),
        provenance=traces.provenance,
        tokens=token_rows(traces.encoded),
        n_prompts=n,
        exports={
            "average": traces.average().to_dataframe().reset_index(),
            "effects": traces.effect.to_dataframe("effect").reset_index().dropna(),
        },
    )


def summary_of_traces(traces: Traces) -> dict[str, Any]:
    """Probabilities and the largest averages, for ``summary.json``."""
    data = traces.data
    return {
        "model": traces.provenance["model"],
        "spec": traces.provenance["spec"],
        PROMPTS: [
            {
                "text": one.tokens.text,
                "clean": float(data["clean"][n]),
                "corrupted": float(data["corrupted"][n].mean()),
            }
            for n, one in enumerate(traces.encoded)
        ],
        "largest": largest(traces).to_dict(orient="records"),
    }


def largest(traces: Traces) -> pd.DataFrame:
    """Of each kind the largest averages: ``kind``, ``part``, ``layer``, ``effect``, ends, n."""
    frame = traces.average().to_dataframe().reset_index()
    kinds = traces.data["kind"].values.tolist()
    best: pd.DataFrame = pd.concat(
        [frame[frame["kind"] == kind].nlargest(ROWS, "effect") for kind in kinds]
    )
    return best


def _section(traces: Traces, fact: int | None) -> Section:
    kinds = traces.data["kind"].values.tolist()
    name = "average" if fact is None else str(fact)
    pictures = tuple(
        Picture(
            f"{kind}-{name}",
            traces.figure(kind, fact),
            "Red: with this state put back, the answer comes back.",
        )
        for kind in kinds
    )
    if fact is None:
        title = f"Averages over {many(len(traces.encoded), 'fact')}"
        return Section(title, pictures=pictures, tables=(Table("The largest", largest(traces)),))
    own = traces.data.isel(prompt=fact)
    clean, corrupted = float(own["clean"]), float(own["corrupted"].mean())
    said = f"The answer has probability {clean:.3g}, and {corrupted:.3g} with the noise."
    return Section(visible_line(traces.encoded[fact].tokens.text), (said,), pictures)
