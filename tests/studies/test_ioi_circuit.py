"""The parts of `ioi-circuit`, each against what is known of it, both ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import microtome as mt
from microtome import studies
from microtome.errors import PromptError
from microtome.studies import STUDIES
from microtome.studies import ioi_circuit as study
from microtome.studies.findings import judge, measure
from microtome.studies.perform import collect, silent

CLEAN = 10.0


def by_head(values) -> xr.DataArray:
    array = np.asarray(values, float)
    sizes = {"layer": range(array.shape[0]), "head": range(array.shape[1])}
    return xr.DataArray(array, sizes, ("layer", "head"))


def looking(at) -> xr.DataArray:
    """Heads that look at one of the names each."""
    weights = np.array([[[name == place for place in study.PLACES] for name in row] for row in at])
    coordinates = {**by_head(np.zeros((2, 2))).coords, "place": list(study.PLACES)}
    return xr.DataArray(weights.astype(float), coordinates, ("layer", "head", "place"))


def test_name_movers_write_the_answer_and_look_at_it():
    direct = by_head([[0.4, 0.6], [0.9, -0.7]])
    attention = looking([["IO", "IO"], ["IO", "IO"]])
    assert study.movers(direct, attention, CLEAN) == [(1, 0), (0, 1)]  # 0.4 is too little
    assert study.negative(direct, attention, CLEAN) == [(1, 1)]
    elsewhere = looking([["IO", "S2"], ["S1", "S2"]])
    assert study.movers(direct, elsewhere, CLEAN) == []
    assert study.negative(direct, elsewhere, CLEAN) == []


def test_what_is_hardly_looked_at_is_not_looked_at():
    """29.1 of SmolLM2 gives the answer .002 of its attention, and the other mentions less."""
    direct, least = by_head([[0.9, 0.9], [-0.9, -0.9]]), study.LOOK
    most = looking([["IO", "IO"], ["IO", "IO"]])
    weights = xr.DataArray([[least, 0.99 * least]] * 2, dims=("layer", "head"))
    assert study.movers(direct, most * weights, CLEAN) == [(0, 0)]
    assert study.negative(direct, most * weights, CLEAN) == [(1, 0)]
    at_s2 = looking([["S2", "S2"], ["S2", "S2"]]) * weights
    assert study.inhibition(direct, at_s2, CLEAN) == [(0, 0)]


def test_s_inhibition_is_read_by_a_name_movers_query_and_looks_at_s2():
    queries = by_head([[0.4, 0.8], [0.9, 0.0]])
    assert study.inhibition(queries, looking([["S2", "S2"], ["IO", "S2"]]), CLEAN) == [(0, 1)]
    assert study.inhibition(queries, looking([["IO", "IO"], ["S1", "S2"]]), CLEAN) == []


def test_the_edge_to_a_query_is_the_largest_of_all_name_movers(nano):
    """Each by itself; none is before layer 0."""
    [prompt] = mt.tasks.ioi(1, seed=3)
    like = by_head(np.zeros((6, 8)))
    assert study.into_queries(nano, prompt, [(0, 1)], like).isnull().all()
    each = [study.into_queries(nano, prompt, [own], like) for own in ((3, 1), (2, 0))]
    both = study.into_queries(nano, prompt, [(3, 1), (2, 0)], like)
    assert np.allclose(both, np.fmax(*each), atol=1e-4, equal_nan=True)
    cell = mt.sweep(nano, prompt, "patch L1.z.h6 -> L3.q_in.h1@-1", metrics="logit_diff")
    assert float(each[0].sel(layer=1, head=6)) == pytest.approx(
        -cell.delta("logit_diff").item(), abs=1e-4
    )


def test_backup_heads_are_missed_by_more():
    assert study.backups(by_head([[0.6, 0.4], [np.nan, -0.9]]), CLEAN) == [(0, 0)]
    assert study.backups(by_head(np.full((2, 2), np.nan)), CLEAN) == []


@pytest.mark.parametrize(
    ("heads", "clean", "holds", "wording"),
    [
        ([(1, 0)], CLEAN, True, "measured"),
        ([], CLEAN, False, "none"),
        ([(1, 0)], -1.0, None, "unanswered"),
    ],
)
def test_a_part_is_played_or_not(heads, clean, holds, wording):
    by, attention = by_head([[0.1, 0.2], [0.9, 0.3]]), looking([["IO", "IO"], ["IO", "IO"]])
    measured = study.measure_part(heads, by, attention, clean)
    assert (measured.holds, measured.wording, measured.value) == (holds, wording, 0.9)
    assert measured.words["heads"] == ("1.0" if heads else "")


def test_the_strongest_of_a_part_is_one_of_its_heads():
    """Another head's edge may be worth more, and is told with where that head looks."""
    by, attention = by_head([[0.1, 2.0], [0.9, 0.3]]), looking([["IO", "S2"], ["IO", "IO"]])
    measured = study.measure_part([(1, 0)], by, attention, CLEAN)
    assert (measured.holds, measured.wording, measured.value) == (True, "surpassed", 0.9)
    told = {name: measured.words[name] for name in ("first", "largest", "whose", "most", "S2")}
    assert told == {"first": "1.0", "largest": 0.9, "whose": "0.1", "most": 2.0, "S2": 1.0}
    assert study.measure_part([], by, attention, CLEAN).value == 2.0


