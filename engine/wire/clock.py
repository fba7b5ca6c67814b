"""Clocks: whose time a stamp is, and how far another host's clock is off.

``time.monotonic_ns`` is one clock for all processes of a Linux host. Across hosts the offset is
measured by echoes and published; a capture stamp is never rewritten (the rule of Lab Streaming
Layer), the reader translates.
"""

from __future__ import annotations

import functools
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.wire.messages import Clock

ECHOES = 8
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now_ns() -> int:
    """Now, on this host's monotonic clock."""
    return time.monotonic_ns()


@functools.cache
def this_clock() -> Clock:
    """The clock of this host: two processes of one boot share it."""
    try:
        boot_id = BOOT_ID.read_text().strip()
    except OSError:
        boot_id = str(uuid.uuid1(clock_seq=0))
    return Clock(socket.gethostname()[:64], boot_id)


@dataclass(frozen=True, slots=True)
class Echo:
    """One round trip: sent and received on our clock, answered on theirs."""

    sent_ns: int
    answered_ns: int
    received_ns: int

    @property
    def round_trip_ns(self) -> int:
        """Time until the answer was back."""
        return self.received_ns - self.sent_ns

    @property
    def offset_ns(self) -> int:
        """Their clock minus ours, wrong by at most half the round trip."""
        return self.answered_ns - (self.sent_ns + self.received_ns) // 2


def best_offset_ns(echoes: list[Echo]) -> int:
    """Offset of the echo with the shortest round trip.

    Raises:
        ValueError: no echo.
    """
    return min(echoes, key=lambda echo: echo.round_trip_ns).offset_ns


def measure_offset_ns(ping: Callable[[], int], echoes: int = ECHOES) -> int:
    """Their clock minus ours; ``ping`` asks them for their time."""
    found = []
    for _ in range(echoes):
        sent = now_ns()
        answered = ping()
        found.append(Echo(sent, answered, now_ns()))
    return best_offset_ns(found)


class ClockTable:
    """Offsets of other hosts' clocks to this one, for translating their stamps."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._offsets: dict[Clock, int] = {}

    def learn(self, clock: Clock, offset_ns: int) -> None:
        """Take a published offset: our clock minus theirs."""
        self._offsets[clock] = offset_ns

    def offset_ns(self, clock: Clock) -> int | None:
        """What to add to a stamp of ``clock`` for our time; None while it is not known."""
        if clock.boot_id == self._own.boot_id:
            return 0
        return self._offsets.get(clock)
