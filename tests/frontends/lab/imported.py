"""What the process imports whose copies are servers: all that a server needs, once."""

import gc
import importlib

gc.disable()  # what is imported stays: a fifth of the time would go into looking
for name in ("microtome.__main__", "microtome.frontends.commands.lab", "microtome.model.load"):
    importlib.import_module(name)
gc.freeze()
gc.enable()
