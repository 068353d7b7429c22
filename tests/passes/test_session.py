"""A session has a model to itself, and nobody else sees anything of it."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import microtome as mt
from microtome.errors import MicrotomeError
from microtome.language.sites import site as site_of
from microtome.passes import exclusive
from microtome.passes.guests import OURS, guests_on, keeps_state
from microtome.passes.hooks import Visit, hooked, only_at
from microtome.passes.prefix import SharedPrefix
from microtome.passes.raw import returned
from microtome.passes.session import lending, opened, session
from microtome.passes.turns import Turns

pytestmark = pytest.mark.filterwarnings("ignore::microtome.errors.PromptWarning")
"""Texts are longer here than the models were made for: that is when they change."""

CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")
ENGINES = ("walk", "reference")
EDITS = ("zero L*.z.h*@-1", "knockout L*.pattern.h*@-1,2")
QUESTIONS = [(edit, engine) for edit in EDITS for engine in ENGINES]
ROTARY = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
WINDOW = 4
"""The length from which on a dynamic rotary embedding changes its frequencies."""


def ids_of(model, text: str = CAT.text) -> torch.Tensor:
    return torch.tensor([model.tokenizer(text)["input_ids"]])


def bare(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(ids, use_cache=False).logits


def map_of(model, edit: str, engine: str) -> torch.Tensor:
    effects = mt.sweep(model, CAT, edit, metrics="logit_diff", engine=engine, progress=False)
    return torch.tensor(effects.data["logit_diff"].values)


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run these at once; the first error of any is raised here."""
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def left_on(hf) -> list[object]:
    return [guest for module in hf.modules() for guest in guests_on(module)]


@pytest.fixture
def llama(tokenizer) -> mt.Model:
    return mt.load(_llama(len(tokenizer)), tokenizer=tokenizer)


def _llama(vocab: int, **changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        **{
            "vocab_size": vocab,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **changes,
        }
    )
    return LlamaForCausalLM(config).eval()


# ---------------------------------------------------------------------------------------- threads


def test_two_threads_with_one_model_get_what_one_gets(tiny):
    wanted = {question: map_of(tiny, *question) for question in QUESTIONS}
    found = []

    def job(mine) -> None:
        found.extend((question, map_of(tiny, *question)) for question in mine)

    in_threads(lambda: job(QUESTIONS), lambda: job(QUESTIONS[::-1]))
    assert len(found) == 2 * len(QUESTIONS)
    assert all(torch.equal(values, wanted[question]) for question, values in found)


def test_two_models_in_two_threads_do_not_disturb_each_other(tiny, make_gpt2, tokenizer):
    models = tiny, mt.load(make_gpt2(seed=1), tokenizer=tokenizer)
    wanted = [[map_of(model, *question) for question in QUESTIONS] for model in models]
    found: list[list[torch.Tensor]] = [[], []]

    def job(number: int) -> None:
        order = QUESTIONS if number else QUESTIONS[::-1]
        own = {question: map_of(models[number], *question) for question in order}
        found[number] = [own[question] for question in QUESTIONS]

    in_threads(lambda: job(0), lambda: job(1))
    for own, expected in zip(found, wanted, strict=True):
        assert all(torch.equal(*pair) for pair in zip(own, expected, strict=True))


@pytest.mark.parametrize(
    ("edit", "engine"), [("zero L*.z.h*", "walk"), ("zero L*.mlp_out", "reference")]
)
def test_a_model_that_is_lent_is_had_by_others_in_the_middle_of_a_unit(tiny, edit, engine):
    """They find nothing of the sweep on it, it goes on after them, and both give what they give."""
    wanted, clean = map_of(tiny, edit, engine), tiny.run(CAT).logits
    found, left, asked = [], [], []

    class Clicking(mt.Observer):
        """Another thread asks for the model whenever something is done."""

        def advanced(self, cells: float) -> None:
            asked.append(threading.Thread(target=click))
            asked[-1].start()
            while not exclusive.turns.is_awaited(exclusive.turns.holder(tiny.hf)):
                time.sleep(0.001)

        def unit_done(self, number: int, of: int) -> None:
            found.append(None)

    def click() -> None:
        with session(tiny.hf, tiny.anatomy) as own:
            left.extend(guest for guest in left_on(tiny.hf) if guest.host is not own)
            found.append(tiny.run(CAT).logits)

    with lending():
        effects = mt.sweep(
            tiny, CAT, edit, metrics="logit_diff", engine=engine, progress=Clicking()
        )
    for one in asked:
        one.join()
    assert found.index(None) >= 3, "each was let in before the unit was done"
    assert left == []
    assert all(one is None or torch.equal(one, clean) for one in found)
    assert torch.equal(torch.tensor(effects.data["logit_diff"].values), wanted)
    assert left_on(tiny.hf) == []