def test_without_a_name_mover_nobody_is_a_backup():
    nobody, attention = by_head(np.full((2, 2), np.nan)), looking([["IO", "IO"], ["IO", "IO"]])
    measured = study.measure_part([], nobody, attention, CLEAN)
    assert (measured.holds, measured.wording) == (None, "nobody")


@pytest.mark.parametrize(
    ("f", "clean", "holds"), [(0.8, 3.0, True), (0.79, 3.0, False), (0.9, -1.0, None)]
)
def test_a_small_circuit_keeps_most_of_the_score_or_not(f, clean, holds):
    kept = xr.DataArray([0.0, f, 1.0], {"share": [0.1, study.SMALL, 1.0]}, ("share",))
    assert study.measure_faithful(kept, clean).holds is holds


def test_to_a_donor_of_the_same_score_nothing_is_faithful(nano):
    [one] = mt.tasks.ioi(1, seed=3)
    same = mt.Prompt(one.text, donor=one.text, target=one.target, contrast=one.contrast)
    scores = study.nodes_of(nano, study_sweeps(nano, same))
    kept = study.kept_by(nano, same, scores)
    assert np.isnan(kept).all()
    measured = study.measure_faithful(kept, 3.0)
    assert (measured.holds, measured.wording) == (None, "same")


def study_sweeps(model, prompt):
    every = study.sweeps(study.IoiCircuit())
    return {
        name: mt.sweep(model, prompt, list(every[name].edits), metrics="logit_diff")
        for name in ("input", "heads", "mlps")
    }


def test_names_are_found_in_the_tokens(nano):
    [one] = nano.encode(mt.tasks.ioi(1, seed=3))
    found = study.places_of(one)
    assert [one.tokens.ids[found[name]] for name in study.PLACES] == [
        one.target, one.contrast, one.contrast,
    ]  # fmt: skip
    assert found["S1"] < found["S2"]


def test_other_sentences_are_refused(nano):
    with pytest.raises(PromptError, match="named once and the contrast twice"):
        studies.run(
            "ioi-circuit", nano, prompt="Berlin is the capital of", donor="Paris is the capital of",
            target=" Germany", contrast=" France",
        )  # fmt: skip
    with pytest.raises(PromptError, match="donor of the same length"):
        studies.run("ioi-circuit", nano, donor="Sam gave a gift to")


@pytest.fixture(scope="module")
def done(nano):
    return studies.run("ioi-circuit", nano)


