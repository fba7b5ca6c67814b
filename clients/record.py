"""Recording: scores to JSON lines, CSV or Parquet, so that a killed recorder loses little.

JSON lines and CSV are appended and flushed row by row. A Parquet file is readable only once its
footer is written, so rows are collected for at most ``PART_ROWS`` rows or ``SYNC_S`` seconds
into part files (``NAME.part-000000.parquet``), each complete before it is renamed into place. Until
then they stand in JSON lines (``NAME.tail-000000.jsonl``, numbered as the part to come). A tidy end
joins the parts into the one file asked for; a killed recorder leaves parts and tail, which
``clients.reading`` reads as they are. Only the user may read what is written.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

from clients.columns import to_cell
from engine.wire.rows import COLUMNS, NAMES, Column, Row

PART_ROWS, BLOCK_BYTES = 1_000, 1 << 22
SYNC_S = 10.0
"""A killed machine (not: a killed recorder) loses at most this."""
GROUP_ROWS = 4_000
"""Rows joined at a time: a row group of the finished Parquet file."""


class RecordError(Exception):
    """A recording that cannot be written or read; one line."""


class Recording(Protocol):
    """Takes rows until it is closed."""

    def write(self, row: Row) -> None:
        """Append a row."""
        ...

    def tick(self) -> None:
        """Write what has waited long enough; called now and then."""
        ...

    def size_bytes(self) -> int:
        """Bytes written so far."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def parts_of(path: Path) -> list[Path]:
    """Parts of an unfinished Parquet recording, in order."""
    found = path.parent.glob(f"{_literal(path.stem)}.part-*.parquet")
    return sorted(found, key=lambda part: (len(part.name), part.name))


def tail_of(path: Path) -> Path | None:
    """Rows of an unfinished Parquet recording that came after its last part."""
    tail = _tail(path, len(parts_of(path)))
    return tail if tail.exists() else None


def remains_of(path: Path) -> list[Path]:
    """Everything that an unfinished Parquet recording has left, in order."""
    tail = tail_of(path)
    return parts_of(path) + ([] if tail is None else [tail])


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.part-{number:06d}.parquet")


