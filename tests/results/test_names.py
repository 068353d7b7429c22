"""Names of files: legal everywhere, different for different variables, and reversible."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microtome.results.names import file_name

LEGAL = re.compile(r"[a-z0-9_@()+=,%-][a-z0-9_@()+=,.%-]*")
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{n}" for name in ("com", "lpt") for n in range(10)),
}


@given(st.text(min_size=1, max_size=30))
@example("std(L*.resid_post)")
@example('prob(contrast)@"Sam/Sally"')
@example("con")
@example("nul.txt")
@example("..")
@example("trailing.")
@example("\ud800")
def test_a_name_is_legal_on_every_file_system_and_says_what_it_is_of(variable):
    name = file_name(variable)
    assert LEGAL.fullmatch(name)
    assert not name.endswith(".")
    assert name.split(".")[0] not in DEVICES
    assert len(name) <= 120
    if len(variable.encode("utf-8", "surrogatepass")) < 40:
        assert unquote_to_bytes(name).decode("utf-8", "surrogatepass") == variable


@pytest.mark.parametrize(
    "variables",
    [("loss@2", "loss@-2"), ("std(L*.z)", "std(l*.z)"), ("a/b", "a%2fb"), ("東" * 90, "東" * 91)],
)
def test_different_variables_have_different_names_whatever_the_letters_case(variables):
    names = {file_name(variable).casefold() for variable in variables}
    assert len(names) == len(variables)
