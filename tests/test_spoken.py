"""Arguments of a wrong kind are told of in a sentence, and nothing else is."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import microtome as mt
from conftest import BERLIN
from microtome import circuits, stats, steering, tasks
from microtome.errors import ArgumentError, MicrotomeError
from microtome.spoken import fits, spoken

WRONG = (None, 5, 5.0, "", [], object())


@pytest.fixture(scope="module")
def scores(tiny) -> circuits.Scores:
    prompt = mt.Prompt(BERLIN, donor="Paris is the capital of", target=" the", contrast=" is")
    return circuits.score(tiny, prompt, level="node", progress=False)


def test_what_was_given_what_is_taken_and_what_for(tiny, scores):
    for act, told in (
        (lambda: scores.top(5.0), r"^Scores\.top\(n=5\.0\): n= is int, not a float\. See help\("),
        (lambda: tiny.run(BERLIN, keep=5), r"^keep= takes addresses"),
        (lambda: mt.edge("L0.z.h0", "L1.q_in.h0", via=5), r"^edge\(via=5\): via= is .*not an int"),
        (
            lambda: mt.sweep(tiny, BERLIN, "zero L*.z.h*", metrics="kl", over=5),
            r"^sweep\(over=5\): over= is Mapping\[.* \(values for parameters of the edit, .*\)",
        ),
        (lambda: mt.edit(5), r"^edit\(text=5\): text= is str, not an int"),
        (lambda: circuits.Circuit.of(tiny, 5), r"^Circuit\.of\(edges=5\): edges= is Iterable"),
        (lambda: mt.Audit(cells=object()), r"cells.*(whole number|is int)"),
    ):
        with pytest.raises(MicrotomeError, match=told):
            act()


def calls(tiny, scores) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Functions that take next to no time, with arguments that are right."""
    some, circuit = np.arange(6.0), scores.circuit(4)
    of_edits = {"address": "L0.z.h0", "where": "L0.z.h0", "factor": 0.5, "fn": torch.neg}
    of_edits |= {"value": 0.0, "vector": np.ones(32), "std": 1.0, "least": 0.0, "most": 1.0}
    names = "zero mean noise patch replace add project clamp shuffle knockout apply scale"
    others = "Audit Verify Screen AtP AtPStar EAP EAPIG IG GradientNorms RelP Prompt"
    found: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        **{name: (getattr(mt, name), of_edits) for name in names.split()},
        **{name: (getattr(mt, name), {"dtype": "bfloat16"}) for name in others.split()},
        "edit": (mt.edit, {"text": "zero L0.z"}),
        "edge": (mt.edge, {"writer": "L0.z.h0", "reader": "L1.q_in.h0"}),
        "Prompts": (mt.Prompts, {}),
        "Prompts.of": (mt.Prompts.of, {"prompts": BERLIN}),
        "Prompts.read": (mt.Prompts.read, {}),
        "load": (mt.load, {"name_or_path_or_model": tiny}),
        "open_effects": (mt.open_effects, {}),
        "open_scores": (circuits.open_scores, {}),
        "open_vector": (steering.open_vector, {}),
        "run": (tiny.run, {"prompts": BERLIN}),
        "top": (scores.top, {}),
        "circuit": (scores.circuit, {"n": 4}),
        "Circuit.of": (circuits.Circuit.of, {"model": tiny, "edges": ["input->logits"]}),
        "Circuit.among": (circuits.Circuit.among, {"model": tiny, "nodes": ["input", "logits"]}),
        "parts_of": (circuits.parts_of, {"circuit": circuit}),
        "cpr": (circuits.cpr, {"shares": [0.1, 1.0], "f": some[:2]}),
        "of_token": (steering.of_token, {"model": tiny, "token": " the"}),
        "capitals": (tasks.capitals, {"n": 8, "tokenizer": tiny.tokenizer}),
        **{name: (getattr(stats, name), {"p": [0.1, 0.2]}) for name in ("holm", "bonferroni")},
        **{
            name: (getattr(stats, name), {"a": some, "b": some**2, "x": some, "y": some**2})
            for name in ("correlation", "larger", "paired_t", "trend", "wilcoxon")
        },
        "mean": (stats.mean, {"values": some}),
        "groups_differ": (stats.groups_differ, {"groups": [some, some**2]}),
        "max_statistic": (
            stats.max_statistic,
            {"effects": some.reshape(3, 2) ** 2, "permutations": 9},
        ),
        "cmd": (circuits.cmd, {"shares": [0.1, 1.0], "f": some[:2]}),
        "share": (stats.share, {"k": 1, "n": 2}),
    }
    return found