def test_an_interrupt_while_others_have_the_model_leaves_it_to_them(tiny, monkeypatch):
    clean, found = tiny.run(CAT).logits, []
    other = threading.Thread(target=lambda: found.append(tiny.run(CAT).logits))

    def interrupted(session) -> None:
        raise KeyboardInterrupt

    def lent() -> None:
        with lending(), session(tiny.hf, tiny.anatomy) as own:
            other.start()
            while not exclusive.turns.is_awaited(own):
                time.sleep(0.001)
            monkeypatch.setattr(exclusive.turns, "take", interrupted)
            own.give_way()

    with pytest.raises(KeyboardInterrupt):
        lent()
    monkeypatch.undo()
    other.join()
    assert torch.equal(found[0], clean)
    assert torch.equal(tiny.run(CAT).logits, clean)
    assert left_on(tiny.hf) == []


def test_who_is_called_up_as_its_patience_ends_can_lend_the_model_as_well(tiny):
    turns = Turns()

    class Asking:
        hf, thread, is_over = tiny.hf, 0, False

        def __init__(self, call) -> None:
            self.call = call

    class Late:
        """A lock that is let go in the moment in which nobody waits for it any more."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.release, self.locked = self.lock.release, self.lock.locked

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if timeout > 0:
                first.is_over = True
                turns.give_back(first)
                return False
            return self.lock.acquire(blocking)

    first, second = Asking(threading.Lock()), Asking(Late())
    turns.take(first)
    turns.take(second)
    turns.pass_on(second)
    assert turns.holder(tiny.hf) is second


@pytest.mark.parametrize("kept", ["not lent", "hooked", "two models"])
def test_nobody_is_let_in_where_that_would_disturb(tiny, llama, kept):
    with ExitStack() as stack:
        if kept != "not lent":
            stack.enter_context(lending())
        if kept == "two models":
            stack.enter_context(session(llama.hf, llama.anatomy))
        if kept == "hooked":
            stack.enter_context(
                hooked(tiny.hf, tiny.anatomy, [Visit((site_of("resid_post"), 0), print)])
            )
        own = stack.enter_context(session(tiny.hf, tiny.anatomy))
        other = threading.Thread(target=lambda: tiny.run(CAT))
        other.start()
        while not exclusive.turns.is_awaited(own):
            time.sleep(0.001)
        before = left_on(tiny.hf)
        own.give_way()
        assert other.is_alive()
        assert left_on(tiny.hf) == before
    other.join()


@pytest.mark.parametrize("family", ["tiny", "llama"])
def test_a_bare_call_beside_sweeps_is_clean_bit_for_bit(family, request):
    model = request.getfixturevalue(family)
    ids = ids_of(model)
    clean, over, calls = bare(model, ids), threading.Event(), []

    def sweeps() -> None:
        try:
            for question in QUESTIONS:
                map_of(model, *question)
        finally:
            over.set()

    def call() -> None:
        while not (over.is_set() and calls):
            calls.append(torch.equal(bare(model, ids), clean))

    in_threads(sweeps, call)
    assert all(calls)


@pytest.mark.parametrize("site", ["z", "pattern"])
def test_a_bare_pass_that_begins_and_ends_inside_one_is_clean(tiny, site):
    """Without luck: the other thread runs while all hooks are on."""
    ids, found, acted = ids_of(tiny), [], []
    clean = bare(tiny, ids)
    place = site_of(site)

    def act(view: torch.Tensor) -> None:
        acted.append(view.shape)
        if len(acted) == 1:
            in_threads(lambda: found.append(bare(tiny, ids)))
        view.zero_()

    with hooked(tiny.hf, tiny.anatomy, [Visit((place, 1), act, writes=True)]):
        edited = bare(tiny, ids)
    assert not torch.equal(edited, clean)
    assert len(acted) == len(found) == 1
    assert torch.equal(found[0], clean)


def test_a_pass_that_ends_after_one_is_clean(tiny):
    """Its hooks come off while torch holds them in the other thread's call."""
    ids, clean = ids_of(tiny), bare(tiny, ids_of(tiny))
    inside, off, found = threading.Event(), threading.Event(), []

    def pause(*_) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert off.wait(300)

    mine = tiny.hf.transformer.h[1].register_forward_pre_hook(pause)
    try:
        place = site_of("resid_pre"), 1
        with hooked(tiny.hf, tiny.anatomy, [Visit(place, lambda x: x.zero_(), writes=True)]):
            other = threading.Thread(target=lambda: found.append(bare(tiny, ids)))
            other.start()
            assert inside.wait(300)
        off.set()
        other.join()
    finally:
        mine.remove()
    assert torch.equal(found[0], clean)


