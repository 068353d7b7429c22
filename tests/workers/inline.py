"""Workers in this process, who do all that others do, and die as they are told."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

from microtome.workers import here
from microtome.workers.crew import Crew
from microtome.workers.desk import Desk, Died


class Inline:
    """Two of them.

    Attributes:
        dies: whether who gets a unit dies of it.
        hired: how many there were so far.
        published: how many jobs they were given.
    """

    device = None

    def __init__(self, dies: Callable[[int], bool] = lambda unit: False) -> None:
        self.dies, self.hired, self.published = dies, 0, 0

    def crew(self, recipe):
        self.recipe = here.packed(recipe)
        return Crew(self, 2)

    def hire(self):
        self.hired += 1
        return Inside(Desk(self.recipe), self.dies)

    def publish(self, job):
        self.published += 1
        return here.packed(job)

    def wait(self, hands, seconds):
        return [(hand, hand.answer) for hand in hands]

    def close(self):
        pass


class Inside:
    def __init__(self, desk, dies):
        self.desk, self.dies, self.answer = desk, dies, desk.open()

    def send(self, number, job, unit):
        self.answer = Died("it was told to")
        if not self.dies(unit.number):
            unit = pickle.loads(ForkingPickler.dumps(unit))
            found = self.desk.run(number, lambda: pickle.loads(job), unit)
            self.answer = pickle.loads(ForkingPickler.dumps(found))

    def dismiss(self):
        pass

    part = dismiss
