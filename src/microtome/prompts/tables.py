"""Tables of prompts, a part at a time: Parquet files, data frames, Arrow tables.

What is empty in a table (null, NaN) counts as not given, as in CSV.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from microtome.errors import PromptError
from microtome.textfiles import shown

if TYPE_CHECKING:  # whoever gives a data frame has imported it
    import pandas as pd

PARQUET = ".parquet"
ROWS = 256
"""Rows that are in memory at once."""

Row = tuple[str, dict[str, Any]]
"""Where a prompt's fields stand, in words, and the fields."""


def parquet_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a Parquet file, in order.

    Raises:
        PromptError: pyarrow is not installed, the file cannot be read, or two of its columns have
            one name.
    """
    parquet = _arrow(shown(path))
    try:
        with parquet.ParquetFile(path) as file:
            _check_names(file.schema_arrow.names, shown(path))
            batches = file.iter_batches(batch_size=ROWS)
            yield from _numbered((row for one in batches for row in one.to_pylist()), shown(path))
    except (OSError, ValueError) as error:  # pyarrow's own errors are these
        if isinstance(error, PromptError):
            raise
        first = str(error).partition("\n")[0]
        raise PromptError(f"Cannot read {shown(path)}: {first}.") from error


def table_rows(table: Any) -> Iterator[Row] | None:
    """The rows of a pandas data frame or of an Arrow table; None where it is neither.

    Raises:
        PromptError: two columns have one name.

    >>> import pandas as pd
    >>> [row for _, row in table_rows(pd.DataFrame({"text": ["A", "B"], "n": [1, None]}))]
    [{'text': 'A', 'n': 1.0}, {'text': 'B'}]
    """
    library = type(table).__module__.partition(".")[0]
    if library == "pandas" and hasattr(table, "iloc") and hasattr(table, "columns"):
        _check_names(map(str, table.columns), "the data frame")
        parts = (table.iloc[at : at + ROWS] for at in range(0, len(table), ROWS))
        return _numbered((row for part in parts for row in _records(part)), "the data frame")
    if library == "pyarrow" and hasattr(table, "to_batches"):
        _check_names(table.schema.names, "the table")
        batches = table.to_batches(max_chunksize=ROWS)
        return _numbered((row for one in batches for row in one.to_pylist()), "the table")
    return None


def _check_names(names: Iterable[str], what: str) -> None:
    """Raise where two columns have one name: of a row, as a dictionary, the second would win."""
    for name, times in Counter(names).items():
        if times > 1:
            raise PromptError(f"{what}: two columns are called {name!r}.")


def _records(part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in part.to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def _numbered(rows: Iterator[Mapping[str, Any]], name: str) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield f"{name}, row {number}", {key: value for key, value in row.items() if _given(value)}


def _given(value: object) -> bool:
    """Whether a place of a table has something in it: not None, NaN, or what pandas has for it."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return False
    return not (isinstance(value, float) and value != value)


def _arrow(what: str) -> ModuleType:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise PromptError(
            f"To read {what} takes pyarrow, which is not installed: pip install pyarrow. Or save "
            "the table as .jsonl or .csv."
        ) from None