def test_an_attention_that_was_chosen_goes_with_its_block(tiny):
    with session(tiny.hf, tiny.anatomy) as own:
        with own.block():
            own.choose("eager")
            assert own.implementation == "eager"
        assert own.implementation is None


def test_threads_have_their_turns_in_the_order_in_which_they_ask(tiny):
    began, order = threading.Event(), []

    def ask(name: str) -> None:
        with session(tiny.hf, tiny.anatomy):
            order.append(name)

    with session(tiny.hf, tiny.anatomy):
        threads = []
        for name in "abc":
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            while len(_waiting(tiny.hf)) < len(threads):
                began.wait(0.001)
        assert not order
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c"]


def test_who_asks_again_at_once_comes_after_who_waits(tiny):
    order: list[str] = []

    def ask() -> None:
        with session(tiny.hf, tiny.anatomy):
            order.append("who waits")

    with session(tiny.hf, tiny.anatomy):
        other = threading.Thread(target=ask)
        other.start()
        while not _waiting(tiny.hf):
            threading.Event().wait(0.001)
    with session(tiny.hf, tiny.anatomy):
        order.append("who asks again")
    other.join()
    assert order == ["who waits", "who asks again"]


def _waiting(hf) -> list[object]:
    return [*exclusive.turns._queues[hf].waiting]


# ---------------------------------------------------------------------------------------- manners


def test_a_session_inside_one_is_the_same_and_ends_with_it(tiny):
    with session(tiny.hf, tiny.anatomy) as outer:
        with session(tiny.hf, tiny.anatomy) as inner:
            assert inner is outer is opened(tiny.hf)
        assert outer.is_open
    assert outer.is_over
    assert not left_on(tiny.hf)


def test_a_block_takes_off_what_blocks_inside_it_have_left(tiny):
    clean = bare(tiny, ids_of(tiny))
    with session(tiny.hf, tiny.anatomy) as own:
        inner = session(tiny.hf, tiny.anatomy)
        inner.__enter__()
        left = own.block()
        left.__enter__()  # and an interrupt came before the first line of its __exit__
        own.hook([(tiny.hf.transformer.h[0], "output", lambda *_: 1 / 0)])
        inner.__exit__(None, None, None)
        assert torch.equal(bare(tiny, ids_of(tiny)), clean)
        with own.block():
            own.hook([(tiny.hf.transformer.h[0], "output", lambda *_: 1 / 0)])
            left.__exit__(None, None, None)  # too late, as a collector may be: it takes nothing off
            with pytest.raises(ZeroDivisionError):
                bare(tiny, ids_of(tiny))


def test_what_needs_a_session_says_so(tiny):
    with (
        pytest.raises(MicrotomeError, match=r"No session is open in this thread.*with session\("),
        only_at(tiny.hf.transformer.h[0].mlp, [0]),
    ):
        pass


def test_models_that_share_parts_are_refused_while_one_is_in_use(tiny, make_gpt2):
    other = make_gpt2(seed=1)
    other.transformer = tiny.hf.transformer
    with session(tiny.hf, tiny.anatomy):
        with pytest.raises(MicrotomeError, match="in use by a session on another model"):
            session(other, tiny.anatomy).__enter__()
        assert opened(tiny.hf).hf is tiny.hf
    with session(other, tiny.anatomy):
        pass
    assert not left_on(other)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda hf: pickle.loads(pickle.dumps(hf))])
def test_a_copy_made_inside_one_is_a_plain_model(llama, how):
    ids, clean = ids_of(llama), bare(llama, ids_of(llama))
    zero = Visit((site_of("z"), 0), lambda x: x.zero_(), writes=True)
    show = Visit((site_of("pattern"), 1), lambda x: x.zero_(), writes=True)
    with hooked(llama.hf, llama.anatomy, [zero, show]):
        copied = how(llama.hf)
        with torch.no_grad():
            assert torch.equal(copied(ids, use_cache=False).logits, clean)
    other = mt.load(copied, tokenizer=llama.tokenizer)
    assert torch.equal(other.run(CAT).logits, clean)
    assert type(copied.model.layers[1].self_attn.config) is type(copied.config)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in copied.modules())


