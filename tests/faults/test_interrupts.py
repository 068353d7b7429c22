"""Ctrl-C in a session that goes on: whenever it comes, the model is as it was.

An interrupt is raised in our own code that puts things on a model and takes them off, or in that of
Python's context managers, at whose beginnings one does most harm. All moments of one run where it
may come are counted, then it is run again and again and stopped at one of them: no clock, no luck.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
import torch

import microtome as mt
from microtome.passes.guests import guests_on
from microtome.passes.modes import stack
from microtome.passes.session import session

# One that comes while Python itself closes a generator is lost, wherever in a program.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PASSES = str(Path(sys.modules["microtome.passes.session"].__file__).parent)
WATCHED = (PASSES, contextlib.__file__)
CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")
MOMENTS = 24
JOBS = {
    "walk, weights": lambda model: sweep(model, "knockout L*.pattern.h0@-1,2", "walk"),
    "reference, weights": lambda model: sweep(model, "knockout L*.pattern.h0@-1,2", "reference"),
    "relevances": lambda model: sweep(model, "zero L*.z.h0@2", "auto", method="relp", audit=1),
    "written": lambda model: torch.tensor(
        model.generate(CAT, ["zero L1.z.h0@last"], 3, do_sample=True, verify=False)[0].ids
    ),
    "run": lambda model: model.run(CAT, edits=["zero L0.z.h1", "scale(0.5) L2.pattern.h1"]).logits,
}


def sweep(model, edit: str, engine: str, **how) -> torch.Tensor:
    effects = mt.sweep(model, CAT, edit, metrics="logit_diff", engine=engine, verify=0, **how)
    return torch.tensor(effects.data["logit_diff"].values)


def bare(model) -> torch.Tensor:
    with torch.no_grad():
        ids = torch.tensor([model.tokenizer(CAT.text)["input_ids"]])
        return model.hf(ids, use_cache=False).logits


class Interrupted:
    """Within this block the moments are written down, and at one of them comes an interrupt.

    Python looks for signals when it enters a function and when a call has returned, so these are
    the moments. (Before the next line it does not, as in front of a lock's release.)
    """

    def __init__(self, at: int | None, moments: list[str]) -> None:
        self.at, self.moments = at, moments

    def __enter__(self) -> None:
        sys.setprofile(self.look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def look(self, frame: FrameType, event: str, _: object) -> None:
        """What Python calls at every moment."""
        code = frame.f_code
        if event in ("call", "c_return") and code.co_filename.startswith(WATCHED):
            if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
                return  # it waits
            self.moments.append(f"{event} of {code.co_qualname}")
            if len(self.moments) - 1 == self.at:
                raise KeyboardInterrupt


def chosen(moments: list[str], seed: str) -> list[int]:
    """All over the run, half of them where a block begins to end."""
    draw = random.Random(seed)
    ends = [
        n
        for n, moment in enumerate(moments)
        if moment.startswith("call of ") and moment.endswith(("__exit__", "_leave"))
    ]
    assert ends
    some = draw.sample(ends, min(MOMENTS // 2, len(ends)))
    return sorted({*some, *draw.sample(range(len(moments)), MOMENTS // 2)})


@pytest.mark.parametrize("name", JOBS)
def test_whenever_it_comes_the_model_is_as_it_was(tiny, name):
    job, clean = JOBS[name], bare(tiny)
    wanted, moments = job(tiny), []
    with Interrupted(None, moments):
        job(tiny)
    came = []
    for number, moment in enumerate(chosen(moments, name)):
        try:
            with Interrupted(moment, []):
                job(tiny)
        except KeyboardInterrupt as error:
            came.append(error)  # as a notebook keeps tracebacks, with all that is in their frames
        assert torch.equal(bare(tiny), clean), moments[moment]
        if number % 5 == 0:
            assert torch.equal(job(tiny), wanted), moments[moment]
            assert not any([*guests_on(module)] for module in tiny.hf.modules())
    assert len(came) >= MOMENTS // 2
    assert not any(mode.is_on for mode in stack())
    with session(tiny.hf, tiny.anatomy):
        assert stack() == []
    assert torch.equal(job(tiny), wanted)
    assert not any([*guests_on(module)] for module in tiny.hf.modules())


@pytest.mark.parametrize("name", JOBS)
def test_a_session_around_it_goes_on(tiny, name):
    job, clean = JOBS[name], bare(tiny)
    wanted, moments = job(tiny), []
    with session(tiny.hf, tiny.anatomy), Interrupted(None, moments):
        job(tiny)
    with session(tiny.hf, tiny.anatomy) as around:
        for moment in chosen(moments, name)[::2]:
            with contextlib.suppress(KeyboardInterrupt), Interrupted(moment, []):
                job(tiny)
            assert around.is_open
            assert torch.equal(bare(tiny), clean), moments[moment]
        assert torch.equal(job(tiny), wanted)
    del around
    with session(tiny.hf, tiny.anatomy):  # torch may put a mode back that has had its end
        assert stack() == []


def test_another_thread_has_its_turn_after_one(tiny):
    wanted, found, kept = JOBS["run"](tiny), [], []
    moments: list[str] = []
    with Interrupted(None, moments):
        JOBS["run"](tiny)
    # The last block to end is the session itself.
    last = [n for n, moment in enumerate(moments) if moment == "call of _leave"][-1]
    for moment in (*chosen(moments, "turns")[::4], last):
        try:
            with Interrupted(moment, []):
                JOBS["run"](tiny)
        except KeyboardInterrupt as error:
            kept.append(error)
        other = threading.Thread(target=lambda: found.append(JOBS["run"](tiny)), daemon=True)
        other.start()
        other.join(300)
        assert found, moments[moment]
        assert torch.equal(found.pop(), wanted)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot wait here")
def test_signals_wait_until_all_is_off(tiny):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    stay = session(tiny.hf, tiny.anatomy)
    own = stay.__enter__()
    own.hook([(tiny.hf.transformer.h[0], "output", lambda *_: None)])
    own.at_end(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stay.__exit__(None, None, None)
    assert own.is_over
    assert not any([*guests_on(module)] for module in tiny.hf.modules())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
