"""What the studies say: every text in both languages, none missing, none left over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
import pytest
import xarray as xr

from microtome import figures, studies
from microtome.report import VERDICTS, texts_of
from microtome.studies import STUDIES, trust_the_map
from microtome.studies.study import Study
from microtome.texts import LANGUAGES, Texts, catalogue, places

PACKAGE = "microtome.studies.texts"
CATALOGUES = [(PACKAGE, name) for name in ("common.yaml", *(f"{s}.yaml" for s in STUDIES))]
CATALOGUES.append(("microtome.report", "texts.yaml"))
VIETNAMESE = re.compile(
    r"[ăâđêôơưàáạảãèéẹẻẽìíịỉĩòóọỏõùúụủũỳýỵỷỹấầẩẫậếềểễệốồổỗộớờởỡợứừửữựắằẳẵặ]", re.I
)
PROMPTS: dict[str, list[dict[str, Any]]] = {
    "ioi": [
        {
            "text": f"When {a} and {b} went to the park, {a} gave a gift to",
            "donor": f"When {a} and {b} went to the park, {b} gave a gift to",
            "target": f" {b}",
            "contrast": f" {a}",
        }
        for a, b in (("Sam", "Sally"), ("Sally", "Sam"))
    ],
    "facts": [
        {"text": f"{city} is the capital of", "target": land, "contrast": " Spain"}
        for city, land in (("Berlin", " Germany"), ("Paris", " France"))
    ],
    "masks": [
        {"text": f"That dog sat [MASK] {place}", "target": target}
        for place, target in (("the mat", "on"), ("the curtain", "behind"))
    ],
    "pizza": [
        {
            "text": f"Peanut {other} and {topping} taste great on {dish}",
            "roles": {"topping": topping, "other": other, "dish": dish},
        }
        for topping, other, dish in (
            ("pineapple", "butter", "pizza"),
            ("butter", "pineapple", "bread"),
        )
    ],
}

FEW: dict[str, dict[str, Any]] = {
    "noisy-bert": {"seeds": (0, 1)},
    "causal-tracing": {"samples": 2},
}
"""Parameters that make a study short, and leave what it says as it is."""

TRAINED = ("replace-activations", "head-ablation", "ioi-circuit")
"""Studies that say more of a model that has learnt something than of any other."""

OF_OTHER_MODELS = {
    "replace-activations": {
        "keys.interleaved",
        "keys.not-fused.title",
        "keys.not-fused.caption",
        "keys.shared",
        "keys.projections.shared",
        "keys.uneven",
        "keys.unmoved",
        "neurons.overlap",
    },
    "head-ablation": {"tops.answer", "tops.other", "tops.several"},
    "hidden-scaling": {"layers.undone"},
    "pineapple-pizza": {"tests.untested"},
    "ablation-methods": {"tokens.text", "tokens.unspaced"},
    "ioi-circuit": {"roles.negative", "roles.inhibition", "roles.backup"},
    "trust-the-map": {"trust.all", "trust.none", "trust.unknown"},
}
"""What is said where a model is built, or answers, otherwise than the one that is tested here."""


def prompts_of(name: str) -> list[dict[str, Any]]:
    if name == "noisy-bert":
        return PROMPTS["masks"]
    if name == "pineapple-pizza":
        return PROMPTS["pizza"]
    if name == "causal-tracing":
        return [{**one, "roles": {"subject": one["text"].split()[0]}} for one in PROMPTS["facts"]]
    of_gifts = name.startswith("ioi") or name == "trust-the-map"
    return PROMPTS["ioi" if of_gifts else "facts"]


def test_there_is_a_file_for_each_study_and_no_other():
    found = {path.name for path in files(PACKAGE).iterdir() if path.name.endswith(".yaml")}
    assert found == {"common.yaml", *(f"{name}.yaml" for name in STUDIES)}


@pytest.mark.parametrize(("package", "name"), CATALOGUES, ids=[name for _, name in CATALOGUES])
def test_every_key_is_in_both_languages_with_the_same_places(package, name):
    for key, leaf in catalogue(package, name).items():
        assert set(leaf) == set(LANGUAGES), key
        assert all(text.strip() for text in leaf.values()), key
        assert places(leaf["en"]) == places(leaf["vi"]), key
        assert not VIETNAMESE.search(leaf["en"]), key


@pytest.mark.parametrize("name", STUDIES)
def test_long_texts_are_translated(name):
    for key, leaf in catalogue(PACKAGE, f"{name}.yaml").items():
        if len(leaf["en"].split()) >= 5:
            assert VIETNAMESE.search(leaf["vi"]), key


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_its_words(lang, verdict):
    assert texts_of(lang)(f"verdicts.{verdict}")


@dataclass(frozen=True)
class Told:
    """What a study says, run on one prompt in Vietnamese and on several in English.

    Attributes:
        name: the study's.
        one: the first run's result.
        page: its report.
        used: every text that was asked for in both.
    """

    name: str
    one: studies.Result
    page: str
    used: frozenset[str]


def once(approximated):
    """The same maps of the same prompt once: they are most of what a study takes."""
    found: dict[str, xr.DataArray | None] = {}

    def kept(model, prompt, asked, method):
        key = f"{prompt.as_dict()} {asked} {method}"
        if key not in found:
            found[key] = approximated(model, prompt, asked, method)
        return found[key]

    return kept


CHOICES = {"type", "mode", "fill", "dash", "xref", "yref", "autorange"}
"""What in a figure is one of a few words, by which it is drawn in one way or another."""


def look(part: object, *path: str) -> Iterator[tuple[str, ...]]:
    """What there is in a figure, and its choices; all but its numbers and texts."""
    if isinstance(part, dict):
        for name, own in part.items():
            yield from look(own, *path, name)
    elif isinstance(part, tuple | list) and part and isinstance(part[0], dict):
        for own in part:
            yield from look(own, *path)
    else:
        yield (*path, str(part) if path[-1] in CHOICES else "")


@pytest.fixture(scope="module")
def every_look(each_picture) -> Callable[[go.Figure], bytes]:
    """Draws the pictures of studies: one of each look, and more than one of each kind."""
    drawn: dict[frozenset[tuple[str, ...]], bytes] = {}

    def once(figure: go.Figure) -> bytes:
        parts = figure.to_plotly_json()
        parts["layout"].pop("template", None)
        own = frozenset(look(parts))
        if own not in drawn:
            drawn[own] = each_picture(figure)
        return drawn[own]

    return once


@pytest.fixture(scope="module", params=STUDIES)
def told(request, nano, model_of, tmp_path_factory, every_look) -> Told:
    name, out = request.param, tmp_path_factory.mktemp("told") / "out"
    model, few = nano if name in TRAINED else model_of(STUDIES[name]), FEW.get(name, {})
    texts: list[Texts] = []
    original = Study.texts

    def watched(self: Study, lang: str) -> Texts:
        texts.append(original(self, lang))
        return texts[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "texts", watched)
        patch.setattr(figures, "png_of", every_look)
        patch.setattr(trust_the_map, "approximated", once(trust_the_map.approximated))
        one = studies.run(name, model=model, out=out, lang="vi", **few)
        studies.run(name, model=model, prompts=prompts_of(name), **few)
    used = frozenset(key for own in texts for key in own.used)
    return Told(name, one, (out / "report.html").read_text(encoding="utf-8"), used)


def test_no_text_is_left_over(told):
    """What is not asked for in a run is a claim's other wording or a parameter's description."""
    own = set(catalogue(PACKAGE, f"{told.name}.yaml"))
    spare = {key for key in own - told.used if not key.startswith("parameters.")}
    spare -= OF_OTHER_MODELS.get(told.name, set())
    claims = {f"claims.{claim.name}" for claim in STUDIES[told.name].claims}
    assert all(key.rpartition(".")[0] in claims for key in spare), spare


@pytest.mark.parametrize("name", STUDIES)
def test_every_parameter_and_claim_has_its_texts(name):
    study = STUDIES[name]
    texts = study.texts("en")
    for parameter in study.parameters.model_fields:
        assert f"parameters.{parameter}" in texts
    for claim in study.claims:
        for part in ("text", "rule", "measured", "value"):
            assert f"claims.{claim.name}.{part}" in texts


def test_the_vietnamese_report_is_vietnamese(told):
    assert '<html lang="vi">' in told.page
    assert "Các khẳng định" in told.page
    document = told.one.document
    for said in (document.title, *(section.title for section in document.sections)):
        assert VIETNAMESE.search(said), said
    for one in document.pictures:
        titles = (one.figure.layout.xaxis.title.text, one.figure.layout.yaxis.title.text)
        assert not {"layer", "head", "cells", "factor"} & set(titles), one.name
