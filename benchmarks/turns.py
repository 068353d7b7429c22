"""What benchmarks of calls and of whole processes share: turns, an environment, what is kept."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def in_turn(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor seconds of each way, over rounds in which all of them run."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def environment(**more: str) -> dict[str, str]:
    """That of a process that is measured: as it is here, without a hub, with what is given besides.

    Compiled modules are kept, as Python does where nobody says otherwise. Else each process would
    compile the 400 modules of microtome anew, and those of torch, beside which it is measured, not:
    they were compiled when they were installed.
    """
    own = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **more}


def keep(record: Mapping[str, object], place: Path | None) -> None:
    """Write what was found to a JSON file; None: to none."""
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1, ensure_ascii=False)
        place.write_text(text + "\n", encoding="utf-8")
