"""A copy of this process, which has imported already what a fresh one takes seconds to import."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable


def in_a_copy(do: Callable[[], object]) -> int:
    """Do something in a copy of this process, which ends then.

    Returns:
        How it ended: 0, 1 where an error was raised, or minus the signal that ended it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, that torch and others have
        child = os.fork()
    if child == 0:
        code = 1
        try:
            do()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
