"""The pulse of a worker: a pipe on which its own loop tells the supervisor that it is alive.

The supervisor asks the process, not the network: a status may be late on a slow link, and a
status repeated by somebody else is no life. While a worker starts (imports, plans, warm-up) it
may be in one long call, so a thread beats for it; that thread shows only that the process runs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

PERIOD_S = 0.25
STARTING, RUNNING = b"s", b"r"


class Pulse:
    """The worker's end; without a descriptor it beats for nobody."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._next_s = 0.0
        if descriptor is not None:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)

    def beat(self) -> None:
        """Say that the loop has come round; call it as often as you like."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + PERIOD_S
            self._write(RUNNING)

    @contextlib.contextmanager
    def starting(self, limit_s: float = float("inf")) -> Iterator[None]:
        """Beat from a thread for as long as the worker starts, or opens a device.

        What takes longer than ``limit_s`` hangs: then the thread falls silent.
        """
        over = threading.Event()
        end_s = time.monotonic() + limit_s

        def beat() -> None:
            self._write(STARTING)
            while not over.wait(PERIOD_S) and time.monotonic() < end_s:
                self._write(STARTING)

        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _write(self, what: bytes) -> None:
        if self._descriptor is None:
            return
        # A supervisor that does not read, or has gone, is the lifeline's concern.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, what)


class PulseReader:
    """The supervisor's end."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def read(self) -> bytes:
        """Everything that has been beaten since the last call, ``STARTING`` or ``RUNNING`` each."""
        try:
            return os.read(self._descriptor, 4096)
        except OSError:
            return b""

    def close(self) -> None:
        """Close the pipe."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
