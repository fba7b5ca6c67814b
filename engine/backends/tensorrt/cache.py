"""The plan cache: files that are found by what they were built from, or not at all.

A plan is code for the GPU, so a plan from elsewhere is foreign code. Each one is next to a
sidecar that says what it was built from and is signed with a key of this directory; a plan
without a fitting sidecar is built again. Writers lock, and rename whole files into place.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.profiles import InputRange

log = logging.getLogger(__name__)

SCHEMA = 1
RECIPE = 1
"""Changes when the same graph would be built into another plan."""
LOCK_TIMEOUT_S = 1800.0
"""Another process may be building for that long on a data-centre TensorRT."""
KEY_FILE = "key"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that a plan depends on."""

    graph: str
    onnx_sha256: str
    tensorrt: str
    """Package and version, such as ``rtx 1.7.1.116``."""
    device: str
    """Compute capability, for data-centre TensorRT also the GPU's name."""
    precision: str
    ranges: tuple[InputRange, ...]
    recipe: int = RECIPE

    @property
    def digest(self) -> str:
        """sha256 over all of it, in hexadecimal."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    @property
    def stem(self) -> str:
        """File name without an ending."""
        return f"{self.graph}-{self.precision}-{_slug(self.device)}-{self.digest[:16]}"

    @property
    def timings(self) -> str:
        """File name of the builder's timing cache, which all plans of a device share."""
        return f"{_slug(self.device)}-{_slug(self.tensorrt)}.timings"


@dataclass(frozen=True, slots=True)
class Cached:
    """A plan that may be loaded."""

    key: PlanKey
    plan: bytes
    verified: bool
    """It was compared with ONNX Runtime on a GPU."""


class PlanCache:
    """Plans in one directory.

    Args:
        directory: made, for its owner only, with the first plan.
        accept_foreign: load plans, too, that were signed elsewhere (``build --for``).
    """

    def __init__(self, directory: Path, accept_foreign: bool = False) -> None:
        self.directory = directory
        self._accept_foreign = accept_foreign

    def look(self, key: PlanKey) -> Cached | str:
        """Return the plan of ``key``, or why there is none to be loaded."""
        try:
            plan = self._path(key, "plan").read_bytes()
            sidecar = json.loads(self._path(key, "json").read_bytes())
        except FileNotFoundError:
            return "not built yet"
        except (OSError, ValueError) as error:
            return f"cannot be read: {error}"
        if (fault := self._exposed()) is not None:
            return fault
        expected = self._sidecar(key, plan, bool(_entry(sidecar, "verified")))
        for field, value in expected.items():
            if field != "signature" and _entry(sidecar, field) != value:
                return f"its {field} is not that of this plan"
        signed = hmac.compare_digest(str(_entry(sidecar, "signature")), expected["signature"])
        if not signed and not self._accept_foreign:
            return "another machine built it (tensorrt.foreign_plans allows that)"
        # What another machine saw says nothing of this GPU.
        return Cached(key, plan, expected["verified"] and signed)

    def obtain(self, key: PlanKey, build: Callable[[], bytes]) -> Cached:
        """Return the plan of ``key``, built if need be; by one process at a time.

        Raises:
            BackendError: the directory cannot be used, or ``build`` raised it.
        """
        found = self.look(key)
        if isinstance(found, Cached):
            return found
        with self._lock(key.stem):
            found = self.look(key)  # another process may have built it meanwhile
            if isinstance(found, Cached):
                return found
            log.info("plan of %s: %s; building it", key.graph, found)
            built = Cached(key, build(), verified=False)
            self._write(built)
        return built

    def mark_verified(self, cached: Cached) -> Cached:
        """Note that a plan was compared with ONNX Runtime and agrees."""
        verified = replace(cached, verified=True)
        with self._lock(cached.key.stem):
            self._write(verified)
        return verified

    def discard(self, key: PlanKey) -> None:
        """Remove a plan that must not be loaded again."""
        for ending in ("json", "plan", "kernels"):
            self._path(key, ending).unlink(missing_ok=True)

    def path(self, key: PlanKey) -> Path:
        """Path of the plan of ``key``."""
        return self._path(key, "plan")

    def side_blob(self, name: str) -> bytes:
        """Read what speeds up a later build or start; empty where there is none, or not ours."""
        try:
            blob = (self.directory / name).read_bytes()
        except OSError:
            return b""
        signature, content = blob[:32], blob[32:]
        ours = self._exposed() is None and hmac.compare_digest(signature, self._mac(content))
        return content if ours else b""

    def keep_side_blob(self, name: str, blob: bytes) -> None:
        """Write it, signed; a failure costs time at the next start and nothing else."""
        if blob:
            try:
                self._make_directory()
                _replace(self.directory / name, self._mac(blob) + blob)
            except (OSError, BackendError) as error:
                log.info("%s is not kept: %s", name, error)

    def _write(self, cached: Cached) -> None:
        key = cached.key
        sidecar = self._sidecar(key, cached.plan, cached.verified)
        try:
            _replace(self._path(key, "plan"), cached.plan)
            _replace(self._path(key, "json"), json.dumps(sidecar, indent=2).encode())
        except OSError as error:
            raise BackendError(f"{self.directory}: cannot be written: {error}") from None

    def _sidecar(self, key: PlanKey, plan: bytes, verified: bool) -> dict[str, Any]:
        content = {
            "schema": SCHEMA,
            "key": json.loads(_canonical(asdict(key))),
            "digest": key.digest,
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "verified": verified,
        }
        return {**content, "signature": self._mac(_canonical(content)).hex()}

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._secret(), content, "sha256")

    def _secret(self) -> bytes:
        """Read this directory's key; made, readable by its owner only, with the first plan."""
        path = self.directory / KEY_FILE
        try:
            return path.read_bytes()
        except FileNotFoundError:
            pass
        self._make_directory()
        try:
            # By a link, which fails where there is one: two processes may be here at once.
            with tempfile.NamedTemporaryFile(dir=self.directory) as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.link(file.name, path)
        except FileExistsError:
            pass
        return path.read_bytes()

    def _exposed(self) -> str | None:
        """Say whether others may write here; a plan of theirs would run as ours."""
        if os.name != "posix":
            return None
        state = self.directory.stat()
        if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{self.directory} is another user's, or others may write to it (chmod 700)"
        return None

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BackendError(f"{self.directory}: cannot be made: {error.strerror}") from None

    def _lock(self, stem: str) -> Any:
        try:
            from filelock import FileLock
        except ImportError:
            raise BackendError('filelock is not installed: pip install -e ".[rtx]"') from None
        self._make_directory()
        return FileLock(self.directory / f"{stem}.lock", timeout=LOCK_TIMEOUT_S)

    def _path(self, key: PlanKey, ending: str) -> Path:
        return self.directory / f"{key.stem}.{ending}"


def default_directory() -> Path:
    """``$XDG_CACHE_HOME/undertone/plans``, or below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "undertone" / "plans"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _entry(sidecar: Any, field: str) -> Any:
    return sidecar.get(field) if isinstance(sidecar, dict) else None


def _replace(path: Path, content: bytes) -> None:
    """Write a whole file in place of another, or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
