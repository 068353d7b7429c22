"""A sweep over a stream of prompts: what comes of it is what comes of the list."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import microtome as mt
from engines import mistakes
from microtome.errors import EffectsError, PromptError, SweepError, VerificationError
from microtome.report import document_of_aggregates, summary_of_aggregates
from microtome.results import windows as windows_kept
from microtome.results.joined import joined
from microtome.stats.running import COLUMNS
from microtome.verbs import streaming

EDIT, METRICS = "zero L*.z.h*@-1", ("logit_diff", "kl")
TEXTS = (
    "Berlin is the capital of",
    "The cat sat",
    "Paris is the capital of",
    "Rome is in",
    "The dog sat on the",
    "Mary and John went to",
    "The cat sat",
)
PROMPTS = [
    mt.Prompt(
        text, target=" Germany", contrast=" France", meta={"n": n} if n != 3 else {"kind": "x"}
    )
    for n, text in enumerate(TEXTS)
]


def rows():
    return (prompt.as_dict() for prompt in PROMPTS)


def sweep(model, prompts, edit=EDIT, metrics=METRICS, **more):
    """Nothing is verified, unless it is asked for: there are many units, and few cells in one."""
    asked = {"metrics": metrics, "verify": 0, "progress": False, **more}
    return mt.sweep(model, prompts, edit, **asked)


@pytest.fixture(scope="module")
def whole(tiny64):
    return sweep(tiny64, PROMPTS)


def numbers(found) -> xr.Dataset:
    return found.data.drop_attrs()


@pytest.fixture(scope="module")
def parts(whole):
    """The aggregates of the first three prompts, and of the rest."""
    cut = ((0, slice(3)), (3, slice(3, None)))
    return [
        mt.Aggregates.of(mt.Effects(whole.data.isel(prompt=own)), first=first) for first, own in cut
    ]


def told_otherwise(found, at, value) -> mt.Aggregates:
    """The same with one field of what it says of itself changed."""
    told = found.provenance
    *way, last = at.split(".")
    inner = told
    for name in way:
        inner = inner[name]
    inner[last] = value
    return mt.Aggregates(found.data.assign_attrs(provenance=json.dumps(told)))


def plain(effects) -> dict:
    told = effects.provenance
    return {name: own for name, own in told.items() if name not in ("created", "actual")}


def of_an_older_release(parts, prompts):
    """Windows that do not say which of their coordinates are what else is known of prompts."""
    found = [part.copy() for part in parts]
    for one in (one for part in found for one in part.coords.values()):
        one.attrs.pop("meta", None)
    return joined(found, prompts)


@pytest.mark.parametrize(
    ("window", "joining"),
    [(1, joined), (2, joined), (1, of_an_older_release), (2, of_an_older_release)],
)
def test_what_is_known_of_prompts_is_as_of_the_list_whatever_a_window_sees_of_it(
    tiny64, window, joining, monkeypatch
):
    """A number in one window may be a text, a long id, true or nothing at all in another."""
    monkeypatch.setattr(streaming, "joined", joining)
    metas = [
        {"n": 1, "id": 7, "text": "a", "half": 0.5, "on": True, "first": 1},
        {"n": 2, "id": 2**60 + 1, "prompt_text": 3},
        {"n": "two", "on": 1},
        {"half": 2},
        {"n": 1.0, "text": 4},
    ]
    texts = zip(TEXTS, metas, strict=False)
    prompts = [mt.Prompt(text, target=" Germany", meta=meta) for text, meta in texts]
    asked = {"edit": "zero L1.z.h0@-1", "metrics": "prob"}
    wanted = sweep(tiny64, prompts, **asked).data
    found = sweep(tiny64, mt.Stream(prompts, window), **asked).data
    assert set(found.coords) == set(wanted.coords)
    for name, own in wanted.coords.items():
        assert (found[name].dtype, found[name].attrs) == (own.dtype, own.attrs)
        np.testing.assert_array_equal(found[name].values, own.values)
    assert [*found["n"].values] == ["1", "2", "two", "", "1.0"]
    assert [*found["id"].values] == ["7", str(2**60 + 1), "", "", ""]
    np.testing.assert_array_equal(found["half"].values, [0.5, np.nan, np.nan, 2, np.nan])
    assert [*found["on"].values] == ["True", "", "1", "", ""]


@pytest.mark.parametrize("edit", [EDIT, "zero L*.resid_post@*"])
@pytest.mark.parametrize("window", [2, 7, 100])
def test_the_cells_of_a_stream_are_those_of_the_list(tiny64, edit, window):
    metrics = (*METRICS, "top1", "norm(L*.resid_post@*)")
    wanted = sweep(tiny64, PROMPTS, edit, metrics, verify=1)
    found = sweep(tiny64, mt.Stream(lambda: rows(), window), edit, metrics, verify=1)
    xr.testing.assert_allclose(found.data, wanted.data, rtol=0, atol=1e-9)
    assert set(found.data.coords) == set(wanted.data.coords)
    assert [str(one) for one in found.data["text"].values] == list(TEXTS)
    for name, own in wanted.data.variables.items():
        assert found.data.variables[name].dims == own.dims
        if own.dtype.kind in "OU":
            np.testing.assert_array_equal(found.data[name].values, own.values)
    assert found.provenance["spec"]["prompts"] == wanted.provenance["spec"]["prompts"]
    assert found.provenance["measured"] == wanted.provenance["measured"]
    # Which neighbouring starts share a batch depends on how many prompts walk together.
    alike = edit == EDIT or window >= len(PROMPTS)
    for name in ("cells", "absent", *(["flops"] if alike else [])):
        assert found.provenance["predicted"][name] == wanted.provenance["predicted"][name]
    assert found.provenance["stream"]["n"] == len(PROMPTS)
    # Each window is verified by itself, and all that were are counted.
    assert found.provenance["verification"]["cells"] >= math.ceil(len(PROMPTS) / window)


def test_a_mistake_in_the_last_window_is_found(tiny64, monkeypatch):
    whole = streaming.Streamed._begun

    def begun(*own):
        for number, one in enumerate(whole(*own)):
            if number == 2:
                mistakes.skips(monkeypatch)
            yield one

    monkeypatch.setattr(streaming.Streamed, "_begun", begun)
    with pytest.raises(VerificationError):
        sweep(tiny64, mt.Stream(PROMPTS, 3), metrics="kl", verify=1)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "frame", "list", "generator"])
def test_every_source_gives_the_same_prompts(tmp_path, kind):
    file = tmp_path / f"prompts.{kind}"
    simple = [{"text": text, "target": " Germany", "n": str(n)} for n, text in enumerate(TEXTS)]
    frame = pd.DataFrame(simple)
    match kind:
        case "jsonl":
            file.write_text("\n".join(map(json.dumps, simple)))
        case "csv":
            frame.to_csv(file, index=False)
        case "parquet":
            pytest.importorskip("pyarrow")
            frame.to_parquet(file)
    source = {"frame": frame, "list": simple, "generator": (row for row in simple)}.get(kind, file)
    stream = mt.Stream(source, window=3)
    assert stream.count() == (None if kind == "generator" else len(TEXTS))
    found = list(stream)
    assert [prompt.text for prompt in found] == list(TEXTS)
    assert [dict(prompt.meta) for prompt in found] == [{"n": row["n"]} for row in simple]


def test_a_row_that_is_no_prompt_is_told_where_it_stands():
    with pytest.raises(PromptError, match="prompt 1: unknown field 'tex'"):
        list(mt.Stream([{"text": "A"}, {"tex": "B"}]))
    with pytest.raises(PromptError, match="first=-1: give the number of the first"):
        mt.Stream(["A"], first=-1)
    with pytest.raises(PromptError, match="window=0: give how many"):
        mt.Stream(["A"], 0)


@pytest.mark.parametrize("kind", ["frame", "table", "parquet"])
def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path, kind):
    """Of a row, as a dictionary, the second would win in silence."""
    source = pd.DataFrame([["A", " b", " c"]], columns=["text", "target", "target"])
    if kind != "frame":
        arrow = pytest.importorskip("pyarrow")
        columns = [arrow.array([text]) for text in ("A", " b", " c")]
        source = arrow.Table.from_arrays(columns, ["text", "target", "target"])
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(source, tmp_path / "p.parquet")
        source = tmp_path / "p.parquet"
    with pytest.raises(PromptError, match="two columns are called 'target'"):
        list(mt.Stream(source))


def test_what_is_no_row_of_prompts_is_refused():
    """Of the splits of a dataset only the names would be read, of a path only the letters."""
    with pytest.raises(PromptError, match=r"this is a dict of train.*dict\['train'\]"):
        list(mt.Stream({"train": ["A"], "test": ["B"]}))
    with pytest.raises(PromptError, match="one after another, as in a list, not Prompt"):
        list(mt.Stream(mt.Prompt("A")))
    with pytest.raises(PromptError, match=r"nowhere\.jsonl"):
        list(mt.Stream(lambda: "nowhere.jsonl"))


def test_a_file_is_read_as_it_is_needed(tmp_path):
    """A line that is wrong is met when its window is."""
    file = tmp_path / "p.jsonl"
    file.write_text('{"text": "A"}\n{"text": "B"}\n{"no": 1}\n')
    windows = mt.Stream(file, 2).windows()
    assert len(next(windows)) == 2
    with pytest.raises(PromptError, match="line 3"):
        next(windows)


class TestAggregates:
    @pytest.mark.parametrize("window", [1, 3, 100])
    def test_are_those_of_the_cells_that_were_kept_bit_for_bit(self, tiny64, window):
        stream = mt.Stream(PROMPTS, window)
        effects = sweep(tiny64, stream)
        found = sweep(tiny64, stream, keep="aggregates")
        xr.testing.assert_identical(numbers(found), numbers(mt.Aggregates.of(effects)))
        assert found.prompts == len(PROMPTS)
        assert found.noise_floor("kl") == effects.noise_floor("kl")

    def test_say_of_each_cell_what_its_effects_say(self, tiny64, whole):
        found = sweep(tiny64, PROMPTS, keep="aggregates")
        assert found.data.attrs["seed"] == 0
        seeded = sweep(tiny64, PROMPTS, keep="aggregates", seed=5)
        drawn = mt.Aggregates.of(whole, seed=5)
        for metric in METRICS:
            own = seeded.data[f"flipped_{metric}"]
            xr.testing.assert_allclose(own, drawn.data[f"flipped_{metric}"], atol=1e-9)
            assert not own.equals(found.data[f"flipped_{metric}"])
        for metric in METRICS:
            own, wanted = found.over_prompts(metric), whole.over_prompts(metric)
            for name in ("value", "low", "high", "statistic", "n"):
                xr.testing.assert_allclose(getattr(own, name), getattr(wanted, name), atol=1e-9)
            rest = ["p", "significant"]
            pd.testing.assert_frame_equal(
                found.table(metric).drop(columns=rest),
                whole.table(metric).drop(columns=rest),
                check_dtype=False,
                check_like=True,
                atol=1e-9,
            )
        assert list(found.top(3)["effect"].abs()) == sorted(found.top(3)["effect"].abs())[::-1]

    @pytest.mark.parametrize("edit", ["patch L*.z.h*", "patch L*.resid_pre@*"])
    def test_a_patch_that_changes_nothing_is_no_evidence(self, tiny64, edit):
        pairs = ((0, 2), (0, 0), (2, 0))
        prompts = [
            mt.Prompt(TEXTS[one], donor=TEXTS[other], target=" Germany", contrast=" France")
            for one, other in pairs
        ]
        whole = sweep(tiny64, prompts, edit)
        found = mt.Aggregates.of(whole)
        wanted = whole.table("logit_diff").drop(columns=["p", "significant"])
        assert wanted["unchanged"].max() > 0
        assert (wanted["n"] == 0).any() == ("pos" in wanted)  # what no donor has otherwise
        own = found.table("logit_diff").drop(columns=["p", "significant"])
        wanted = wanted.drop(columns="token", errors="ignore")  # each prompt has its own there
        pd.testing.assert_frame_equal(own, wanted, check_dtype=False, check_like=True)

    def test_parts_of_the_prompts_are_put_together(self, tiny64, whole):
        stream = mt.Stream(PROMPTS, 100)
        one = mt.Aggregates.of(mt.Effects(whole.data.isel(prompt=slice(3))))
        rest = mt.Stream(PROMPTS[3:], 2, first=3)
        other = sweep(tiny64, rest, keep="aggregates")
        both, wanted = one.merged(other), sweep(tiny64, stream, keep="aggregates")
        for metric in METRICS:
            for name in (*COLUMNS, "flipped"):
                xr.testing.assert_allclose(
                    both.data[f"{name}_{metric}"], wanted.data[f"{name}_{metric}"], atol=1e-9
                )
        assert both.prompts == wanted.prompts
        told = both.provenance
        assert [part["n"] for part in told["parts"]] == [3, 4]
        assert "stream" not in told
        cells = [own.provenance["predicted"]["cells"] for own in (one, other)]
        assert told["predicted"]["cells"] == sum(cells)
        for found in (one, both):  # whose prompts were not one stream
            assert f"each of {found.prompts} prompts; what" in document_of_aggregates(found).method
            assert summary_of_aggregates(found)["prompts"] == found.prompts
        for metric in METRICS:  # of both parts the larger one, whichever has it
            floors = [part.noise_floor(metric) for part in (one, other)]
            assert both.noise_floor(metric) == max(floors)
        still = whole.data.isel(prompt=slice(3, None)).copy()
        still["kl"].attrs["noise_floor"] = 0.0
        assert one.extended(mt.Effects(still)).noise_floor("kl") == one.noise_floor("kl")
        quiet = other.data.copy()
        quiet["mean_kl"].attrs["noise_floor"] = 0.0
        assert one.merged(mt.Aggregates(quiet)).noise_floor("kl") == one.noise_floor("kl") > 0

    def test_of_another_question_are_not_put_together(self, tiny64):
        asked = {"keep": "aggregates"}
        first = sweep(tiny64, mt.Stream(PROMPTS[:3]), **asked)
        rest = mt.Stream(PROMPTS[3:], first=3)
        other = sweep(tiny64, rest, EDIT.replace("zero", "scale(0.5)"), **asked)
        with pytest.raises(EffectsError, match=r"answer different questions, .*edits"):
            first.merged(other)
        with pytest.raises(EffectsError, match=r"are of .*kl.*, and what is added is of kl:"):
            first.merged(sweep(tiny64, rest, metrics="kl", **asked))
        with pytest.raises(EffectsError, match=r"answer different questions, .*edits"):
            first.extended(sweep(tiny64, PROMPTS[3:], EDIT.replace("zero", "scale(0.5)")))

    @pytest.mark.parametrize(
        ("at", "value"),
        [
            ("model.weight_hash", "0"),
            ("model.buffer_hash", "0"),
            ("model.dtypes", ["bfloat16"]),
            ("model.additions", ["hook look on h.0"]),
            ("model.adapters", {"h.0": {"active": ["a"]}}),
            ("model.asked", {"trust_remote_code": True}),
            ("model.tokenizer.hash", "0"),
            ("spec.reference", [{"text": "Berlin"}]),
            ("chat_template", "0"),
            ("method", "atp"),
            ("screen", {"dtype": "bfloat16"}),
            ("versions.microtome", "0.0.9"),
        ],
    )
    def test_of_another_model_are_not_put_together(self, parts, at, value):
        one, other = parts
        names = {"model.asked": "loaded with", "model.tokenizer.hash": "tokenizer"}
        name = names.get(at, at.removeprefix("versions."))
        with pytest.raises(EffectsError, match=rf"of different models \({name}.* is "):
            one.merged(told_otherwise(other, at, value))

    @pytest.mark.parametrize(
        ("at", "value"),
        [
            ("model.name", "elsewhere"),
            ("model.asked", {"device": "cuda", "tokenizer": "GPT2Tokenizer"}),
            ("model.device", "cuda:0"),
            ("model.attention", "eager"),
            ("versions.torch", "9"),
            ("modes.threads", 64),
            ("seed", 7),
        ],
    )
    def test_what_rounds_otherwise_is_put_together_and_said(self, parts, at, value):
        one, other = parts
        found = one.merged(told_otherwise(other, at, value)).provenance["parts"]
        assert [part["n"] for part in found] == [3, 4]
        if at.partition(".")[2] in ("device", "attention"):
            assert found[1][at.partition(".")[2]] == value != found[0][at.partition(".")[2]]
        if at.startswith(("versions", "modes")):
            kind, name = at.split(".")
            assert found[1][kind][name] == value != found[0][kind][name]

    def test_of_another_map_are_not_put_together(self, tiny64, whole):
        one = mt.Aggregates.of(mt.Effects(whole.data.isel(prompt=slice(3))))
        edit = "zero L*.z.h{0,1,2}@-1"
        other = sweep(tiny64, PROMPTS[3:], edit)
        with pytest.raises(EffectsError, match=r"different questions, .*edits"):
            one.extended(other)
        with pytest.raises(EffectsError, match=r"different questions, .*edits"):
            one.merged(mt.Aggregates.of(other, first=3))

    def test_are_saved_and_opened_and_drawn(self, tiny64, tmp_path):
        found = sweep(tiny64, PROMPTS, keep="aggregates", out=tmp_path / "sums.zarr")
        opened = mt.open_aggregates(tmp_path / "sums.zarr")
        xr.testing.assert_identical(opened.data, found.data)
        figure = found.figure("kl")
        np.testing.assert_array_equal(figure.data[0].z, found.over_prompts("kl").value.values)
        with pytest.raises(EffectsError, match=r"has aggregates over prompts.*open_aggregates"):
            mt.open_effects(tmp_path / "sums.zarr")
        sweep(tiny64, PROMPTS, out=tmp_path / "map.zarr")
        with pytest.raises(EffectsError, match="a result with its prompts: open_effects"):
            mt.open_aggregates(tmp_path / "map.zarr")

    def test_what_has_no_mean_is_refused(self, tiny64):
        with pytest.raises(
            EffectsError, match=r"'top1.*' is a token id, of which there is no mean"
        ):
            sweep(tiny64, PROMPTS, metrics=("kl", "top1"), keep="aggregates")
        with pytest.raises(SweepError, match="The map is over positions, and prompts have 3 to"):
            sweep(tiny64, PROMPTS, "zero L*.resid_post@*", keep="aggregates")
        with pytest.raises(SweepError, match=r"keep='cell' does not exist.*Did you mean 'cells'"):
            sweep(tiny64, PROMPTS, keep="cell")

    def test_of_a_map_over_positions_of_several_lengths_there_are_none(self, tiny64):
        effects = sweep(tiny64, PROMPTS, "zero L*.resid_post@*")
        with pytest.raises(EffectsError, match=r"Aggregates.of\(effects.by_role\(\)\)"):
            mt.Aggregates.of(effects)

    def test_positions_of_windows_of_other_lengths_are_refused_too(self, tiny64):
        stream = mt.Stream([PROMPTS[0], PROMPTS[2], PROMPTS[1]], 2)
        with pytest.raises(SweepError, match="prompts have 3 to 5 tokens"):
            sweep(tiny64, stream, "zero L*.resid_post@*", keep="aggregates")


def test_what_a_stream_cannot_have_is_refused(tiny64):
    stream = mt.Stream(PROMPTS)
    with pytest.raises(SweepError, match="screen= ranks the cells of one map"):
        sweep(tiny64, stream, screen="bfloat16")
    with pytest.raises(SweepError, match="A mean over prompts is over all of them"):
        sweep(tiny64, stream, 'mean(over="prompts") L*.z.h*@last')
    found = sweep(tiny64, stream, 'mean(over="prompts") L*.z.h*@last', reference=TEXTS[:4:2])
    assert found.data.sizes["prompt"] == len(PROMPTS)
    with pytest.raises(PromptError, match="There are no prompts in the stream"):
        sweep(tiny64, mt.Stream(iter(())))


class Stopping(mt.Observer):
    """Wants no more after so many units."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.units, self.cells, self.told = after, 0, 0.0, []

    def expected(self, cells, units, flops):
        self.told.append((cells, units, flops))

    def advanced(self, cells):
        self.cells += cells

    def unit_done(self, number, of):
        assert number == self.units < of
        self.units += 1

    @property
    def cancelled(self):
        return self.after is not None and self.units >= self.after


