"""Feature store: frames of many clips in a few large files, read by memory map.

One folder per encoder: ``store.json`` says whose frames these are, ``frames-NNNN.bin`` hold them
one after another, ``index.jsonl`` has a line per clip, written after its frames. A killed
extraction leaves at most frames that no line names; they are written over. 23,000 clips of
WavLM frames (75 GB) are read without being in memory.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.generic]
SHARD_BYTES = 1 << 30
VERSION = 1
SECONDS_DIGITS = 3


class FeatureError(Exception):
    """Features that cannot be stored, read or made: one line, expected and actual."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the frames of one clip lie."""

    key: str
    shard: int
    first: int
    count: int
    seconds: float


class FrameStore:
    """Frames [T, *shape] per key, of one encoder.

    Args:
        folder: of this encoder.
        identity: names the encoder, its weights and its input; another one is refused.
        shape: of one frame.
        dtype: as stored.
        shard_bytes: a new file is begun beyond this size.

    Raises:
        FeatureError: the folder holds other frames.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        shape: tuple[int, ...],
        dtype: DTypeLike = np.float16,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder = folder
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._shard_bytes = shard_bytes
        self._row_bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        self._maps: dict[int, Array] = {}
        self._check({"version": VERSION, "identity": identity, "shape": list(shape)})
        self._entries: dict[str, Entry] = {}
        self._last: Entry | None = None
        for entry in self._read_index():
            self._entries[entry.key] = self._last = entry

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, key: str) -> Entry:
        """Where a clip's frames lie, and how long the clip is."""
        return self._entries[key]

    def read(self, key: str) -> Array:
        """Frames [T, *shape] of a clip, a view of the file."""
        entry = self._entries[key]
        if entry.count == 0:
            return np.zeros((0, *self.shape), self.dtype)
        shard = self._maps.get(entry.shard)
        if shard is None or len(shard) < entry.first + entry.count:
            shard = np.memmap(self._shard(entry.shard), self.dtype, "r")
            rows = len(shard) * self.dtype.itemsize // self._row_bytes
            width = self._row_bytes // self.dtype.itemsize
            shard = shard[: rows * width].reshape(rows, *self.shape)
            self._maps[entry.shard] = shard
        return shard[entry.first : entry.first + entry.count]

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Append clips; one process at a time.

        Raises:
            FeatureError: another process writes, or the disk is full.
        """
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FeatureError(f"{self.folder}: another process is writing there") from None
            with (self.folder / "index.jsonl").open("a") as index:
                yield Writer(self, index)

    def put(self, key: str, frames: Array, seconds: float, index: IO[str]) -> None:
        """Append one clip's frames and its line; a kill between them loses this clip only."""
        if frames.shape[1:] != self.shape:
            raise FeatureError(
                f"{self.folder}: frames: expected [T, {list(self.shape)}], got {list(frames.shape)}"
            )
        shard, first = self._end()
        try:
            path = self._shard(shard)
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(first * self._row_bytes)
                file.write(np.ascontiguousarray(frames, self.dtype).tobytes())
            entry = Entry(key, shard, first, len(frames), round(float(seconds), SECONDS_DIGITS))
            index.write(json.dumps(asdict(entry)) + "\n")
            index.flush()
        except OSError as error:
            raise _disk_error(self.folder, error) from None
        self._entries[key] = self._last = entry

    def _end(self) -> tuple[int, int]:
        """Shard and row where the next clip goes."""
        last = self._last
        if last is None:
            return 0, 0
        row = last.first + last.count
        if row * self._row_bytes >= self._shard_bytes:
            return last.shard + 1, 0
        return last.shard, row

    def _shard(self, number: int) -> Path:
        return self.folder / f"frames-{number:04d}.bin"

    def _check(self, wanted: dict[str, object]) -> None:
        wanted["dtype"] = self.dtype.name
        path = self.folder / "store.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                path.write_text(json.dumps(wanted, indent=2) + "\n")
                return
            found = json.loads(path.read_text())
        except OSError as error:
            raise _disk_error(self.folder, error) from None
        except ValueError:
            raise FeatureError(
                f"{path}: expected JSON; remove the folder to extract anew"
            ) from None
        for name, value in wanted.items():
            if found.get(name) != value:
                raise FeatureError(
                    f"{path}: {name}: expected {value!r}, got {found.get(name)!r}; remove the "
                    "folder to extract anew"
                )

    def _read_index(self) -> Iterator[Entry]:
        path = self.folder / "index.jsonl"
        if not path.is_file():
            return
        sizes: dict[int, int] = {}
        whole = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = Entry(**json.loads(line))
                except (ValueError, TypeError):
                    break  # the line that a kill cut off
                if entry.shard not in sizes:
                    shard = self._shard(entry.shard)
                    sizes[entry.shard] = shard.stat().st_size if shard.is_file() else 0
                if (entry.first + entry.count) * self._row_bytes > sizes[entry.shard]:
                    break  # frames lost with the machine's power
                whole += len(line)
                yield entry
        if whole < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(whole)


class Writer:
    """Appends to a store while its lock is held."""

    def __init__(self, store: FrameStore, index: IO[str]) -> None:
        self._store = store
        self._index = index

    def add(self, key: str, frames: Array, seconds: float) -> None:
        """Append a clip's frames [T, *shape]; a key that is there already is left alone."""
        if key not in self._store:
            self._store.put(key, frames, seconds, self._index)


def _disk_error(folder: Path, error: OSError) -> FeatureError:
    if error.errno == errno.ENOSPC:
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        return FeatureError(
            f"{folder}: the disk is full ({free / 1e9:.1f} GB free); what was extracted is kept: "
            "make room, or name another place with --features, and run again"
        )
    return FeatureError(f"{folder}: cannot be written: {error.strerror}")
