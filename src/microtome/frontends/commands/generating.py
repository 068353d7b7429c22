"""``microtome generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transformers import TextStreamer

from microtome import Generation, Prompt, Prompts
from microtome.errors import MicrotomeError
from microtome.frontends.arguments import Shown, Writing
from microtome.frontends.commands.chatting import told
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.running import check_donor
from microtome.frontends.experiment.options import checkpoint
from microtome.frontends.experiment.writing import Written
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.texts import brief


def generate(
    model: str | None,
    prompt: Sequence[str],
    edit: Sequence[str],
    donor: str | None,
    how: Writing,
    shown: Shown,
) -> None:
    """Show what is written with the edits and without them, token by token."""
    asked = _asked(model, prompt, edit, donor, how)
    with answering(shown):
        loaded = asked.model.load()
        objects: dict[str, Any] = {}
        if how.stream and not shown.json:
            objects["streamer"] = TextStreamer(loaded.tokenizer, skip_special_tokens=True)
        made = asked.run(loaded, **objects)
        bare = asked.model_copy(update={"edits": ()}).run(loaded) if made.edits else made
        if shown.json:
            print_json(_answer(asked.model.name, made, bare))
        else:
            _print(made, bare, shown)


def _asked(
    model: str | None,
    prompt: Sequence[str],
    edit: Sequence[str],
    donor: str | None,
    how: Writing,
) -> Written:
    """What options, and perhaps a file, ask for; an option goes before its field, as a whole."""
    check_donor(donor, prompt)
    _check_chat(prompt, how)
    given = {
        "model": checkpoint(model, how.dtype, None, None, None),
        "prompts": Prompts(_prompt(text, donor, how) for text in prompt) if prompt else None,
        "edits": [*edit],
        "steps": how.steps,
        "when": how.when,
        "batch": how.batch,
        "seed": how.seed,
        "settings": how.settings,
    }
    fields = {name: value for name, value in given.items() if value not in (None, [], {})}
    if how.config is not None:
        return Written.read(how.config, **fields)
    if "model" not in fields or "prompts" not in fields:
        raise MicrotomeError(
            "Give a model and a prompt, nano -p 'Berlin is the capital of', or a file with "
            "--config."
        )
    return Written(**fields)


def _check_chat(prompt: Sequence[str], how: Writing) -> None:
    """Raise where a chat is asked for, and nothing is said in it."""
    if how.system is not None and not how.chat:
        raise MicrotomeError("--system is told at the beginning of a chat: say --chat as well.")
    if how.chat_option and not how.chat:
        raise MicrotomeError("--chat-option is told to a chat template: say --chat as well.")
    if how.chat and not prompt:
        raise MicrotomeError(
            "--chat makes a chat of each -p, and none is given. A prompt of a file is one by "
            'itself: messages: [{role: user, content: "…"}], chat_options: {…}.'
        )


def _prompt(text: str, donor: str | None, how: Writing) -> Prompt:
    if not how.chat:
        return Prompt(text, donor=donor)
    if donor is not None:
        raise MicrotomeError("A donor of a chat is a chat too: patch from Python, Prompt.chat(…).")
    turns = [] if how.system is None else [{"role": "system", "content": how.system}]
    chat = [*turns, {"role": "user", "content": text}]
    return Prompt.chat(chat, chat_options=told(how.chat_option))


def _answer(model: str, made: Generation, bare: Generation) -> dict[str, object]:
    texts = [
        {
            "prompt": one.encoded.tokens.text,
            "text": one.text,
            "ended": one.ended,
            "tokens": Table.of(one.table()).records,
            "receipts": [
                {**asdict(receipt), "edit": _brief(receipt.edit)} for receipt in one.receipts
            ],
            "without_edits": other.text,
        }
        for one, other in zip(made, bare, strict=True)
    ]
    return {
        "model": model,
        "edits": [*map(_brief, made.edits)],
        "when": made.when,
        "settings": made.settings,
        "texts": texts,
    }


def _brief(edit: str) -> str:
    """An edit with how long its vectors are, in the place of their numbers."""
    return brief(edit, longest=len(edit))


def _print(made: Generation, bare: Generation, shown: Shown) -> None:
    for one, other in zip(made, bare, strict=True):
        say()
        say(str(one.encoded.tokens), heading="Prompt")
        if made.edits:
            say("; ".join(map(brief, made.edits)) + f"  (when: {made.when})", heading="Edits")
        say(one.text, heading="With edits" if made.edits else "Text")
        if made.edits:
            say(other.text, heading="Without")
        columns = [*_SHOWN, *(_OF_EDITS if made.edits else ())]
        table = one.table()[columns]
        say()
        print_table(Table.of(table, names=("token", "clean_token")))
        if not shown.quiet:
            say(f"It ended by {_ENDS[one.ended]}.")
    if not shown.quiet:
        settings = ", ".join(f"{name} {value}" for name, value in made.settings.items())
        say(settings, heading="Settings")


_SHOWN = ("step", "token", "logprob")
_OF_EDITS = ("clean_logprob", "clean_token", "clean_token_logprob", "kl", "norm")

_ENDS = {
    "eos": "a token that ends texts",
    "steps": "the number of steps",
    "stopped": "what was to stop it",
}