@pytest.mark.parametrize(
    ("keep", "after", "place"),
    [
        ("cells", 4, "local"),
        ("aggregates", 4, "memory://STREAMS/sums.zarr"),
        ("cells", 1, "memory://STREAMS/map.zarr"),
        ("aggregates", 2, "local"),
    ],
)
def test_a_stream_that_was_stopped_is_gone_on_with_bit_for_bit(
    tiny64, tmp_path, keep, after, place
):
    stream = mt.Stream(PROMPTS, 3)
    out = tmp_path / "map.zarr" if place == "local" else place.replace("STREAMS", tmp_path.name)
    undisturbed = Stopping()
    asked = {"metrics": METRICS, "keep": keep, "verify": 1}
    wanted = sweep(tiny64, stream, EDIT, progress=undisturbed, **asked)
    first, second = Stopping(after), Stopping()
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, stream, EDIT, progress=first, out=out, **asked)
    found = sweep(tiny64, stream, EDIT, progress=second, out=out, **asked)
    assert first.units == after
    assert first.units + second.units == undisturbed.units
    xr.testing.assert_identical(numbers(found), numbers(wanted))
    again = Stopping()
    opened = sweep(tiny64, stream, EDIT, progress=again, out=out, **asked)
    assert again.units == 0
    xr.testing.assert_identical(opened.data, found.data)


