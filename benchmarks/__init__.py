"""microtome against other tools, and against the machine's own limit.

``python -m benchmarks.run`` measures, ``python -m benchmarks.memory`` measures peak memory, and
``python -m benchmarks.table`` writes the page. `questions` says what is asked, `tools` holds one
file for each tool that answers, `floor` counts the operations that nobody can avoid.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("microtome") is None:  # a bare clone, with nothing installed but what it needs
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
