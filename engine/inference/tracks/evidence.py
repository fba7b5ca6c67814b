"""Incremental encoding: a sample is encoded once, a frame is projected once.

``TimedStream`` keeps what an encoder has not seen yet, ``Evidence`` what the network's projection
has not; both know when each frame ends. The graphs themselves are run by ``forward``, for all
streams in one batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.inference.tracks.rings import FrameRing, Frames
from models.encoders.streaming import SequenceStream
from models.spec import SequenceEncoderSpec

Times = NDArray[np.int64]
NS_PER_S = 1_000_000_000


class TimedStream:
    """A ``SequenceStream`` that knows when each of its frames ends."""

    def __init__(self, spec: SequenceEncoderSpec, pad_row: NDArray[np.float32]) -> None:
        self._stream = SequenceStream(spec, pad_row)
        self._stride = spec.stride
        self.causal = spec.causal
        """Whether what precedes an input's context leaves its frame as it is: padding, for one."""
        self._t_end: Times = np.zeros(0, np.int64)
        """When the inputs end that complete a stride and were not consumed: the frames' own ends.
        One time for each sample would take twice the memory of the sound."""
        self._pushed = 0

    @property
    def waiting(self) -> int:
        """Inputs that are not encoded yet."""
        return self._stream.waiting

    def push(
        self,
        inputs: NDArray[np.float32],
        t_end_ns: Times,
        voiced: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add inputs [n, F] that end at ``t_end_ns`` [n]; ``voiced`` [n]: which are speech."""
        self._stream.push(inputs, voiced)
        first = -(self._pushed + 1) % self._stride
        self._pushed += len(inputs)
        self._t_end = np.concatenate((self._t_end, t_end_ns[first :: self._stride]))

    def pending(self, blocks: int = 1) -> NDArray[np.float32] | None:
        """Left context and whole strides of new inputs [N, F]; None without a whole stride.

        With blocks, as many as ``blocks``; there may be more as soon as these are accepted.
        """
        before = self._stream.consumed
        pending = self._stream.pending(blocks)
        self._forget(self._stream.consumed - before)  # passed over: no voice
        return pending

    def skip(self, before_ns: int) -> int:
        """Pass over what ends before ``before_ns``, in whole runs; return the inputs left out.

        It stays the context of what follows.
        """
        count = int(np.searchsorted(self._t_end, before_ns)) * self._stride
        skipped = self._stream.skip(count)
        self._forget(skipped)
        return skipped

    def _forget(self, count: int) -> None:
        self._t_end = self._t_end[count // self._stride :]

    def accept(self, frames: Frames) -> tuple[Frames, Times]:
        """Take the graph's frames for ``pending``; return the new ones [k, D] and their ends."""
        before = self._stream.consumed
        new = self._stream.accept(frames)
        count = self._stream.consumed - before
        t_end_ns = self._t_end[: count // self._stride]
        self._forget(count)
        return new, t_end_ns


class Evidence:
    """Frames of one modality as the network reads them, by time: each is projected once.

    Args:
        projected_dim: width of a projected frame.
        capacity: projected frames that are kept.
    """

    def __init__(self, projected_dim: int, capacity: int) -> None:
        self._ring = FrameRing(projected_dim, capacity)
        self._waiting: list[Frames] = []
        self._t_end: list[Times] = []

    def add(self, frames: Frames, t_end_ns: Times) -> None:
        """Let frames [n, D] that end at ``t_end_ns`` [n] wait for their projection."""
        if len(frames):
            self._waiting.append(frames)
            self._t_end.append(t_end_ns)

    def pending(self) -> Frames | None:
        """What waits, [n, D]; None where nothing does."""
        return np.concatenate(self._waiting) if self._waiting else None

    def accept(self, projected: Frames) -> None:
        """Take the projections [n, P] of ``pending``."""
        t_end_ns = np.concatenate(self._t_end)
        self._waiting.clear()
        self._t_end.clear()
        # A clock's jitter may have re-anchored times a little backwards.
        t_end_ns = np.maximum.accumulate(t_end_ns)
        if (newest_ns := self._ring.newest_ns) is not None:
            t_end_ns = np.maximum(t_end_ns, newest_ns)
        self._ring.append(projected, t_end_ns)

    @property
    def memory_bytes(self) -> int:
        """Size of what is kept by time."""
        return self._ring.memory_bytes

    def finish(self, before_ns: int) -> None:
        """Give the memory back where no frame ends after ``before_ns``: the stream is silent."""
        newest_ns = self._ring.newest_ns
        if newest_ns is not None and newest_ns <= before_ns and not self._waiting:
            self._ring.clear()

    def between(self, start_ns: int, end_ns: int) -> Frames:
        """Return the projected frames [n, P] whose end is in (start_ns, end_ns]: a view."""
        return self._ring.between(start_ns, end_ns)
