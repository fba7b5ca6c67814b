"""Rotation: a long recording as files of a bounded size and time, NAME-0001.csv and so on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients.record import RecordError, Recording, new_recording, remains_of
from engine.wire.rows import Row

MB = 1_000_000
_NUMBERED = re.compile(r"(?P<name>.+)-(?P<number>\d{4,})")
_PART = re.compile(r"\.part-\d+$")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a file is full; None: never. A file is never empty, so it may exceed its size by a row.

    The size is that on the disk: of Parquet, compressed and without the part being collected.
    """

    size_mb: float | None = None
    minutes: float | None = None

    def full(self, size_bytes: int, age_s: float) -> bool:
        """Whether a file of this size and age is to be followed by another."""
        too_large = self.size_mb is not None and size_bytes >= self.size_mb * MB
        return too_large or (self.minutes is not None and age_s >= self.minutes * 60)


def numbered(path: Path, number: int) -> Path:
    """Name of a rotated file: ``session.csv`` has ``session-0001.csv`` as its first."""
    return path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def files_of(path: Path) -> list[Path]:
    """Rotated files of a recording in order, finished or left in parts; empty if there are none."""
    found: dict[int, Path] = {}
    for candidate in path.parent.glob(f"*{path.suffix}"):
        match = _NUMBERED.fullmatch(_PART.sub("", candidate.stem))
        if match is not None and match["name"] == path.stem:
            found[int(match["number"])] = numbered(path, int(match["number"]))
    return [found[number] for number in sorted(found) if _readable(found[number])]


def _readable(path: Path) -> bool:
    return path.exists() or bool(remains_of(path))


class Rotating:
    """A recording that continues in a new file when the one at hand is full."""

    def __init__(
        self, path: Path, limits: Limits, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the first file.

        Raises:
            RecordError: files of this name are there already, or the suffix is unknown.
            OSError: it cannot be written.
        """
        there = [path] if path.exists() else files_of(path)
        if there:
            raise RecordError(f"{there[0]}: there is a file of this name already")
        self._path, self._limits, self._now_s = path, limits, now_s
        self._number = 0
        self._closed_bytes = 0
        self._open_next()

    @property
    def files(self) -> int:
        """Files so far."""
        return self._number

    def write(self, row: Row) -> None:
        """Append a row, to a new file where the one at hand is full."""
        age_s = self._now_s() - self._since_s
        if self._rows and self._limits.full(self._recording.size_bytes(), age_s):
            self._closed_bytes += self._recording.size_bytes()
            self._recording.close()
            self._open_next()
        self._recording.write(row)
        self._rows += 1

    def tick(self) -> None:
        """Write what has waited long enough."""
        self._recording.tick()

    def size_bytes(self) -> int:
        """Bytes of all files."""
        return self._closed_bytes + self._recording.size_bytes()

    def close(self) -> None:
        """Finish the file at hand."""
        self._recording.close()

    def _open_next(self) -> None:
        self._number += 1
        self._recording: Recording = new_recording(numbered(self._path, self._number))
        self._since_s, self._rows = self._now_s(), 0
