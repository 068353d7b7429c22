"""The benchmarks' own code, on a tiny model and without the other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.bars import BARS, Bar, over_floor, ratio
from benchmarks.machine import Machine
from benchmarks.measure import Options, Row, measure, tools_for
from benchmarks.models import TRAINED, Subject, subject
from benchmarks.questions import MAPS, SHAPES, USUAL, Cell, Map, Shape, ask, sample
from benchmarks.tools import ORACLE, PEERS
from benchmarks.tools.microtome_sweep import NAME, Microtome
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import first_minute, floor, machine, price, table, turns

TINY = SHAPES["tiny"]
HERE = Path(__file__).parent
HOOKS = [name for name in PEERS if name.startswith("plain hooks")]


@pytest.fixture(autouse=True)
def nobody_looks_for_garbage(monkeypatch) -> None:
    """As each run that is timed is preceded by; in a process of many tests it takes the longest."""
    monkeypatch.setattr(machine.gc, "collect", lambda: 0)


@pytest.fixture(scope="module")
def model() -> Subject:
    made = subject(TINY)
    assert made.original.num_parameters() < 300_000
    return made


@pytest.fixture(scope="module")
def llama() -> Subject:
    if not (TRAINED / "stories260K").is_dir():
        pytest.skip("../shared/models/stories260K is not there")
    return subject(SHAPES["stories260K"])


@pytest.fixture(scope="module")
def ours(model: Subject) -> Microtome:
    return Microtome(model)


def stored() -> dict:
    return json.loads((HERE / "bench.json").read_text())


class TestRows:
    @pytest.mark.parametrize("key", [*USUAL, "g"])
    def test_microtome_and_hand_written_hooks_agree_and_edits_have_effects(self, key, model, ours):
        peers, absent = tools_for(model, HOOKS)
        map_ = MAPS[key]
        few = Map(map_.key, map_.title, map_.operation, map_.site, map_.position, map_.layer)
        options = Options(rounds=1, singles=4, batches=8)
        row = measure(model, few, ours, peers, absent, Machine("cpu"), options)
        assert all(row.tools[name].agrees for name in [NAME, *HOOKS])
        assert row.largest_effect > 10 * row.tolerance
        assert row.cells == len(map_.cells(TINY))
        assert row.tools[NAME].cells == row.cells
        assert row.unverified_seconds is not None

    @pytest.mark.parametrize("key", USUAL)
    def test_they_agree_on_a_trained_llama(self, key, llama):
        peers, absent = tools_for(llama, HOOKS)
        options = Options(rounds=1, singles=4, batches=8)
        row = measure(llama, MAPS[key], Microtome(llama), peers, absent, Machine("cpu"), options)
        timed = [name for name in [NAME, *HOOKS] if row.tools[name].absent is None]
        assert len(timed) == (2 if key == "f" else 3)
        assert all(row.tools[name].agrees for name in timed)
        assert row.largest_effect > row.tolerance

    def test_a_tool_that_answers_something_else_does_not_count(self, model, ours, monkeypatch):
        batched = PEERS["plain hooks, batched"]
        answer = batched.values
        monkeypatch.setattr(batched, "values", lambda *a: answer(*a) + 1e-3)
        row = measured(model, ours)
        assert not row.tools["plain hooks, batched"].agrees
        assert ratio(row.as_dict(), "plain hooks, batched") is None
        assert "does not count" in table.page([record(row)])

    def test_a_tool_that_fails_is_absent_with_the_reason(self, model, ours, monkeypatch):
        def fail(*_: object) -> None:
            raise ValueError("no such site")

        monkeypatch.setattr(PEERS["plain hooks, batched"], "values", fail)
        timing = measured(model, ours).tools["plain hooks, batched"]
        assert timing.absent == "failed: ValueError: no such site"
        assert timing.seconds is None

    def test_a_tool_that_is_not_installed_is_absent_with_the_reason(self, model, monkeypatch):
        monkeypatch.setattr(PEERS["captum"], "package", "no-such-package")
        _, absent = tools_for(model, ["captum"])
        assert absent["captum"] == "no-such-package is not installed"

    def test_several_prompts_are_one_row_each(self, model, ours):
        peers, absent = tools_for(model, HOOKS)
        options = Options(rounds=1, singles=4, batches=8)
        row = measure(model, MAPS["f"], ours, peers, absent, Machine("cpu"), options)
        assert row.cells == 64 * TINY.layers * TINY.heads
        assert row.tools[NAME].agrees
        assert "batch already" in (row.tools["plain hooks, batched"].absent or "")


class TestSample:
    def test_singles_are_among_the_batches_and_spread_over_layers(self):
        question = ask(MAPS["c"], SHAPES["small"])
        chosen = sample(question, 12, 48)
        assert set(chosen.singles) <= set(chosen.batches)
        assert (len(chosen.singles), len(chosen.batches)) == (12, 48)
        assert sorted({cell.layer for cell in chosen.singles}) == [2, 6, 10]
        assert len({cell.position for cell in chosen.batches}) > 5

    def test_a_map_smaller_than_the_sample_is_taken_whole(self):
        question = ask(MAPS["b"], TINY)
        assert sample(question, 100, 100).singles == question.cells


class TestFloor:
    SMALL = Shape("by hand", layers=2, heads=1, width=2)

    def test_of_a_cell_counted_by_hand(self):
        # Block 0 of 2, tokens 1 and 2 of 3: output projection and MLP, 18·2² each. Block 1: 8·2²
        # for attention's products, each sees 2 and 3 positions, 4·2 for each; the MLP, 16·2², of
        # the last token alone. Then two columns of width 2, 2 operations for each number.
        cell = Cell(0, 0, 1)
        wanted = 2 * 72 + (2 * 32 + 8 * (2 + 3) + 64) + 8
        assert floor.of_cell(self.SMALL, "z", cell, 3) == wanted

    def test_of_the_last_block_only_what_is_read_counts(self):
        # The output projection of both tokens, the MLP of the last.
        assert floor.of_cell(self.SMALL, "z", Cell(1, 0, 1), 3) == 2 * 8 + 64 + 8
        # The MLP's second half, 8·2², of the last token.
        assert floor.of_cell(self.SMALL, "mlp_post", Cell(1, 0, 0), 3) == 32 + 8

    def test_a_hidden_state_starts_at_the_next_block(self):
        assert floor.of_cell(self.SMALL, "resid_post", Cell(1, None, 0), 3) == 8

    def test_of_a_map_counted_by_hand(self):
        # One head in two layers at the last of 3 tokens: 72 in its own block, 96 + 8·3 in the
        # next, 8 to read.
        cells = (72 + 120 + 8) + (72 + 8)
        run = 2 * (3 * 96 + 8 * (1 + 2 + 3))
        question = ask(MAPS["b"], self.SMALL, tokens=3)
        assert floor.flops(question) == cells + run + 8 + run

    def test_a_clean_run_is_what_torch_counts(self, model):
        tokens = ask(MAPS["a"], TINY).tokens
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model.original.transformer(tokens)
        assert dense(counted) == 24 * TINY.width**2 * 15 * TINY.layers

    def test_so_is_a_llama_s_with_fewer_keys_and_a_gated_mlp(self, llama):
        tokens = ask(MAPS["a"], llama.shape).tokens
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            llama.original.model(tokens)
        attended = 4 * llama.shape.width * sum(range(1, 16)) * llama.shape.layers
        assert dense(counted) == floor.blocks(llama.shape, 0, 0, 15) - attended


class TestPage:
    def test_the_page_of_a_stored_run(self):
        page = table.page([stored()], [json.loads((HERE / "memory.json").read_text())])
        assert "### (b) heads patched at the last token\n" in page
        assert "| small | 144 | 0.4 | 14* (35 ×) |" in page
        assert "| TransformerLens | 4.3.0 |" in page
        assert "| small | (b) heads patched at the last token | times faster than" in page
        assert "| ≥ 60 | 40 | not reached |" in page
        assert "- pyvene: pyvene is not installed: (b) small." in page
        assert "| 1,024 | 512 MiB | 3,500 MiB | 5,000 MiB | 4,413 MiB | above |" in page

    def test_an_older_record_had_verification_beside_its_seconds(self):
        old = stored()
        del old["rows"][0]["unverified_seconds"]
        old["rows"][0]["verified_seconds"] = 0.5
        assert "| small | 144 | 0.5 | 14* (28 ×) |" in table.page([old])

    def test_a_question_has_one_table_with_all_shapes(self):
        small, large = stored(), stored()
        large["rows"][0]["shape"] = "large"
        page = table.page([large, small])
        lines = page.split("### (b) heads patched at the last token\n")[1].splitlines()
        assert [line.split(" | ")[0] for line in lines[3:5]] == ["| small", "| large"]
        assert page.count("## A made-up machine") == 1

    def test_tools_that_nobody_asked_for_are_one_line(self):
        found = stored()
        for name in ("pyvene", "captum", "TransformerLens"):
            found["rows"][0]["tools"][name]["absent"] = "not asked for"
        page = table.page([found])
        assert "- Tools left out to save time: (b) small." in page
        assert "pyvene:" not in page

    def test_what_was_measured_again_counts_as_of_last(self):
        again = stored()
        again["rows"][0]["tools"][NAME]["seconds"] = 0.2
        page = table.page([stored(), again])
        assert "| small | 144 | 0.2 | 14* (70 ×) |" in page
        assert "| 0.4 |" not in page

    @pytest.mark.parametrize(
        ("value", "verdict"), [(61.0, "reached"), (59.0, "not reached"), (None, "not measured")]
    )
    def test_a_bar_is_judged_by_its_limit(self, value, verdict):
        bar = Bar("small", "b", "faster", lambda row: value, 60, least=True)
        assert bar.judge(stored()) == (value, verdict)

    def test_a_row_measured_on_a_busy_machine_says_so(self):
        found = stored()
        assert "busy!" not in table.page([found]).split("## A made-up")[1]
        found["rows"][0]["matrix_rates"] = [50e9, 160e9]
        assert "| 150 (50–160) busy! |" in table.page([found])

    def test_a_bar_for_a_gpu_is_not_judged_by_a_processor(self):
        gpu = next(bar for bar in BARS if bar.device == "cuda")
        assert gpu.judge(stored())[1] == "not measured"

    def test_a_row_in_which_microtome_disagrees_has_no_figures(self):
        found = stored()["rows"][0]
        found["tools"][NAME]["agrees"] = False
        assert ratio(found) is None
        assert over_floor(found) is None


def dense(counted: FlopCounterMode) -> int:
    """Operations of the products with weights."""
    products = counted.get_flop_counts()["Global"]
    return sum(n for op, n in products.items() if "attention" not in str(op))


def measured(model: Subject, ours: Microtome) -> Row:
    peers, absent = tools_for(model, HOOKS)
    options = Options(rounds=1, singles=4, batches=8)
    return measure(model, MAPS["b"], ours, peers, absent, Machine("cpu"), options)


def record(row: Row) -> dict:
    return {**stored(), "rows": [row.as_dict()]}


def test_the_oracle_is_a_tool():
    assert ORACLE in PEERS


def test_processes_that_are_measured_keep_what_they_compile(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = turns.environment(COLUMNS="400")
    assert "PYTHONDONTWRITEBYTECODE" not in found
    assert (found["OMP_NUM_THREADS"], found["HF_HUB_OFFLINE"], found["COLUMNS"]) == (
        "1",
        "1",
        "400",
    )


def test_the_first_minute_is_a_table_of_commands_beside_their_base():
    timings = [
        first_minute.Timing("`microtome --help`", 0.4321, 0.12, 0.7, False),
        first_minute.Timing("the first `microtome sweep`", 8.0, 1.25, 1.3, True),
    ]
    shown = "\n".join(table.first_minute_of(first_minute.record_of(timings, 5)))
    assert "| `microtome --help` | 0.43 | 0.12 | 0.7 s |" in shown
    assert "| the first `microtome sweep` | 8.00 | 1.25 | 1.3 × base |" in shown
    assert "median of 5 rounds" in shown


def test_the_commands_of_the_first_minute_are_ones_that_there_are(tmp_path):
    for case in first_minute.cases(tmp_path):
        if not case.computes:
            assert first_minute._seconds(case.command) > 0
    assert not list(tmp_path.iterdir())


def test_the_price_is_of_the_least_seconds_of_each(monkeypatch):
    """The floor's product, the walk and the default call, in turn, by the process's own clock."""
    took = iter([4.0, 2.0, 3.0, 5.0, 1.5, 9.0])

    def seconds(work):
        work()
        return next(took)

    verified = []

    class Noted:
        def sweep(self, question, verify=None):
            verified.append(verify)

    monkeypatch.setattr(price, "_seconds", seconds)
    question = ask(MAPS["b"], TINY)
    found = price.price(Noted(), question, rounds=2)
    rows = Machine("cpu").rows
    product = 2 * rows * TINY.width * 4 * TINY.width * price.PRODUCTS / 4.0
    assert found.floor == pytest.approx(floor.flops(question) / product)
    assert (found.unverified, found.default) == (1.5, 3.0)
    assert verified == [0, None, 0, None]
    assert "default ÷ unverified 2.000" in str(found)
