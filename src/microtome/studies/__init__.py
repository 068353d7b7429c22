"""Studies: published experiments as one command, claim by claim; one file a study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from microtome import provenance
from microtome.effects import Effects
from microtome.errors import StudyError, did_you_mean, listing
from microtome.model.load import load
from microtome.model.model import Model
from microtome.prompts import Prompt
from microtome.report import Document, Finding, Snippet, TokenRow, write_folder
from microtome.studies import head_ablation, ioi_head_token
from microtome.studies.study import Performance, Study

STUDIES: Mapping[str, Study] = MappingProxyType(
    {study.name: study for study in (head_ablation.STUDY, ioi_head_token.STUDY)}
)
"""Name → study."""


@dataclass(frozen=True)
class Result:
    """What a study gives: its sweeps by name, its findings, its report and the numbers kept."""

    study: Study
    effects: Mapping[str, Effects]
    findings: tuple[Finding, ...]
    document: Document
    summary: Mapping[str, Any]


def find(name: str) -> Study:
    """The study of this name.

    Raises:
        StudyError: there is none.
    """
    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES)
        raise StudyError(f"No study is called {name!r}. Studies: {listing(STUDIES)}.{hint}")
    return STUDIES[name]


def run(
    name: str,
    model: str | Path | Model | None = None,
    out: str | Path | None = None,
    prompt: Prompt | None = None,
) -> Result:
    """Run a study.

    Args:
        name: see `STUDIES`.
        model: a loaded model or what `load` takes; by default the published checkpoint.
        out: a folder for effects, figures, ``summary.json`` and ``report.html``.
        prompt: in the place of the published one; claims are then measured, not judged.

    Raises:
        StudyError: there is no such study.
        PromptError, TokenError, MetricError: the prompt does not fit this model or study.
    """
    study = find(name)
    loaded = model if isinstance(model, Model) else load(model or study.published_on)
    prompt = prompt or study.prompt
    done = study.perform(loaded, prompt)
    comparable = study.comparable(loaded, prompt)
    findings = tuple(claim.judge(measured, comparable) for claim, measured in done.measured)
    document = _document(study, loaded, prompt, done, findings)
    summary = {
        "study": study.name,
        "model": provenance.of_model(loaded),
        "prompt": prompt.as_dict(),
        **done.numbers,
        **provenance.of_machine(),
    }
    if out is not None:
        write_folder(Path(out), done.effects, document, summary)
    return Result(study, done.effects, findings, document, summary)


def _document(
    study: Study, model: Model, prompt: Prompt, done: Performance, findings: tuple[Finding, ...]
) -> Document:
    [encoded] = model.encode(prompt)
    tokens = [TokenRow("recipient", encoded.tokens.pieces)]
    if encoded.donor is not None:
        tokens.append(TokenRow("donor", encoded.donor.pieces))
    return Document(
        title=study.title,
        question=study.question,
        method=study.method,
        sections=done.sections,
        findings=findings,
        snippets=_snippets(study, model, prompt),
        provenance={
            "study": study.name,
            "prompt": prompt.as_dict(),
            "model": provenance.of_model(model),
            "engine": next(iter(done.effects.values())).provenance["engine"],
            "cells": sum(effects.n_cells for effects in done.effects.values()),
            **provenance.of_machine(),
        },
        tokens=tuple(tokens),
    )


def _snippets(study: Study, model: Model, prompt: Prompt) -> tuple[Snippet, ...]:
    """How to run this again, from Python and from a shell."""
    own = {} if prompt == study.prompt else prompt.as_dict()
    arguments = "".join(f", {name}={value!r}" for name, value in own.items() if name != "text")
    given = f", prompt=mt.Prompt({own['text']!r}{arguments})" if own else ""
    options = {"text": "prompt"}
    shell = "".join(
        f" --{options.get(name, name)} {shlex.quote(value)}"
        for name, value in own.items()
        if isinstance(value, str)
    )
    python = f"import microtome as mt\n\nmt.studies.run({study.name!r}, model={model.name!r}"
    return (
        Snippet("In Python", f'{python}{given}, out="results/{study.name}")'),
        Snippet(
            "In a shell",
            f"microtome study run {study.name} --model {shlex.quote(model.name)}"
            f" -o results/{study.name}{shell}",
        ),
    )
