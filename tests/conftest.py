"""Sizes and texts that tests share; their fixtures are in `common`.

These are loaded where tests run: whoever only hands out tests to other processes needs no torch,
and is there some seconds sooner.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# For processes that tests start, too: threads of one that wait for each other keep a core busy that
# another test could have. It has to be said before anything counts the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SENTENCES = (
    "Berlin is the capital of Germany, and Berlin is in Germany",
    "Paris is the capital of France, and Paris is in France",
    "Rome is the capital of Italy, and Rome is in Italy",
    "When Mary and John went to the store, John gave a drink to Mary",
    "When John and Mary went to the store, Mary gave a drink to John",
    "The cat sat on the mat, and the dog sat on the cat",
)
BERLIN = "Berlin is the capital of"  # 5 tokens
PARIS = "Paris is the capital of"  # 5 tokens
CAT = "The cat sat"  # 3 tokens
LAYERS, HEADS, D_MODEL, POSITIONS = 3, 4, 32, 32

pytest_plugins = ("families.measuring", "frontends.lab.browsing", "quick")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("common")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """With ``-n auto`` one worker more than cores: a test may wait for a browser or a process."""
    cores = yield
    return cores if config.getoption("--quick") else cores + 1
