"""Groups of prompts in a report: the same cells, each group's own means."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from microtome.frontends.commands.strongest import print_effects
from microtome.report import document_of_sweep
from microtome.report.groups import by_groups, columns

TEXTS = [
    ("Berlin is the capital of", "Berlin", "city"),
    ("Paris is the capital of", "Paris", "city"),
    ("The cat sat", "cat", ""),
]


@pytest.fixture(scope="module")
def prompts():
    return [
        mt.Prompt(text, target=" Germany", roles={"subject": word}, meta={"kind": kind, "id": n})
        for n, (text, word, kind) in enumerate(TEXTS)
    ]


@pytest.fixture(scope="module")
def uneven(tiny, prompts):
    return mt.sweep(tiny, prompts, "zero L*.resid_post@*", metrics=["prob"], progress=False)


def test_each_group_has_the_means_of_its_prompts(tiny, uneven, prompts):
    report = document_of_sweep(uneven, tiny.run(prompts))
    [section] = [s for s in report.sections if s.title == "Effects on prob"]
    means, by_kind = section.tables
    assert by_kind.title == "By kind"
    assert "Effects.groups('kind')" in by_kind.caption
    frame, dims = by_kind.frame, ["layer", "role"]
    assert [*frame] == [*dims, "all", "city", "n (city)", "(none)", "n ((none))"]
    np.testing.assert_array_equal(frame["all"], means.frame["effect"])
    whole = uneven.by_role()
    each = whole.delta("prob").where(whole.data["values_changed"] != 0)
    for _, row in frame.iterrows():
        own = each.sel({name: row[name] for name in dims}).values
        for kind, some in (("city", own[:2]), ("(none)", own[2:])):
            there = some[~np.isnan(some)]
            assert row[f"n ({kind})"] == len(there)
            assert row[kind] == pytest.approx(there.mean() if len(there) else np.nan, nan_ok=True)


def test_the_command_line_shows_them_too(uneven, capsys):

    print_effects(uneven, "prob")
    shown = capsys.readouterr().out
    assert "The same by kind" in shown
    assert "n (city)" in shown
    assert "by id" not in shown


def test_what_is_the_same_or_another_in_every_prompt_makes_no_groups(tiny):
    prompts = [
        mt.Prompt(text, meta={"id": n, "set": "a", "size": 0.5 if n else 1.5})
        for n, (text, _, _) in enumerate(TEXTS[:2] * 2)
    ]
    effects = mt.sweep(tiny, prompts, "zero L0.z.h0@-1", metrics="kl", progress=False)
    assert columns(effects) == ["size"]
    [(name, table)] = by_groups(effects, "kl", effects.table("kl"), 10)
    assert (name, [*table.frame]) == ("size", ["all", "1.5", "n (1.5)", "0.5", "n (0.5)"])


def test_many_groups_are_left_to_python(tiny):
    prompts = [mt.Prompt("The cat sat", meta={"kind": str(n % 7)}) for n in range(14)]
    effects = mt.sweep(tiny, prompts, "zero L0.z.h0@-1", metrics="kl", progress=False)
    assert columns(effects) == []
