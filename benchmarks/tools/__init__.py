"""The tools, one file each; `PEERS` lists them in the order of the table."""

from __future__ import annotations

from benchmarks.tools.captum_ablation import Captum
from benchmarks.tools.nnsight_traces import NnsightInvokes, NnsightLoop
from benchmarks.tools.plain_hooks import PlainHooks, PlainHooksBatched
from benchmarks.tools.pyvene_interventions import Pyvene
from benchmarks.tools.tool import Absent, Tool
from benchmarks.tools.transformer_lens_bridge import TransformerLens

ORACLE = PlainHooks.name
"""All others are compared with it."""

PEERS: dict[str, type[Tool]] = {
    tool.name: tool
    for tool in (
        PlainHooks,
        PlainHooksBatched,
        TransformerLens,
        NnsightLoop,
        NnsightInvokes,
        Pyvene,
        Captum,
    )
}

__all__ = ["ORACLE", "PEERS", "Absent", "Tool"]