def _tail(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.tail-{number:06d}.jsonl")


def _private(name: str, flags: int) -> int:
    """Open a file for its user only."""
    return os.open(name, flags, 0o600)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def new_recording(path: Path) -> Recording:
    """Open one file by its suffix: .jsonl, .csv or .parquet.

    Raises:
        RecordError: another suffix, or a file that is there already.
        OSError: it cannot be written.
    """
    kinds: dict[str, Callable[[Path], Recording]] = {
        ".jsonl": JsonLines,
        ".csv": Csv,
        ".parquet": Parquet,
    }
    kind = kinds.get(path.suffix)
    if kind is None:
        raise RecordError(f"{path}: expected a name that ends in {', '.join(kinds)}")
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(path)


def _refuse_existing(path: Path) -> None:
    there = [path] if path.exists() else remains_of(path)
    if there:
        raise RecordError(f"{there[0]}: there is a file of this name already")


@contextlib.contextmanager
def open_recording(
    path: Path, new: Callable[[Path], Recording] = new_recording
) -> Iterator[Recording]:
    """Open a recording and finish it at the end; ``new`` opens it otherwise, such as rotating.

    Raises:
        RecordError: another suffix, a file that is there already, or it cannot be written.
    """
    try:
        recording = new(path)
        try:
            yield recording
        finally:
            recording.close()
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


class _Lines:
    """A text file, flushed row by row and synced to the disk now and then."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = open(  # noqa: SIM115
            path, "x", encoding="utf-8", newline="", opener=_private
        )
        self._synced_s = time.monotonic()

    def tick(self) -> None:
        """Sync to the disk what has waited for ``SYNC_S``."""
        if time.monotonic() - self._synced_s >= SYNC_S:
            os.fsync(self._file.fileno())
            self._synced_s = time.monotonic()

    def size_bytes(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class JsonLines(_Lines):
    """One JSON object per line."""

    def write(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps(row.values(), allow_nan=False) + "\n")
        self._file.flush()


class Csv(_Lines):
    """A header, then one line per score."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(NAMES)
        self._file.flush()

    def write(self, row: Row) -> None:
        """Append a row."""
        self._writer.writerow([to_cell(column, column.of(row)) for column in COLUMNS])
        self._file.flush()


class Parquet:
    """Part files, joined at the end."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.json as arrow_json
            import pyarrow.parquet as parquet
        except ImportError:
            raise RecordError('Parquet needs pyarrow: pip install -e ".[parquet]"') from None
        self._arrow, self._json, self._parquet = arrow, arrow_json, parquet
        self._path = path
        self._lock = _lock(path)
        self._rows = 0
        self._since_s = time.monotonic()
        self._parts: list[Path] = []
        self._bytes = 0
        self._closed = False
        self._schema = arrow.schema([_field(arrow, column) for column in COLUMNS])
        self._tail = JsonLines(_tail(path, 0))

    def write(self, row: Row) -> None:
        """Collect a row; a full part is written."""
        try:
            self._tail.write(row)
            self._rows += 1
            if self._rows >= PART_ROWS:
                self._write_part()
        except OSError:  # a full disk: parts and tail stay as they are, and can be read
            self._closed = True
            self._let_go()
            raise

    def tick(self) -> None:
        """Write a part of what has waited for ``SYNC_S``."""
        if time.monotonic() - self._since_s >= SYNC_S:
            self._write_part()

    def size_bytes(self) -> int:
        """Bytes of the parts so far."""
        return self._bytes

    def close(self) -> None:
        """Write what is left and join the parts."""
        if self._closed:
            return
        self._write_part()
        self._put(self._joined(), self._path)
        self._closed = True
        for left in (*self._parts, _tail(self._path, len(self._parts))):
            left.unlink()
        self._let_go()

    def _let_go(self) -> None:
        """Close the tail, and give the name free."""
        with contextlib.suppress(OSError):
            self._tail.close()
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()

    def _joined(self) -> Iterator[Any]:
        """All rows, in tables of some ``GROUP_ROWS``: a long recording is never held whole."""
        waiting: list[Any] = []
        for part in self._parts:
            with self._parquet.ParquetFile(part) as opened:
                waiting.append(opened.read(use_threads=False))
            if sum(len(table) for table in waiting) >= GROUP_ROWS:
                yield self._arrow.concat_tables(waiting)
                waiting = []
        if waiting:
            yield self._arrow.concat_tables(waiting)

    def _write_part(self) -> None:
        self._since_s = time.monotonic()
        if not self._rows:
            return
        part, tail = _part(self._path, len(self._parts)), _tail(self._path, len(self._parts))
        self._put(iter([self._read(tail)]), part)
        self._tail.close()
        tail.unlink()
        self._parts.append(part)
        self._tail = JsonLines(_tail(self._path, len(self._parts)))
        self._bytes += part.stat().st_size
        self._rows = 0

    def _read(self, tail: Path) -> Any:
        """The rows of a tail as a table. Arrow reads the lines itself: of Python's lists it would
        make arrays through pandas where that is installed, which takes 40 MB."""
        return self._json.read_json(
            tail,
            read_options=self._json.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=self._json.ParseOptions(
                explicit_schema=self._schema, unexpected_field_behavior="error"
            ),
        )

    def _put(self, tables: Iterator[Any], path: Path) -> None:
        partial = path.with_suffix(".unfinished")
        with open(partial, "wb", opener=_private) as file:
            with self._parquet.ParquetWriter(file, self._schema) as writer:
                for table in tables:
                    writer.write_table(table.combine_chunks())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def _lock(path: Path) -> BinaryIO:
    """Claim a name for as long as this process lives.

    Raises:
        RecordError: another recorder has it, or has just finished a file of this name.
    """
    lock = open(path.with_name(f"{path.name}.lock"), "ab", opener=_private)  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _refuse_existing(path)
    except (BlockingIOError, RecordError) as error:
        lock.close()
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: another recorder is writing it") from None
    return lock


def _field(arrow: Any, column: Column) -> Any:
    kinds = {float: arrow.float64(), int: arrow.int64(), bool: arrow.bool_()}
    return arrow.field(column.name, kinds.get(column.kind, arrow.string()))
