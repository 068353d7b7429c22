"""How good approximations are: tables of methods and sites, against every exact effect.

    python -m benchmarks.approximations nano --prompts 4 -o approximations.md
    python -m benchmarks.approximations smollm2 --prompts 1 --circuits --keep kept

**Maps.** For each task and site the whole map is computed exactly and by each method. In the table
stand the correlation of the effects and of their ranks, the share of the 20 strongest that are
among the method's 20 strongest, how often the bound of an audit of 64 cells holds (of 200 audits,
each of other cells), the seconds of both, and how much of the map is exact after the method's.

**Circuits.** Nodes and edges are scored by each method, and circuits of ten sizes are run: CPR, the
area under their faithfulness, of which more is better, and CMD, that between it and 1, of which
less is; how faithful the circuit of each size is; beside exact scores, and the seconds of scoring,
an audit of 8 cells among them.

**Edges of all kinds.** With ``--audited 128`` all edges of the graph are scored, and so many of
them exactly: where there are too many to compute each, correlations and recall are estimated from
these, the strongest and others drawn at random. Beside it, what the edges out of the input add up
to, which is m(donor) − m(clean) by gradients that are complete.

**In pieces.** With ``--keep`` each line is kept in a folder as it is measured, and so is each exact
map: stopped, the same command goes on from there. Lines that are there are not measured again,
whichever tasks, sites and methods are asked for besides. Seconds are of processors, not of the
clock: take one thread (``OMP_NUM_THREADS=1``).

**Peers.** With ``--peers``, attribution patching of heads as TransformerLens' cache of gradients
gives it, on the same weights: the largest difference, and the seconds of both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import microtome as mt
from benchmarks.attribution import against_transformer_lens
from microtome.engines.approximate.method import Method
from microtome.stats.auditing import bound, draw

SITES = {
    "heads": "patch L*.z.h*",
    "keys": "patch L*.k.h*",
    "queries": "patch L*.q.h*",
    "MLPs": "patch L*.mlp_out@*",
    "edges": "patch L*.z.h* -> L*.v_in.h*",
    "edges to MLPs": "patch L*.z.h* -> L*.mlp_in",
}
METHODS: dict[str, tuple[Method, ...]] = {
    "edges": (mt.EAP(), mt.EAPIG()),
    "edges to MLPs": (
        mt.EAP(),
        mt.EAPIG(),
        mt.EAPIG(20),
        mt.EAPIG(50),
        mt.EAPIG(over="activations"),
    ),
    "": (mt.AtP(), mt.AtP(at="donor"), mt.AtPStar(grad_drop=False), mt.AtPStar(), mt.RelP()),
}
EVERY = [*dict.fromkeys(str(one) for own in METHODS.values() for one in own)]
CIRCUITS: tuple[tuple[str, str | Method], ...] = (
    ("node", "exact"),
    ("node", mt.AtP()),
    ("node", mt.RelP()),
    ("edge", "exact"),
    ("edge", mt.EAP()),
    ("edge", mt.EAPIG()),
    ("edge", mt.EAPIG(over="activations")),
)
STRONGEST = 20
AUDITED, AUDITS = 64, 200
SMALL = 8
"""Exact cells of what is timed."""
SHOWN = mt.circuits.SIZES[:-1]
"""Sizes of circuits whose faithfulness is shown; of the whole model it is 1."""
MAPS = (
    "| task | site | method | cells | Pearson | of ranks | recall@20 | bound holds | seconds "
    "| exact, seconds | exact in that time |"
)
SCORED = (
    "| task | of | method | scored | CPR | CMD "
    f"| f at {', '.join(f'{100 * share:g}' for share in SHOWN)} % | seconds |"
)
BY_EDGES = (mt.EAP(), mt.EAPIG(), mt.EAPIG(20))
"""Approximations of the edges of all kinds."""
DRAWN = (
    "| task | method | edges | exact | Pearson | of ranks | same sign | recall@20 "
    "| of the others no more than | out of the input | m(donor) − m(clean) |"
)


@dataclass(frozen=True)
class Kept:
    """Lines that were measured, and exact maps, in a folder.

    Attributes:
        folder: where; None: nowhere.
        of: what all lines are of, such as the model and how many prompts.
    """

    folder: Path | None = None
    of: str = ""

    def line(self, key: str, make: Callable[[], str]) -> str:
        """A line: the one that is kept, or a new one, which is kept then."""
        if self.folder is None:
            return make()
        own = f"{self.of} {key}"
        if own not in self._lines():
            made = make()  # which may keep lines of its own
            lines = {**self._lines(), own: made}
            self.folder.mkdir(parents=True, exist_ok=True)
            beside = self._place.with_suffix(".new")
            beside.write_text(json.dumps(lines, indent=1), encoding="utf-8")
            beside.replace(self._place)
        return self._lines()[own]

    @property
    def _place(self) -> Path:
        assert self.folder is not None, "lines are kept in a folder"
        return self.folder / "lines.json"

    def _lines(self) -> dict[str, str]:
        place = self._place
        found: dict[str, str] = json.loads(place.read_text("utf-8")) if place.exists() else {}
        return found

    def map(self, key: str) -> Path | None:
        """Where an exact map is kept."""
        name = "".join(c if c.isalnum() else "-" for c in f"{self.of} {key}")
        return None if self.folder is None else self.folder / f"{name}.zarr"


NOWHERE = Kept()


def rows(
    model: mt.Model,
    n: int,
    tasks: Sequence[str],
    sites: Sequence[str],
    methods: Sequence[str] = EVERY,
    kept: Kept = NOWHERE,
) -> Iterator[str]:
    """A line of the table of maps for each task, site and method."""
    for task in tasks:
        prompts = prompts_of(model, task, n)
        for site in sites:
            exact = cache(partial(_exact, model, prompts, task, site, kept))
            for method in METHODS.get(site, METHODS[""]):
                if str(method) in methods and _says_something(method, site):
                    make = partial(_row, model, prompts, task, site, method, exact)
                    yield kept.line(f"{task} {site} {method}", make)


def _exact(
    model: mt.Model, prompts: mt.Prompts, task: str, site: str, kept: Kept
) -> tuple[mt.Effects, float]:
    """The exact map, and the seconds that it took."""
    place, found = kept.map(f"{task} {site}"), []

    def measure() -> str:
        began = time.process_time()
        found.append(_sweep(model, prompts, SITES[site], "exact"))
        seconds = time.process_time() - began
        if place is not None:
            found[0].save(place)
        return str(seconds)

    seconds = float(kept.line(f"{task} {site} exact", measure))
    if not found:
        assert place is not None, "the line was kept"
        found.append(mt.open_effects(place))
    return found[0], seconds


def _says_something(method: Method, site: str) -> bool:
    """Of keys and queries RelP says nothing; elsewhere AtP* without GradDrop is AtP."""
    if site in ("keys", "queries"):
        return not isinstance(method, mt.RelP)
    return method != mt.AtPStar(grad_drop=False)


def prompts_of(model: mt.Model, task: str, n: int, seed: int = 0) -> mt.Prompts:
    """A task's prompts in the words of the model."""
    found: mt.Prompts = getattr(mt.tasks, task)(n=n, seed=seed, tokenizer=model.tokenizer)
    return found