def test_other_prompts_are_refused_where_some_were_there(tiny64, tmp_path):
    out = tmp_path / "map.zarr"
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, mt.Stream(PROMPTS, 3), EDIT, metrics="kl", out=out, progress=Stopping(3))
    for others in (PROMPTS[1:], PROMPTS[:2]):
        with pytest.raises(
            EffectsError,
            match="window that is there already is of other prompts than the first 3 prompts given",
        ):
            sweep(tiny64, mt.Stream(others, 3), metrics="kl", out=out)
    with pytest.raises(EffectsError, match="windows of an unfinished sweep that ask another"):
        sweep(tiny64, mt.Stream(PROMPTS, 4), metrics="kl", out=out)
    sweep(tiny64, mt.Stream(PROMPTS, 3), metrics="kl", out=out)
    with pytest.raises(EffectsError, match="the same question about other prompts"):
        sweep(tiny64, mt.Stream(PROMPTS[1:], 3), metrics="kl", out=out)
    found = sweep(tiny64, mt.Stream(PROMPTS[1:], 3), metrics="kl", out=out, overwrite=True)
    assert found.data.sizes["prompt"] == len(PROMPTS) - 1
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


def test_windows_of_other_prompts_are_replaced_where_they_may_be(tiny64, tmp_path):
    out = tmp_path / "map.zarr"
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, mt.Stream(PROMPTS, 3), EDIT, metrics="kl", out=out, progress=Stopping(3))
    others = mt.Stream(PROMPTS[1:], 3)
    wanted = sweep(tiny64, others, metrics="kl")
    found = sweep(tiny64, others, metrics="kl", out=out, overwrite=True)
    xr.testing.assert_identical(numbers(found), numbers(wanted))


