"""A result over roles in the place of positions: what several lengths of prompts have in common."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from microtome.errors import EffectsError, listing
from microtome.stats.aligned import lengths, positional, tokens_of
from microtome.stats.samples import PROMPT

LAST = "last"
BETWEEN = ","
"""Between the names of roles that share a token."""


def role_dimension(position: str) -> str:
    """The dimension of roles in the place of one of positions.

    >>> role_dimension("pos"), role_dimension("k_pos")
    ('role', 'k_role')
    """
    if position.endswith("pos"):
        return position.removesuffix("pos") + "role"
    return f"{position}_role"


def beside(position: str) -> str:
    """The coordinate that says which role a position has, ``[prompt, position]``.

    >>> beside("pos"), beside("at_pos")
    ('role', 'at_pos_role')
    """
    return "role" if position == "pos" else f"{position}_role"


def by_role(data: xr.Dataset) -> xr.Dataset:
    """The same over roles: of each prompt, the cells at the positions that have one.

    Raises:
        EffectsError: no dimension counts tokens.
    """
    dims = positional(data)
    if not dims:
        raise EffectsError(
            "by_role() needs a map over positions, such as that of 'L*.z.h*@*', and this one has "
            f"{listing(map(str, data.dims))}."
        )
    for name in dims:
        data = _over_roles(data, name)
    return data


def _over_roles(data: xr.Dataset, name: str) -> xr.Dataset:
    own = lengths(data, name)
    where = _places(data, name, own)
    role = role_dimension(name)
    index = np.array([[places.get(n, -1) for places in where] for n in _ordered(where, own)])
    roles = xr.DataArray(index.T, dims=(PROMPT, role))
    tokens = tokens_of(data, name)
    there = roles >= 0
    plain = data.drop_vars([beside(name), name, *([] if tokens is None else [tokens.name])],
                           errors="ignore")  # fmt: skip
    moved = {
        str(key): _taken(variable, name, role, roles, there)
        for key, variable in plain.data_vars.items()
    }
    coords = {key: one for key, one in plain.coords.items() if name not in one.dims}
    found = xr.Dataset(moved, {**coords, role: _ordered(where, own)}, data.attrs)
    found[f"{role}_position"] = roles
    if tokens is not None:
        texts = _taken(tokens.astype(object), name, role, roles, there)
        found[f"{role}_token"] = texts.drop_vars(list(texts.coords))
    beside_them = [f"{role}_position", *([f"{role}_token"] if tokens is not None else [])]
    return found.set_coords(beside_them)


def _taken(
    variable: xr.DataArray, name: str, role: str, roles: xr.DataArray, there: xr.DataArray
) -> xr.DataArray:
    """A variable at the positions of roles; where a prompt has no such role, absent."""
    if name not in variable.dims:
        return variable
    dims = [role if each == name else str(each) for each in variable.dims]
    absent: object = np.nan
    if variable.dtype.kind in "OUST":
        absent, variable = "", variable.astype(object)
    elif variable.dtype.kind == "i":
        absent = -1
    elif variable.dtype.kind == "b":
        absent = False
    taken = variable.drop_vars(list(variable.coords)).isel({name: roles.clip(min=0)})
    return taken.where(there, absent).transpose(*dims)


def _places(data: xr.Dataset, name: str, own: np.ndarray) -> list[dict[str, int]]:
    """Of each prompt, its roles and their positions; the last token among them."""
    given = data.coords.get(beside(name))
    found = []
    for number, length in enumerate(own.tolist()):
        places = dict(_named(given.values[number])) if given is not None else {}
        found.append({**places, **({LAST: length - 1} if length else {})})
    return found


def _named(roles: np.ndarray) -> Iterator[tuple[str, int]]:
    for position, names in enumerate(roles.tolist()):
        yield from ((name, position) for name in str(names).split(BETWEEN) if name)


def _ordered(where: list[dict[str, int]], own: np.ndarray) -> list[str]:
    """The names of all roles, in the order in which they stand in the prompts, on average.

    Not the last token, where a role of the prompts' own is always there.
    """
    names = list(dict.fromkeys(name for places in where for name in places))
    ends = [name for name in names if name != LAST and _is_last(name, where, own)]
    names = [name for name in names if name != LAST or not ends]

    def middle(name: str) -> float:
        pairs = zip(where, own.tolist(), strict=True)
        shares = [here[name] / max(length - 1, 1) for here, length in pairs if name in here]
        return float(np.mean(shares))

    return sorted(names, key=middle)


def _is_last(name: str, where: list[dict[str, int]], own: np.ndarray) -> bool:
    return all(
        places.get(name) == length - 1 for places, length in zip(where, own, strict=True) if length
    )
