"""Untrusted pickles: numpy arrays and plain containers, and nothing that could run.

Large arrays stay in the file: ``FileArray`` reads a row when it is asked for. A pickle of 8 GB
is open in a second, and is never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.clip import CorpusError

NUMPY = {
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
}
CONTAINERS = {
    ("builtins", name): getattr(__import__("builtins"), name)
    for name in ("set", "frozenset", "bytearray", "complex", "list", "dict", "tuple")
}


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What old numpy pickles call ``_codecs.encode`` for: bytes as Latin-1 text."""
    if encoding.lower().replace("-", "").replace("_", "") != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


LARGE_BYTES = 1 << 20
"""Arrays from this size on stay in the file."""


class FileArray:
    """An array [N, ...] in a file; rows are read when asked for.

    Args:
        path: of the file.
        offset: of the first byte.
        shape: of the array, in C order.
        dtype: of its values.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]):
        self.path = path
        self.offset = offset
        self.shape = shape
        self.dtype = dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Row ``row`` [...], a copy."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        values = np.empty(self.shape[1:], self.dtype)
        self._fill(values, self.offset + row * values.nbytes)
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it, in memory."""
        values = np.empty(self.shape, self.dtype)
        self._fill(values, self.offset)
        return values if dtype is None else values.astype(dtype)

    def _fill(self, values: NDArray[Any], place: int) -> None:
        buffer = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        done = 0
        try:
            with self.path.open("rb", buffering=0) as file:
                while done < len(buffer):
                    count = os.preadv(file.fileno(), [buffer[done:]], place + done)
                    if count == 0:
                        raise CorpusError(f"{self.path}: cut off at {place + done:,} bytes")
                    done += count
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read: {error.strerror}") from None


def fingerprint(path: Path) -> str:
    """Short digest of a large file by its size, time and 64 of its blocks: not read as a whole.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        known = path.stat()
        state = hashlib.sha256(f"{known.st_size}/{known.st_mtime_ns}".encode())
        with path.open("rb") as file:
            for block in range(64):
                file.seek(known.st_size * block // 64)
                state.update(file.read(4096))
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    return state.hexdigest()[:32]


@dataclass(frozen=True)
class _Stretch:
    """Bytes that were left in the file."""

    offset: int
    size: int


# The unpickler in Python, not the one in C: it lets large bytes be skipped, and the number of
# opcodes between them is small.
class RestrictedUnpickler(pickle._Unpickler):
    """Finds only what arrays and containers are made of; any other name is refused.

    Args:
        file: open at the pickle's start.
        path: of the same file, where large arrays may stay in it; None reads everything.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes], path: Path | None = None) -> None:
        super().__init__(file)
        self._source = file
        self._path = path
        self._size = path.stat().st_size if path is not None else 0

    def find_class(self, module: str, name: str) -> Any:
        """The named object, if it is one of the few that are harmless."""
        if module in NUMPY.get(name, ()):
            if name == "_frombuffer":
                return self._from_buffer
            # numpy moved these; the old names warn, and are gone in later versions.
            home = module.replace("numpy.core", "numpy._core")
            try:
                return getattr(importlib.import_module(home), name)
            except ImportError:
                return getattr(importlib.import_module(module), name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        try:
            return CONTAINERS[module.replace("__builtin__", "builtins"), name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def _from_buffer(
        self, data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str
    ) -> Any:
        """What protocol 5 makes arrays with."""
        if isinstance(data, _Stretch):
            return self._in_file(data, tuple(shape), dtype, order == "F")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")

    def _in_file(
        self, data: _Stretch, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
    ) -> Any:
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if dtype.hasobject or expected != data.size or min(shape) < 0 or self._path is None:
            raise pickle.UnpicklingError(
                f"array {list(shape)} of {dtype}: expected {expected:,} bytes, got {data.size:,}"
            )
        if fortran:
            flat = np.asarray(FileArray(self._path, data.offset, (data.size,), np.dtype(np.uint8)))
            return flat.view(dtype).reshape(shape, order="F")
        return FileArray(self._path, data.offset, shape, dtype)

    def _bytes(self, header: str, kind: Callable[[bytes], Any]) -> None:
        (size,) = struct.unpack(header, self.read(struct.calcsize(header)))  # type: ignore[attr-defined]
        framed = self._unframer.current_frame is not None  # type: ignore[attr-defined]
        if size < LARGE_BYTES or self._path is None or framed:
            if size > (1 << 62):
                raise pickle.UnpicklingError(f"{size} bytes are more than a file holds")
            self.append(kind(self.read(size)))  # type: ignore[attr-defined]
            return
        offset = self._source.tell()
        if offset + size > self._size:
            raise pickle.UnpicklingError(
                f"cut off: expected {offset + size:,} bytes, the file has {self._size:,}"
            )
        self._source.seek(size, 1)
        self.append(_Stretch(offset, size))  # type: ignore[attr-defined]

    def _build(self) -> None:
        stack = self.stack  # type: ignore[attr-defined]
        state, array = stack[-1], stack[-2]
        data = state[-1] if isinstance(state, tuple) and len(state) == 5 else None
        if isinstance(array, np.ndarray) and isinstance(data, _Stretch):
            _, shape, dtype, fortran, _ = stack.pop()
            made = self._in_file(data, tuple(shape), dtype, bool(fortran))
            stack[-1] = made
            memo = self.memo  # type: ignore[attr-defined]
            for number, known in memo.items():
                if known is array:
                    memo[number] = made
            return
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]


RestrictedUnpickler.dispatch |= {
    pickle.BINBYTES[0]: lambda self: self._bytes("<I", bytes),
    pickle.BINBYTES8[0]: lambda self: self._bytes("<Q", bytes),
    pickle.BYTEARRAY8[0]: lambda self: self._bytes("<Q", bytearray),
    pickle.BUILD[0]: lambda self: self._build(),
}


def read_pickle(path: Path) -> Any:
    """Load a pickle of arrays and containers; large arrays are ``FileArray``s.

    Raises:
        CorpusError: it cannot be read, is no pickle, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _load(file, path, path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None


def read_npz(path: Path) -> dict[str, Any]:
    """Arrays of an .npz by name; 0-d object arrays give the object itself.

    Raises:
        CorpusError: it cannot be read, is no .npz, or holds other objects.
    """
    found: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                content = io.BytesIO(archive.read(member))
                found[member.removesuffix(".npy")] = _array(content, f"{path}:{member}")
    except zipfile.BadZipFile as error:
        raise CorpusError(f"{path}: unreadable archive: {error}") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found


def _array(content: IO[bytes], where: str) -> Any:
    readers: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(content)
        _, _, dtype = readers[version](content)
        if dtype.hasobject:
            value = _load(content, where)
            return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
        content.seek(0)
        return np.lib.format.read_array(content, allow_pickle=False)
    except (ValueError, KeyError) as error:
        raise CorpusError(f"{where}: expected a numpy array: {error}") from None


def _load(file: IO[bytes], where: Path | str, path: Path | None = None) -> Any:
    try:
        return RestrictedUnpickler(file, path).load()
    except pickle.UnpicklingError as error:
        if str(error).startswith(("cut off", "pickle exhausted", "pickle data was truncated")):
            raise CorpusError(f"{where}: a pickle that is cut off or damaged: {error}") from None
        raise CorpusError(f"{where}: not a pickle of arrays only: {error}") from None
    except (EOFError, IndexError, struct.error):
        raise CorpusError(f"{where}: a pickle that is cut off or damaged") from None
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise anything that an opcode can raise
        raise CorpusError(
            f"{where}: not a readable pickle: {type(error).__name__}: {error}"
        ) from None