def test_what_is_done_of_a_result_that_replaces_another_is_kept(tiny64, tmp_path):
    """The same question about other prompts: which they are is known when they were read."""
    out = tmp_path / "map.zarr"
    sweep(tiny64, mt.Stream(PROMPTS, 3), metrics="kl", out=out)
    asked = {"metrics": "kl", "out": out, "overwrite": True}
    others, all_, first, second = mt.Stream(PROMPTS[1:], 3), Stopping(), Stopping(2), Stopping()
    wanted = sweep(tiny64, others, EDIT, metrics="kl", progress=all_)
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, others, EDIT, progress=first, **asked)
    assert mt.open_effects(out).data.sizes["prompt"] == len(PROMPTS)
    found = sweep(tiny64, others, EDIT, progress=second, **asked)
    assert (first.units, first.units + second.units) == (2, all_.units)
    xr.testing.assert_identical(numbers(found), numbers(wanted))
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


def test_what_decides_the_aggregates_is_part_of_the_question(tiny64, tmp_path):
    out, asked = tmp_path / "sums.zarr", {"metrics": "kl", "keep": "aggregates"}
    sweep(tiny64, mt.Stream(PROMPTS[:2], 2), out=out, **asked)
    others = {
        "first": {"prompts": mt.Stream(PROMPTS[:2], 2, first=2)},
        "window": {"prompts": mt.Stream(PROMPTS[:2], 1)},
        "seed": {"seed": 1},
        "keep": {"keep": "cells"},
    }
    for own in others.values():
        how = {"prompts": mt.Stream(PROMPTS[:2], 2), **asked, **own}
        with pytest.raises(EffectsError, match="another question"):
            sweep(tiny64, out=out, **how)


