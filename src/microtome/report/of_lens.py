"""The report of a lens."""

from __future__ import annotations

from typing import Any

from microtome.figures.pictures import Drawn
from microtome.figures.view import visible_line
from microtome.report import spelling
from microtome.report.cells import visible_tokens
from microtome.report.document import Document, Picture, Section, Table
from microtome.report.reading import MOST_PROMPTS, PROMPTS, again, token_rows
from microtome.verbs.lens import Lens

METHOD = (
    "Every state goes through the model's final norm, with the statistics that it has itself, and "
    "the unembedding: what would the model say if it ended here? The last row of resid_post is the "
    "model's own output. kl is KL(the model's output ‖ what the state says)."
)
TRANSLATED = " Before that, a trained translator maps the state to the basis of the last layer."


def document_of_lens(seen: Lens) -> Document:
    """Maps of the first prompts, each with what is said at its last position."""
    spec = seen.provenance["spec"]
    asked = f", edits={[*spec['edits']]!r}" if spec["edits"] else ""
    asked += f", metrics={spec['metrics']!r}, top={spec['top']}"
    if spec["reference"]:
        asked += f", reference={spelling.prompts(spec['reference'])}"
    before = ""
    if spec.get("tuned_in_memory"):
        before = (
            f"# translators: those that were given in memory ({spec['tuned']}), which are in no "
            "folder;\n# translators.save(…) writes them to one.\n"
        )
        asked += ", tuned=translators"
    elif spec["tuned"]:
        asked += f", tuned=mt.Translators.load({spec['tuned']!r})"
    call = f"{before}mt.lens(model, prompts, {spec['address']!r}{asked})"
    return Document(
        title=f"What {spec['address']} says, on {seen.provenance['model']['name']}",
        question="What would the model say, were it to end at each of its layers?",
        method=METHOD + (TRANSLATED if spec["tuned"] else ""),
        sections=tuple(_section(seen, n) for n in range(min(MOST_PROMPTS, len(seen.encoded)))),
        snippets=again(seen.provenance, f"{call}.figure()"),
        provenance=seen.provenance,
        tokens=token_rows(seen.encoded),
        n_prompts=len(seen.encoded),
        exports={"states": seen.data.isel(top=0).to_dataframe().reset_index()},
    )


def summary_of_lens(seen: Lens) -> dict[str, Any]:
    """What is said at the last position of each prompt, for ``summary.json``."""
    return {
        "model": seen.provenance["model"],
        "spec": seen.provenance["spec"],
        PROMPTS: [
            {"text": one.tokens.text, "states": _last(seen, n).to_dict(orient="records")}
            for n, one in enumerate(seen.encoded)
        ],
    }


def _section(seen: Lens, prompt: int) -> Section:
    one = seen.encoded[prompt]
    dims = {*seen.data["top_prob"].dims} - {"prompt", "top"}
    caption = "Each cell's first token; the darker, the more probable."
    return Section(
        visible_line(one.tokens.text),
        pictures=(
            (Picture(f"lens-{prompt}", _drawn(seen, prompt, len(dims)), caption),)
            if len(dims) > 1
            else ()
        ),
        tables=(Table("At the last position", visible_tokens(_last(seen, prompt))),),
    )


def _drawn(seen: Lens, prompt: int, dims: int) -> Drawn:
    """Layers, positions and heads are too many for a map: of these the last position."""
    return seen.figure(prompt=prompt, pos=-1) if dims > 2 else seen.figure(prompt=prompt)


def _last(seen: Lens, prompt: int) -> Any:
    return seen.table(prompt, pos=-1).drop(columns=["pos", "token"], errors="ignore")