def test_no_argument_of_a_wrong_kind_ends_in_an_error_of_pythons(tiny, scores):
    raw, asked = [], 0
    for name, (function, right) in calls(tiny, scores).items():
        parameters = inspect.signature(function).parameters.values()
        named = [
            one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        ]
        needed = {one.name: right.get(one.name) for one in named if one.default is one.empty}
        base = needed | {one.name: right[one.name] for one in named if one.name in right}
        for parameter in named:
            for wrong in WRONG:
                asked += 1
                try:
                    function(**{**base, parameter.name: wrong})
                except MicrotomeError:
                    pass
                except Exception as error:
                    raw.append(f"{name}({parameter.name}={wrong!r}): {error!r}")
    assert not raw, "\n".join(raw)
    assert asked > 400


def test_an_error_that_no_argument_is_to_blame_for_stays_as_it_is():
    @spoken
    def inside(text: str, *more: int, **others: str) -> int:
        """Nothing."""
        return len(text) + None  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand") as found:
        inside("a")
    assert not isinstance(found.value, ArgumentError)
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'text'"):
        inside()
    with pytest.raises(ArgumentError, match=r"^inside\(text=5\): text= is str, not an int\."):
        inside(5)


@pytest.mark.parametrize("error", [TypeError, ValueError, KeyError])
def test_nobody_is_blamed_for_what_a_function_of_the_users_own_raised(tiny, error, monkeypatch):
    def own(value):
        raise error("mine")

    fit = (int, mt.Prompts)  # and else nothing is what it is said to be
    monkeypatch.setattr("microtome.spoken.fits", lambda value, kind: isinstance(value, fit))
    edit = mt.apply("L0.z", own)
    for act in (
        lambda: mt.sweep(tiny, BERLIN, edit, metrics="kl"),
        lambda: tiny.run(np.array([5, 7]), edit),
    ):
        with pytest.raises(error, match="mine") as found:
            act()
        assert not isinstance(found.value, MicrotomeError)


def test_an_array_is_not_blamed_for_another_argument(scores):
    with pytest.raises(ValueError, match="broadcast"):
        circuits.cpr((0.1, 0.2, 1.0), np.zeros(5))
    chosen = np.zeros(len(scores.circuit(4).graph), dtype=bool)
    with pytest.raises(ArgumentError, match=r"^Circuit\(graph=5\): graph= is Graph"):
        circuits.Circuit(graph=5, chosen=chosen)


def test_a_class_has_the_words_of_its_own_docstring():
    @spoken
    class Halves:
        """Halves.

        Args:
            n: how many; more than 0.
        """

        def __init__(self, n: int) -> None:
            self.half = n / 2

        @classmethod
        def of(cls, text: str) -> Halves:
            """Of a text."""
            return cls(len(text))

    assert Halves.of("abcd").half == 2
    with pytest.raises(ArgumentError, match=r"Halves\(n='a'\): n= is int \(how many\), not a str"):
        Halves("a")
    with pytest.raises(ArgumentError, match=r"Halves\.of\(text=5\): text= is str, not an int"):
        Halves.of(5)


