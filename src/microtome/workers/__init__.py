"""Workers: processes, here or on other machines, that run a sweep's units with models of their own.

A worker loads the model once and runs one unit after another. A unit gives the same wherever it is
run, so a sweep with workers is the sweep without them, bit for bit, on devices of one kind.
"""

from microtome.workers.clusters import Ray, ray
from microtome.workers.here import Processes, processes
from microtome.workers.naming import Workers, workers_of

__all__ = ["Processes", "Ray", "Workers", "processes", "ray", "workers_of"]
