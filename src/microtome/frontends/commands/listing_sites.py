"""``microtome sites``."""

from __future__ import annotations

import pandas as pd
import transformers

from microtome import Model, load
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.shown import Table, print_fields, print_json, print_table, say
from microtome.language.sites import LETTERS, POSITIONS
from microtome.model.describe import described
from microtome.passes.raw import ABOUT, returned, table_of


def sites(model: str, raw: bool, shown: Shown) -> None:
    """Show a model's anatomy and its sites, or what its modules return."""
    with answering(shown):
        loaded = load(model)
        anatomy = described(loaded.anatomy, loaded.hf.config)
        frame = table_of(returned(loaded)) if raw else _sites(loaded)
    if shown.json:
        key = "returned" if raw else "sites"
        print_json({"model": model, "anatomy": anatomy, key: Table.of(frame).records})
        return
    say(repr(loaded))
    if raw:
        say(f"transformers {transformers.__version__}")
        print_table(Table.of(frame))
        say(ABOUT)
    else:
        print_fields(anatomy)
        print_table(_shown(frame))


def _sites(model: Model) -> pd.DataFrame:
    """The sites, each with the address of every part of it by itself."""
    frame = model.sites().reset_index()
    stars = [
        ("L*." if site.layered else "")
        + site.name
        + "".join(f".{LETTERS[axis]}*" for axis in site.axes if axis in ("head", "kv_head"))
        + "@" + ",".join("*" for axis in site.axes if axis in POSITIONS)
        for site in model.anatomy.sites
    ]  # fmt: skip
    frame.insert(1, "address", stars)
    return frame


def _shown(frame: pd.DataFrame) -> Table:
    """What of it fits on 80 columns: axes with their sizes, the name in the address."""
    pairs = zip(frame["axes"], frame["sizes"], strict=True)
    sized = [
        ", ".join(
            axis if axis == size else f"{axis} {size}"
            for axis, size in zip(axes.split(", "), sizes.split(", "), strict=True)
        )
        for axes, sizes in pairs
    ]
    made = frame.assign(axes=sized)[["address", "axes", "module", "what it is"]]
    return Table.of(made, names=("address",), prose=("axes",))
