"""A saved result, opened: by its own name, or by the folder that was left with it in it."""

from __future__ import annotations

from pathlib import Path

from microtome.errors import EffectsError, listing
from microtome.paths import at_home
from microtome.results import places
from microtome.results.effects import Effects
from microtome.results.remote import is_remote
from microtome.results.sound import is_result
from microtome.spoken import spoken

ONE, SEVERAL = "effects.zarr", "effects"
"""The result of one sweep, and of several, in a folder with a report."""


@spoken
def open_effects(path: str | Path) -> Effects:
    """A result that `Effects.save` or a sweep wrote, every byte of it proved by its checksum.

    Args:
        path: what ``out=`` or `Effects.save` named, a folder or an address such as ``s3://…``; or
            the folder that ``-o`` left, with the result of one sweep in it.

    Raises:
        EffectsError: there is none, or several; it is damaged, or a newer microtome wrote it.
    """
    with places.legible(path):
        place = path if is_remote(path) else _in_folder(at_home(path))
    data = places.read(place)
    if data.attrs.get("kind") == "aggregates":
        raise EffectsError(
            f"{path} has aggregates over prompts, not each prompt: open_aggregates({str(path)!r})."
        )
    return Effects(data)


def _in_folder(path: Path) -> Path:
    """The result in a folder that ``-o`` left; any other path as it is."""
    inner = path / ONE
    if inner.is_dir() and not is_result(path):
        return inner
    several = sorted(one.name for one in (path / SEVERAL).glob("*.zarr"))
    if several and not is_result(path):
        example = path / SEVERAL / several[0]
        raise EffectsError(
            f"{path} holds several results, {listing(several)}: open one, such as {example}."
        )
    return path
