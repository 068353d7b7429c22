"""What is refused before a model, or the library that would load it, is touched.

Texts alone decide here: an address that cannot be read, an edit, a metric or a study that does not
exist; and of a model whose configuration lies at hand, a layer or a head that it does not have. The
same checks are made again where the answer is computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from microtome.errors import StudyError, did_you_mean, listing
from microtome.language.addresses import Address
from microtome.language.calls import called
from microtome.language.edges import Edge, where
from microtome.paths import at_home
from microtome.prompts.resolve import check_axis
from microtome.readings.names import name_of

NANO = "nano"
SIZES = {
    "layer": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "head": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
}
"""What a configuration calls the sizes along an axis."""


def check(model: str | None, edits: Iterable[str], metrics: Iterable[str] = ()) -> None:
    """Raise for what no model could answer, or this one could not.

    Raises:
        AddressError, EditError, MetricError: as where the answer is computed.
    """
    places = [where(called(text).address) for text in edits]
    for text in metrics:
        name_of(text)
    config = _config(model)
    for place in places:
        sides = (place.writer, place.reader) if isinstance(place, Edge) else (place,)
        for address in sides:
            _check_sizes(address, config)


def check_study(name: str, names: Iterable[str]) -> None:
    """Raise `StudyError` unless there is a study of this name."""
    known = list(names)
    if name not in known:
        hint = did_you_mean(name, known)
        raise StudyError(f"No study is called {name!r}. Studies: {listing(known)}.{hint}")


def _check_sizes(address: Address, config: dict[str, Any]) -> None:
    for axis, selector in address.labelled:
        sizes = (config.get(name) for name in SIZES.get(axis, ()))
        size = next((one for one in sizes if isinstance(one, int)), None)
        if size is not None:
            check_axis(axis, selector, address, size)


def _config(model: str | None) -> dict[str, Any]:
    """The configuration of the embedded model or of a directory; else nothing is known yet."""
    if model is None:
        return {}
    folder = files("microtome") / "model" / NANO if model == NANO else at_home(model)
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # loading says what is wrong with it
        return {}
    return found if isinstance(found, dict) else {}
