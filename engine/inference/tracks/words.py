"""Words of one stream: the pieces its speech is cut into, and what they were read as."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from engine.inference.text.pieces import PieceCutter, Reading
from engine.inference.text.transcript import Passage
from engine.inference.tracks.rings import Frames
from engine.wire.messages import Audio
from models.spec import BundleConfig, RecogniserSpec

MS = 1_000_000
_sessions = itertools.count()


@dataclass(slots=True, eq=False)
class _Read:
    passage: Passage
    frames: Frames
    """[n, D] as the text encoder gave them, then [n, P] projected."""
    projected: bool


class WordsTrack:
    """Readings out, passages in; the passage that counts for a window.

    Args:
        spec: of the bundle's recogniser.
        config: of the bundle.
        delay_ms: from the end of a word to the first window that may know it.
    """

    def __init__(self, spec: RecogniserSpec, config: BundleConfig, delay_ms: int) -> None:
        self.session = next(_sessions)
        """Number of this stretch of the stream, unlike any other's."""
        self._window_ns = config.window_ms * MS
        self._span_ns = spec.text_span_ms * MS
        self._projected_dim = config.network.projected_dim
        self._cutter = PieceCutter(spec.max_piece_ms * MS, delay_ms * MS)
        self._reads: list[_Read] = []
        self._last: _Read | None = None
        """What the last window read."""
        self._scored_ns: int | None = None

    def push(self, message: Audio, gap: bool, grid_ns: int) -> list[Reading]:
        """Take a chunk of sound; return what is to be read because of it."""
        self._cutter.push(message, gap, grid_ns)
        return self._cutter.pop_ready()

    def add(self, passage: Passage, frames: Frames) -> bool:
        """Take a passage with its text frames [n, D]; True if a window missed it."""
        if self._reads and self._reads[-1].passage.order > passage.order:
            return True  # it is contained in what is known already
        if self._reads and self._reads[-1].passage.order == passage.order:
            self._reads.pop()
        self._reads.append(_Read(passage, frames, False))
        return self._scored_ns is not None and passage.counts_from_ns <= self._scored_ns

    def pending(self) -> Frames | None:
        """Frames that wait for their projection, [n, D]; None where none does."""
        waiting = [read.frames for read in self._reads if not read.projected and len(read.frames)]
        return np.concatenate(waiting) if waiting else None

    def accept(self, projected: Frames) -> None:
        """Take the projections [n, P] of ``pending``."""
        first = 0
        for read in self._reads:
            if not read.projected and len(read.frames):
                count = len(read.frames)
                read.frames = projected[first : first + count]
                read.projected = True
                first += count

    def at(self, end_ns: int) -> tuple[Passage, Frames] | None:
        """The passage that counts for the window that ends then, and its projected frames."""
        read = self._current(end_ns)
        if read is None:
            return None
        if not read.projected:  # nothing was believed: it has no frames
            return read.passage, np.zeros((0, self._projected_dim), np.float32)
        return read.passage, read.frames

    def is_new(self, end_ns: int) -> bool:
        """Whether the window that ends then reads another passage than the one before it."""
        read = self._current(end_ns)
        return read is not None and bool(len(read.frames)) and read is not self._last

    def finish(self, end_ns: int) -> list[Reading]:
        """Drop what no window after the one that ends at ``end_ns`` will ask for.

        Returns:
            What is to be read because the sound has broken off for the whole window.
        """
        self._cutter.break_off(end_ns - self._window_ns)
        self._last = self._current(end_ns)
        self._scored_ns = end_ns
        later = [read for read in self._reads if read.passage.counts_from_ns > end_ns]
        self._reads = [self._last, *later] if self._last is not None else later
        return self._cutter.pop_ready()

    def _current(self, end_ns: int) -> _Read | None:
        counting = [read for read in self._reads if read.passage.counts_from_ns <= end_ns]
        if not counting or counting[-1].passage.counts_from_ns <= end_ns - self._span_ns:
            return None
        return counting[-1]