def test_what_is_told_of_stays_what_it_is():
    assert pickle.loads(pickle.dumps(mt.zero("L0.z"))) == mt.zero("L0.z")
    assert pickle.loads(pickle.dumps(mt.sweep)) is mt.sweep
    assert list(inspect.signature(mt.edit).parameters) == ["text"]
    assert mt.edit.__doc__.startswith("The edit that a text names.")
    with pytest.raises(IndexError):
        mt.Prompts(["a"])[3]


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        (5, int | None, True),
        (None, int | None, True),
        (5.0, int, False),
        (np.int64(5), int, True),
        (5, float, True),
        ("5", float, False),
        ("a", Iterable[str], True),
        (5, Iterable[str], False),
        ("a", Sequence[float], False),
        ([5], Sequence[str], False),
        ({"a": 5}, Mapping[str, int], True),
        ({"a": "b"}, Mapping[str, int], False),
        ((1, "a"), tuple[int, str], True),
        ((1, 2), tuple[int, str], False),
        ((1, 2), tuple[int, ...], True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (len, Callable[[str], int], True),
        (5, Callable[[str], int], False),
        (object(), Any, True),
        (np.zeros(3), NDArray[np.float64], True),
        (np.zeros(()), NDArray[np.float64], True),
        ([0.0], NDArray[np.float64], False),
        (np.arange(3), Sequence[int], True),
        (np.zeros(3), Sequence[int], False),
        (np.zeros(()), Sequence[float], False),
        (torch.arange(3), Sequence[int], True),
        (torch.tensor(3), Iterable[int], False),
        (torch.tensor(3), int, True),
        ({"a": np.arange(3)}, Mapping[str, Sequence[Any]], True),
        (np.zeros(3), Mapping[str, int], False),
        (np.str_("a"), Literal["a", "b"], True),
        (np.True_, bool, True),
    ],
)  # fmt: skip
def test_what_fits(value, kind, wanted):
    assert fits(value, kind) is wanted


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (
            lambda m: m.run(BERLIN, prepend_bos=True),
            r"^Model\.run has no prepend_bos=: special tok",
        ),
        (lambda m: m.run(BERLIN, fwd_hooks=[]), r"no fwd_hooks=: say edits=\[…\]"),
        (
            lambda m: m.run(BERLIN, attention_mask=[1]),
            r"no attention_mask=: each prompt runs by its",
        ),
        (lambda m: m.run(inputs_embeds=0), r"no inputs_embeds=: .*replace\('embed', values\)"),
        (
            lambda m: mt.sweep(m, BERLIN, "zero L0.z", metric="kl"),
            r"^sweep has no metric=\. Did you",
        ),
        (lambda m: mt.sweep(m, BERLIN, edits="zero L0.z"), r"no edits=\. Did you mean 'edit'\?"),
        (
            lambda m: mt.sweep(m, BERLIN, "zero L0.z", metrics="prob", target=" the"),
            r"the prompt's",
        ),
    ],
)
def test_an_argument_of_another_name_is_told_what_it_is_called_here(tiny, act, told):
    with pytest.raises(ArgumentError, match=told):
        act(tiny)


def test_of_a_name_that_is_like_none_python_says_it(tiny):
    with pytest.raises(TypeError, match="unexpected keyword argument 'xylophone'") as refused:
        tiny.run(BERLIN, xylophone=1)
    assert not isinstance(refused.value, ArgumentError)
    with pytest.raises(TypeError, match="missing 1 required"):
        mt.sweep(tiny, BERLIN, metrics="kl")


def test_a_tensor_where_something_may_be_left_out_is_told_of(tiny):
    with pytest.raises(ArgumentError, match=r"^sweep\(over=tensor.*over= is Mapping.*not a Tensor"):
        mt.sweep(tiny, BERLIN, "scale(1) L0.z", metrics="kl", over=torch.ones(3))

    @spoken
    def breaks(text: str) -> str:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        breaks(5)
