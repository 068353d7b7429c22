"""The report of circuits by gradients: how good their scores are, and which of them are exact."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from microtome.circuits import draw_audit, draw_edges
from microtome.errors import CircuitError
from microtome.report.of_circuit import document_of_circuit, document_of_curve, how_good_are

CAT = mt.Prompt("The cat sat", donor="The dog sat", target=" on", contrast=" the")
BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)


@pytest.fixture(scope="module")
def scores(tiny64):
    return mt.circuits.score(tiny64, [CAT, BERLIN], method="eap", audit=16, progress=False)


def audits(document):
    return [one for one in document.sections if one.title == "How good the approximation is"]


def test_scores_by_gradients_are_reported_with_their_audit(tiny64, scores):
    curve = mt.circuits.curve(
        tiny64, [CAT, BERLIN], scores, sizes=(0.5, 1.0), resamples=9, progress=False
    )
    document = document_of_curve("tiny", scores, curve, "again")
    [section] = audits(document)
    said = " ".join(section.paragraphs)
    assert "Scores are those of eap, which is not exact. Of all edges on all prompts, 16" in said
    assert f"no more than {scores.audit['bound']['share']:.1%} have an exact effect above" in said
    worst = scores.audit["worst"]
    assert f"{-worst['approximate']:+.3g} in the place of {-worst['exact']:+.3g}" in said
    assert worst["cell"]["edge"] in said
    [table], [picture] = section.tables, section.pictures
    frame = scores.exact_cells()
    assert table.frame.equals(frame.drop(columns="number"))
    assert frame["why"].value_counts().to_dict() == {"strongest": 8, "drawn": 8}
    assert (frame["exact"].abs().diff().dropna() <= 0).all()
    [dots] = [one for one in picture.figure.data if one.mode == "markers"]
    assert np.array_equal(dots.x, frame["approximate"])
    assert np.array_equal(dots.y, frame["exact"])
    judged = mt.circuits.faithfulness(
        tiny64, [CAT, BERLIN], scores.circuit(60), resamples=9, progress=False
    )
    for given, sections in ((scores, 1), (None, 0)):
        document = document_of_circuit("tiny", scores.circuit(60), judged, "again", given)
        assert len(audits(document)) == sections


def test_rings_are_at_what_is_exact(scores):
    *_, ring = draw_edges(scores).data
    graph = scores.graph
    edges = {
        f"{graph.writers[y].name}->{graph.readers[x].name}"
        for x, y in zip(ring.x, ring.y, strict=True)
    }
    assert edges == set(scores.exact_cells()["edge"])
    assert ring.name == "exact in some of the prompts"


def test_exact_scores_have_no_audit_to_draw(scores):
    plain = scores.data.drop_vars(["why_exact", "approximate"])
    plain.attrs.pop("audit")
    exact = mt.circuits.Scores(plain)
    assert how_good_are(exact) == ""
    assert len(draw_edges(exact).data) == 1
    with pytest.raises(CircuitError, match="by 'eap', nothing says which are exact"):
        draw_audit(exact)