def test_it_measures_what_it_says(done, nano):
    """The strongest name mover, the backup and the circuit, once more and otherwise."""
    data = done.data
    clean = data.clean("direct", study.SCORE)
    (layer, head), *_ = study.parts(data)["movers"][0]
    prompt = data.encoded[0].prompt
    full = mt.circuits.Circuit.full(nano)
    edge = mt.circuits.Circuit.of(nano, [f"a{layer}.h{head}->logits"])
    without = mt.circuits.run(nano, prompt, full - edge, progress=False)["logit_diff"].item()
    direct = float(study.parts(data)["movers"][1].sel(layer=layer, head=head))
    assert direct == pytest.approx(clean - without, abs=1e-3)
    movers = [f"zero L{a}.z.h{b}@-1" for a, b in study.parts(data)["movers"][0]]

    def score(*edits: str) -> float:
        [one], logits = data.encoded, nano.run(prompt, edits=list(edits)).logits[0, -1].double()
        return float(logits[one.target] - logits[one.contrast])

    alone = {head: clean - score(f"zero L4.z.h{head}@-1") for head in range(8)}
    assert min(alone.values()) < 0 < max(alone.values())  # of one that helps, and one that hinders
    for head, missed in alone.items():
        silent = score(*movers) - score(*movers, f"zero L4.z.h{head}@-1")
        more = float(data.array("backup").sel(layer=4, head=head))
        assert more == pytest.approx(silent - max(missed, 0.0), abs=1e-3)
    nodes = mt.circuits.score(nano, prompt, level="node", progress=False)
    own = nodes.circuit(int(study.SMALL * len(nodes)))
    f = float(mt.circuits.faithfulness(nano, prompt, own, progress=False)["faithfulness"])
    assert float(data.array("faithful").sel(share=study.SMALL)) == pytest.approx(f, abs=1e-3)


def test_heads_that_count_and_play_no_part_are_told(done):
    """Heads whose edge to the logits is as much, but that look elsewhere: by hand."""
    data = done.data
    direct = study.direct_of(data.effects["direct"]).mean("prompt")
    least = study.LEAST * data.clean("direct", study.SCORE)
    own = {head for heads, _ in study.parts(data).values() for head in heads}
    counting = {
        (layer, head)
        for layer in range(6)
        for head in range(8)
        if abs(float(direct.sel(layer=layer, head=head))) >= least
    }
    found, _ = study.unnamed(data)
    assert set(found) == counting - own
    assert found
    [table] = done.document.sections[0].tables
    rows = table.frame[table.frame.iloc[:, 0] == "none of these"]
    assert len(rows) == len(found)


@pytest.mark.slow
def test_the_heads_of_a_real_model_are_called_what_is_known_of_them(smollm2, monkeypatch):
    """Known from 50 sentences: what each head looks at, writes, and does without its look.

    Without the circuit of all nodes and its faithfulness, which are half of the time.
    """
    asked = {name: study.sweeps(study.IoiCircuit())[name] for name in ("direct", "silenced")}
    of_heads = replace(STUDIES["ioi-circuit"], sweeps=lambda parameters: asked)
    nothing = xr.DataArray(np.full(len(study.SHARES), np.nan), {"share": list(study.SHARES)})
    monkeypatch.setattr(study, "kept_by", lambda *given: nothing)
    monkeypatch.setattr(study, "nodes_of", lambda *given: None)
    data = collect(of_heads, smollm2, study.IoiCircuit(), silent)
    parts = {name: heads for name, (heads, _) in study.parts(data).items()}
    assert {(23, 0), (23, 7)} <= set(parts["movers"])
    assert parts["negative"] == [(24, 4)]
    assert parts["inhibition"][0] == (20, 0)
    assert not {(23, 3), (29, 0), (29, 1)} & {*parts["movers"], *parts["negative"]}
    assert {(29, 0), (29, 1)} <= set(study.unnamed(data)[0])
    judged = judge(of_heads, measure(of_heads.claims, data), False, of_heads.texts("en"))
    assert "Of all heads, 23.3 has it, worth 4.703, and looks elsewhere" in judged[0].measured


def test_the_circuit_is_drawn_with_its_nodes(done):
    [drawn] = [p for p in done.document.pictures if p.name == "drawn"]
    texts = [t.partition("<br>")[0] for trace in drawn.figure.data for t in trace.text or ()]
    assert set(study.numbers(done.data)["circuit"]) <= set(texts)
