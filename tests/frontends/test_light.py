"""Help, lists and refusals come at once: they import nothing that computes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from recipes.listed import listed

from microtome.edits import OPERATIONS
from microtome.frontends import listing
from microtome.language.calls import NAMES
from microtome.readings.inside import INSIDE
from microtome.readings.names import INSIDE as INSIDE_NAMES
from microtome.readings.names import ON_OUTPUT
from microtome.readings.output import METRICS

HEAVY = ("torch", "transformers", "pandas", "xarray", "scipy", "plotly", "matplotlib", "zarr",
         "jinja2", "safetensors", "dash", "flask", "microtome.studies",
         "microtome.edits")  # fmt: skip

PROGRAM = """
import contextlib, io, json, sys
from microtome.frontends import cli
found = {}
for asked in json.loads(sys.argv[1]):
    sys.argv = ["microtome", *asked]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    found[" ".join(asked)] = code, [name for name in HEAVY if name in sys.modules]
print(json.dumps(found))
""".replace("HEAVY", repr(HEAVY))

ASKED = ["-p", "Berlin is the capital of"]
LIGHT = {
    0: [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["sweep", "--help"],
        ["plan", "--help"],
        ["figure", "--help"],
        ["lab", "--help"],
        ["study", "--help"],
        ["study", "run", "--help"],
        ["study", "list"],
        ["study", "list", "--lang", "vi"],
        ["study", "list", "--json"],
    ],
    2: [
        ["run", "nano", *ASKED, "-e", "zero L0.zz"],
        ["run", "nano", *ASKED, "-e", "zero blocks.5.attn.hook_z"],
        ["sweep", "nano", *ASKED, "-e", "zero L9.z.h3", "-o", "x"],
        ["sweep", "nano", *ASKED, "-e", "zero L0.z.h:9", "-o", "x"],
        ["sweep", "nano", *ASKED, "-e", "ablate L0.z", "-o", "x"],
        ["plan", "nano", *ASKED, "-e", "zero L0.z", "-m", "kl_div"],
        ["study", "run", "head-ablatoin"],
        ["study", "show", "nothing"],
        ["sweep", "--no-such-option"],
    ],
}  # fmt: skip


def test_help_lists_and_refusals_import_nothing_that_computes():
    every = [asked for some in LIGHT.values() for asked in some]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(every)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for code, some in LIGHT.items():
        for asked in some:
            assert found[" ".join(asked)] == [code, []], asked


def test_the_names_that_refusals_know_are_those_that_there_are():
    assert tuple(OPERATIONS) == NAMES
    assert tuple(METRICS) == ON_OUTPUT
    assert tuple(INSIDE) == INSIDE_NAMES


def test_the_list_of_studies_is_of_todays_studies():
    made = json.loads(json.dumps(listed()))
    kept = listing.studies()
    assert list(kept) == list(made)
    for name, one in made.items():
        costs = {field: value for field, value in one.items() if isinstance(value, float)}
        assert {f: kept[name][f] for f in costs} == pytest.approx(costs), "run: make listed"
        assert {**kept[name], **costs} == one, "run: make listed"
