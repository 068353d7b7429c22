"""Exceptions. Each message says what was given, what exists, and what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NO_DOCSTRINGS = (
    "Python was started with -OO (PYTHONOPTIMIZE=2), which takes all docstrings away, and "
    "transformers makes its models with them: start it with -O, which takes assertions alone, or "
    "without."
)
"""Why nothing is loaded where Python keeps no docstrings."""


LONGEST = 4000
"""How many characters of a message are shown at most."""


class MicrotomeError(Exception):
    """Anything that microtome refuses; the command line prints it without a traceback.

    A message shows what was given, which may be anything: the middle of a very long one is left
    out.
    """

    def __str__(self) -> str:
        text = super().__str__()
        left = len(text) - LONGEST
        if left <= 0:
            return text
        return f"{text[: LONGEST // 2]} [… {left:,} characters …] {text[-LONGEST // 2 :]}"


class ArgumentError(MicrotomeError, TypeError):
    """An argument of another kind than can be taken (a number for a text), or of another name."""


class AddressError(MicrotomeError, ValueError):
    """An address that cannot be read, or that names nothing in the model or the prompt."""


class EditError(MicrotomeError, ValueError):
    """An edit that cannot be read, built, or applied where it is addressed."""


class InertEditError(EditError):
    """An edit that never fired."""


class PromptError(MicrotomeError, ValueError):
    """A prompt that cannot be used: empty, too long, misaligned with its donor…"""


class TokenError(PromptError):
    """A target or contrast that is not one token."""


class MetricError(MicrotomeError, ValueError):
    """A metric that does not exist, or that lacks what it reads (a target, a contrast)."""


class LoadError(MicrotomeError, OSError):
    """A model or tokenizer that cannot be found or loaded."""


class ArchitectureError(MicrotomeError, ValueError):
    """A model whose architecture is not in the table of families."""


class ProbeError(MicrotomeError, RuntimeError):
    """A model that does not compute what its row in the table of families says."""


class SweepError(MicrotomeError, ValueError):
    """A sweep whose parts do not fit together."""


class ExperimentError(MicrotomeError):
    """An experiment, from a file or from fields, that cannot be read or does not say enough.

    It is no ValueError: pydantic would catch that, and this has to come through it as it is.
    """


class VerificationError(MicrotomeError, ArithmeticError):
    """The walk and the reference path disagree on a cell."""


class WorkerError(MicrotomeError, RuntimeError):
    """Workers that cannot be had, that die again and again, or that are of another kind."""


class EffectsError(MicrotomeError, ValueError):
    """A result that cannot be read, saved or drawn as asked."""


class ReportError(EffectsError):
    """Figures or a report that failed; the message says where what was computed is kept."""


class Cancelled(MicrotomeError):  # noqa: N818  (somebody asked for it: nothing is wrong)
    """A sweep that its observer cancelled; what was done is kept where results are written."""


class TaskError(MicrotomeError, ValueError):
    """A task that cannot be made: too few words that a tokenizer keeps whole, a wrong variant…"""


class StatisticsError(MicrotomeError, ValueError):
    """Data that a statistic is not defined for: samples that do not pair up, no prompts…"""


class CircuitError(MicrotomeError, ValueError):
    """A circuit that cannot be read, run or found as asked: an edge that is not there…"""


class StudyError(MicrotomeError, ValueError):
    """A study that does not exist or cannot run on the model at hand."""


class OtherModelError(StudyError):
    """A study that is for models of another kind: nothing is wrong with either."""


class TextError(MicrotomeError, LookupError):
    """A text that no catalogue has, or that cannot be filled in."""


class PromptWarning(UserWarning):
    """A prompt that can be used, and may not be what was meant."""


class CacheWarning(UserWarning):
    """What was dear to make could not be kept; the work goes on without."""


def listing(options: Iterable[object]) -> str:
    """``a, b, c``."""
    return ", ".join(str(option) for option in options)


def glimpse(given: object, most: int = 160) -> str:
    """What was given, in a message: of anything long its beginning, or an array's shape.

    Args:
        given: anything.
        most: how many characters of it are told.

    >>> glimpse(5), glimpse("Berlin"), glimpse([0] * 400, 12)
    ('5', "'Berlin'", '[0, 0, 0, 0,… (1,200 characters)')
    >>> import numpy
    >>> glimpse(numpy.zeros((20, 50))), glimpse(numpy.array([-100, 5]))
    ('an array of shape [20, 50] (ndarray)', 'array([-100,    5])')
    """
    try:
        text = repr(given)
    except Exception:  # anybody's code
        return f"something of the type {type(given).__name__}, which cannot be printed"
    if len(text) <= most:
        return text
    shape = getattr(given, "shape", None)
    if isinstance(shape, tuple) and hasattr(given, "dtype"):
        return f"an array of shape {[*shape]} ({type(given).__name__})"
    return f"{text[:most]}… ({len(text):,} characters)"


def end_of(text: str, most: int = 30) -> str:
    """The end of a text, of a long one from the beginning of a word on.

    Args:
        text: the whole of it.
        most: how many letters are told.

    >>> end_of("When Mary and John went to the store, John gave a drink to")
    '… store, John gave a drink to'
    >>> end_of("Berlin is the capital of")
    'Berlin is the capital of'
    """
    if len(text) <= most:
        return text
    end = text[-most - 1 :]
    word = end.find(" ")
    if word >= 0 and end[word:].strip():
        return "…" + end[word:]
    return "…" + end[1:]


def there_are(given: object, options: Iterable[object]) -> str:
    """What there is in the place of something that there is not, and the nearest of it.

    Args:
        given: what was asked for.
        options: what there is.

    >>> there_are("wolk", ["walk", "reference"])
    "there are: walk, reference. Did you mean 'walk'?"
    """
    known = [str(option) for option in options]
    return f"there are: {listing(known)}.{did_you_mean(given, known)}"


def did_you_mean(given: object, options: Iterable[str], likeness: float = 0.5) -> str:
    """A sentence with the nearest of the options, or nothing when none is near.

    Args:
        given: what was written.
        options: what there is.
        likeness: from which on two words are near, 0 to 1.

    >>> did_you_mean("resid_pots", ["z", "resid_post", "resid_pre"])
    " Did you mean 'resid_post'?"
    >>> did_you_mean("xylophone", ["z", "k"])
    ''
    """
    near = difflib.get_close_matches(str(given), list(options), n=1, cutoff=likeness)
    return f" Did you mean {near[0]!r}?" if near else ""
