"""The last hour of a stream in compact arrays: bounded memory, however fast scores come. Pure."""

from __future__ import annotations

import json
import struct
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.wire.messages import NoValueReason, Score

SPAN_MS = 3_600_000
SLOT_MS = 500
"""One point is kept per slot, the newest: a stream with a shorter hop is thinned."""
MAX_MARKS = 500
FIRST_ROWS = 256

SPEAKING, FACE, UNTRAINED, MIXED = 1, 2, 4, 8
REASON_SHIFT = 4
REASONS: tuple[NoValueReason, ...] = ("no_voice_and_no_face", "warming_up")
"""Bits 4 and up of a row's flags hold 0, or the place of the reason in here plus 1."""

NUMBERS = ("v", "low", "high", "audio", "text", "video")
"""Valence, its interval, and what each modality says by itself; NaN for none."""
ROW = np.dtype([("t", "<f8"), *((name, "<f4") for name in NUMBERS), ("flags", "u1")])


@dataclass(frozen=True, slots=True)
class Mark:
    """A label on the timeline."""

    t_ms: float
    """Milliseconds since 1970 (UTC)."""
    label: str


def flags_of(score: Score) -> int:
    """What a chart needs to know besides the numbers, in one byte."""
    flags = SPEAKING * score.speaking | FACE * (score.faces > 0)
    flags |= UNTRAINED * (not score.model.trained) | MIXED * bool(score.mixed)
    if score.valence is None:
        place = REASONS.index(score.reason) + 1 if score.reason in REASONS else 1
        flags |= place << REASON_SHIFT
    return flags


class History:
    """One stream's points, oldest first: 33 bytes each, at most ``span_ms / slot_ms`` of them."""

    def __init__(self, span_ms: int = SPAN_MS, slot_ms: int = SLOT_MS) -> None:
        self._span_ms, self._slot_ms = span_ms, slot_ms
        self._capacity = max(2, span_ms // slot_ms)
        self._rows = np.zeros(min(FIRST_ROWS, self._capacity), ROW)
        self._start = self._count = 0
        self._marks: deque[Mark] = deque(maxlen=MAX_MARKS)

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        """Size of the arrays."""
        return int(self._rows.nbytes)

    @property
    def newest_ms(self) -> float | None:
        """Time of the newest point; None without one."""
        return float(self._rows["t"][self._place(-1)]) if self._count else None

    def add(self, t_ms: float, score: Score) -> None:
        """Append a score; one older than the newest point is left out, it cannot be drawn."""
        newest = self.newest_ms
        if newest is not None and t_ms < newest:
            return
        if score.mark is not None:
            self._marks.append(Mark(t_ms, score.mark))
        interval = score.interval
        ends = (None, None) if interval is None else (interval.low, interval.high)
        alone = (part.valence for part in (score.audio, score.text, score.video))
        numbers = (score.valence, *ends, *alone)
        nan = float("nan")
        row = (t_ms, *(nan if n is None else n for n in numbers), flags_of(score))
        if newest is not None and t_ms // self._slot_ms == newest // self._slot_ms:
            self._rows[self._place(-1)] = row
            return
        if self._count == len(self._rows) < self._capacity:
            self._grow()
        if self._count == len(self._rows):
            self._start = (self._start + 1) % len(self._rows)
        else:
            self._count += 1
        self._rows[self._place(-1)] = row

    def shift(self, by_ms: float) -> None:
        """Move every point in time: the wall clock was set."""
        self._rows["t"] += by_ms
        moved = [Mark(mark.t_ms + by_ms, mark.label) for mark in self._marks]
        self._marks = deque(moved, maxlen=MAX_MARKS)

    def rows(self, now_ms: float) -> NDArray[np.void]:
        """The points of the span before ``now_ms``, [n] of ``ROW``, oldest first."""
        order = (self._start + np.arange(self._count)) % len(self._rows)
        rows: NDArray[np.void] = self._rows[order]
        return rows[rows["t"] >= now_ms - self._span_ms]

    def marks(self, now_ms: float) -> tuple[Mark, ...]:
        """The marks of the same span."""
        return tuple(mark for mark in self._marks if mark.t_ms >= now_ms - self._span_ms)

    def frame(self, stream: str, now_ms: float) -> bytes:
        """The history as one binary message for a browser.

        Layout, little endian: uint32 length of the header; the header, JSON padded with spaces
        to a multiple of 8 after the length; then ``count`` values each of t (float64, ms since
        1970), each of ``NUMBERS`` (float32) and flags (uint8).
        """
        rows = self.rows(now_ms)
        header = json.dumps(
            {
                "kind": "history",
                "stream": stream,
                "count": len(rows),
                "marks": [[mark.t_ms, mark.label] for mark in self.marks(now_ms)],
            }
        ).encode()
        header += b" " * (-(4 + len(header)) % 8)
        columns = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in ROW.names or ())
        return struct.pack("<I", len(header)) + header + columns

    def _place(self, offset: int) -> int:
        return (self._start + self._count + offset) % len(self._rows)

    def _grow(self) -> None:
        # Only ever full and unwrapped here: a ring that wraps has its final size.
        larger = np.zeros(min(self._capacity, 2 * len(self._rows)), ROW)
        larger[: self._count] = self._rows[: self._count]
        self._rows = larger
