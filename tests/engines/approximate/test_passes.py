"""An approximation goes through the model as often as its plan says, and no more."""

from __future__ import annotations

from collections import Counter

import pytest

import microtome as mt
from microtome.engines.approximate import stretch
from microtome.engines.approximate.text import METHODS, method_of
from microtome.passes import backward

PROMPT = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)
EDGES = ("eap", "eap_ig")
ASKED = (*METHODS, 'atp(at="donor")', "atp_star(grad_drop=False)", "ig(steps=3)")


@pytest.mark.parametrize("text", ASKED)
def test_passes_are_those_that_were_said(tiny64, monkeypatch, text):
    counted: Counter[str] = Counter()
    said = []

    def count(module, name):
        plain = getattr(module, name)

        def counting(*args, **more):
            counted[name] += 1
            return plain(*args, **more)

        monkeypatch.setattr(module, name, counting)

    for module, name in ((backward, "call_body"), (stretch, "trace"), (backward, "_back")):
        count(module, name)
    kind = type(method_of(text))
    plain = kind.passes
    monkeypatch.setattr(kind, "passes", lambda *args: said.append(plain(*args)) or said[-1])
    edit = "patch L*.mlp_out -> L*.mlp_in" if text in EDGES else "patch L*.z.h*@*"
    edit = edit.replace(".z.", ".q.") if "star" in text else edit
    asked = {"metrics": ["logit_diff", "prob"], "method": text, "audit": 1, "verify": 0}
    mt.sweep(tiny64, PROMPT, edit, progress=False, **asked)
    assert counted["call_body"] + counted["trace"] == said[0].forward
    assert counted["_back"] == said[0].backward
