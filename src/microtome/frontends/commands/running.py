"""``microtome run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from microtome import Prompt, Run, load
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.texts import brief

CLEAN = "clean_"


def run(
    model: str,
    prompt: Sequence[str],
    edit: Sequence[str],
    donor: str | None,
    top: int,
    shown: Shown,
) -> None:
    """Show the most probable tokens with edits and without, and receipts."""
    with answering(shown):
        loaded = load(model)
        result = loaded.run([Prompt(text, donor=donor) for text in prompt], edits=edit)
        if shown.json:
            print_json(_answer(model, result, top))
        else:
            _print(result, top)


def _answer(model: str, result: Run, top: int) -> dict[str, object]:
    prompts = [
        {
            "text": one.tokens.text,
            "tokens": one.tokens.pieces,
            "top": [
                {
                    "position": place,
                    "tokens": Table.of(result.top(top, prompt=number, position=place)).records,
                }
                for place in one.tokens.predicted
            ],
        }
        for number, one in enumerate(result.encoded)
    ]
    return {
        "model": model,
        "prompts": prompts,
        "receipts": [asdict(receipt) for receipt in result.receipts],
    }


def _print(result: Run, top: int) -> None:
    for number, one in enumerate(result.encoded):
        say()
        say(str(one.tokens), heading="Prompt")
        for place in one.tokens.predicted:
            if one.tokens.masks:
                say(f"{one.tokens.mask} at position {place}", heading="For")
            frame = result.top(top, prompt=number, position=place)
            if not result.receipts:  # nothing is edited: before and after are the same
                frame = frame.drop(columns=[name for name in frame if str(name).startswith(CLEAN)])
            print_table(Table.of(frame))
    if result.receipts:
        say()
        say(heading="Receipts")
        rows = [{**asdict(one), "edit": brief(one.edit)} for one in result.receipts]
        values = tuple(tuple(row.values()) for row in rows)
        print_table(Table(tuple(rows[0]), values, names=("edit",)))
