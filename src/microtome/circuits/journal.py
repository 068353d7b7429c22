"""A journal: what a search has measured, step by step, on the disk.

A search decides by what it measures and by nothing else. So one that was stopped goes on by doing
the same again, with what is in its journal in the place of runs, and ends where it would have.

::

    folder/
        lock                who is writing
        question.json       what is searched, by what
        steps/000007.json   some measured steps, in their order, and what they are of
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from microtome.amounts import many
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.errors import CircuitError, EffectsError
from microtome.paths import settled
from microtome.results import disk
from microtome.results.hold import alone_in
from microtome.results.identity import Identity, difference, digest, sealed, unsealed

QUESTION = "question.json"
FULL = 64
"""Circuits after which what was measured is written: so much is lost at most."""

Step = dict[str, object]


@dataclass(eq=False)
class Journal:
    """What was measured, in its order.

    Attributes:
        steps: those of the disk, read once.
        folder: where steps are written; None: nowhere.
        question: the digest of what is searched, which each file carries.
        at: how many steps have been asked for.
        pages: how many files there are.
        held: steps that are not written yet.
        circuits: how many circuits these are of.
    """

    steps: list[Step] = field(default_factory=list)
    folder: Path | None = None
    question: str = ""
    at: int = 0
    pages: int = 0
    held: list[Step] = field(default_factory=list)
    circuits: int = 0

    def step(self, circuits: Sequence[Circuit], measure: Callable[[], Array]) -> Array:
        """What these circuits measure, ``[prompt, circuit]``: from the journal, or now.

        Raises:
            CircuitError: the journal has something else at this step.
        """
        key = _key(circuits)
        self.at += 1
        if self.at <= len(self.steps):
            return self._known(self.steps[self.at - 1], key)
        values = measure()
        if self.folder is not None:
            self.held.append({"key": key, "values": values.tolist()})
            self.circuits += len(circuits)
            if self.circuits >= FULL:
                self.write()
        return values

    def _known(self, step: Step, key: str) -> Array:
        if step.get("key") != key:
            raise CircuitError(
                f"{self.folder} is the journal of another search at step {self.at}: choose an "
                "empty folder."
            )
        return np.array(step["values"], dtype=float)

    def write(self) -> None:
        """Write what is held."""
        if self.folder is None or not self.held:
            return
        path = self.folder / "steps" / f"{self.pages:06d}.json"
        with _refused(), disk.failures(path):
            disk.make_folder(path.parent)
            told = {"question": self.question, "page": self.pages, "steps": self.held}
            disk.write_file(path, sealed(told))
        self.pages, self.held, self.circuits = self.pages + 1, [], 0


def measured_in(folder: Path) -> str:
    """What a journal holds, in words.

    >>> measured_in(Path("nowhere"))
    'nothing yet'
    """
    place = folder / QUESTION
    asked = unsealed(place.read_bytes()) if place.is_file() else None
    steps = [] if asked is None else _read(folder / "steps", digest(asked))[0]
    have = "has" if len(steps) == 1 else "have"
    return f"what {many(len(steps), 'step')} {have} measured" if steps else "nothing yet"


def _key(circuits: Sequence[Circuit]) -> str:
    """What circuits are known by."""
    found = hashlib.sha256()
    for number, one in enumerate(circuits):
        found.update(b"|" if number else b"")
        found.update(one.chosen.tobytes())
    return found.hexdigest()


@contextmanager
def kept(out: str | Path | None, asked: Identity) -> Iterator[Journal]:
    """A journal in a folder, which is nobody else's meanwhile; all that was measured is written.

    Args:
        out: the folder; None: nothing is kept.
        asked: what is searched, by what.

    Raises:
        CircuitError: the folder is another search's, somebody has it, or the system refuses.
    """
    if out is None:
        yield Journal()
        return
    folder = settled(out)
    with ExitStack() as held:
        with _refused(), disk.failures(folder):
            disk.refuse_link(folder)
            held.enter_context(alone_in(folder))
            _undertake(folder, asked)
            question = digest(asked)
            steps, pages = _read(folder / "steps", question)
            _forget_behind(folder / "steps", pages)
        journal = Journal(steps, folder, question, pages=pages)
        try:
            yield journal
        finally:
            journal.write()


def _undertake(folder: Path, asked: Identity) -> None:
    """Write down what is searched, or see that it is the same."""
    place = folder / QUESTION
    if not place.exists():
        ours = {"lock", QUESTION + disk.WRITING}  # the latter from one who was killed
        if [path for path in folder.iterdir() if path.name not in ours]:
            raise CircuitError(f"{folder} holds something else: choose an empty folder.")
        disk.write_file(place, sealed(asked))
        return
    there = unsealed(place.read_bytes())
    if there is None:
        raise CircuitError(f"{place} is damaged: choose another folder.")
    if there != unsealed(sealed(asked)):
        raise CircuitError(
            f"{folder} is the journal of another search: {difference(there, asked)}. Choose "
            "another folder."
        )


def _read(folder: Path, question: str) -> tuple[list[Step], int]:
    """The steps of all files, as far as they are sound, of this search, and nothing is between."""
    steps: list[Step] = []
    pages = 0
    while (folder / f"{pages:06d}.json").is_file():
        page = unsealed((folder / f"{pages:06d}.json").read_bytes())
        own = page is not None and (page.get("question"), page.get("page")) == (question, pages)
        if page is None or not own or not isinstance(page["steps"], list):
            break  # it is measured again, and the file replaced
        steps += page["steps"]
        pages += 1
    return steps, pages


def _forget_behind(folder: Path, pages: int) -> None:
    """Remove the files behind one that is damaged: what is measured again has other ends."""
    for path in sorted(folder.glob("*.json")):
        if path.stem.isdecimal() and int(path.stem) >= pages:
            disk.remove_file(path)


@contextmanager
def _refused() -> Iterator[None]:
    """Within this block, what the disk refuses is told as of a circuit."""
    try:
        yield
    except EffectsError as error:
        raise CircuitError(str(error)) from error
