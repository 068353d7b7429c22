"""A sweep with ``out=``: stopped, killed, called again, asked otherwise, as its users see it."""

from __future__ import annotations

import copy
import os
import signal
import types
from collections.abc import Callable

import pytest
import torch
import xarray as xr

import microtome as mt
from forked import in_a_copy
from microtome.errors import EffectsError, SweepError
from microtome.plan import units

PROMPT = mt.Prompt(
    "Berlin is the capital of",
    donor="Paris is the capital of",
    target=" Germany",
    contrast=" France",
)
EDIT = "patch L*.z.h*@*"
METRICS = ("logit_diff", "kl", "top1", "norm(L*.resid_post@-1)")
WORK = 2e9
"""Operations of a unit here: small, so that there are many."""


class Killer(mt.Observer):
    """Kills its process when two units are done and the next is on its way."""

    units = 0

    def unit_done(self, number: int, of: int) -> None:
        self.units += 1

    def advanced(self, cells: int) -> None:
        if self.units == 2:
            os.kill(os.getpid(), signal.SIGKILL)


class Counting(mt.Observer):
    """Notes which units are computed; may do something after one."""

    def __init__(self, after: Callable[[int], None] = lambda done: None) -> None:
        self.done: list[int] = []
        self.after = after
        self.cancel = False

    def unit_done(self, number: int, of: int) -> None:
        self.done.append(number)
        self.after(len(self.done))

    @property
    def cancelled(self) -> bool:
        return self.cancel


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(units, "WORK", WORK)
    monkeypatch.setattr(units, "PASSES", 0)


@pytest.fixture(scope="module")
def folder(make_gpt2, tokenizer, tmp_path_factory):
    """A model on disk, which two processes know as one."""
    folder = tmp_path_factory.mktemp("saved")
    make_gpt2().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return mt.load("model")


