"""The text form of a method, ``name(parameters)``, read into the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from microtome.edits.base import literal
from microtome.engines.approximate.atp import AtP
from microtome.engines.approximate.atp_star import AtPStar
from microtome.engines.approximate.eap import EAP, EAPIG
from microtome.engines.approximate.integrated import IG, GradientNorms
from microtome.engines.approximate.method import Method
from microtome.engines.approximate.relp import RelP
from microtome.errors import EditError, SweepError, did_you_mean, listing
from microtome.language.calls import called

EXACT = "exact"

METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {one.name: one for one in (AtP, AtPStar, IG, GradientNorms, RelP, EAP, EAPIG)}
)
"""Name → method."""


def method_of(given: object) -> Method | None:
    """A method as it is, or of its text; None of ``"exact"``.

    Raises:
        SweepError: there is no such method, or its parameters are wrong.

    >>> str(method_of("atp(at='donor')")), method_of("exact")
    ('atp(at="donor")', None)
    """
    if isinstance(given, Method):
        return given
    if not isinstance(given, str):
        raise SweepError(f"method={given!r}: give {_known()}, or one of their objects.")
    if given.strip() == EXACT:
        return None
    name = given.partition("(")[0].strip()
    if name not in METHODS:
        raise SweepError(
            f"method={given!r} does not exist; there are: {_known()}."
            f"{did_you_mean(name, [EXACT, *METHODS])}"
        )
    try:
        call = called(f"{given.strip()} -", METHODS)
        made = METHODS[name](*call.positional, **call.named)
    except EditError as error:
        raise SweepError(f"method={given!r}: {error} Form: {_form(name)}.") from error
    except TypeError as error:  # what Python says names the class, and not the text
        raise SweepError(f"method={given!r} has other parameters: {_form(name)}.") from error
    return made


def _form(name: str) -> str:
    parameters = (f"{f.name}={literal(f.default)}" for f in fields(METHODS[name]))
    return f"{name}({', '.join(parameters)})"


def _known() -> str:
    return listing([EXACT, *METHODS])
