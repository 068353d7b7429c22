"""How good approximations are: a table of methods and sites, against every exact effect.

    python -m benchmarks.approximations nano --prompts 4 -o approximations.md

For each task and site, the whole map is computed exactly and by each method; in the table stand the
correlation of the effects, the share of the 20 strongest that are among the method's 20 strongest,
and the seconds of both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import microtome as mt
from microtome.engines.approximate.method import Method

SITES = {
    "heads": "patch L*.z.h*",
    "keys": "patch L*.k.h*",
    "queries": "patch L*.q.h*",
    "MLPs": "patch L*.mlp_out@*",
    "edges": "patch L*.z.h* -> L*.v_in.h*",
}
METHODS = {
    "edges": (mt.EAP(), mt.EAPIG()),
    "": (mt.AtP(), mt.AtP(at="donor"), mt.AtPStar(grad_drop=False), mt.AtPStar(), mt.RelP()),
}
STRONGEST = 20
HEAD = "| task | site | method | cells | Pearson | recall@20 | seconds | exact, seconds |"


def rows(model: mt.Model, n: int, tasks: list[str], sites: list[str]) -> Iterator[str]:
    """A line of the table for each task, site and method."""
    for task in tasks:
        prompts = getattr(mt.tasks, task)(n=n, seed=0, tokenizer=model.tokenizer)
        for site in sites:
            began = time.perf_counter()
            exact = _sweep(model, prompts, SITES[site], "exact").delta("logit_diff").values
            seconds = time.perf_counter() - began
            for method in METHODS.get(site, METHODS[""]):
                if isinstance(method, mt.RelP) and site in ("keys", "queries"):
                    continue
                yield _row(model, prompts, task, site, method, exact, seconds)


def _row(
    model: mt.Model,
    prompts: mt.Prompts,
    task: str,
    site: str,
    method: str | Method,
    exact: np.ndarray,
    seconds: float,
) -> str:
    began = time.perf_counter()
    found = _sweep(model, prompts, SITES[site], method).approximate("logit_diff").values
    own = time.perf_counter() - began
    there = np.isfinite(exact) & np.isfinite(found)
    one, two = found[there], exact[there]
    pearson = np.corrcoef(one, two)[0, 1]
    strongest = (set(np.argsort(-np.abs(values))[:STRONGEST].tolist()) for values in (one, two))
    recall = len(set.intersection(*strongest)) / min(STRONGEST, len(one))
    return (
        f"| {task} | {site} | `{method}` | {len(one):,} | {pearson:.3f} | {recall:.2f} | "
        f"{own:.1f} | {seconds:.1f} |"
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
        audit=8,
    )


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tasks", nargs="+", default=["ioi", "capitals", "greater_than"])
    parser.add_argument("--sites", nargs="+", default=[*SITES], choices=[*SITES])
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    lines = [HEAD, "|" + "---|" * 8]
    for line in rows(mt.load(given.model), given.prompts, given.tasks, given.sites):
        print(line, flush=True)
        lines.append(line)
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
