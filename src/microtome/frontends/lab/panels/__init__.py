"""The panels of the lab, one file each.

`ASK` and `MAP` are always seen; of `TABS` one is open. To add a panel is to add it to `TABS`.
"""

from __future__ import annotations

from microtome.frontends.lab.panels.ask import ASK
from microtome.frontends.lab.panels.cell import CELL
from microtome.frontends.lab.panels.compare import COMPARE
from microtome.frontends.lab.panels.keep import KEEP
from microtome.frontends.lab.panels.map import MAP
from microtome.frontends.lab.panels.panel import Context, Panel, moved
from microtome.frontends.lab.panels.trace import TRACE
from microtome.frontends.lab.panels.write import WRITE

TABS: tuple[Panel, ...] = (CELL, TRACE, COMPARE, WRITE, KEEP)
"""Those below the map, in the order of their tabs."""

PANELS: tuple[Panel, ...] = (ASK, MAP, *TABS)

__all__ = ["ASK", "MAP", "PANELS", "TABS", "Context", "Panel", "moved"]
