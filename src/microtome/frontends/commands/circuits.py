"""``microtome circuit``: score, find, evaluate and draw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microtome import Model, Prompt, Prompts, circuits, load
from microtome.amounts import many
from microtome.circuits import Circuit, Found, Scores
from microtome.circuits.journal import measured_in
from microtome.errors import CircuitError, MicrotomeError, listing, there_are
from microtome.figures.pictures import check_picture
from microtome.frontends.arguments import Shown
from microtome.frontends.circuit_commands import Trying
from microtome.frontends.commands.keeping import again, answering, keeping, writing_to
from microtome.frontends.experiment.circuit import CircuitExperiment, kept_of, scored_in
from microtome.frontends.experiment.searching import TAKES, Searching
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.report import check_folder
from microtome.report.folder import Folder
from microtome.report.layout import SUMMARY
from microtome.report.of_circuit import document_of_circuit, document_of_curve, how_good_are
from microtome.studies.perform import prompts_at

TOP = 10


def score(
    name: str, trying: Trying, how: Mapping[str, Any], keep: Path | None, out: Path, shown: Shown,
    overwrite: bool,
) -> None:  # fmt: skip
    """Score every edge or node, and write that down."""
    _check_free(out, overwrite)
    with answering(shown), keeping(keep, scored_in):
        model = load(name, dtype=trying.dtype)
        scores = circuits.score(
            model, _prompts(model, trying), trying.metric or "logit_diff", out=keep, **how,
            **_trial(trying),
        )  # fmt: skip
        scores.save(out)
    if shown.json:
        answer = {"scores": str(out), "level": scores.level}
        audit = {} if scores.audit is None else {"audit": scores.audit}
        print_json({**answer, "top": scores.top(TOP).to_dict("records"), **audit})
        return
    say(repr(scores))
    print_table(Table.of(scores.top(TOP), names=(scores.level,)))
    if scores.audit is not None:
        say(how_good_are(scores))
    say(f"Scores: {out}")


def find(
    name: str, trying: Trying, how: Mapping[str, Any], out: Path, shown: Shown, overwrite: bool
) -> None:
    """Find a circuit, and write it down."""
    _check_free(out, overwrite)
    if how["by"] not in TAKES:
        raise CircuitError(f"No search is called {how['by']!r}; {there_are(how['by'], TAKES)}")
    _refuse_idle_scores(how)
    _refuse_idle(trying, how)
    with answering(shown), keeping(how["keep"], measured_in):
        model = load(name, dtype=trying.dtype)
        found = _found(model, trying, how)
        found.circuit.save(out)
    answer = {"circuit": str(out), "method": found.method, "edges": len(found.circuit)}
    if shown.json:
        print_json({**answer, "nodes": list(found.circuit.nodes)})
        return
    say(repr(found))
    say(f"Circuit: {out}")


def _refuse_idle_scores(how: Mapping[str, Any]) -> None:
    """Raise where scores are given and nothing is done with them."""
    if how["by"] != "top" and how["scores"] is not None and not how["start"]:
        raise CircuitError(
            f"{how['by']} measures every edge itself, and takes of --scores where it begins: say "
            "with how many of the strongest, --start 300; or leave --scores out to begin with all."
        )


def _refuse_idle(trying: Trying, how: Mapping[str, Any]) -> None:
    """Raise where something is given that the search does not look at."""
    own, unsaid = TAKES[how["by"]], Searching.model_fields
    names = sorted({name for others in TAKES.values() for name in others}.difference(own))
    idle = [name for name in names if how[name] != unsaid[name].default]
    if how["by"] == "top":  # it runs nothing
        plain = vars(Trying(dtype=trying.dtype))
        idle += [name for name, value in vars(trying).items() if value != plain[name]]
        idle += [name for name in ("keep",) if how[name] is not None]
    if idle:
        spelled = listing(f"--{name}" if len(name) > 1 else f"-{name}" for name in idle)
        takes = listing((*own, "scores") if how["by"] == "top" else own)
        raise CircuitError(
            f"{how['by']} does not look at {spelled}; it takes: {takes}. Leave out what it does "
            "not look at, or name another search, --by."
        )


def _found(model: Model, trying: Trying, how: Mapping[str, Any]) -> Found:
    scores = None if how["scores"] is None else _scores_of(how["scores"], model)
    if how["by"] == "top":
        if scores is None:
            raise CircuitError("The strongest edges are by scores: --scores scores.zarr.")
        return circuits.top(scores, how["n"], threshold=how["threshold"])
    if how["start"] is not None and scores is None:
        raise CircuitError("--start is of scores: --scores scores.zarr.")
    start = scores.circuit(how["start"]) if scores is not None and how["start"] else None
    more = {"start": start, "out": how["keep"], **_trial(trying)}
    prompts = _prompts(model, trying)
    if how["by"] == "greedy":
        return circuits.greedy(
            model, prompts, trying.metric or "logit_diff", n=how["n"] or 0,
            tolerance=how["tolerance"], every=how["every"], **more,
        )  # fmt: skip
    if how["threshold"] is None:
        raise CircuitError("acdc keeps edges that cost at least τ: --threshold 0.05.")
    order = int(how["order"]) if how["order"].isdigit() else how["order"]
    return circuits.acdc(
        model, prompts, how["threshold"], trying.metric or "kl", order=order, **more
    )


def evaluate(
    name: str, of: Path, trying: Trying, out: Path | None, shown: Shown, overwrite: bool
) -> None:
    """Say how faithful a circuit is, or circuits of growing size."""
    if out is not None:
        check_folder(out)
        _check_free(out / SUMMARY, overwrite)
    command = again()
    with answering(shown):
        model = load(name, dtype=trying.dtype)
        prompts, how = _prompts(model, trying), _trial(trying)
        if of.suffix == ".json":
            circuit = Circuit.open(of, model)
            data = circuits.faithfulness(
                model, prompts, circuit, trying.metric or "logit_diff", **how
            )
            document = document_of_circuit(model.name, circuit, data, command)
            answer: dict[str, Any] = {
                key: float(data[key]) for key in ("faithfulness", "low", "high")
            }
            answer["edges"] = len(circuit)
        else:
            scores = _scores_of(of, model)
            curve = circuits.curve(model, prompts, scores, trying.metric, **how)
            document = document_of_curve(model.name, scores, curve, command)
            answer = {"cpr": curve.cpr.value, "cmd": curve.cmd.value}
            names = ("edges", "faithfulness", "low", "high")
            frame = curve.data[[*names]].to_dataframe().reset_index()[["share", *names]]
            answer["sizes"] = frame.replace({np.nan: None}).to_dict("records")
        if out is not None:
            with Folder(out, ()) as folder:
                folder.finish(document, answer)
    _show(answer, out, shown)


def run(config: Path, out: Path | None, shown: Shown, overwrite: bool) -> None:
    """Score, search and judge, as a file says."""
    instead = {} if out is None else {"out": out}
    experiment = CircuitExperiment.read(config, **instead)
    place = experiment.out
    if place is None:
        raise MicrotomeError(
            "Say where scores, circuit and report go: -o DIR, or out: in the file."
        )
    with answering(shown), writing_to(place, kept_of):
        found = experiment.run(overwrite=overwrite, command=again())
    _show(found.summary(), place, shown)


def _show(answer: Mapping[str, Any], out: Path | None, shown: Shown) -> None:
    if shown.json:
        print_json({**answer, "report": None if out is None else str(out / "report.html")})
        return
    if "sizes" in answer:
        headers = tuple(answer["sizes"][0])
        rows = (tuple(one.values()) for one in answer["sizes"])
        print_table(Table(headers, tuple(rows)))
        say(f"CPR {answer['cpr']:.4f}, CMD {answer['cmd']:.4f}")
    else:
        say(
            f"Faithfulness {answer['faithfulness']:.4f} (95 % interval {answer['low']:.4f} … "
            f"{answer['high']:.4f}), {many(answer['edges'], 'edge')}"
        )
    if out is not None:
        say(f"Report: {out / 'report.html'}")


def draw(of: Path, output: Path, n: int, matrix: bool, shown: Shown, overwrite: bool) -> None:
    """Draw a circuit, or all edges."""
    check_picture(output, overwrite)
    with answering(shown):
        if of.suffix == ".json":
            figure = circuits.draw(Circuit.open(of))
        else:
            scores = circuits.open_scores(of)
            figure = (
                circuits.draw_edges(scores)
                if matrix
                else circuits.draw(scores.circuit(min(n, len(scores))))
            )
        figure.save(output)
    if shown.json:
        print_json({"picture": str(output)})
    elif not shown.quiet:
        say(f"Picture: {output}")


def _check_free(place: Path, overwrite: bool) -> None:
    """Refuse to write over an answer, before anything runs."""
    if place.exists() and not overwrite:
        there = f"{place.parent} holds an answer" if place.name == SUMMARY else f"{place} is there"
        raise MicrotomeError(f"{there} already: name another place, or --overwrite.")


def _scores_of(path: Path, model: Model) -> Scores:
    scores = circuits.open_scores(path)
    own = circuits.Graph.of(model)
    if scores.graph != own:
        raise CircuitError(
            f"The scores in {path} are of a model with {scores.graph}, and {model.name!r} has "
            f"{own}: score that one."
        )
    return scores


def _trial(trying: Trying) -> dict[str, Any]:
    reference = () if trying.reference is None else Prompts.read(trying.reference)
    return {
        "ablation": trying.ablation,
        "reference": reference,
        "memory": trying.memory,
        "workers": trying.workers,
    }


def _prompts(model: Model, trying: Trying) -> Prompts:
    if (trying.prompts is None) == (not trying.prompt):
        raise MicrotomeError(
            "Give the prompt with -p TEXT, or several with --prompts FILE or a task, ioi:16."
        )
    if trying.prompts is None:
        return Prompts(
            Prompt(text, donor=trying.donor, target=trying.target, contrast=trying.contrast)
            for text in trying.prompt
        )
    return prompts_at(trying.prompts, model)
