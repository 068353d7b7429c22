"""A place that answers one question: what is done of it is taken over, another's is refused."""

from __future__ import annotations

import contextlib
import json
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from microtome.amounts import many
from microtome.errors import EffectsError
from microtome.results import disk, places
from microtome.results.delivery import Shared
from microtome.results.hold import Held, Unheld
from microtome.results.identity import Identity, Undertaken, canonical, difference, digest
from microtome.results.stores import QUESTION, SHARED


class Kept:
    """Where what answers a question is kept while it is made, and its result afterwards.

    Everything that can be refused is refused when it is made, before anything is computed. It then
    has the place to itself until `close`, or to the end of the process, where the place has locks.
    A finished result in a place that may only be read is taken as it is.

    Args:
        path: where the result will be: a folder, or an address of fsspec's such as ``s3://…``.
        question: everything that decides the numbers, in JSON's own types.
        units: how many units the question has.
        overwrite: whether what answers another question is replaced. An older result stays until
            the new one is complete; what is done of an unfinished sweep goes at once. What is not
            microtome's is never touched.

    Attributes:
        path: where the result will be.
        finished: whether it is there already, complete, with nothing left to compute.
        notes: what a user should know of what was found.

    Raises:
        EffectsError: the place has something else, is in use, or cannot be written to.
    """

    def __init__(
        self, path: str | Path, question: Identity, units: int, *, overwrite: bool = False
    ):
        self.path = places.named(path)
        self.finished = False
        self.notes: list[str] = []
        self._asked = Undertaken(json.loads(canonical(question)), units)
        self._digest = digest(question)
        self._word = ""
        self._place = places.at(path)
        with disk.failures(self.path):
            try:
                self._hold: Held = self._place.enter()
            except OSError as error:
                if error.errno not in disk.READ_ONLY or not self._is_answered(overwrite):
                    raise
                self._hold = Unheld()  # nothing is to be written
                self._hold.release()
                return
            try:
                self._resume(overwrite)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give the place back; what is done stays. Again, nothing happens."""
        try:
            if self._word and self._hold.held:
                self._word = ""
                with contextlib.suppress(OSError, EffectsError):  # whoever writes next clears up
                    self._place.remove(SHARED)
        finally:
            self._place.leave(self._hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _resume(self, overwrite: bool) -> None:
        begun = self._begun()
        if self._place.is_there():
            self._look_at_result(overwrite)
        if self.finished:
            self._answered(begun)
            return
        self._begin(begun, overwrite)

    def _is_answered(self, overwrite: bool) -> bool:
        """Whether the result is there, in a place that may only be read."""
        if self._place.is_there():
            self._look_at_result(overwrite)
        return self.finished

    def _answered(self, begun: Undertaken | None) -> None:
        """The result is there: what led to it is not needed any more."""
        if begun == self._asked:
            self._place.clear()

    def _begin(self, begun: Undertaken | None, overwrite: bool) -> None:
        """Go on with what has begun, or make room."""
        if begun != self._asked:
            self._make_room(begun, overwrite)
        self._place.make()
        # Whatever was there: what is written now proves that there is a place to write to.
        self._place.write(QUESTION, self._asked.written())
        self._take_over()

    def _take_over(self) -> None:
        """Look at what is done already of the same question."""

    def _begun(self) -> Undertaken | None:
        """What is answered by what is done there; none where nothing is."""
        if not self._place.has_begun():
            return None
        try:
            return Undertaken.read(self._place.read(QUESTION))
        except (FileNotFoundError, EffectsError):
            return Undertaken({}, 0)  # nobody's question

    def _look_at_result(self, overwrite: bool) -> None:
        """Whether the result that is there is the one that is asked for; raise if it is another."""
        try:
            there = self._place.question()
        except EffectsError as error:
            self._refuse(overwrite, f"a result that cannot say what it answers: {error}")
            return
        if there is None:
            self._refuse(
                overwrite,
                "a result that does not say what it answers: it was saved by hand, or by an older "
                "microtome",
            )
        elif not self._is_asked(there):
            how = difference(there, self._asked.question)
            self._refuse(overwrite, f"the result of another question: {how}")
        else:
            try:
                self._place.verify()
                self.finished = True
            except EffectsError as error:
                self.notes.append(f"{self.path} is damaged ({error}) and is computed again.")

    def _delivered_by(self, question: str, name: str) -> Shared:
        """What workers write units by, to files of such a name.

        Raises:
            EffectsError: the place cannot be written to.
        """
        self._check_open()
        if not self._word:
            self._word = uuid.uuid4().hex
            with disk.failures(self.path):
                self._place.write(SHARED, self._word.encode())
        with disk.failures(self.path):
            self._place.make(name.partition("/")[0])
        return Shared(str(self._place.path), question, self._word, name)

    def _read(self, name: str) -> bytes:
        """A file beside the result.

        Raises:
            EffectsError: it cannot be read; the message names it.
        """
        try:
            return self._place.read(name)
        except OSError as error:
            reason = error.strerror or "it is not there"
            raise EffectsError(f"{self._place.spelled(name)} cannot be read ({reason}).") from error

    def _is_asked(self, there: Identity) -> bool:
        """Whether what a result answers is what is asked."""
        return digest(there) == self._digest

    def _make_room(self, begun: Undertaken | None, overwrite: bool) -> None:
        """Let nothing be there of another question; raise where it may not be removed."""
        if begun is not None:
            done = self._done_there()
            if not begun.units:
                self._refuse(overwrite, f"{done} whose {QUESTION} is missing or damaged")
            else:
                how = difference(begun.fields, self._asked.fields)
                self._refuse(overwrite, f"{done} that ask another question: {how}")
        self._place.clear()

    def _done_there(self) -> str:
        """What is done of an unfinished sweep that is there, in words."""
        units = len(self._place.names("units"))
        return (
            f"{many(units, 'unit')} of an unfinished sweep"
            if units
            else "windows of an unfinished sweep"
        )

    def _refuse(self, overwrite: bool, what: str) -> None:
        if not overwrite:
            raise EffectsError(
                f"{self.path} holds {what}. Choose another place, or let it be replaced "
                "(overwrite)."
            )

    def _check_open(self) -> None:
        if not self._hold.held:
            raise EffectsError(
                f"{self.path} was given back already, or is another process's, which this one was "
                "forked from: make a new sink."
            )
