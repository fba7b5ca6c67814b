"""CSV files with a header, row by row; damaged rows are counted."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from trainer.corpus.checks import Ledger
from trainer.corpus.clip import CorpusError


def header(path: Path) -> tuple[str, ...]:
    """First row of a CSV file.

    Raises:
        CorpusError: it cannot be read as CSV.
    """
    return next(raw_rows(path), ())


def raw_rows(path: Path) -> Iterator[tuple[str, ...]]:
    """All rows of a CSV file.

    Raises:
        CorpusError: it cannot be read as CSV.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file):
                yield tuple(row)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: not a CSV file in UTF-8: {error}") from None


def table(path: Path, required: tuple[str, ...], ledger: Ledger) -> Iterator[dict[str, str]]:
    """Rows by column name; a row with another number of fields is counted and left out.

    Raises:
        CorpusError: unreadable, or a required column is missing.
    """
    rows = raw_rows(path)
    columns = next(rows, ())
    missing = [name for name in required if name not in columns]
    if missing:
        raise CorpusError(
            f"{path}: expected the columns {', '.join(required)}, "
            f"missing {', '.join(missing)} (got {', '.join(columns[:12]) or 'an empty file'})"
        )
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(columns):
            ledger.add("lost", f"rows without {len(columns)} fields", f"row {number}")
            continue
        yield dict(zip(columns, row, strict=True))


def number(text: str) -> float | None:
    """A number, None where the text is none or empty."""
    try:
        return float(text)
    except ValueError:
        return None
