"""Ring buffers of one stream: frames with their capture times, and the spans they cover.

Pure: nothing here reads a clock. Times are nanoseconds of the capturing host's monotonic
clock, spans are half open.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float32]
SMALLEST = 32
"""Rows of the first array."""


class FrameRing:
    """The newest ``capacity`` frames of one modality, in time order.

    Rows are kept in one array and moved to its front when it is full, so that a window is a plain
    slice and an append costs O(1) on average. It grows with what comes, to twice the capacity: most
    of many streams are short, or bring no picture.
    """

    def __init__(self, dim: int, capacity: int) -> None:
        if capacity < 1 or dim < 1:
            raise ValueError(f"expected dim and capacity of at least 1, got {dim} and {capacity}")
        self.dim = dim
        self._capacity = capacity
        self._rows: Frames = np.zeros((0, dim), np.float32)
        self._t_end: NDArray[np.int64] = np.zeros(0, np.int64)
        self._first = 0
        self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._first

    @property
    def memory_bytes(self) -> int:
        """Size of the arrays."""
        return self._rows.nbytes + self._t_end.nbytes

    @property
    def newest_ns(self) -> int | None:
        """End time of the newest frame; None when there is none."""
        return int(self._t_end[self._stop - 1]) if len(self) else None

    def append(self, rows: Frames, t_end_ns: NDArray[np.int64]) -> None:
        """Add frames [n, dim] that end at ``t_end_ns`` [n], later than all before them.

        Raises:
            ValueError: the shape is another one, or the times run backwards.
        """
        if rows.ndim != 2 or rows.shape[1] != self.dim or len(rows) != len(t_end_ns):
            raise ValueError(
                f"expected [{len(t_end_ns)}, {self.dim}] frames, got {list(rows.shape)}"
            )
        rows, t_end_ns = rows[-self._capacity :], t_end_ns[-self._capacity :]
        if not len(rows):
            return
        newest = self.newest_ns
        if np.any(np.diff(t_end_ns) < 0) or (newest is not None and t_end_ns[0] < newest):
            raise ValueError(f"frames must come in time order, newest {newest}, got {t_end_ns[0]}")
        if self._stop + len(rows) > len(self._rows):
            self._make_room(len(rows))
        stop = self._stop + len(rows)
        self._rows[self._stop : stop] = rows
        self._t_end[self._stop : stop] = t_end_ns
        self._stop = stop
        self._first = max(self._first, stop - self._capacity)

    def _make_room(self, count: int) -> None:
        """Move what is kept to the front, of a larger array where three quarters are not enough."""
        kept = slice(self._stop - min(len(self), self._capacity), self._stop)
        rows, t_end = self._rows[kept].copy(), self._t_end[kept].copy()
        largest = 2 * self._capacity
        size = min(largest, max(SMALLEST, len(self._rows)))
        while size < largest and 4 * (len(rows) + count) > 3 * size:
            size = min(largest, 2 * size)
        if size != len(self._rows):
            self._rows = np.zeros((size, self.dim), np.float32)
            self._t_end = np.zeros(size, np.int64)
        self._rows[: len(rows)], self._t_end[: len(rows)] = rows, t_end
        self._first, self._stop = 0, len(rows)

    def clear(self) -> None:
        """Drop all frames, and their memory."""
        self._rows, self._t_end = self._rows[:0].copy(), self._t_end[:0].copy()
        self._first = self._stop = 0

    def between(self, start_ns: int, end_ns: int) -> Frames:
        """Return the frames [n, dim] whose end is in (start_ns, end_ns]: a view, not a copy."""
        times = self._t_end[self._first : self._stop]
        low, high = np.searchsorted(times, (start_ns, end_ns), side="right")
        return self._rows[self._first + int(low) : self._first + int(high)]


class Spans:
    """Disjoint time spans in order: what part of a stream has been covered."""

    def __init__(self, join_ns: int = 1_000_000) -> None:
        self._join_ns = join_ns
        self._spans: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def newest_ns(self) -> int | None:
        """End of the last span; None when there is none."""
        return self._spans[-1][1] if self._spans else None

    def add(self, start_ns: int, end_ns: int) -> None:
        """Cover [start_ns, end_ns) too; what is before the last span's start is cut off."""
        if self._spans:
            last_start, last_end = self._spans[-1]
            if start_ns <= last_end + self._join_ns:
                if end_ns > last_end:
                    self._spans[-1] = (last_start, end_ns)
                return
        if end_ns > start_ns:
            self._spans.append((start_ns, end_ns))

    def forget(self, before_ns: int) -> None:
        """Drop what ended before ``before_ns``."""
        keep = 0
        while keep < len(self._spans) and self._spans[keep][1] <= before_ns:
            keep += 1
        del self._spans[:keep]

    def covered_ns(self, start_ns: int, end_ns: int) -> int:
        """Nanoseconds of [start_ns, end_ns) that are covered."""
        return sum(max(0, min(stop, end_ns) - max(start, start_ns)) for start, stop in self._spans)

    def coverage(self, start_ns: int, end_ns: int) -> float:
        """Share of [start_ns, end_ns) that is covered, 0 to 1."""
        return self.covered_ns(start_ns, end_ns) / (end_ns - start_ns)

    def ended_in(self, start_ns: int, end_ns: int) -> bool:
        """Whether a span ended in (start_ns, end_ns)."""
        return any(start_ns < stop < end_ns for _, stop in self._spans)


class Progress:
    """How far a modality's samples have come, and when the next one can be expected.

    A window that ends at E needs every sample that ends at or before E. The next sample of a
    modality is not expected earlier than one period after its newest, so the modality has
    reached E once newest + period > E. The period is the shortest of the last few spacings:
    with a longer one a sample might still fall into a window that was cut already, and a clip
    played live would not score as the same clip offline.
    """

    MEMORY = 8
    TOLERANCE = 0.9
    """Part of a period that must have passed before the next sample, against jitter."""

    def __init__(self) -> None:
        self.newest_ns: int | None = None
        self._spacings: list[int] = []

    def advance(self, t_end_ns: int) -> None:
        """Take note of a sample that ends at ``t_end_ns``."""
        if self.newest_ns is not None and t_end_ns > self.newest_ns:
            self._spacings = [*self._spacings[1 - self.MEMORY :], t_end_ns - self.newest_ns]
        self.newest_ns = t_end_ns

    @property
    def period_ns(self) -> int:
        """Shortest recent spacing of the samples; 0 before the second."""
        return min(self._spacings, default=0)

    def has_reached(self, end_ns: int) -> bool:
        """Whether no sample that ends at or before ``end_ns`` is to be expected any more."""
        if self.newest_ns is None:
            return False
        return self.newest_ns >= end_ns or (
            self.newest_ns + int(self.TOLERANCE * self.period_ns) > end_ns
        )

    def is_live(self, end_ns: int, patience_ns: int) -> bool:
        """Whether samples came within ``patience_ns`` before ``end_ns``."""
        return self.newest_ns is not None and self.newest_ns + patience_ns >= end_ns
