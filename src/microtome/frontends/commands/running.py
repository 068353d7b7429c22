"""``microtome run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from microtome import Prompt, Prompts, Run
from microtome.errors import MicrotomeError
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.experiment.running import Ran
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.texts import brief

CLEAN = "clean_"


def run(
    model: str | None,
    prompt: Sequence[str],
    edit: Sequence[str],
    donor: str | None,
    top: int | None,
    config: Path | None,
    shown: Shown,
) -> None:
    """Show the most probable tokens with edits and without, and receipts."""
    check_donor(donor, prompt)
    asked = _asked(
        config,
        {
            "model": model,
            "prompts": Prompts(Prompt(text, donor=donor) for text in prompt) if prompt else None,
            "edits": [*edit],
            "top": top,
        },
    )
    with answering(shown):
        result = asked.run()
        if shown.json:
            print_json(_answer(asked.model.name, result, asked.top))
        else:
            _print(result, asked.top)


def _asked(config: Path | None, given: Mapping[str, object]) -> Ran:
    """What options, and perhaps a file, ask for; an option goes before its field, as a whole."""
    fields = {name: value for name, value in given.items() if value not in (None, [])}
    if config is not None:
        return Ran.read(config, **fields)
    if "model" not in fields or "prompts" not in fields:
        raise MicrotomeError(
            "Give a model and a prompt, nano -p 'Berlin is the capital of', or a file with "
            "--config."
        )
    return Ran(**fields)


def check_donor(donor: str | None, prompt: Sequence[str]) -> None:
    """Raise for a donor of no prompt: a file's prompts would be run without it."""
    if donor is not None and not prompt:
        raise MicrotomeError(
            "--donor is of the prompts that --prompt gives: those of a file have theirs beside "
            "them, its field 'donor'."
        )


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