def test_units_of_a_window_of_other_prompts_are_computed_again(tiny64, tmp_path):
    """No window is whole yet, so that nobody knows which prompts there were but the units."""
    out = tmp_path / "map.zarr"
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, mt.Stream(PROMPTS, 3), EDIT, metrics="kl", out=out, progress=Stopping(1))
    assert len(list((tmp_path / "map.zarr.partial" / windows_kept.WINDOWS).iterdir())) == 1
    others = [mt.Prompt(prompt.text.replace("The", "John")) for prompt in reversed(PROMPTS)]
    stream = mt.Stream(others, 3)
    found = sweep(tiny64, stream, metrics="kl", out=out)
    xr.testing.assert_identical(numbers(found), numbers(sweep(tiny64, stream, metrics="kl")))


def test_windows_behind_one_that_is_damaged_are_computed_again_too(tiny64, tmp_path):
    out, stream = tmp_path / "map.zarr", mt.Stream(PROMPTS, 2)
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, stream, EDIT, metrics="kl", out=out, progress=Stopping(5))
    folder = tmp_path / "map.zarr.partial" / windows_kept.WINDOWS
    assert (folder / "000001.zip").is_file()
    (folder / "000000.zip").write_bytes(b"nothing")
    found = sweep(tiny64, stream, metrics="kl", out=out)
    xr.testing.assert_identical(numbers(found), numbers(sweep(tiny64, stream, metrics="kl")))


