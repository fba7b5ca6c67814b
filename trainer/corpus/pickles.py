"""Pickles of strangers: numpy arrays and plain containers, and nothing that could run."""

from __future__ import annotations

import importlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

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


class RestrictedUnpickler(pickle.Unpickler):
    """Finds only what arrays and containers are made of; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The named object, if it is one of the few that are harmless."""
        if module in NUMPY.get(name, ()):
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


def read_pickle(path: Path) -> Any:
    """Load a pickle of arrays and containers.

    Raises:
        CorpusError: it cannot be read, is no pickle, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _load(file, path)
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


def _load(file: IO[bytes], where: Path | str) -> Any:
    try:
        return RestrictedUnpickler(file).load()
    except pickle.UnpicklingError as error:
        raise CorpusError(f"{where}: not a pickle of arrays only: {error}") from None
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise anything that an opcode can raise
        raise CorpusError(
            f"{where}: not a readable pickle: {type(error).__name__}: {error}"
        ) from None
