"""What ``microtome study list`` shows, from the studies themselves: ``make listed``.

The command reads the file that this writes, so that it need not import the studies and torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from microtome import studies
from microtome.texts import LANGUAGES

FILE = Path(studies.__file__).with_name("listed.json")


def listed() -> dict[str, dict[str, Any]]:
    """Name → question in every language, model, and predicted cost of each study."""
    return {
        name: {
            "question": {lang: study.texts(lang)("question") for lang in LANGUAGES},
            "model": study.published.model,
            **vars(studies.predict(study)),
        }
        for name, study in studies.STUDIES.items()
    }


def main() -> None:
    """Write the file."""
    text = json.dumps(listed(), indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