def test_a_window_that_is_damaged_is_computed_again(tiny64, tmp_path):
    out = tmp_path / "map.zarr"
    stream = mt.Stream(PROMPTS, 2)
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, stream, EDIT, metrics="kl", out=out, progress=Stopping(5))
    window = tmp_path / "map.zarr.partial" / windows_kept.WINDOWS / "000001.zip"
    *most, last = window.read_bytes()
    window.write_bytes(bytes([*most, last ^ 1]))
    notes = Stopping()
    notes.note = lambda text: notes.told.append(text)
    found = sweep(tiny64, stream, EDIT, metrics="kl", out=out, progress=notes)
    assert any("Window 1 cannot be used" in str(text) for text in notes.told)
    xr.testing.assert_identical(numbers(found), numbers(sweep(tiny64, stream, metrics="kl")))


@pytest.mark.parametrize(("window", "done", "names"), [(1, 3, "00000{}"), (7, 2, "000000-00000{}")])
def test_one_in_the_place_of_another_is_computed_again(tiny64, tmp_path, window, done, names):
    """A whole window, or a unit: each is sound, and of the same question."""
    out, stream = tmp_path / "map.zarr", mt.Stream(PROMPTS, window)
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, stream, EDIT, metrics="kl", out=out, progress=Stopping(done))
    first, second = (
        tmp_path / "map.zarr.partial" / windows_kept.WINDOWS / f"{names.format(number)}.zip"
        for number in (0, 1)
    )
    assert first.read_bytes() != second.read_bytes()
    second.write_bytes(first.read_bytes())
    found = sweep(tiny64, stream, metrics="kl", out=out)
    xr.testing.assert_identical(numbers(found), numbers(sweep(tiny64, stream, metrics="kl")))


