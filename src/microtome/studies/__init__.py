"""Studies: published experiments as one command, claim by claim; one file a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from microtome.errors import StudyError, did_you_mean, listing
from microtome.report import Overview
from microtome.spoken import spoken
from microtome.studies import (
    ablation_methods,
    causal_tracing,
    cosine_ripple,
    head_ablation,
    hidden_scaling,
    ioi_circuit,
    ioi_head_token,
    ioi_levels,
    noisy_bert,
    pineapple_pizza,
    replace_activations,
    several,
    trust_the_map,
)
from microtome.studies.cost import Predicted, predict
from microtome.studies.everything import run_all
from microtome.studies.parameters import read_config
from microtome.studies.perform import Result, Tell, given_in, perform, silent
from microtome.studies.study import Study
from microtome.verbs.model import Model
from microtome.workers import Workers

STUDIES: Mapping[str, Study[Any]] = MappingProxyType(
    {
        module.STUDY.name: module.STUDY
        for module in (
            hidden_scaling,
            replace_activations,
            ablation_methods,
            head_ablation,
            cosine_ripple,
            ioi_levels,
            ioi_head_token,
            ioi_circuit,
            pineapple_pizza,
            causal_tracing,
            noisy_bert,
            trust_the_map,
        )
    }
)
"""Name → study, from the sledgehammer to the scalpel."""


@spoken
def find(name: str) -> Study[Any]:
    """The study of this name.

    Raises:
        StudyError: there is none.
    """
    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES)
        raise StudyError(f"No study is called {name!r}. Studies: {listing(STUDIES)}.{hint}")
    return STUDIES[name]


@spoken
def run(
    name: str | None = None,
    model: str | Path | Model | None = None,
    out: str | Path | None = None,
    *,
    config: str | Path | None = None,
    tell: Tell = silent,
    overwrite: bool = False,
    workers: Workers | str | None = None,
    **parameters: Any,
) -> Result:
    """Run a study.

    Args:
        name: see `STUDIES`; may stand in the file instead, as ``study``.
        model: a loaded model or what `load` takes; by default the published checkpoint.
        out: a folder for effects, figures, ``summary.json`` and ``report.html``.
        config: a YAML file with the same fields as ``parameters``, which go before it.
        tell: takes a line whenever a step begins.
        overwrite: replace results of other questions that are in ``out``. Of the same questions
            they are used, as far as they are done.
        workers: who runs the units of its sweeps, as `sweep` takes them.
        **parameters: in the place of the published ones: ``prompt`` (a text, or a `Prompt` with
            all that belongs to it), ``target``, ``contrast``, ``donor``, ``roles``; ``prompts`` (a
            ``.jsonl`` or ``.csv`` file, prompts, or a task in the words of the model's tokenizer,
            such as ``"ioi:16"``); ``lang`` (``"en"`` or ``"vi"``); and the
            study's own, such as ``layer``. On another model, or with other parameters than
            published, claims are judged by the same rule, and the verdict says that it is of here.

    Raises:
        StudyError: there is no such study or parameter, or a value does not fit.
        PromptError, TokenError, MetricError: a prompt does not fit this model or study.

    >>> run("head-ablation", model="nano").findings[1].verdict
    'does not hold here'
    """
    study = find(named(name, config))
    given = given_in(config, parameters)
    given.pop("study", None)
    return perform(study, given, model, out, tell, overwrite, workers)


@spoken
def compare(
    names: str | Iterable[str] | None,
    models: Sequence[str | Path | Model],
    out: str | Path | None = None,
    *,
    config: str | Path | None = None,
    tell: Tell = silent,
    overwrite: bool = False,
    workers: Workers | str | None = None,
    **parameters: Any,
) -> Overview:
    """Run a study, several, or all of them, on several models: which published claims generalise?

    Args:
        names: one name, several, or None for all. Several are run as published.
        models: loaded models, or what `load` takes.
        out: a folder with one for each model, ``overview.html`` and ``overview.json``.
        config, tell, overwrite, workers: see `run`.
        **parameters: of the one study, see `run`; of several, ``lang`` alone.

    Raises:
        StudyError: there is no such study or parameter, a model is given twice, or fewer than two
            are.
        EffectsError: a folder cannot be written to; nothing ran.

    >>> compare("ioi-levels", ["nano"])
    Traceback (most recent call last):
        ...
    microtome.errors.StudyError: An overview is of two models or more; given: ['nano'].
    """
    if isinstance(names, str) or (names is None and config is not None):
        given = given_in(config, parameters)
        given.pop("study", None)
        chosen = [find(named(names, config))]
        return several.compare(chosen, models, out, given, tell, overwrite, workers)
    chosen = [*STUDIES.values()] if names is None else [find(name) for name in names]
    if config is not None or parameters.keys() - {"lang"}:
        raise StudyError(
            "Several studies are run with their own published parameters: give lang alone, "
            "or one study."
        )
    return several.compare(chosen, models, out, parameters, tell, overwrite, workers)


def named(name: str | None, config: str | Path | None) -> str:
    """The study that is meant, by its name or by the field ``study`` of a file.

    Raises:
        StudyError: neither names one, or they name different ones.
    """
    in_file = None if config is None else read_config(config).get("study")
    if name is None and in_file is None:
        raise StudyError(f"Name a study: {listing(STUDIES)}.")
    if name is not None and in_file not in (None, name):
        raise StudyError(f"{config} is for {in_file!r}, and {name!r} was asked for.")
    return str(in_file) if name is None else name


__all__ = [
    "STUDIES",
    "Overview",
    "Predicted",
    "Result",
    "Study",
    "compare",
    "find",
    "named",
    "predict",
    "run",
    "run_all",
]
