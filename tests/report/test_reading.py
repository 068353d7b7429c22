"""The code on a reading's page repeats it, with all that was asked."""

from __future__ import annotations

import numpy as np

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.report.of_attribution import document_of_attribution
from microtome.report.of_lens import document_of_lens

PROMPTS = [
    mt.Prompt(BERLIN, target=" Germany", roles={"s": ("Berlin", 0)}),
    mt.Prompt(ids=[5, 7, 5, 9, 3]),
]
REFERENCE = [mt.Prompt(PARIS), mt.Prompt(BERLIN)]


def again(document, model, call: str):
    """What a page's code gives, of which the last line is a call, perhaps with a figure of it."""
    [snippet] = document.snippets
    names: dict[str, object] = {"hf": model.hf, "tokenizer": model.tokenizer}
    exec(snippet.code.replace(f"\n{call}(", f"\nfound = {call}(").removesuffix(".figure()"), names)
    return names["found"]


def test_a_lens_with_its_metrics_its_edits_and_their_reference(tiny):
    edit = 'mean(over="prompts") L0.attn_out@0'
    seen = mt.lens(
        tiny, PROMPTS, "L*.mlp_out@*", edits=edit, metrics=["kl"], top=2, reference=REFERENCE
    )
    other = mt.lens(tiny, PROMPTS, "L*.mlp_out@*", edits=edit, metrics=["kl"], top=2)
    assert not np.array_equal(seen.data["kl"], other.data["kl"], equal_nan=True)
    found = again(document_of_lens(seen), tiny, "mt.lens")
    assert found.encoded == seen.encoded
    assert found.data.identical(seen.data)


def test_shares_with_their_sources(tiny):
    prompt = mt.Prompt(BERLIN, target=7)
    found = mt.attribute_logits(tiny, prompt, "logit@2", sources=True)
    same = again(document_of_attribution(found), tiny, "mt.attribute_logits")
    assert same.data.identical(found.data)
