"""Whether a silent process is kept from the processor, as its system says (Linux: ``/proc``).

A loop that beats needs the processor to do so. On a machine that is overloaded it may get none for
seconds: such a process is slow, and to kill it makes the machine slower still. One that is stopped,
or waits for a lock that nobody gives back, wants no processor at all, and one that is caught in a
loop of its own has all that it wants.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

TICKS_HZ = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
WAITING = (b"R", b"D")
"""States of a thread that would run if it could: runnable, or waiting for a disk."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has had of the processor."""

    used_s: float
    """Time on the processor, all threads together."""
    waits: bool
    """Whether a thread would run now, or waits for a disk."""


def usage_of(pid: int) -> Usage | None:
    """Read a process's usage; None where the system does not tell."""
    ticks, waits = 0, False
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return None
    for thread in threads:
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            # The name before it, in brackets, may hold anything.
            fields = (thread / "stat").read_bytes().rpartition(b")")[2].split()
            waits = waits or fields[0] in WAITING
            ticks += int(fields[11]) + int(fields[12])
    return Usage(ticks / TICKS_HZ, waits)


class Starvation:
    """Looks at one process time and again, and says how long it was kept waiting."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last: tuple[float, float] | None = None

    def reset(self) -> None:
        """Begin again: the process is not silent."""
        self._last = None

    def waited_s(self, now_s: float, work_counts: bool = False) -> float:
        """Time since the last look in which the process was kept from the processor.

        The first look gives 0. With ``work_counts``, what it spent on the processor counts too.
        """
        usage = usage_of(self._pid)
        if usage is None:
            return 0.0
        last, self._last = self._last, (now_s, usage.used_s)
        if last is None:
            return 0.0
        span_s, used_s = now_s - last[0], usage.used_s - last[1]
        if usage.waits:
            return span_s if work_counts else max(0.0, span_s - used_s)
        return min(span_s, used_s) if work_counts else 0.0
