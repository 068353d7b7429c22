"""All files of a saved result with their checksums, and the question that it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from microtome.errors import EffectsError
from microtome.results.identity import Identity, sealed, unsealed

LIST = "checksums.json"
"""The list's own file, in the folder of the store."""


@dataclass(frozen=True)
class Checksums:
    """The list.

    Attributes:
        files: name → SHA-256 in hexadecimal digits, of every file but this list.
        question: what the result answers; none where it was saved by hand.
    """

    files: Mapping[str, str]
    question: Identity | None = None

    @classmethod
    def of(cls, files: Mapping[str, bytes], question: Identity | None = None) -> Checksums:
        """The list of these files."""
        return cls({name: checksum(data) for name, data in files.items()}, question)

    @classmethod
    def read(cls, data: bytes) -> Checksums:
        """The list that was written.

        Raises:
            EffectsError: it is damaged.
        """
        body = unsealed(data)
        files, question = (
            (None, None) if body is None else (body.get("files"), body.get("question"))
        )
        if not isinstance(files, dict) or not isinstance(question, dict | None):
            raise EffectsError(f"{LIST} is damaged")
        return cls(files, question)

    def written(self) -> bytes:
        """The list as its file."""
        return sealed({"files": dict(self.files), "question": self.question})

    def check(self, name: str, data: bytes) -> None:
        """Raise unless a file is what was written.

        Raises:
            EffectsError: it is not.
        """
        if checksum(data) != self.files[name]:
            raise EffectsError(f"{name} is damaged: its checksum differs")


def checksum(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