def test_the_next_session_takes_off_what_a_dead_one_left(tiny):
    clean = bare(tiny, ids_of(tiny))
    stay = session(tiny.hf, tiny.anatomy)
    dead = stay.__enter__()
    dead.hook([(tiny.hf.transformer.h[0], "output", lambda *_: 1 / 0)])
    dead.blocks.clear()
    stay.__exit__(None, None, None)  # as if it had been interrupted there
    assert torch.equal(bare(tiny, ids_of(tiny)), clean)
    assert left_on(tiny.hf)
    with session(tiny.hf, tiny.anatomy):
        assert torch.equal(bare(tiny, ids_of(tiny)), clean)
    assert not left_on(tiny.hf)


def test_one_whose_block_was_never_left_ends_when_nobody_has_it(tiny):
    kept = session(tiny.hf, tiny.anatomy).__enter__()
    kept.hook([(tiny.hf.transformer.h[0], "output", lambda *_: 1 / 0)])
    assert kept.is_over
    bare(tiny, ids_of(tiny))
    in_threads(lambda: map_of(tiny, *QUESTIONS[0]))
    assert not left_on(tiny.hf)


def test_nothing_stays_in_memory(tiny, monkeypatch):
    made, sessions = [], []
    begin = SharedPrefix.__init__

    def noted(self, *args, **kwargs) -> None:
        made.append(weakref.ref(self))
        sessions.append(weakref.ref(opened(tiny.hf)))
        begin(self, *args, **kwargs)

    monkeypatch.setattr(SharedPrefix, "__init__", noted)
    map_of(tiny, *QUESTIONS[0])
    gc.collect()
    assert made
    assert all(one() is None for one in [*made, *sessions])
    assert not isinstance(ALL_ATTENTION_FUNCTIONS[OURS], SharedPrefix)
    assert Turns().holder(tiny.hf) is None


def test_the_configuration_is_never_switched(make_gpt2, tokenizer, monkeypatch):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)  # transformers leaves hooks of its own on it
    config, seen = model.hf.config, []
    monkeypatch.setattr(type(config), "__setattr__", lambda *change: seen.append(change[1]))
    map_of(model, *QUESTIONS[2])
    returned(model, CAT.text)
    assert not seen


def test_an_interrupt_inside_a_session_that_goes_on_leaves_no_edit(tiny):
    ids = ids_of(tiny)

    def interrupted(view: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with session(tiny.hf, tiny.anatomy):
        clean = bare(tiny, ids)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(CAT, edits=[mt.apply("L1.z", interrupted), "knockout L0.pattern@-1,0"])
        assert torch.equal(bare(tiny, ids), clean)


# ------------------------------------------------------------------------- state of modules


def _rotary_models(vocab: int):
    yield _llama(vocab, max_position_embeddings=WINDOW, rope_parameters=dict(ROTARY))
    torch.manual_seed(0)
    kinds = {"full_attention": dict(ROTARY), "sliding_attention": {"rope_type": "default"}}
    kinds["sliding_attention"]["rope_theta"] = 10000.0
    config = Gemma3TextConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=WINDOW,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters=kinds,
        initializer_range=0.3,
    )
    yield Gemma3ForCausalLM(config).eval()


beyond = pytest.mark.filterwarnings("ignore:A text has:microtome.errors.PromptWarning")
"""Texts longer than a model was made for are what these are about."""


@pytest.fixture(params=[0, 1], ids=["llama", "gemma3"])
def dynamic(request, tokenizer):
    """A model whose rotary embedding remembers the longest text."""
    return [*_rotary_models(len(tokenizer))][request.param]


LONG, SHORT = "When Mary and John went to the store, John gave", "The cat sat on the mat"


def fresh(hf, tokenizer, text: str) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(hf)(torch.tensor([tokenizer(text)["input_ids"]])).logits


@beyond
def test_a_longer_text_before_changes_nothing(dynamic, tokenizer):
    wanted = {text: fresh(dynamic, tokenizer, text) for text in (LONG, SHORT)}
    model = mt.load(dynamic, tokenizer=tokenizer)
    for text in (SHORT, LONG, SHORT):
        assert torch.equal(model.run(text).logits, wanted[text])


