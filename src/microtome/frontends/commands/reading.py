"""``microtome lens`` and the other commands that read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from microtome import Model, Prompt, Prompts, Translators, load
from microtome.errors import MicrotomeError
from microtome.figures.pictures import check_picture, is_picture, write
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.readings.translators import check_folder as check_place
from microtome.report import Document, check_folder, write_folder
from microtome.report.folder import SUMMARY
from microtome.report.of_attribution import document_of_attribution, summary_of_attribution
from microtome.report.of_lens import document_of_lens, summary_of_lens
from microtome.texts import number, visible
from microtome.verbs.attribution import attribute_logits, attribute_neurons
from microtome.verbs.lens import lens as look
from microtome.verbs.tuning import train_translators


def lens(
    read: Read, shown: Shown, address: str, edit: Sequence[str], top: int, tuned: Path | None
) -> None:
    """Show what states say at the last position, and write the map."""
    check_output(read)
    with answering(shown):
        model = model_of(read)
        translators = None if tuned is None else Translators.load(tuned)
        seen = look(model, prompts_of(read), address, edits=edit, top=top, tuned=translators)
        deliver(read, seen.figure, lambda: document_of_lens(seen), summary_of_lens(seen))
    if shown.json:
        print_json({**summary_of_lens(seen), **placed(read)})
        return
    for prompt, one in enumerate(seen.encoded):
        say()
        say(str(one.tokens), heading="Prompt")
        print_table(Table.of(seen.table(prompt, pos=-1).drop(columns=["pos", "token"])))
    say_place(read)


def tune(
    model: str,
    shown: Shown,
    prompts: Path,
    output: Path,
    recipe: tuple[int, int, int],
    dtype: str | None,
) -> None:
    """Train translators, and show how much nearer they come."""
    steps, batch, seed = recipe
    texts = Prompts.read(prompts)
    check_place(output)
    with answering(shown):
        loaded = load(model, dtype=dtype)
        told = (lambda line: None) if shown.quiet or shown.json else say
        made = train_translators(loaded, texts, steps=steps, batch=batch, seed=seed, tell=told)
        made.save(output)
    if shown.json:
        print_json({**made.about, "folder": str(output)})
    else:
        say(f"Translators: {output}")


def attribute(read: Read, shown: Shown, metric: str | None, top: int, neurons: int | None) -> None:
    """Show the largest shares, of writers or of the neurons of a layer."""
    check_output(read)
    with answering(shown):
        model, prompts = model_of(read), prompts_of(read)
        found = attribute_logits(model, prompts, metric)
        deliver(
            read,
            found.figure,
            lambda: document_of_attribution(found),
            summary_of_attribution(found),
        )
        frame = found.table(top)
        if neurons is not None:
            frame = attribute_neurons(model, prompts, neurons, metric, k=top)
    if shown.json:
        shares = Table.of(frame).records
        print_json({**summary_of_attribution(found), "shares": shares, **placed(read)})
        return
    logit = float(found.data["logit"].mean())
    say(f"{found.provenance['spec']['metric']} {number(logit)}, the sum of all shares")
    for tokens in ("for", "against"):
        if tokens in frame:
            frame[tokens] = [" ".join(map(visible, row)) for row in frame[tokens]]
    print_table(Table.of(frame, names=("writer",)))
    say_place(read)


# ----------------------------------------------------------------------------- what they all do


def model_of(read: Read) -> Model:
    """The model that is read."""
    return load(read.model, dtype=read.dtype)


def prompts_of(read: Read) -> Prompts:
    """The prompts of the options.

    Raises:
        MicrotomeError: none are given, or both texts and a file.
    """
    if bool(read.prompt) == (read.prompts is not None):
        raise MicrotomeError("Give the prompt with -p TEXT, or several with --prompts FILE.")
    if read.prompts is None:
        target, contrast = read.target, read.contrast
        return Prompts(Prompt(text, target=target, contrast=contrast) for text in read.prompt)
    if read.target is not None or read.contrast is not None:
        raise MicrotomeError("With --prompts, target and contrast stand in the file.")
    return Prompts.read(read.prompts)


def check_output(read: Read) -> None:
    """Refuse a place that cannot be written to, before anything runs.

    Raises:
        EffectsError: it cannot be.
        MicrotomeError: an answer is there already.
    """
    out = read.output
    if out is None:
        return
    if is_picture(out):
        check_picture(out, read.overwrite)
        return
    check_folder(out)
    if (out / SUMMARY).exists() and not read.overwrite:
        raise MicrotomeError(f"{out} holds an answer already: name another folder, or --overwrite.")


def deliver(
    read: Read,
    figure: Callable[[], go.Figure],
    document: Callable[[], Document],
    summary: Mapping[str, Any],
) -> None:
    """Write the picture, or the folder, that was asked for."""
    if read.output is None:
        return
    if is_picture(read.output):
        write(figure(), read.output)
    else:
        write_folder(read.output, {}, document, summary)


def placed(read: Read) -> dict[str, str]:
    """Where the answer was written, for JSON."""
    if read.output is None:
        return {}
    return {"picture" if is_picture(read.output) else "folder": str(read.output)}


def say_place(read: Read) -> None:
    """The same, for people."""
    for kind, place in placed(read).items():
        say()
        say(f"Picture: {place}" if kind == "picture" else f"Report: {Path(place) / 'report.html'}")
