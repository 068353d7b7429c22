"""Hooks that only watch: whoever registers one so vouches that it changes nothing.

A hook of somebody's own may do anything, so a model that has one is run whole and slowly (see
`additions`). One that only records need not be: it is vouched for, held to that as far as can be
seen, and named in the record of every result. Verification compares with the whole model all the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn.modules import module as globally
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from microtome.errors import MicrotomeError
from microtome.model.modules import named_modules
from microtome.model.whose import name_of
from microtome.spoken import spoken

Hook = Callable[..., object]


@dataclass(frozen=True, eq=False)
class Watching:
    """A hook that is vouched for.

    Attributes:
        hook: the hook itself, of any kind that torch's modules take before or after a call.
    """

    hook: Hook

    def __call__(self, *given: object, **named: object) -> None:
        """Call it.

        Raises:
            MicrotomeError: it gave something back, or wrote into what it was given.
        """
        seen = [one for one in tree_leaves((given, named)) if _counts(one)]
        before = [one._version for one in seen]
        back = self.hook(*given, **named)
        if back is not None:
            self._complain("gave something back, which would take the place of what it was given")
        if [one._version for one in seen] != before:
            self._complain("wrote into what it was given")

    def _complain(self, what: str) -> None:
        raise MicrotomeError(
            f"The hook {name_of(self.hook)} is vouched for by microtome.watching, and it {what}. "
            "Register it as it is, without watching: the model then runs with it, on full passes."
        )


@spoken
def watching(hook: Hook) -> Watching:
    """A hook that changes nothing, for torch's ``register_forward_hook`` and its like.

    With it on a model, sweeps are as fast as without any. What it sees there is what the engine
    computes: of a walk many cells in one batch, parts of texts, and in one row of tokens perhaps
    parts of several texts, or of one several times.

    Args:
        hook: a function as torch calls it, that gives nothing back and writes into nothing. What it
            counts belongs outside of the model: an attribute of a module is a setting that its code
            may read, and where one changes, the model is run whole.

    >>> import microtome as mt
    >>> model, shapes = mt.load("nano"), []
    >>> look = mt.watching(lambda module, given, made: shapes.append(tuple(made.shape)))
    >>> handle = model.hf.transformer.h[0].mlp.register_forward_hook(look)
    >>> run = model.run("Berlin is the capital of")
    >>> model.whole is None, shapes[-1]
    (True, (1, 5, 192))
    >>> handle.remove()
    """
    return Watching(hook)


def watchers(hf: PreTrainedModel) -> Iterator[str]:
    """Those that are on a model, each with the module that it is on."""
    tables = [("every module", globally._global_forward_pre_hooks)]
    tables += [("every module", globally._global_forward_hooks)]
    for path, module in named_modules(hf):
        both = (module._forward_pre_hooks, module._forward_hooks)
        tables += [(path or "the model", table) for table in both]
    for where, table in tables:
        for hook in table.values():
            if isinstance(hook, Watching):
                yield f"{name_of(hook.hook)} on {where}"


def _counts(value: object) -> bool:
    """Whether it is a tensor that knows how often it was written into."""
    return isinstance(value, Tensor) and not value.is_inference()
