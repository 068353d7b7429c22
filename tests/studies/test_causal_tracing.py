"""Causal tracing as a study: each claim both ways, and what it looks at is what tracing gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.engines.walk.walk import Walk
from microtome.errors import PromptError
from microtome.studies.causal_tracing import (
    LAST,
    LAST_SUBJECT,
    SHOWN,
    measure_attention,
    measure_mlp,
)
from microtome.texts import visible

LAYERS = 8


def peaking(part: str, layer: int) -> xr.DataArray:
    """An effect ``[part, layer]`` that is largest there; one part is absent."""
    values = np.full((len(SHOWN), LAYERS), 0.1)
    values[SHOWN.index(part), layer] = 0.5
    values[1] = np.nan
    return xr.DataArray(values, {"part": [*SHOWN], "layer": range(LAYERS)}, ("part", "layer"))


@pytest.mark.parametrize(
    ("part", "layer", "holds"),
    [
        (LAST_SUBJECT, 3, True),
        (LAST_SUBJECT, 1, False),
        (LAST_SUBJECT, 6, False),
        (LAST, 3, False),
    ],
)
def test_mlps_in_the_middle_at_the_subjects_last_token(part, layer, holds):
    found = measure_mlp(peaking(part, layer), 0.5)
    assert (found.holds, found.value) == (holds, layer)
    assert found.wording == ("measured" if part == LAST_SUBJECT else "elsewhere")


@pytest.mark.parametrize(("late", "holds"), [(5, True), (3, False), (1, False)])
def test_attention_is_later_at_the_last_token(late, holds):
    found = measure_attention(peaking(LAST, late), peaking(LAST_SUBJECT, 3), 0.5)
    assert (found.holds, found.value) == (holds, late - 3)


def test_where_nothing_was_forgotten_nothing_is_judged():
    one = peaking(LAST_SUBJECT, 3)
    assert measure_mlp(one, 0.0).holds is None
    assert measure_attention(one, one, -0.1).holds is None
    assert measure_attention(one.where(one["part"] != LAST), one, 0.5).holds is None


def test_it_shows_what_tracing_gives(tiny64):
    given = {"prompt": BERLIN, "target": " Germany", "roles": {"subject": "Berlin"}}
    done = mt.studies.run("causal-tracing", tiny64, samples=2, window=2, **given)
    fact = mt.Prompt(BERLIN, target=" Germany", roles={"subject": "Berlin"})
    traces = mt.trace_facts(tiny64, fact, samples=2, window=2)
    average = traces.average()["effect"]
    effect = done.data.array("effect")
    for part in average["part"].values:
        own = effect.sel(part=part).transpose("kind", "layer")
        np.testing.assert_allclose(own, average.sel(part=part), atol=1e-12)
    assert done.summary["clean"] == pytest.approx(float(traces.data["clean"][0]))


@pytest.mark.parametrize("target", [None, " Germany"])
def test_the_report_says_which_answer_comes_back(tiny64, tmp_path, target):
    given = {"prompt": BERLIN, "target": target, "roles": {"subject": "Berlin"}}
    mt.studies.run("causal-tracing", tiny64, samples=1, window=2, out=tmp_path / "out", **given)
    answer = tiny64.run(BERLIN).top(1)["token"].iloc[0] if target is None else target
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"What comes back here is “{visible(answer)}”, which continues “{BERLIN}”" in page


def test_maps_lie_in_its_folder_and_are_not_walked_again(tiny64, tmp_path, monkeypatch):
    rows = [
        {"text": text, "target": " Germany", "roles": {"subject": text.split()[0]}}
        for text in (BERLIN, PARIS)
    ]
    (tmp_path / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = {"prompts": tmp_path / "facts.jsonl", "samples": 2, "window": 2}
    done = mt.studies.run("causal-tracing", tiny64, out=tmp_path / "out", **given)
    names = sorted(path.name for path in (tmp_path / "out" / "effects").glob("*.zarr"))
    assert names == ["attention.zarr", "hidden.zarr", "mlp.zarr"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert sorted(summary["effects"]) == [f"effects/{name}" for name in names]
    cells = summary["cells"]  # no token before its subject; 5 tokens, 3 layers, 2 samples, 3 kinds
    assert cells == 2 * 5 * 3 * 2 * 3
    kept = mt.open_effects(tmp_path / "out" / "effects" / "hidden.zarr")
    assert kept.data.sizes["prompt"] == 4  # two facts in two samples each
    walked, collect = [], Walk.collect
    monkeypatch.setattr(Walk, "collect", lambda *a: walked.append(a) or collect(*a))
    traces = mt.trace_facts(
        tiny64,
        mt.Prompts.read(tmp_path / "facts.jsonl"),
        samples=2,
        window=2,
        kinds=["mlp"],
        out=tmp_path / "out" / "effects",
    )
    assert len(walked) == 2, "the facts' own runs, and no map"
    effect = done.data.observed["effect"].sel(kind="mlp", part="last subject token")
    theirs = traces.effect.sel(kind="mlp").isel(pos=0)
    np.testing.assert_allclose(
        effect.transpose("prompt", "layer"), theirs.transpose("prompt", "layer"), atol=1e-12
    )


def test_a_prompt_without_a_subject_is_refused(nano):
    with pytest.raises(PromptError, match="makes the subject unreadable"):
        mt.studies.run("causal-tracing", nano, prompt=BERLIN, roles={})