def test_one_of_other_prompts_in_the_place_of_another_is_refused(tiny64, tmp_path):
    """The same question, of which the prompts are no part: only the last window was looked at."""
    asked, files, edit = {"metrics": "kl", "verify": 0}, [], "zero L0.z.h0"
    for name, prompts in (("own", PROMPTS[:3]), ("other", PROMPTS[1:4])):
        stream, out = mt.Stream(prompts, 1), tmp_path / name
        with pytest.raises(mt.Cancelled):
            sweep(tiny64, stream, edit, out=out, progress=Stopping(2), **asked)
        files.append(tmp_path / f"{name}.partial" / windows_kept.WINDOWS / "000000.zip")
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(
        EffectsError,
        match=r"1 window that is there already is of other prompts than the first 1 prompt given",
    ):
        sweep(tiny64, mt.Stream(PROMPTS[:3], 1), edit, out=tmp_path / "own", **asked)


def test_how_much_there_is_is_told_as_it_becomes_known(tiny64):
    watch = Stopping()
    sweep(tiny64, mt.Stream(PROMPTS, 3), EDIT, metrics="kl", progress=watch)
    cells = 3 * 4 * len(PROMPTS)
    assert [own[0] for own in watch.told] == [cells] * 3
    assert watch.cells == pytest.approx(cells)
    unknown = Stopping()
    sweep(tiny64, mt.Stream(iter(PROMPTS), 3), EDIT, metrics="kl", progress=unknown)
    assert [own[0] for own in unknown.told] == [36, 72, 84]
    assert watch.told[-1][2] == unknown.told[-1][2] > 0
