"""Stopping: SIGTERM as a question within training, and as an interrupt anywhere else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Catches SIGTERM while it is entered (in the main thread; elsewhere it does nothing)."""

    def __init__(self) -> None:
        self._asked = False
        self._training = False
        self._before: object = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]

    def asked(self) -> bool:
        """Whether to stop as soon as it can be gone on from here."""
        return self._asked

    @contextmanager
    def within_training(self) -> Iterator[None]:
        """Where whoever trains asks after each batch; a second signal interrupts all the same."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    def _on_signal(self, *_: object) -> None:
        again, self._asked = self._asked, True
        if not self._training or again:
            raise KeyboardInterrupt
