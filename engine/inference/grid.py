"""When a stream's windows are due. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.inference.tracks.rings import Progress

LIVE_PATIENCE_NS = 1_000_000_000
"""A modality without a sample for this long is not waited for."""
REST_NS = 1_000_000_000
"""Between two windows of a stream that rests: nothing comes, and its valence was given up."""
MAX_OWED = 5
"""Windows that a stream which moved here is scored for, one by one; older ones are skipped."""


@dataclass(frozen=True, slots=True)
class Due:
    """A window to score now: [start_ns, end_ns), and how many older ones it replaces."""

    start_ns: int
    end_ns: int
    skipped: int


class HopGrid:
    """The windows of one stream: they end at t0 + k * hop, k = 1, 2, ...

    ``t0`` is the stream's own first sample, which staggers the grids of many streams and so
    spreads their work.
    """

    def __init__(self, t0_ns: int, hop_ns: int, window_ns: int, skew_ns: int) -> None:
        self.t0_ns = t0_ns
        self._hop_ns = hop_ns
        self._window_ns = window_ns
        self._skew_ns = skew_ns
        self._done = 0
        self._step = 1
        self._left_out = False
        self._owed = False
        self._after_ns = 0

    @property
    def next_end_ns(self) -> int:
        """End of the first window that has not been handed out."""
        return self.t0_ns + (self._done + 1) * self._hop_ns

    @property
    def deadline_ns(self) -> int:
        """When a window is due at the latest, on the stream's clock."""
        return self.next_end_ns + (self._step - 1) * self._hop_ns + self._skew_ns

    def rest(self) -> None:
        """Hand out one window in ``REST_NS`` until ``wake``: the others would say the same."""
        self._step = max(1, -(-REST_NS // self._hop_ns))

    def wake(self) -> None:
        """Hand out every window again; those before the next one were left out, not lost."""
        self._left_out |= self._step > 1
        self._step = 1

    @property
    def rests(self) -> bool:
        """Whether windows are left out."""
        return self._step > 1

    def align(self, t_ns: int, chunk_ns: int) -> None:
        """Let windows end where the chunks of a sound that begins at ``t_ns`` do.

        A window that ends within a chunk would wait for the rest of it. The grid moves forward by
        less than a chunk, so that however often sound begins, scores come a hop apart. What is
        played of a past that another worker has scored changes nothing.
        """
        if t_ns >= self._after_ns and 0 < chunk_ns <= self._hop_ns:
            self.t0_ns += (t_ns - self.t0_ns) % chunk_ns

    def resume(self, after_ns: int) -> None:
        """Continue where another worker stopped: owe the windows that end after ``after_ns``.

        They are handed out one by one, so that none is lost, until the newest is reached.
        """
        self._done = self._window_ns // self._hop_ns
        self.t0_ns = after_ns - self._done * self._hop_ns
        self._after_ns = after_ns
        self._owed = True

    @property
    def owes(self) -> bool:
        """Whether further windows are due already."""
        return self._owed

    def take(self, modalities: Iterable[Progress], now_ns: int) -> Due | None:
        """Hand out the newest due window, skipping older ones; None when none is due.

        A window is due when every live modality has reached its end, or ``skew`` after it.
        """
        tracks = list(modalities)
        overdue_ns = now_ns - self.next_end_ns - self._skew_ns
        last = self._done + max(0, overdue_ns // self._hop_ns + 1)
        while self._reached(self.t0_ns + (last + 1) * self._hop_ns, tracks):
            last += 1
        if last < self._done + self._step:
            return None
        if self._owed:
            newest, last = last, max(self._done + 1, last - MAX_OWED + 1)
            self._owed = last < newest
        skipped = 0 if self._left_out else last - self._done - self._step
        self._left_out = False
        self._done = last
        end_ns = self.t0_ns + last * self._hop_ns
        return Due(end_ns - self._window_ns, end_ns, skipped)

    @staticmethod
    def _reached(end_ns: int, tracks: list[Progress]) -> bool:
        live = [track for track in tracks if track.is_live(end_ns, LIVE_PATIENCE_NS)]
        return bool(live) and all(track.has_reached(end_ns) for track in live)
