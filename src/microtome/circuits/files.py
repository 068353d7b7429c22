"""Circuits in files: the JSON of EAP-IG (Hanna et al. 2024) and of MIB's circuit track (2025).

```
{"cfg":   {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": false, "d_model": 768},
 "nodes": {"input": {"in_graph": true}, "a0.h0": {"in_graph": false}, …},
 "edges": {"input->a0.h0<q>": {"score": 0.12, "in_graph": true}, …}}
```
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import typing as npt

from microtome.amounts import is_finite
from microtome.errors import CircuitError, EffectsError
from microtome.paths import at_home
from microtome.results import disk
from microtome.textfiles import json_of, read_text

PARTS = ("cfg", "nodes", "edges")


@dataclass(frozen=True, eq=False)
class Form:
    """What a file says.

    Attributes:
        cfg: the sizes of the model.
        nodes: per node, whether it is in the circuit.
        edges: names.
        chosen: per edge, whether it is in the circuit.
        scores: per edge; NaN where it has none.
    """

    cfg: Mapping[str, Any]
    nodes: Mapping[str, bool]
    edges: Sequence[str]
    chosen: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64] | None

    @property
    def scored(self) -> npt.NDArray[np.float64]:
        """The scores, NaN where there are none."""
        return np.full(len(self.edges), np.nan) if self.scores is None else self.scores


def as_text(form: Form) -> str:
    """What a file of it holds; an edge without a score has 0, which EAP-IG's reader needs."""
    edges = {
        name: {"score": 0.0 if math.isnan(score) else score, "in_graph": within}
        for name, score, within in zip(
            form.edges, form.scored.tolist(), form.chosen.tolist(), strict=True
        )
    }
    nodes = {name: {"in_graph": within} for name, within in form.nodes.items()}
    return json.dumps({"cfg": dict(form.cfg), "nodes": nodes, "edges": edges})


def write(path: str | Path, form: Form) -> None:
    """Write a circuit."""
    place = at_home(path)
    try:
        with disk.failures(place):
            disk.make_folder(place.absolute().parent)
            disk.refuse_link(place)
            disk.write_file(place, as_text(form).encode())
    except EffectsError as error:
        raise CircuitError(str(error)) from error


def read(path: str | Path) -> Form:
    """What a file says.

    Raises:
        CircuitError: it is none of these files, or of a circuit of single neurons.
    """
    text = read_text(path, CircuitError)
    whole = json_of(text, path, CircuitError)
    if not isinstance(whole, dict) or not all(isinstance(whole.get(p), dict) for p in PARTS):
        raise CircuitError(
            f"{path} is no circuit: a JSON object with 'cfg', 'nodes' and 'edges' is needed, as "
            "EAP-IG and MIB's circuit track write it."
        )
    nodes = {name: _within(given, path, name) for name, given in whole["nodes"].items()}
    _refuse_neurons(whole, path)
    edges = whole["edges"]
    return Form(
        cfg=whole["cfg"],
        nodes=nodes,
        edges=tuple(edges),
        chosen=np.array([_within(given, path, name) for name, given in edges.items()], dtype=bool),
        scores=np.array([_score(given, path, name) for name, given in edges.items()], dtype=float),
    )


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors in what a file says name the file.

    Raises:
        CircuitError: in the place of another one.
    """
    try:
        yield
    except CircuitError as error:
        raise CircuitError(f"{path}: {error}") from error


def _within(given: object, path: str | Path, name: str) -> bool:
    within = given.get("in_graph") if isinstance(given, dict) else given  # older files: the bool
    if not isinstance(within, bool):
        raise CircuitError(f"{path} does not say of {name!r} whether it is in_graph: {given!r}.")
    return within


def _score(given: object, path: str | Path, name: str) -> float:
    score = given.get("score") if isinstance(given, dict) else None
    if score is None:
        return math.nan
    if not isinstance(score, float) and not is_finite(score):
        raise CircuitError(f"{path} has no number as the score of {name!r}: {score!r}.")
    return float(score)


def _refuse_neurons(whole: Mapping[str, Any], path: str | Path) -> None:
    given = [whole.get("neurons") or {}]
    given += [one.get("neurons") or [] for one in whole["nodes"].values() if isinstance(one, dict)]
    some = [own for one in given for own in (one.values() if isinstance(one, dict) else [one])]
    if any(not all(own) for own in some):
        raise CircuitError(
            f"{path} is a circuit of single dimensions of what nodes write ('neurons'), of which "
            "there are none here: save it with whole nodes."
        )
