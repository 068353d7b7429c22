"""``microtome lens`` and the other commands that read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go

from microtome import Prompt, Prompts, load
from microtome.errors import MicrotomeError
from microtome.figures.pictures import check_picture, is_picture, write
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.asking import prompts_in
from microtome.frontends.commands.keeping import answering, writing_to
from microtome.frontends.experiment.options import checkpoint
from microtome.frontends.experiment.reading import Read as Reading
from microtome.frontends.experiment.reading import ReadAttribution, ReadLens
from microtome.frontends.reading_commands import Read
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.readings.translators import CONFIG, Translators
from microtome.readings.translators import check_folder as check_place
from microtome.report import Document, check_folder, write_folder
from microtome.report.layout import is_answered
from microtome.report.of_attribution import document_of_attribution, summary_of_attribution
from microtome.report.of_lens import document_of_lens, summary_of_lens
from microtome.studies.perform import prompts_at
from microtome.texts import number, visible
from microtome.verbs.attribution import attribute_neurons
from microtome.verbs.tuning import LEFT, train_translators, trained_in

F = TypeVar("F", bound=Reading)


def lens(read: Read, shown: Shown, given: Mapping[str, Any]) -> None:
    """Show what states say at the last position, and write the map."""
    asked = asked_of(ReadLens, read, prompts_given(read), given)
    read = placed_by(read, asked)
    with answering(shown):
        seen = asked.run()
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
    overwrite: bool,
) -> None:
    """Train translators, and show how much nearer they come."""
    steps, batch, seed = recipe
    given = prompts_in(prompts)
    check_place(output)
    there = (output / CONFIG).exists() and not overwrite
    if there and LEFT not in Translators.load(output).about:
        raise MicrotomeError(
            f"{output} holds translators already: name another folder, or --overwrite."
        )
    with answering(shown), writing_to(output, trained_in):
        loaded = load(model, dtype=dtype)
        told = (lambda line: None) if shown.quiet or shown.json else say
        texts = given if isinstance(given, Prompts) else prompts_at(prompts, loaded)
        made = train_translators(
            loaded, texts, steps=steps, batch=batch, seed=seed, tell=told,
            out=output, overwrite=overwrite,
        )  # fmt: skip
    if shown.json:
        print_json({**made.about, "folder": str(output)})
    else:
        say(f"Translators: {output}")


def attribute(read: Read, shown: Shown, metric: str | None, top: int, neurons: int | None) -> None:
    """Show the largest shares, of writers or of the neurons of a layer."""
    asked = asked_of(ReadAttribution, read, prompts_given(read), {"metric": metric})
    read = placed_by(read, asked)
    with answering(shown):
        model, prompts = asked.of(None)
        found = asked.run(model)
        deliver(
            read,
            found.figure,
            lambda: document_of_attribution(found),
            summary_of_attribution(found),
        )
        frame = found.table(top)
        if neurons is not None:
            frame = attribute_neurons(model, prompts, neurons, asked.metric, k=top)
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


def asked_of(kind: type[F], read: Read, prompts: object, given: Mapping[str, Any]) -> F:
    """What options, and perhaps a file, ask for; an option goes before its field, as a whole.

    Args:
        kind: the form of the command.
        read: the options of all commands that read.
        prompts: those of the options, or None.
        given: the command's own options, by their fields; what is None or empty was not given.

    Raises:
        ExperimentError: a field is wrong.
        MicrotomeError: no model is given.
    """
    options = {
        "model": checkpoint(read.model, read.dtype, None, None, None),
        "prompts": prompts,
        "out": read.output,
        **given,
    }
    fields = {name: value for name, value in options.items() if value not in (None, [], {})}
    if read.config is not None:
        return kind.read(read.config, **fields)
    if "model" not in fields:
        raise MicrotomeError("Give a model, such as nano, or a file with --config.")
    return kind(**fields)


def prompts_given(read: Read) -> Prompts | dict[str, Any] | None:
    """The prompts of the options; None where a file names its own.

    Raises:
        MicrotomeError: none are given, or both texts and a file.
    """
    anything = (read.prompt, read.prompts, read.target, read.contrast)
    if read.config is not None and not any(anything):
        return None
    if bool(read.prompt) == (read.prompts is not None):
        raise MicrotomeError("Give the prompt with -p TEXT, or several with --prompts FILE.")
    if read.prompts is None:
        target, contrast = read.target, read.contrast
        return Prompts(Prompt(text, target=target, contrast=contrast) for text in read.prompt)
    if read.target is not None or read.contrast is not None:
        raise MicrotomeError("With --prompts, target and contrast stand in the file.")
    return prompts_in(read.prompts)


def placed_by(read: Read, asked: Reading, names: Iterable[str] = ()) -> Read:
    """The options with the place that options or file name; see `check_output`."""
    read = replace(read, output=asked.out)
    check_output(read, names)
    return read


def check_output(read: Read, names: Iterable[str] = ()) -> None:
    """Refuse a place that cannot be written to, before anything runs.

    Args:
        read: the options.
        names: of the results that are kept there, and gone on with.

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
    if is_answered(out, names) and not read.overwrite:
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
