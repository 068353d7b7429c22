"""Names of files and folders, as users write them: what they stand for, and which none can have."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that one name, and a whole path, may have on file systems in use."""
PARTIAL = ".partial"
"""Ending of the folder in which a result is until it is whole."""


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path; with a ``~`` in front, that of the home folder, as a shell says it.

    >>> at_home("~/maps") == Path.home() / "maps", at_home("maps/~").as_posix()
    (True, 'maps/~')
    """
    return Path(os.path.expanduser(path))


def settled(path: str | os.PathLike[str]) -> Path:
    """The same place, wherever the process goes meanwhile (``os.chdir``).

    >>> settled("maps").is_absolute(), settled("maps").name
    (True, 'maps')
    """
    return at_home(path).absolute()


def cannot_name(path: str | os.PathLike[str]) -> bool:
    """Whether no file or folder of this machine can be called so.

    >>> cannot_name("map.svg"), cannot_name("m" * 300), cannot_name("a null character: \\0")
    (False, True, True)
    """
    try:
        named = os.fsencode(path)
    except UnicodeEncodeError:
        return True
    longest = max(map(len, named.split(os.fsencode(os.sep))))
    return b"\0" in named or longest > LONGEST_NAME or len(named) > LONGEST_PATH


def on_its_way(path: Path, ending: str) -> Path:
    """What a file is called until it is whole: beside it, cut where the ending makes it too long.

    >>> on_its_way(Path("map.svg"), ".writing").name, len(on_its_way(Path("m" * 255), ".new").name)
    ('map.svg.writing', 255)
    """
    name = path.name
    while name and len(os.fsencode(name + ending)) > LONGEST_NAME:
        name = name[:-1]
    return path.with_name(name + ending)
