"""Stopping: SIGTERM as a question within training, and as an interrupt anywhere else.

An interrupt that falls into a callback of the interpreter's own (a weak reference's, a
``__del__``) is swallowed there with a traceback; it is sent once more then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN_S = 0.05


class Stop:
    """Catches SIGTERM while it is entered (in the main thread; elsewhere it does nothing)."""

    def __init__(self) -> None:
        self._asked = False
        self._training = False
        self._before: object = None
        self._hook = sys.unraisablehook

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._on_swallowed
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]
            sys.unraisablehook = self._hook

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

    def _on_swallowed(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
            return
        number = signal.SIGTERM if self._asked else signal.SIGINT
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()
