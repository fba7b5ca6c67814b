"""Recording: scores to JSON lines, CSV or Parquet, so that a killed recorder loses little.

JSON lines and CSV are appended and flushed row by row. A Parquet file is readable only once its
footer is written, so rows are collected for at most ``PART_ROWS`` rows or ``PART_S`` seconds
into part files (``NAME.part-0000.parquet``), each complete before it is renamed into place; a
tidy end joins them into the one file asked for, and a killed recorder leaves the parts.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any, Protocol, TextIO, get_type_hints

from clients.rows import NAMES, Row

PART_ROWS = 1_000
PART_S = 10.0


class RecordError(Exception):
    """A recording that cannot be written; one line."""


class Recording(Protocol):
    """Takes rows until it is closed."""

    def write(self, row: Row) -> None:
        """Append a row."""
        ...

    def tick(self) -> None:
        """Write what has waited long enough; called now and then."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


@contextlib.contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """Open a recording by its suffix: .jsonl, .csv or .parquet.

    Raises:
        RecordError: another suffix, a file that is there already, or it cannot be written.
    """
    kinds: dict[str, Callable[[Path], Recording]] = {
        ".jsonl": JsonLines,
        ".csv": Csv,
        ".parquet": Parquet,
    }
    kind = kinds.get(path.suffix)
    if kind is None:
        raise RecordError(f"{path}: expected a name that ends in {', '.join(kinds)}")
    there = [path] if path.exists() else sorted(path.parent.glob(f"{path.stem}.part-*.parquet"))
    if there:
        raise RecordError(f"{there[0]}: there is a file of this name already")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recording = kind(path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        try:
            yield recording
        finally:
            recording.close()
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


class JsonLines:
    """One JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("x")

    def write(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps(asdict(row), allow_nan=False) + "\n")
        self._file.flush()

    def tick(self) -> None:
        """Do nothing: no row waits."""

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class Csv:
    """A header, then one line per score."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("x", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(NAMES)
        self._file.flush()

    def write(self, row: Row) -> None:
        """Append a row."""
        self._writer.writerow(astuple(row))
        self._file.flush()

    def tick(self) -> None:
        """Do nothing: no row waits."""

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class Parquet:
    """Part files, joined at the end."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise RecordError('Parquet needs pyarrow: pip install "undertone[parquet]"') from None
        self._arrow, self._parquet = arrow, parquet
        self._path = path
        self._rows: list[Row] = []
        self._since_s = time.monotonic()
        self._parts: list[Path] = []
        self._schema = arrow.schema(
            [arrow.field(name, _arrow_type(arrow, hint)) for name, hint in _hints().items()]
        )

    def write(self, row: Row) -> None:
        """Collect a row; a full part is written."""
        self._rows.append(row)
        if len(self._rows) >= PART_ROWS:
            self._write_part()

    def tick(self) -> None:
        """Write a part of what has waited for ``PART_S``."""
        if time.monotonic() - self._since_s >= PART_S:
            self._write_part()

    def close(self) -> None:
        """Write what is left and join the parts."""
        self._write_part()
        tables = [self._parquet.read_table(part) for part in self._parts]
        whole = self._arrow.concat_tables(tables) if tables else self._schema.empty_table()
        self._put(whole, self._path)
        for part in self._parts:
            part.unlink()

    def _write_part(self) -> None:
        self._since_s = time.monotonic()
        if not self._rows:
            return
        part = self._path.with_suffix(f".part-{len(self._parts):04d}.parquet")
        table = self._arrow.Table.from_pylist([asdict(r) for r in self._rows], schema=self._schema)
        self._put(table, part)
        self._parts.append(part)
        self._rows = []

    def _put(self, table: Any, path: Path) -> None:
        partial = path.with_suffix(".unfinished")
        self._parquet.write_table(table, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)


def _hints() -> dict[str, Any]:
    hints = get_type_hints(Row)
    return {field.name: hints[field.name] for field in fields(Row)}


def _arrow_type(arrow: Any, hint: Any) -> Any:
    kinds = {float: arrow.float64(), int: arrow.int64(), bool: arrow.bool_(), str: arrow.string()}
    for kind, arrow_type in kinds.items():
        if hint is kind or hint == kind | None:
            return arrow_type
    raise TypeError(f"no column type for {hint}")