@beyond
def test_passes_leave_no_state_behind(dynamic, tokenizer):
    state = {name: x.clone() for name, x in dynamic.named_buffers()}
    ids = torch.tensor([tokenizer(SHORT)["input_ids"]])
    wanted = fresh(dynamic, tokenizer, SHORT)
    model = mt.load(dynamic, tokenizer=tokenizer)
    model.run(LONG)
    for name, x in dynamic.named_buffers():
        assert torch.equal(x, state[name])
    assert torch.equal(bare(model, ids), wanted)


@beyond
def test_a_model_that_has_run_a_long_text_is_taken_as_fresh(dynamic, tokenizer):
    wanted = fresh(dynamic, tokenizer, SHORT)
    with torch.no_grad():
        dynamic(torch.tensor([tokenizer(LONG)["input_ids"]]))
        stale = dynamic(torch.tensor([tokenizer(SHORT)["input_ids"]])).logits
    assert not torch.equal(stale, wanted)  # what the bare module gives from then on
    model = mt.load(dynamic, tokenizer=tokenizer)
    assert torch.equal(model.run(SHORT).logits, wanted)


@beyond
@pytest.mark.parametrize("engine", ENGINES)
def test_maps_of_short_and_long_prompts_are_those_of_each_alone(dynamic, tokenizer, engine):
    prompts = [mt.Prompt(text, target=" the", contrast=" John") for text in (SHORT, LONG, SHORT)]

    model = mt.load(dynamic, tokenizer=tokenizer)

    def values(some) -> torch.Tensor:
        found = mt.sweep(model, some, EDITS[0], metrics="logit_diff", engine=engine, verify=0)
        return torch.tensor(found.data["logit_diff"].values)

    together = values(prompts)
    alone = torch.cat([values([prompts[n]]) for n in (0, 1, 0)])
    assert float((together - alone).abs().max()) < 1e-5


def test_a_forward_that_somebody_put_there_is_left_alone(llama):
    rotary = llama.hf.model.rotary_emb
    assert keeps_state(rotary)
    own, calls = rotary.forward, []

    def mine(*args, **kwargs):
        calls.append(args)
        return own(*args, **kwargs)

    rotary.forward = mine
    llama.run(CAT)
    assert len(calls) == 1
    assert vars(rotary)["forward"] is mine


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_fork_waits_for_no_thread_that_it_does_not_have(tiny):
    began, over = threading.Event(), threading.Event()

    def hold() -> None:
        with session(tiny.hf, tiny.anatomy):
            began.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    began.wait()
    child = os.fork()
    if not child:  # no assertion may leave this block: pytest is in this process, too
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(300)
        try:
            tiny.run(CAT, edits=["zero L0.z.h0"])
            os._exit(len(left_on(tiny.hf)))
        finally:
            os._exit(100)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert left_on(tiny.hf)
    finally:
        over.set()
        thread.join()
    assert not left_on(tiny.hf)


def test_a_part_of_an_outer_model_is_found_inside_a_session_on_another(tiny, tiny64):
    part = tiny.hf.transformer.h[0].attn
    with session(tiny.hf, tiny.anatomy) as outer, session(tiny64.hf, tiny64.anatomy) as inner:
        assert opened(part) is outer
        assert opened(tiny64.hf.transformer.h[0].attn) is inner
        nested = map_of(tiny, EDITS[1], "walk")
    assert torch.equal(nested, map_of(tiny, EDITS[1], "walk"))


def test_a_function_in_an_edit_cannot_run_the_model(tiny):
    def runs(x: torch.Tensor) -> torch.Tensor:
        tiny.run("The cat")
        return x

    edit = mt.apply("L0.z.h*@-1", runs)
    with pytest.raises(MicrotomeError, match="a function in an edit cannot run the model"):
        mt.sweep(tiny, CAT, edit, metrics="logit_diff", progress=False)
    assert not left_on(tiny.hf)
    assert tiny.run("The cat").logits.isfinite().all()


def test_whose_a_module_is_does_not_take_a_look_at_all_of_them(tiny, make_gpt2, monkeypatch):
    part, strange = tiny.hf.transformer.h[2].attn, make_gpt2().transformer.h[2].attn
    with session(tiny.hf, tiny.anatomy) as own:
        assert not own.has(strange)
        with monkeypatch.context() as patch:
            patch.setattr(type(tiny.hf), "modules", lambda *_, **__: pytest.fail("it was taken"))
            assert opened(part) is own
