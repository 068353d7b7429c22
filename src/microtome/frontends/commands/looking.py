"""``microtome attention`` and ``microtome heads``."""

from __future__ import annotations

from pathlib import Path

from microtome import head_scores, load
from microtome.figures.pictures import check_picture, is_picture, write
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.reading import (
    asked_of,
    deliver,
    placed,
    placed_by,
    prompts_given,
    say_place,
)
from microtome.frontends.experiment.reading import ReadAttention
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report.of_attention import document_of_attention, summary_of_attention
from microtome.verbs.head_names import head_of


def attention(
    read: Read, shown: Shown, address: str | None, head: str | None, weighted: bool
) -> None:
    """Draw patterns; show how spread out each head's look at the last token is."""
    asked = asked_of(ReadAttention, read, prompts_given(read), {"address": address})
    read = placed_by(read, asked)
    what = "weighted" if weighted else "pattern"
    with answering(shown):
        model = asked.model.load()
        if head is None:
            seen = asked.run(model)
            figure = seen.grid(what=what)
        else:
            layer, number = head_of(head, model.anatomy.dims)
            asked = asked.model_copy(update={"address": f"L{layer}.pattern.h{number}"})
            seen = asked.run(model)
            figure = seen.figure(layer, number, what=what)
        summary = summary_of_attention(seen)
        deliver(read, lambda: figure, lambda: document_of_attention(seen), summary)
    if shown.json:
        print_json({**summary, **placed(read)})
        return
    for prompt, one in enumerate(seen.encoded):
        say()
        say(str(one.tokens), heading="Prompt")
        last = seen.data["pattern"].isel(prompt=prompt, q_pos=len(one.tokens) - 1)
        frame = last.to_dataframe("weight").reset_index()
        frame = frame.nlargest(10, "weight")[["layer", "head", "k_pos", "k_pos_token", "weight"]]
        say("Where the last token looks most")
        print_table(Table.of(frame))
    say_place(read)


def heads(
    model: str,
    shown: Shown,
    score: str,
    drawn: tuple[int, int | None, int],
    top: int,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Show the heads with the largest scores; draw the map of all."""
    if output is not None:
        check_picture(output, overwrite)
    with answering(shown):
        found = head_scores(load(model), *drawn)
        table = Table.of(found.table(score, top))
        if output is not None and is_picture(output):
            write(found.figure(score), output)
    if shown.json:
        print_json({"model": model, "score": score, "heads": table.records})
        return
    say(score, heading="Score")
    print_table(table)
    if output is not None:
        say(f"Picture: {output}")
