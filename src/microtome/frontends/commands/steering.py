"""``microtome steer`` and ``microtome dose``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from microtome import Model, load
from microtome.errors import EffectsError, MicrotomeError
from microtome.frontends.arguments import Asking, Shown
from microtome.frontends.commands.asking import fields_of
from microtome.frontends.commands.keeping import again, answering, keeping
from microtome.frontends.experiment.reading import ReadDose
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.frontends.steering_commands import Making
from microtome.prompts.files import rows_of
from microtome.report import Folder, check_folder
from microtome.report.layout import is_answered
from microtome.report.of_dose import document_of_dose, summary_of_dose
from microtome.results.opening import SEVERAL
from microtome.steering import SteeringVector, contrast, of_text, of_token
from microtome.texts import number
from microtome.verbs.dose import neutral_of


def steer(
    model: str, making: Making, output: Path, overwrite: bool, dtype: str | None, shown: Shown
) -> None:
    """Make a vector, keep it, and show how long it is in each layer."""
    if output.exists() and not overwrite:
        raise EffectsError(f"{output} is there already: name another file, or --overwrite.")
    with answering(shown):
        vector = _made(load(model, dtype=dtype), making)
        if output.suffix == ".gguf" and 0 in vector.layers and len(vector.layers) > 1:
            vector = vector.only(vector.layers[1:])  # llama.cpp has no place for layer 0
        vector.save(output)
    if shown.json:
        print_json(
            {"file": str(output), "site": vector.site, "norms": vector.norms, **vector.about}
        )
        return
    say(repr(vector))
    rows = tuple(vector.norms.items())
    print_table(Table(("layer", "norm"), rows))
    say(f'Kept in {output}: add("{output}") L{vector.layers[-1]}.{vector.site}')


def _made(model: Model, making: Making) -> SteeringVector:
    positive, negative = [*making.positive], [*making.negative]
    if making.pairs is not None:
        for where, fields in rows_of(making.pairs):
            if set(fields) != {"positive", "negative"}:
                raise MicrotomeError(f"{where}: a pair has two fields, positive and negative.")
            positive.append(fields["positive"])
            negative.append(fields["negative"])
    kinds = [bool(positive or negative), making.text is not None, making.token is not None]
    if sum(kinds) != 1:
        raise MicrotomeError(
            "Say what the vector is made of, and once: --positive and --negative, or --pairs; "
            "--text; or --token."
        )
    how = {"site": making.site, "at": making.at}
    if making.token is not None:
        return of_token(model, making.token, without=making.without, normalise=making.normalise)
    if making.text is not None:
        return of_text(
            model, making.text, without=making.without, normalise=making.normalise, **how
        )
    if making.without is not None:
        raise MicrotomeError("--without goes with --text or --token; of contrasts, --negative.")
    if not (positive and negative):
        raise MicrotomeError("A contrast has two sides: give --positive and --negative.")
    return contrast(model, positive, negative, how=making.how, normalise=making.normalise, **how)


def dose(
    question: Asking,
    neutral: Sequence[str],
    output: Path | None,
    budget: float,
    overwrite: bool,
    shown: Shown,
) -> None:
    """Measure doses; show the strongest that cost little, and leave the report."""
    asked = _dose_of(question, neutral, output)
    output = asked.out
    if output is not None:
        check_folder(output)
        _check_free(output, _at_most(output, asked), overwrite)
    command = again()
    place = nullcontext() if output is None else Folder(output)
    with answering(shown), keeping(output, option="-o"), place as folder:
        found = asked.run(out=output, overwrite=overwrite)
        if folder is not None:
            _check_free(folder.out, len(found.damage), overwrite)
            folder.begin()
            folder.kept()
            folder.kept_besides(map(neutral_of, range(len(found.damage))))
            folder.finish(lambda: document_of_dose(found, command), summary_of_dose(found))
    best = found.best(kl=budget, top=10)
    if shown.json:
        where = {} if output is None else {"folder": str(output)}
        print_json({**summary_of_dose(found), "best": Table.of(best).records, **where})
        return
    say(repr(found))
    clean = number(float(found.data["clean_perplexity"]))
    say(f"Perplexity of the neutral texts without edits: {clean}")
    say()
    say(f"The largest effects at {number(budget)} nat per token or less", heading="Best")
    if len(best):
        print_table(Table.of(best))
    else:
        least = number(float(found.table()["kl"].min()))
        say(f"No dose costs so little: the least is {least} nat. Try smaller doses, or --budget.")
    if output is not None:
        say()
        say(f"Report: {output / 'report.html'}")


def _check_free(output: Path, texts: int, overwrite: bool) -> None:
    """Refuse a folder with an answer, or with more than doses on so many neutral texts leave."""
    names = ["", *map(neutral_of, range(texts))]
    if is_answered(output, names) and not overwrite:
        raise EffectsError(f"{output} holds an answer already: another folder, or --overwrite.")


def _at_most(output: Path, asked: ReadDose) -> int:
    """How many neutral texts there are; of a file or a task, which are not read yet, at most."""
    given = asked.neutral
    return len(given if isinstance(given, tuple) else [*(output / SEVERAL).glob("*")])


def _dose_of(question: Asking, neutral: Sequence[str], output: Path | None) -> ReadDose:
    """What options, and perhaps a file, ask for."""
    options = {**fields_of(question), "neutral": [*neutral], "out": output}
    given = {name: value for name, value in options.items() if value not in (None, [], {})}
    if question.config is not None:
        return ReadDose.read(question.config, **given)
    if "over" not in given:
        raise MicrotomeError("Say which doses: --over factor=-1,0.5,1.")
    if "neutral" not in given:
        raise MicrotomeError("Say what they may cost: --neutral TEXT, as often as wanted.")
    return ReadDose(**given)
