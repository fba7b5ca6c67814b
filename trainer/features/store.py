"""Feature store: frames of many clips in a few large files, read clip by clip.

One folder per encoder: ``store.json`` says whose frames these are, ``frames-NNNN.bin`` hold them
one after another, ``index.jsonl`` has a line per clip with the checksum of its frames, written
after them. Several processes may fill one store: each append holds the lock, and reads the
index to its end first. Processes that extract together (torchrun) each write files of their own,
``index-rank1.jsonl`` and so on, wait for no other, and read them all. A killed one leaves at most
frames that no line names; they are written over. 23,000 clips of WavLM frames (75 GB) are read
without being in memory.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.generic]
SHARD_BYTES = 1 << 30
VERSION = 2
"""Changes with what a line of the index holds."""
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
    crc32: int
    """Of the frames' bytes; checked when a process first reads them."""
    writer: str = ""
    """Whose files they lie in: the index's name says it, not its lines."""


class FrameStore:
    """Frames [T, *shape] per key, of one encoder.

    Args:
        folder: of this encoder.
        identity: names the encoder, its weights and its input; another one is refused.
        shape: of one frame.
        dtype: as stored.
        shard_bytes: a new file is begun beyond this size.
        writer: appends to files of its own, by this name; empty: to those of everybody.

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
        writer: str = "",
    ) -> None:
        self.folder = folder
        self.writer = writer
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._shard_bytes = shard_bytes
        self._row_bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        self._files: dict[tuple[str, int], int] = {}
        self._verified: set[str] = set()
        self._check({"version": VERSION, "identity": identity, "shape": list(shape)})
        self._entries: dict[str, Entry] = {}
        self._last: dict[str, Entry] = {}
        self._known_bytes: dict[str, int] = {}
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the files itself."""
        return {**self.__dict__, "_files": {}}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def entry(self, key: str) -> Entry:
        """Where a clip's frames lie, and how long the clip is."""
        return self._entries[key]

    def read(self, key: str) -> Array:
        """Frames [T, *shape] of a clip, a copy.

        Raises:
            FeatureError: they are not what was written.
        """
        entry = self._entries[key]
        frames = np.empty((entry.count, *self.shape), self.dtype)
        if entry.count == 0:
            return frames
        file, path = (entry.writer, entry.shard), self._shard(entry.writer, entry.shard)
        if file not in self._files:
            self._files[file] = os.open(path, os.O_RDONLY)
        buffer = memoryview(frames.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        place, done = entry.first * self._row_bytes, 0
        while done < len(buffer):
            count = os.preadv(self._files[file], [buffer[done:]], place + done)
            if count == 0:
                break
            done += count
        if key not in self._verified:
            if done < len(buffer) or zlib.crc32(buffer) != entry.crc32:
                raise FeatureError(
                    f"{path}: frames of {key}: expected checksum "
                    f"{entry.crc32:08x}, got {zlib.crc32(buffer[:done]):08x}: the file is damaged; "
                    "remove the folder to extract its frames again"
                )
            self._verified.add(key)
        return frames

    def add(self, key: str, frames: Array, seconds: float) -> None:
        """Append one clip's frames [T, *shape]; a key that is there already is left alone.

        Other processes may append at the same time. A kill between the frames and their line
        loses this clip only.

        Raises:
            FeatureError: frames of another shape, or the disk is full.
        """
        if key in self._entries:
            return
        if frames.shape[1:] != self.shape:
            raise FeatureError(
                f"{self.folder}: frames: expected [T, {list(self.shape)}], got {list(frames.shape)}"
            )
        try:
            with (self.folder / f"lock{_suffix(self.writer)}").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.refresh()
                self._repair()
                if key not in self._entries:
                    self._append(key, np.ascontiguousarray(frames, self.dtype), seconds)
        except OSError as error:
            raise _disk_error(self.folder, error) from None

    def refresh(self) -> None:
        """Read what was appended since, by whichever process."""
        for path in sorted(self.folder.glob("index*.jsonl")):
            writer = path.stem.removeprefix("index").removeprefix("-")
            sizes: dict[int, int] = {}
            with path.open("rb") as file:
                file.seek(self._known_bytes.get(writer, 0))
                for line in file:
                    try:
                        entry = Entry(**json.loads(line), writer=writer)
                    except (ValueError, TypeError):
                        break  # the line that a kill cut off, or that is being written
                    if not line.endswith(b"\n"):
                        break
                    if entry.shard not in sizes:
                        shard = self._shard(writer, entry.shard)
                        sizes[entry.shard] = shard.stat().st_size if shard.is_file() else 0
                    if (entry.first + entry.count) * self._row_bytes > sizes[entry.shard]:
                        break  # frames lost with the machine's power
                    self._take(entry, len(line))

    def _take(self, entry: Entry, line_bytes: int) -> None:
        self._known_bytes[entry.writer] = self._known_bytes.get(entry.writer, 0) + line_bytes
        self._entries.setdefault(entry.key, entry)
        self._last[entry.writer] = entry

    def _repair(self) -> None:
        """Cut what follows the last line that counts; under the lock nobody is writing it."""
        path, whole = self._index(), self._known_bytes.get(self.writer, 0)
        if path.is_file() and whole < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(whole)

    def _append(self, key: str, frames: Array, seconds: float) -> None:
        shard, first = self._end()
        path = self._shard(self.writer, shard)
        data = frames.tobytes()
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.seek(first * self._row_bytes)
            file.write(data)
        seconds = round(float(seconds), SECONDS_DIGITS)
        entry = Entry(key, shard, first, len(frames), seconds, zlib.crc32(data), self.writer)
        values = {name: value for name, value in asdict(entry).items() if name != "writer"}
        line = (json.dumps(values) + "\n").encode()
        with self._index().open("ab") as index:
            index.write(line)
        self._take(entry, len(line))

    def _end(self) -> tuple[int, int]:
        """Shard and row where the next clip goes; the lock is held and the index read."""
        last = self._last.get(self.writer)
        if last is None:
            return 0, 0
        row = last.first + last.count
        if row * self._row_bytes >= self._shard_bytes:
            return last.shard + 1, 0
        return last.shard, row

    def _shard(self, writer: str, number: int) -> Path:
        return self.folder / f"frames{_suffix(writer)}-{number:04d}.bin"

    def _index(self) -> Path:
        return self.folder / f"index{_suffix(self.writer)}.jsonl"

    def _check(self, wanted: dict[str, object]) -> None:
        wanted["dtype"] = self.dtype.name
        path = self.folder / "store.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                partial = path.with_suffix(f".{os.getpid()}")
                partial.write_text(json.dumps(wanted, indent=2) + "\n")
                partial.replace(path)
                return
            found = json.loads(path.read_text())
        except OSError as error:
            raise _disk_error(self.folder, error) from None
        except ValueError:
            raise FeatureError(
                f"{path}: expected JSON; remove the folder to extract its frames again"
            ) from None
        for name, value in wanted.items():
            if found.get(name) != value:
                raise FeatureError(
                    f"{path}: {name}: expected {value!r}, got {found.get(name)!r}; remove the "
                    "folder to extract its frames again"
                )


def _suffix(writer: str) -> str:
    return f"-{writer}" if writer else ""


def _disk_error(folder: Path, error: OSError) -> FeatureError:
    if error.errno == errno.ENOSPC:
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        return FeatureError(
            f"{folder}: the disk is full ({free / 1e9:.1f} GB free); what was extracted is kept: "
            "make room, or name another place with --features, and run again"
        )
    return FeatureError(f"{folder}: cannot be written: {error.strerror}")
