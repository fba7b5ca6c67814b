"""Time: whose clock a stamp is of, how far it is from ours, and how samples are counted on it.

``time.monotonic_ns`` is one clock for all processes of a Linux host. Across hosts the offset is
estimated from the messages themselves, or measured by echoes and published; a capture stamp is
never rewritten (the rule of Lab Streaming Layer), the reader translates. A device's samples are
counted, and the count is held to our clock.
"""

from __future__ import annotations

import functools
import socket
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from engine.wire.messages import Clock, Envelope

NS_PER_S = 1_000_000_000
MAX_CLOCKS = 1024
STALE_NS = 2 * NS_PER_S
"""A message that is later than this was not merely slow: a clock was set, or it is a recording."""
BUCKET_NS = 15 * NS_PER_S
MEMORY_BLOCKS = 25
"""Blocks over which lateness is judged: a host delivers in bursts, but never early."""
REANCHOR_NS = 20_000_000
"""Blocks that are all later than this have lost samples before them."""
SLEW_GAIN = 0.05
"""Share of the lateness that is corrected with each block."""
MAX_SLEW = 0.005
"""Most of a block's length that is corrected: a span never differs much from its samples."""
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


class OffsetEstimator:
    """How far another clock is from ours, from messages that carry its time. Pure.

    A message's arrival minus its sending is the offset plus its transport, which is never
    negative: so the smallest difference of the last 15 to 30 s counts, and drifting clocks are
    followed. A difference ``stale_ns`` above it means that the other clock was set, or that its
    host slept: the estimate begins again there. A smaller one is believed at once.
    """

    def __init__(self, stale_ns: int = STALE_NS) -> None:
        self._stale_ns = stale_ns
        self._bucket_ns = 0
        self._best: int | None = None
        self._before: int | None = None
        self._measured: int | None = None

    @property
    def offset_ns(self) -> int | None:
        """What to add to a stamp of that clock for our time; None before the first message."""
        if self._measured is not None:
            return self._measured
        if self._best is None or self._before is None:
            return self._best
        return min(self._best, self._before)

    def observe(self, sent_ns: int, arrived_ns: int) -> int:
        """Take a message's sending (their clock) and arrival (ours); return the offset."""
        if self._measured is not None:
            return self._measured
        difference = arrived_ns - sent_ns
        offset = self.offset_ns
        if offset is not None and difference - offset > self._stale_ns:
            self._best = self._before = None
        if self._best is None or arrived_ns - self._bucket_ns > BUCKET_NS:
            self._before, self._best, self._bucket_ns = self._best, difference, arrived_ns
        self._best = min(self._best, difference)
        return self._best if self._before is None else min(self._best, self._before)

    def measured(self, offset_ns: int) -> None:
        """Use an offset that was measured by echoes from now on."""
        self._measured = offset_ns


class Clocks:
    """Every other clock against our own, each by one estimator. Pure.

    Args:
        own: our clock; its stamps need no translation.
        replays: take stamps of our own clock that are old on arrival for those of a recording
            that is played again: they are compared as if of another clock.
        limit: clocks that are remembered; the longest unheard is forgotten.
    """

    def __init__(self, own: Clock, replays: bool = False, limit: int = MAX_CLOCKS) -> None:
        self._own = own
        self._replays = replays
        self._limit = limit
        self._estimators: dict[Clock, OffsetEstimator] = {}

    def is_own(self, clock: Clock) -> bool:
        """Whether two stamps can be compared as they are: one boot is one clock."""
        return clock.boot_id == self._own.boot_id

    def learn(self, clock: Clock, offset_ns: int) -> None:
        """Take a measured offset: our clock minus that one."""
        self._estimator(clock).measured(offset_ns)

    def observe(self, envelope: Envelope, arrived_ns: int) -> int | None:
        """What to add to a message's stamps for our time, the message itself considered.

        None where that is unknown: a repetition of a clock that nothing else was heard of. Its
        arrival says nothing, since it was sent long before.
        """
        own = self.is_own(envelope.clock)
        late = arrived_ns - envelope.t_sent_ns > STALE_NS
        if own and (envelope.repeated or not (self._replays and late)):
            return 0
        if envelope.repeated:
            known = self._estimators.get(envelope.clock)
            return None if known is None else known.offset_ns
        return self._estimator(envelope.clock).observe(envelope.t_sent_ns, arrived_ns)

    def _estimator(self, clock: Clock) -> OffsetEstimator:
        estimator = self._estimators.pop(clock, None) or OffsetEstimator()
        self._estimators[clock] = estimator
        if len(self._estimators) > self._limit:
            del self._estimators[next(iter(self._estimators))]
        return estimator


@dataclass(frozen=True, slots=True)
class Step:
    """What a block of samples does to the time of the next sample."""

    lost_ns: int = 0
    """Time of samples that were lost before the block."""
    slew_ns: int = 0
    """Correction of the block's own length: the device's clock is not ours."""


class SampleCount:
    """Capture times from a count of samples, held to our clock. Pure.

    A block's own stamp jitters, and is late but never early; the count is smooth, but runs by the
    device's clock, which may be some 100 ppm fast or slow. So the count is steered by the least
    lateness of the last ``MEMORY_BLOCKS``: drift is followed both ways without a gap. Only after
    an overflow, or when all of those blocks came late by more than ``REANCHOR_NS``, samples are
    taken for lost.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._next_ns: int | None = None
        self._late_ns: deque[int] = deque(maxlen=MEMORY_BLOCKS)

    @property
    def next_ns(self) -> int:
        """Capture time of the next sample; 0 before the first block."""
        return self._next_ns or 0

    def push(self, t_start_ns: int, samples: int, overflow: bool = False) -> Step | None:
        """Count a block that says it began at ``t_start_ns``; None for the first one."""
        length_ns = samples * NS_PER_S // self._rate_hz
        if self._next_ns is None:
            self._next_ns = t_start_ns + length_ns
            return None
        late_ns = t_start_ns - self._next_ns
        self._late_ns.append(late_ns)
        least_ns = min(self._late_ns)
        full = len(self._late_ns) == MEMORY_BLOCKS
        if overflow or (full and least_ns > REANCHOR_NS):
            lost_ns = max(0, late_ns if overflow else least_ns)
            self._next_ns += lost_ns + length_ns
            self._late_ns.clear()
            return Step(lost_ns=lost_ns)
        slew_ns = 0
        if full:
            most = int(length_ns * MAX_SLEW)
            slew_ns = min(max(int(least_ns * SLEW_GAIN), -most), most)
            # What is steered now is no longer late: the memory is of the count as it stands.
            self._late_ns = deque((late - slew_ns for late in self._late_ns), MEMORY_BLOCKS)
        self._next_ns += length_ns + slew_ns
        return Step(slew_ns=slew_ns)
