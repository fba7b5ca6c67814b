"""Reading recordings back, also those that a killed recorder left.

A name stands for the file itself, for its unjoined Parquet parts (``NAME.part-*.parquet``) and the
rows after them (``NAME.tail-*.jsonl``), or for
its rotated files (``NAME-0001.csv`` and so on), whichever is there. A last line that was cut off is
skipped and said so in ``notes``; any other damage is an error with the file and the line.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from clients.columns import from_cell
from clients.record import RecordError, parts_of, remains_of, tail_of
from clients.rotation import files_of
from engine.wire.rows import BY_NAME, Row, RowError, check_schema, row_from

KINDS = (".jsonl", ".csv", ".parquet")


class RecordingFile:
    """A recording on the disk; ``rows`` may be read more than once."""

    def __init__(self, path: Path) -> None:
        """Find the recording's files.

        Raises:
            RecordError: there is none of this name, or its suffix is unknown.
        """
        if path.suffix not in KINDS:
            raise RecordError(f"{path}: expected a name that ends in {', '.join(KINDS)}")
        self.path = path
        self.notes: list[str] = []
        """What is to be said besides the rows: parts that were not joined, a cut last line."""
        self.files = self._find()

    def rows(self) -> Iterator[Row]:
        """Every row in the order it was written.

        Raises:
            RecordError: another row schema, or a damaged file; names the file and the line.
        """
        self.notes.clear()
        for file in self.files:
            try:
                yield from self._rows_of(file)
            except OSError as error:
                raise RecordError(f"{file}: cannot be read: {error.strerror or error}") from None

    def _find(self) -> list[Path]:
        path = self.path
        if path.is_file() or remains_of(path):
            return [path]
        rotated = files_of(path)
        if not rotated:
            raise RecordError(f"{path}: no such recording")
        return rotated

    def _rows_of(self, file: Path) -> Iterator[Row]:
        if file.suffix == ".parquet":
            yield from self._parquet_rows(file)
            return
        with file.open("rb") as opened:
            if file.suffix == ".jsonl":
                yield from self._lines(file, opened, 1, _json_row)
                return
            header = opened.readline()
            if not header.endswith(b"\n"):
                self.notes.append(f"{file}: cut off within its header, no rows")
                return
            with _place(f"{file}, line 1"):
                names = next(csv.reader([header.decode().rstrip("\r\n")]), [])
                _check_columns(names)
            yield from self._lines(file, opened, 2, lambda line: _csv_row(names, line))

    def _lines(
        self, file: Path, opened: BinaryIO, first: int, parse: Callable[[str], Row]
    ) -> Iterator[Row]:
        for number, line in enumerate(opened, first):
            if not line.strip():
                continue
            try:
                with _place(f"{file}, line {number}"):
                    row = parse(line.decode())
            except RecordError:
                if line.endswith(b"\n"):
                    raise
                self.notes.append(f"{file}: the last line is cut off; it is left out")
                return
            yield row

    def _parquet_rows(self, file: Path) -> Iterator[Row]:
        pieces, tail = [file], None
        if not file.exists():
            pieces, tail = parts_of(file), tail_of(file)
            self.notes.append(
                f"{file}: not finished, its recorder was killed or still runs; read from "
                f"{len(pieces)} parts and what came after the last of them"
            )
        for piece in pieces:
            for number, values in enumerate(_parquet_values(piece), 1):
                with _place(f"{piece}, row {number}"):
                    row = row_from(values)
                yield row
        if tail is not None:
            with tail.open("rb") as opened:
                yield from self._lines(tail, opened, 1, _json_row)


def _parquet_values(piece: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise RecordError('Parquet needs pyarrow: pip install -e ".[parquet]"') from None
    try:
        with parquet.ParquetFile(piece) as opened:
            for batch in opened.iter_batches():
                yield from batch.to_pylist()
    except Exception as error:  # of a damaged file pyarrow raises a dozen kinds
        reason = (str(error).splitlines() or [""])[0][:120]
        raise RecordError(f"{piece}: damaged Parquet file: {reason}") from None


@contextlib.contextmanager
def _place(place: str) -> Iterator[None]:
    """Turn what is wrong with a row into one line that names its place."""
    try:
        yield
    except RowError as error:
        raise RecordError(f"{place}: {error}") from None
    except UnicodeDecodeError:
        raise RecordError(f"{place}: not UTF-8 text") from None
    except (ValueError, RecursionError, OverflowError, csv.Error):
        raise RecordError(f"{place}: not a row of a recording") from None


def _check_columns(names: list[str]) -> None:
    if "row_schema" not in names:
        check_schema(None)


def _json_row(line: str) -> Row:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise RowError(f"expected a JSON object, got {type(values).__name__}")
    return row_from(values)


def _csv_row(names: list[str], line: str) -> Row:
    cells = next(csv.reader([line.rstrip("\r\n")]), [])
    if len(cells) != len(names):
        raise RowError(f"expected {len(names)} cells, got {len(cells)}")
    pairs = zip(names, cells, strict=True)
    return row_from({n: from_cell(BY_NAME[n], c) for n, c in pairs if n in BY_NAME})