def _row(
    model: mt.Model,
    prompts: mt.Prompts,
    task: str,
    site: str,
    method: Method,
    exactly: Callable[[], tuple[mt.Effects, float]],
) -> str:
    exact, seconds = exactly()
    began = time.process_time()
    found = _sweep(model, prompts, SITES[site], method)
    own = time.process_time() - began
    true, rough, groups = flat(exact, found)
    pearson, ranks = np.corrcoef(rough, true)[0, 1], spearmanr(rough, true).statistic
    strongest = (set(np.argsort(-np.abs(values))[:STRONGEST].tolist()) for values in (rough, true))
    recall = len(set.intersection(*strongest)) / min(STRONGEST, len(true))
    covered = holds(true, rough, groups)
    shown = "all exact" if covered is None else f"{covered:.1%}"
    return (
        f"| {task} | {site} | `{method}` | {len(true):,} | {pearson:.3f} | {ranks:.3f} "
        f"| {recall:.2f} | {shown} | {own:.1f} | {seconds:.1f} | {min(1.0, own / seconds):.0%} |"
    )


def flat(exact: mt.Effects, found: mt.Effects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact and approximate effects of the cells that change something, and their layers."""
    true, rough = exact.delta("logit_diff"), found.approximate("logit_diff")
    by = "from_layer" if "from_layer" in true.dims else "layer"
    layers = true[by].broadcast_like(true).transpose(*true.dims).values
    there = np.isfinite(true.values) & np.isfinite(rough.values)
    there &= exact.data["values_changed"].transpose(*true.dims).values > 0
    return true.values[there], rough.values[there], layers[there]


def holds(exact: np.ndarray, rough: np.ndarray, groups: np.ndarray, seed: int = 0) -> float | None:
    """In what share of audits the bound is true of the cells that are not exact; None of none."""
    chance, true = np.random.default_rng(seed), 0
    for _ in range(AUDITS):
        drawn = draw(rough, groups, AUDITED, chance)
        own = drawn.cells
        found = bound(drawn, rough[own], exact[own])
        if found is None:
            return None
        others = np.setdiff1d(np.arange(len(exact)), own)
        above = (np.abs(exact[others]) > found.effect).sum()
        true += above <= found.share * found.cells + 1e-9
    return true / AUDITS


def circuit_rows(
    model: mt.Model, n: int, tasks: Sequence[str], methods: Sequence[str], kept: Kept = NOWHERE
) -> Iterator[str]:
    """A line of the table of circuits for each task, level and method."""
    for task in tasks:
        prompts = prompts_of(model, task, n)
        for level, method in CIRCUITS:
            if f"{level} {method}" in methods:
                make = partial(_scored, model, prompts, task, level, method)
                yield kept.line(f"{task} {level} {method}", make)


def _scored(
    model: mt.Model, prompts: mt.Prompts, task: str, level: str, method: str | Method
) -> str:
    began = time.process_time()
    scores = mt.circuits.score(
        model, prompts, method=method, level=level, audit=SMALL, progress=False
    )
    seconds = time.process_time() - began
    found = mt.circuits.curve(model, prompts, scores, resamples=99, progress=False)
    faithful = found.data["faithfulness"].sel(share=[*SHOWN]).values
    return (
        f"| {task} | {level}s | `{method}` | {len(scores):,} | {found.cpr.value:.3f} | "
        f"{found.cmd.value:.3f} | {' / '.join(f'{f:.2f}' for f in faithful)} | {seconds:.1f} |"
    )


def audited_rows(
    model: mt.Model, n: int, tasks: Sequence[str], cells: int, kept: Kept = NOWHERE
) -> Iterator[str]:
    """A line of the table of edges of all kinds for each task and method."""
    for task in tasks:
        prompts = prompts_of(model, task, n)
        for method in BY_EDGES:
            make = partial(_audited, model, prompts, task, method, cells)
            yield kept.line(f"{task} {method} audited {cells}", make)


def _audited(model: mt.Model, prompts: mt.Prompts, task: str, method: Method, cells: int) -> str:
    scores = mt.circuits.score(model, prompts, method=method, audit=cells, progress=False)
    found = scores.audit
    assert found is not None, "it is no exact method"
    recall, bound = found["recall"], found["bound"]
    found_of = "" if recall is None else "{share:.2f} ({low:.2f} to {high:.2f})".format(**recall)
    others = "all exact" if bound is None else "{share:.1%} above {effect:.2g}".format(**bound)
    first = [edge.startswith("input->") for edge in scores.graph.edges]
    added = -scores.data["approximate"].values[:, first].sum(axis=1).mean()
    moved = _sweep(model, prompts, "patch embed", "exact").delta("logit_diff").values.mean()
    return (
        f"| {task} | `{method}` | {len(scores):,} | {found['cells']} | {found['pearson']:.3f} "
        f"| {found['spearman']:.3f} | {found['signs']:.0%} | {found_of} | {others} "
        f"| {added:.2f} | {moved:.2f} |"
    )


def _sweep(model: mt.Model, prompts: mt.Prompts, edit: str, method: str | Method) -> mt.Effects:
    return mt.sweep(
        model,
        prompts,
        edit,
        metrics="logit_diff",
        verify=0,
        progress=False,
        method=method,
        audit=SMALL,
    )


def main() -> None:
    """Write the tables."""
    scored = [f"{level} {method}" for level, method in CIRCUITS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tasks", nargs="+", default=["ioi", "capitals", "greater_than"])
    parser.add_argument("--sites", nargs="*", default=[*SITES], choices=[*SITES])
    parser.add_argument("--methods", nargs="+", default=EVERY, choices=EVERY, metavar="METHOD",
                        help=f"of maps: {', '.join(EVERY)}")  # fmt: skip
    parser.add_argument("--circuits", action="store_true", help="score circuits as well")
    parser.add_argument("--scores", nargs="+", default=scored, choices=scored, metavar="SCORES",
                        help=f"which of them: {', '.join(scored)}")  # fmt: skip
    parser.add_argument("--audited", type=int, default=0, metavar="CELLS",
                        help="edges of all kinds, so many of them exact")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="a folder: the same again goes on from there")
    parser.add_argument("--peers", action="store_true", help="TransformerLens beside it")
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    model = mt.load(given.model)
    kept = Kept(given.keep, f"{given.model} {given.prompts}")
    lines: list[str] = []

    def tell(table: Iterator[str]) -> None:
        for line in table:
            print(line, flush=True)
            lines.append(line)

    if given.sites:
        tell(iter([MAPS, "|" + "---|" * 11]))
        tell(rows(model, given.prompts, given.tasks, given.sites, given.methods, kept))
    if given.circuits:
        tell(iter(["", SCORED, "|" + "---|" * 8]))
        tell(circuit_rows(model, given.prompts, given.tasks, given.scores, kept))
    if given.audited:
        tell(iter(["", DRAWN, "|" + "---|" * 11]))
        tell(audited_rows(model, given.prompts, given.tasks, given.audited, kept))
    if given.peers:
        tell(iter([""]))
        for task in given.tasks:
            tell(against_transformer_lens(model, prompts_of(model, task, given.prompts), task))
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
