"""Names of variables as names of files: legal on every file system, each with its own.

Small letters, digits and a few signs stay; every other byte is ``%`` and two hexadecimal digits,
capital letters among them, since some file systems take ``L`` and ``l`` for the same.
"""

from __future__ import annotations

import hashlib
import re

_OTHER = re.compile(rb"[^a-z0-9_@()+=,.-]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin|conout|clock)(\.|$)")
_LONGEST = 120
_KEPT = 80
_CUT = "%-"
"""Before the digest in a name that is too long: no byte is written so."""


def file_name(variable: str) -> str:
    """The name of a variable's file; different for different variables, letter case aside.

    >>> file_name("prob(contrast)@-2"), file_name("std(L*.z)"), file_name("con")
    ('prob(contrast)@-2', 'std(%4c%2a.z)', '%63on')
    """
    raw = variable.encode("utf-8", "surrogatepass")
    name = _OTHER.sub(lambda found: b"%%%02x" % found[0][0], raw).decode()
    if name.startswith(".") or _RESERVED.match(name):
        name = f"%{ord(name[0]):02x}{name[1:]}"
    if name.endswith("."):
        name = f"{name[:-1]}%2e"
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_KEPT]}{_CUT}{hashlib.sha256(raw).hexdigest()[:32]}"
