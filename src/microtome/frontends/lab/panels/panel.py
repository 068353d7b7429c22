"""What a panel is, and what it is given.

The state of a page is its address, and only that: back and forward are undo and redo. A panel reads
`View` from what follows the address, and changes it by writing another to ``address`` (`moved`);
what that changes is done to the address that is there by then, so that no click is lost to another
that took longer. Components of a panel are called ``"<panel>-<thing>"``; besides there are

================  =============================================================================
``address``       the `dcc.Location`, with all of the address in its ``search``
``question``      `dcc.Store`: the part of the address that the map is asked by (`QUESTION`); it
                  comes again when that changes, and not when a cell is chosen
``seen-<panel>``  `dcc.Store`, for a panel of the tabs: the same, with what the panel shows besides
                  (`MORE`), while it is open; else nothing
``named``         `dcc.Store`: the name of the page's model, as the address has it
``ready``         `dcc.Store`: ``{"model", "state", "why"}`` of the page's model; it comes again
                  when the model is there
``grown``         `dcc.Store`: ``{"key", "state", "units"}`` of the page's map; it comes again as
                  that grows, and when it is whole
``asker``         `dcc.Store`: a name of the page, for as long as it is open
``pulse``         `dcc.Interval`, which beats while a model is loaded or a map computed
================  =============================================================================

A panel of the tabs hears of ``ready`` and ``grown`` by stores of its own, ``ready-<panel>`` and
``grown-<panel>``, which follow them while it is open; and not at all when it first appears: what
asks the server for nothing costs a page most of the time that it takes to come up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dash import Dash
from dash.development.base_component import Component

from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.state import KEYS, View
from microtome.texts import Texts, catalogue

FOLDER = Path(__file__).parents[1]
TEXTS = "microtome.frontends.lab.texts"

ORDER = tuple(KEYS.get(one.name, one.name) for one in fields(View) if one.name != "problems")
"""The keys of an address, as they stand there."""
SEVERAL: Mapping[str, str] = {"role": ":", "at": ":", "cell": "", "pin": "", "note": "|"}
"""Those that may stand there often → behind what each is about, which is there once; of some, all
of it."""
QUESTION = (
    "model", "text", "donor", "target", "contrast", "role", "edit", "metric", "at", "lang",
)  # fmt: skip
"""Those that the map is asked by, and shown in."""
MORE: Mapping[str, tuple[str, ...]] = {
    "cell": ("cell", "pin", "way"),
    "trace": ("cell", "pin", "note", "reader", "way"),
    "compare": ("against",),
    "write": ("cell", "steps"),
    "keep": tuple(one for one in ORDER if one not in QUESTION),
}
"""Panel of the tabs → those that it shows besides."""


GROWING = ("cell", "compare", "keep")
"""Panels that show something of the map."""


def seen(panel: str) -> str:
    """The store that says what an open panel shows."""
    return f"seen-{panel}"


def ready_for(panel: str) -> str:
    """The store by which an open panel hears of the model."""
    return f"ready-{panel}"


def grown_for(panel: str) -> str:
    """The store by which an open panel hears of the map, if it is one of those that show it."""
    return f"grown-{panel}"


@dataclass(frozen=True, eq=False)
class Context:
    """What all panels share.

    Attributes:
        desk: the models.
        jobs: the sweeps.
        lang: the language of a page that names none.
    """

    desk: Desk
    jobs: Jobs
    lang: str = "en"

    def words(self, lang: str) -> Texts:
        """All that the page says, in one language; keys begin with the name of their panel."""
        return Texts(lang, self._entries)

    @cached_property
    def _entries(self) -> dict[str, Any]:
        files = sorted(path.name for path in (FOLDER / "texts").glob("*.yaml"))
        return {
            f"{name.removesuffix('.yaml')}.{key}": text
            for name in files
            for key, text in catalogue(TEXTS, name).items()
        }

    def view(self, search: str | None) -> View:
        """The view that an address names, with this server's own defaults."""
        view = View.from_query(search)
        return replace(view, model=view.model or self.desk.default, lang=view.lang or self.lang)


@dataclass(frozen=True)
class Panel:
    """A part of the page.

    Attributes:
        name: its own; its texts are in ``texts/<name>.yaml``, ``<name>.title`` among them.
        layout: what it is made of, in one language.
        register: puts its callbacks on the app.
    """

    name: str
    layout: Callable[[Texts], Component]
    register: Callable[[Dash, Context], None]


def moved(view: View, **changes: Any) -> str:
    """The address of another view: what a callback writes to ``address``.

    >>> moved(View(text="Berlin is"), chosen=("zero L0.z.h1@-1",))
    '?text=Berlin%20is&cell=zero%20L0.z.h1@-1'
    """
    return replace(view, **changes).to_query() or "?"


def is_ready(ready: Mapping[str, str] | None, view: View) -> bool:
    """Whether a view's model is loaded, as the store ``ready`` says."""
    return ready is not None and (ready["model"], ready["state"]) == (view.model, "ready")
