"""Maps in corrupted runs: as if the corruption were an edit of every cell, on both engines."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.edits import as_edits
from microtome.errors import SweepError
from microtome.verbs.answer import Here
from microtome.verbs.asking import asking
from microtome.verbs.options import Options
from microtome.verbs.sweep import answered

PROMPTS = [
    mt.Prompt(BERLIN, donor=BERLIN, target=" Germany"),
    mt.Prompt(BERLIN, donor=BERLIN, target=" Germany"),
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany"),
    mt.Prompt(CAT, donor=CAT, target=" on"),
]
PLACES = ("{1,2}", "{1,2}", "3", "0")  # of which the noise is in each prompt
METRICS = ("logit", "prob@2", "norm(L*.resid_post@*)")


def corruption():
    texts = [f'noise(std=2, how="add", seed={n}) embed@{place}' for n, place in enumerate(PLACES)]
    return [tuple(as_edits(text)) for text in texts]


def mapped(model, edits, engine="walk", metrics=METRICS, prompts=PROMPTS, **more):
    question = asking(model, prompts, edits, metrics=metrics, corruption=corruption(), **more)
    options = Options.of(engine, 2, None, None, None, 0)
    return answered(model, question, options, Here(model), None, False, False, False)


MAPS, FAMILIES = (
    ["patch L*.resid_post@*", "zero L*.z.h*", "patch embed@*"],
    ["gpt2", "gemma2", "gpt_neo", "cohere", "bert"],
)
CASES = [
    (family, edits)
    for number, family in enumerate(FAMILIES)
    for turn, edits in enumerate(MAPS)
    if number == 0 or (number + turn) % len(MAPS) == 0  # the first all of them, others by turns
]


@pytest.mark.parametrize(("family", "edits"), CASES)
def test_a_map_in_corrupted_runs_is_one_whose_cells_are_corrupted(family, edits, of_family):
    model = of_family(family)
    ours = [mapped(model, edits, engine) for engine in ("walk", "reference")]
    for n, prompt in enumerate(PROMPTS):
        each = [str(corruption()[n][0]), edits]
        wanted = mt.sweep(model, prompt, each, metrics=METRICS, engine="reference", verify=0)
        own = {name: slice(size) for name, size in wanted.data.sizes.items() if name != "prompt"}
        for metric in METRICS:
            for found in ours:
                values = found.data[metric].isel({"prompt": n, **own}, missing_dims="ignore").values
                theirs = wanted.data[metric].values[0]
                np.testing.assert_allclose(values, theirs, rtol=1e-9, atol=1e-9)


def test_what_effects_are_held_against_is_the_corrupted_run(tiny64):
    found = mapped(tiny64, "patch L*.resid_post@*")
    for n, prompt in enumerate(PROMPTS):
        alone = mt.sweep(tiny64, prompt, corruption()[n], metrics=["logit"], verify=0)
        np.testing.assert_allclose(
            found.clean("logit")[n], alone.data["logit"][0], rtol=0, atol=1e-12
        )
    before = found.delta("logit").isel(prompt=2, pos=slice(0, 1))
    assert float(abs(found.delta("logit").isel(prompt=0, pos=0)).max()) == 0
    assert float(abs(before).max()) > 0, "another text differs from its first token on"
    assert len(found.provenance["spec"]["corruption"]) == len(PROMPTS)


def test_cells_enter_late_and_start_late(tiny64):
    prompts, edits = PROMPTS[:1], "patch L*.resid_post@*"
    question = asking(tiny64, prompts, edits, metrics=["logit"], corruption=corruption()[:1])
    options = Options.of("auto", 0, None, None, None, 0)
    found = answered(tiny64, question, options, Here(tiny64), None, False, False, False)
    both = mt.sweep(tiny64, prompts, [*corruption()[0], edits], metrics=["logit"], verify=0)
    work = [one.provenance["actual"]["token_blocks"] for one in (found, both)]
    assert work[0] < work[1] / 2
    blocks, tokens = tiny64.anatomy.dims.n_layers, 5
    # A state behind block l, at the place p or later, takes the blocks behind it; before the first
    # corrupted place it is the run's own. Idlers go along.
    least = sum(
        (blocks - 1 - layer) * (tokens - place) for layer in range(3) for place in range(1, 5)
    )
    assert least <= work[0] <= 2 * least


def test_what_cannot_corrupt_a_run_is_refused(tiny64):
    edit = as_edits("zero L*.z.h*")
    wrong = [
        as_edits("zero L0.resid_pre@1"),
        as_edits("patch embed@1"),
        as_edits("mean(over='prompts') embed@1"),
    ]
    for one in wrong:
        with pytest.raises(SweepError, match="corrupts no run: give an edit of embed"):
            asking(tiny64, PROMPTS[0], edit, metrics=["logit"], corruption=[one])
    with pytest.raises(SweepError, match="not of corrupted ones"):
        mapped(tiny64, "patch L0.mlp_out -> L*.mlp_in@*", metrics=["logit"])
    question = asking(tiny64, PROMPTS, edit, metrics=["logit"], corruption=corruption())
    options = Options.of("auto", 4, None, None, None, 0, "atp")
    with pytest.raises(SweepError, match="says nothing of corrupted runs"):
        answered(tiny64, question, options, Here(tiny64), None, False, False, False)