@pytest.fixture(scope="module")
def whole(model):
    """The same sweep that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "WORK", WORK)
        patch.setattr(units, "PASSES", 0)
        return sweep(model)


def sweep(model, **more):
    return mt.sweep(
        model, PROMPT, EDIT, metrics=METRICS, **{"progress": False, "verify": 1, **more}
    )


def numbers(effects) -> xr.Dataset:
    return effects.data.drop_attrs()


def test_a_cancelled_sweep_is_gone_on_with_and_is_the_same_bit_for_bit(model, whole, tmp_path):
    first = Counting(lambda done: setattr(first, "cancel", done == 2))
    with pytest.raises(mt.Cancelled, match="Whole units are kept"):
        sweep(model, out=tmp_path / "map.zarr", progress=first)
    second = Counting()
    effects = sweep(model, out=tmp_path / "map.zarr", progress=second)
    assert first.done == [0, 1]
    assert second.done == list(range(2, effects.provenance["predicted"]["units"]))
    assert len(second.done) > 1
    xr.testing.assert_identical(numbers(effects), numbers(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


def test_a_sweep_that_is_interrupted_is_gone_on_with(model, whole, tmp_path):
    def interrupt(done: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(model, out=tmp_path / "map.zarr", progress=Counting(interrupt))
    second = Counting()
    effects = sweep(model, out=tmp_path / "map.zarr", progress=second)
    assert 0 not in second.done
    xr.testing.assert_identical(numbers(effects), numbers(whole))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_a_killed_process_loses_the_unit_on_its_way_alone(model, whole, folder, tmp_path):
    def killed() -> None:
        os.chdir(folder)
        sweep(mt.load("model"), out=tmp_path / "map.zarr", progress=Killer())

    assert in_a_copy(killed) == -signal.SIGKILL
    assert not (tmp_path / "map.zarr").exists()
    second = Counting()
    effects = sweep(model, out=tmp_path / "map.zarr", progress=second)
    assert second.done == list(range(2, effects.provenance["predicted"]["units"]))
    xr.testing.assert_identical(numbers(effects), numbers(whole))


def test_more_or_less_memory_is_no_other_question(model, whole, tmp_path):
    first = Counting(lambda done: setattr(first, "cancel", done == 2))
    with pytest.raises(mt.Cancelled):
        sweep(model, out=tmp_path / "map.zarr", progress=first)
    second = Counting()
    effects = sweep(model, out=tmp_path / "map.zarr", progress=second, memory="3MiB")
    assert second.done == list(range(2, effects.provenance["predicted"]["units"]))
    assert effects.provenance["memory"] == 3 * 2**20
    xr.testing.assert_allclose(numbers(effects), numbers(whole), atol=1e-5)
    with pytest.raises(EffectsError, match=r"another question: options\.verify is 1 there and 2"):
        sweep(model, out=tmp_path / "map.zarr", verify=2)


def test_what_is_finished_is_opened(model, whole, tmp_path):
    sweep(model, out=tmp_path / "map.zarr")
    again = Counting()
    effects = sweep(model, out=tmp_path / "map.zarr", progress=again)
    assert again.done == []
    xr.testing.assert_identical(numbers(effects), numbers(whole))


def test_another_question_is_refused_before_it_runs_and_replaces_on_request(model, tmp_path):
    def ask(seed: int, **more) -> mt.Effects:
        out = tmp_path / "map.zarr"
        return mt.sweep(model, PROMPT, "zero L*.z", metrics="kl", out=out, seed=seed, **more)

    ask(seed=0)
    asked = Counting()
    with pytest.raises(EffectsError, match=r"another question: options\.seed is 0 there and 1"):
        ask(seed=1, progress=asked)
    assert asked.done == []
    ask(seed=1, overwrite=True)
    assert mt.open_effects(tmp_path / "map.zarr").provenance["seed"] == 1


@pytest.mark.parametrize(
    ("edit", "over"),
    [
        (mt.apply("L0.z.h1@-1", lambda values: values / 2), {}),
        (mt.apply("L0.z.h1@-1", torch.sign), {"fn": [torch.sign, lambda values: values * 2]}),
    ],
)
def test_a_function_made_on_the_spot_is_nobodys_the_next_time(model, tmp_path, edit, over):
    asked = {"metrics": "kl", "over": over, "out": tmp_path / "map.zarr"}
    found = mt.sweep(model, PROMPT, edit, **asked)
    xr.testing.assert_identical(mt.open_effects(tmp_path / "map.zarr").data, found.data)
    with pytest.raises(EffectsError, match="another question: functions"):
        mt.sweep(model, PROMPT, edit, **asked)


FACTOR = 2.0
VECTOR = torch.tensor([2.0])
HELD = types.SimpleNamespace(factor=2.0)


def by_a_number(values):
    return values * FACTOR


def by_way_of_another(values):
    return by_a_number(torch.relu(values))


def by_a_vector(values):
    return values * VECTOR


def by_an_object(values):
    return values * HELD.factor


@pytest.mark.parametrize("function", [by_a_number, by_way_of_another, by_a_vector, by_an_object])
def test_a_function_that_reads_something_else_is_another(model, tmp_path, monkeypatch, function):
    edit = mt.apply("L0.z.h1@-1", function)
    asked = {"metrics": "kl", "out": tmp_path / "map.zarr", "progress": False}
    found = mt.sweep(model, PROMPT, edit, **asked)
    if function is not by_an_object:  # which may be any other the next time
        xr.testing.assert_identical(mt.sweep(model, PROMPT, edit, **asked).data, found.data)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    monkeypatch.setitem(globals(), "VECTOR", torch.tensor([3.0]))
    monkeypatch.setattr(HELD, "factor", 3.0)
    with pytest.raises(EffectsError, match="another question: functions"):
        mt.sweep(model, PROMPT, edit, **asked)


def test_an_empty_folder_is_a_place_like_any_other(model, tmp_path):
    (tmp_path / "map.zarr").mkdir()
    mt.sweep(model, PROMPT, "zero L0.z.h1", metrics="kl", out=tmp_path / "map.zarr")
    assert mt.open_effects(tmp_path / "map.zarr").n_cells == 1
    with pytest.raises(EffectsError, match="cannot name a file or a folder"):
        mt.sweep(model, PROMPT, "zero L0.z.h1", metrics="kl", out=f"{tmp_path}/\ud800")


def test_values_that_differ_late_are_other_questions(model, tmp_path):
    """An array's own text leaves out its middle, and numpy knows no bfloat16."""
    width = model.anatomy.dims.d_model
    one = torch.zeros(5, width, dtype=torch.bfloat16)
    two = one.clone()
    two[2, width // 2] = 8.0
    asked = {"metrics": "logit_diff", "out": tmp_path / "e.zarr"}
    edit = mt.add("L0.resid_post", 0.0)
    mt.sweep(model, PROMPT, edit, over={"vector": [one]}, **asked)
    with pytest.raises(EffectsError, match="another question"):
        mt.sweep(model, PROMPT, edit, over={"vector": [two]}, **asked)


def test_a_screened_sweep_is_gone_on_with(model, tmp_path):
    asked = {"metrics": ["logit_diff"], "screen": "bfloat16", "refine": 9}
    whole = mt.sweep(model, PROMPT, EDIT, out=tmp_path / "whole.zarr", **asked)
    for stop in (1, 4, 5):
        told = Counting()
        told.after = lambda done, told=told, stop=stop: setattr(told, "cancel", done == stop)
        out = tmp_path / f"{stop}.zarr"
        with pytest.raises(mt.Cancelled):
            mt.sweep(model, PROMPT, EDIT, out=out, progress=told, **asked)
        rest = Counting()
        found = mt.sweep(model, PROMPT, EDIT, out=out, progress=rest, **asked)
        assert not set(told.done) & set(rest.done)
        for name in whole.data.data_vars:
            xr.testing.assert_identical(found.data[name], whole.data[name])


def test_seconds_are_those_of_all_units(model, tmp_path):
    told = Counting()
    told.after = lambda done: setattr(told, "cancel", done == 2)
    with pytest.raises(mt.Cancelled):
        mt.sweep(model, PROMPT, EDIT, metrics=METRICS, out=tmp_path / "e.zarr", progress=told)
    found = mt.sweep(model, PROMPT, EDIT, metrics=METRICS, out=tmp_path / "e.zarr")
    whole = mt.sweep(model, PROMPT, EDIT, metrics=METRICS)
    spent, there = found.provenance["actual"], whole.provenance["actual"]
    assert spent["token_blocks"] == there["token_blocks"]
    assert spent["seconds"] > 0


@pytest.mark.parametrize("strength", [0.5, -2.0])
def test_a_result_with_a_hook_is_not_opened_for_another_of_its_name(
    make_gpt2, tokenizer, tmp_path, strength
):
    """What a hook looks at may be anything, so what it gave is nobody else's, nor its own."""

    def steered(by):
        hf = make_gpt2()
        hf.transformer.h[1].register_forward_hook(lambda module, args, out: out * by)
        return mt.load(hf, tokenizer=tokenizer)

    def go(by, **options):
        asked = {"metrics": "kl", "out": tmp_path / "e.zarr", "progress": False}
        return mt.sweep(steered(by), PROMPT, "zero L*.z.h1@-1", **asked, **options)

    go(0.5)
    with pytest.raises(EffectsError, match="put there by hand"):
        go(strength)
    assert go(strength, overwrite=True).n_cells > 0


def test_a_class_of_somebodys_own_is_known_by_its_code(make_gpt2, tokenizer, tmp_path):
    def model_of(by):
        hf = make_gpt2()

        class Louder(type(hf.transformer.ln_f)):
            def forward(self, x):
                return super().forward(x) * by

        hf.transformer.ln_f.__class__ = Louder
        return mt.load(hf, tokenizer=tokenizer)

    def go(by):
        asked = {"metrics": "logit_diff", "out": tmp_path / "e.zarr", "progress": False}
        return mt.sweep(model_of(by), PROMPT, "zero L*.z.h1@-1", **asked)

    first = go(2.0)
    xr.testing.assert_identical(go(2.0).data, first.data)
    with pytest.raises(EffectsError, match="Louder"):
        go(3.0)


@pytest.mark.parametrize("held", [lambda by: torch.tensor(by), lambda by: {"by": by}])
def test_a_module_of_somebodys_own_is_known_by_what_it_holds(make_gpt2, tokenizer, tmp_path, held):
    hf = make_gpt2()

    class Louder(type(hf.transformer.ln_f)):
        def forward(self, x):
            return super().forward(x) * (self.by["by"] if isinstance(self.by, dict) else self.by)

    def go(by):
        hf.transformer.ln_f.by = held(by)
        asked = {"metrics": "logit_diff", "out": tmp_path / "e.zarr", "progress": False}
        return mt.sweep(mt.load(hf, tokenizer=tokenizer), PROMPT, "zero L*.z.h1@-1", **asked)

    hf.transformer.ln_f.__class__ = Louder
    first = go(2.0)
    if isinstance(hf.transformer.ln_f.by, torch.Tensor):  # a dict may hold anything
        xr.testing.assert_identical(go(2.0).data, first.data)
    with pytest.raises(EffectsError, match="Louder"):
        go(3.0)


@pytest.mark.parametrize("as_donor", [True, False])
def test_a_chat_that_another_template_writes_is_another_question(
    make_gpt2, tokenizer, tmp_path, as_donor
):
    model = mt.load(make_gpt2(), tokenizer=copy.deepcopy(tokenizer))
    turns = [{"role": "user", "content": "Paris is the capital"}]

    def go(template):
        model.tokenizer.chat_template = template
        asked = {"metrics": "kl", "out": tmp_path / "e.zarr", "progress": False}
        if as_donor:
            prompt = mt.Prompt(text="Berlin is the capital of", donor_messages=turns)
            return mt.sweep(model, prompt, "patch L1.z@0", **asked)
        chat = [mt.Prompt.chat(turns), "Berlin is the capital of"]
        mean = 'mean(over="prompts") L1.z@0'
        return mt.sweep(model, "Berlin is the capital of", mean, reference=chat, **asked)

    first = go("{{ messages[0].content }} of")
    xr.testing.assert_identical(go("{{ messages[0].content }} of").data, first.data)
    with pytest.raises(EffectsError, match="written"):
        go("The {{ messages[0].content }}")


@pytest.mark.parametrize("of", ["prompts", "donors", "references", "a later window"])
def test_a_stream_of_chats_is_known_by_what_its_template_makes_of_them(
    make_gpt2, tokenizer, tmp_path, of
):
    """Many a template writes today's date."""
    model = mt.load(make_gpt2(), tokenizer=copy.deepcopy(tokenizer))
    turns, told = [{"role": "user", "content": "Paris is the capital"}], {"dated": True}
    chat = mt.Prompt.chat(turns, chat_options=told)
    prompts, edit, others = [chat], "zero L1.z@last", []
    if of == "donors":
        pair = mt.Prompt("Berlin is the capital of", donor_messages=turns, chat_options=told)
        prompts, edit = [pair], "patch L1.z@last"
    elif of == "references":
        prompts, edit, others = ["Berlin is"], 'mean(over="prompts") L1.z@last', [chat, chat]
    elif of == "a later window":
        prompts = ["Berlin is", chat]

    def go(day):
        model.tokenizer.chat_template = f"{{{{ {day} if dated }}}} {{{{ messages[0].content }}}} of"
        asked = {"metrics": "kl", "out": tmp_path / "e.zarr", "progress": False}
        return mt.sweep(model, mt.Stream(prompts, 1), edit, reference=others, **asked)

    first = go(1)
    xr.testing.assert_identical(go(1).data, first.data)
    with pytest.raises(EffectsError, match=r"another question|other prompts"):
        go(2)
    (tmp_path / "e.zarr").rename(tmp_path / "yesterday.zarr")
    go("strftime_now('%f')")
    with pytest.raises(EffectsError, match="written" if of == "references" else "other prompts"):
        go("strftime_now('%f')")


def other_epsilon(block):
    block.ln_1.eps = 1.0


def other_method(block):
    """Of a library, too, and built in: none that is named among somebody's own."""
    block.mlp.act.forward = torch.relu


@pytest.mark.parametrize("change", [other_epsilon, other_method])
def test_a_model_of_which_a_setting_was_changed_is_another(folder, tmp_path, change):
    """No weight tells of a norm's epsilon, nor of what an activation calls."""
    changed = mt.load(folder / "model")
    asked = {"metrics": "kl", "progress": False, "out": tmp_path / "map.zarr"}
    mlp = changed.hf.transformer.h[0].mlp
    mlp.forward = types.MethodType(type(mlp).forward, mlp)
    mt.sweep(changed, PROMPT, "zero L0.z.h0@-1", **asked)
    del mlp.forward
    mt.sweep(changed, PROMPT, "zero L0.z.h0@-1", **asked)  # it is the same, put there by hand
    change(changed.hf.transformer.h[0])
    with pytest.raises(EffectsError, match=r"the result of another question: .*modules"):
        mt.sweep(changed, PROMPT, "zero L0.z.h0@-1", **asked)


@pytest.mark.parametrize("streamed", [False, True])
def test_units_of_weights_that_changed_on_the_way_are_not_gone_on_with(folder, tmp_path, streamed):
    """The model may be loaded again, and would be taken for the one that they are of."""
    changed = mt.load(folder / "model")
    prompts = mt.Stream([PROMPT, PROMPT], 1) if streamed else PROMPT
    asked = {"metrics": "kl", "verify": 0, "out": tmp_path / "map.zarr"}
    stop = Counting(lambda done: setattr(stop, "cancel", True))
    with pytest.raises(mt.Cancelled):
        mt.sweep(changed, prompts, EDIT, progress=stop, **asked)
    change = Counting(lambda done: changed.hf.lm_head.weight.data.mul_(1 + (done == 1)))
    with pytest.raises(SweepError, match="changed while it was running"):
        mt.sweep(changed, prompts, EDIT, progress=change, **asked)
    again = Counting()
    found = mt.sweep(mt.load(folder / "model"), prompts, EDIT, progress=again, **asked)
    assert len(again.done) == len(change.done) + streamed  # what there was before it, of a map
    wanted = mt.sweep(mt.load(folder / "model"), prompts, EDIT, metrics="kl", verify=0)
    xr.testing.assert_identical(numbers(found), numbers(wanted))
