"""Gives freed memory back to the system (glibc; elsewhere nothing is done).

What many streams have freed lies between what others still hold: the allocator keeps it, and a
worker that had a thousand streams for a minute would stay as large for weeks. Returning it takes
some milliseconds, so it is done only when the process has grown by more than a little.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable

GROWTH_MB = 8.0
PERIOD_S = 2.0


def trim() -> None:
    """Return all that is free."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Heap:
    """Watches this process's size; call ``tidy`` as often as you like.

    Args:
        resident_mb: reads the resident memory.
        give_back: returns what is free.
        now_s: reads a clock.
    """

    def __init__(
        self,
        resident_mb: Callable[[], float],
        give_back: Callable[[], None] = trim,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resident_mb, self._give_back, self._now_s = resident_mb, give_back, now_s
        self._looked_s = now_s()
        self._least_mb = resident_mb()

    def tidy(self) -> None:
        """Return what is free, where the process has grown since that was done last."""
        now_s = self._now_s()
        if now_s - self._looked_s < PERIOD_S:
            return
        self._looked_s = now_s
        size_mb = self._resident_mb()
        if size_mb > self._least_mb + GROWTH_MB:
            self._give_back()
            size_mb = self._least_mb = self._resident_mb()
        self._least_mb = min(self._least_mb, size_mb)
