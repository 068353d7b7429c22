"""How a model stands besides its weights: what its modules say, its hooks, its adapters.

Somebody may set another adapter, or put a hook on, while a model is run: from another thread, or
from what is told how far it is. What was computed is of two models then. To look takes a
millisecond, where `microtome.model.state` looks at the weights too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from microtome.errors import listing
from microtome.model.additions import CALLED, adapters
from microtome.model.modules import named_modules
from microtome.model.proved import MOST, Said, changed, said_by
from microtome.model.replaced import set_by
from microtome.model.watching import watchers
from microtome.model.whose import is_known


@dataclass(frozen=True)
class Standing:
    """What decides a model's numbers besides its weights, at one time.

    Attributes:
        said: what its modules say of themselves, by their paths.
        hooks: by their paths those that have hooks, and which; functions in the place of `forward`.
        adapters: how they are set.
        watched: whether it has hooks that are vouched for.
    """

    said: Said
    hooks: Mapping[str, tuple[int, ...]]
    adapters: Mapping[str, Any]
    watched: bool

    @classmethod
    def of(cls, hf: PreTrainedModel) -> Standing:
        """Of a model as it is now."""
        hooks = {path: own for path, one in named_modules(hf) if (own := (*_hooks(one),))}
        return cls(said_by(hf), hooks, adapters(hf), any(watchers(hf)))

    def difference(self, now: Standing) -> str:
        """What is another than it was, in words; nothing where all is as it was.

        What a hook leaves on a module, such as a count, is no setting; nor what the model's own
        code sets there while it runs.
        """
        if self.hooks != now.hooks:
            return "what is put on it, such as hooks"
        if self.adapters != now.adapters:
            return "its adapters"
        if self.hooks or self.watched or self.said == now.said:
            return ""
        kinds = {kind for kind, _ in self.said.values() if issubclass(kind, nn.Module)}
        left = {name for kind in kinds for name in set_by(kind, CALLED)}
        which = [one for one in changed(self.said, now.said) if one.split(".")[-1] not in left]
        more = f" and {len(which) - MOST} more" if len(which) > MOST else ""
        return f"its settings: {listing(which[:MOST])}{more}" if which else ""


def _hooks(module: nn.Module) -> Iterator[int]:
    """Which of somebody's own are on a module: not ours, which come and go."""
    if module._forward_pre_hooks or module._forward_hooks:
        for table in (module._forward_pre_hooks, module._forward_hooks):
            yield from (id(hook) for hook in table.values() if not is_known(hook))
    own = vars(module).get("forward")
    if own is not None and not is_known(own):
        yield id(own)
