"""When a stream's windows are due, and how the due ones of all streams share one batch.

Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.inference.windows import Frames, Progress

LIVE_PATIENCE_NS = 1_000_000_000
"""A modality without a sample for this long is not waited for."""


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

    @property
    def next_end_ns(self) -> int:
        """End of the first window that has not been handed out."""
        return self.t0_ns + (self._done + 1) * self._hop_ns

    @property
    def deadline_ns(self) -> int:
        """When that window is due at the latest, on the stream's clock."""
        return self.next_end_ns + self._skew_ns

    def align(self, t_ns: int) -> None:
        """Let windows end where the chunks of a sound that begins at ``t_ns`` do.

        A window that ends within a chunk would wait for the rest of it.
        """
        self.t0_ns -= (self.t0_ns - t_ns) % self._hop_ns

    def take(self, modalities: Iterable[Progress], now_ns: int) -> Due | None:
        """Hand out the newest due window, skipping older ones; None when none is due.

        A window is due when every live modality has reached its end, or ``skew`` after it.
        """
        tracks = list(modalities)
        last = self._done + max(0, (now_ns - self.deadline_ns) // self._hop_ns + 1)
        while self._reached(self.t0_ns + (last + 1) * self._hop_ns, tracks):
            last += 1
        if last == self._done:
            return None
        skipped = last - self._done - 1
        self._done = last
        end_ns = self.t0_ns + last * self._hop_ns
        return Due(end_ns - self._window_ns, end_ns, skipped)

    @staticmethod
    def _reached(end_ns: int, tracks: list[Progress]) -> bool:
        live = [track for track in tracks if track.is_live(end_ns, LIVE_PATIENCE_NS)]
        return bool(live) and all(track.has_reached(end_ns) for track in live)


def length_bucket(length: int, full: int) -> int:
    """Round a number of frames up to one of few lengths: powers of two, ``full``, multiples of it.

    Every window of a running stream has ``full`` frames, so that is a length of its own.
    """
    if length <= 1:
        return 1
    if length > full:
        return full * -(-length // full)
    return min(1 << (length - 1).bit_length(), full)


def pad_right(
    sequences: Sequence[Frames | None], dim: int, full: int
) -> tuple[Frames, NDArray[np.bool_]]:
    """Stack sequences [Ti, dim] into [B, T, dim] and a mask [B, T], True where a frame is real.

    An absent sequence (None or empty) is a row of zeros, masked throughout.
    """
    lengths = [0 if sequence is None else len(sequence) for sequence in sequences]
    length = length_bucket(max(lengths, default=0), full)
    stacked = np.zeros((len(sequences), length, dim), np.float32)
    mask = np.zeros((len(sequences), length), np.bool_)
    for row, sequence in enumerate(sequences):
        if sequence is not None and len(sequence):
            stacked[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = True
    return stacked, mask


def pad_left(sequences: Sequence[Frames]) -> Frames:
    """Stack sequences [Ni, F] into [B, N, F], padded with zeros at their beginning.

    For encoders whose last frames depend on the last inputs only: what is in the padding does
    not matter, as long as each sequence brings its own left context.
    """
    longest = max(len(sequence) for sequence in sequences)
    stacked = np.zeros((len(sequences), longest, *sequences[0].shape[1:]), np.float32)
    for row, sequence in enumerate(sequences):
        stacked[row, longest - len(sequence) :] = sequence
    return stacked
