"""Given transcripts of one stream."""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.inference.tracks.evidence import Evidence
from engine.inference.tracks.rings import Frames, Spans
from engine.wire.messages import Text
from models.graphs import MAX_TOKENS_PER_S, kept_frames
from models.spec import BundleConfig

MAX_WAITING = 8
"""Transcripts a second that are encoded: more than words, one by one."""


class TextTrack:
    """Given transcripts of one stream."""

    def __init__(self, config: BundleConfig, most_waiting: int = MAX_WAITING) -> None:
        """``most_waiting``: transcripts that are encoded for one window."""
        self.spans = Spans()
        most = config.window_ms / 1000.0 * MAX_TOKENS_PER_S
        self.frames = Evidence(config.network.projected_dim, kept_frames(most))
        self._waiting: deque[Text] = deque(maxlen=most_waiting)
        self.is_new = False
        """Whether a transcript was taken in since the last window."""

    @property
    def newest_ns(self) -> int | None:
        """End of the last transcript."""
        return self._waiting[-1].envelope.t_end_ns if self._waiting else self.spans.newest_ns

    def push(self, message: Text) -> bool:
        """Take a transcript that begins no earlier than the one before it ended.

        True if the oldest that waits had to give way: nobody speaks so fast.
        """
        full = len(self._waiting) == self._waiting.maxlen
        self._waiting.append(message)
        return full

    def prepare(self) -> list[Text]:
        """Hand out the transcripts that wait for their frames."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def accept(self, message: Text, frames: Frames) -> None:
        """Spread a transcript's token frames [n, D] evenly over the time it was spoken in."""
        start_ns, end_ns = message.envelope.t_start_ns, message.envelope.t_end_ns
        share = np.arange(1, len(frames) + 1) / max(len(frames), 1)
        self.frames.add(frames, start_ns + (share * (end_ns - start_ns)).astype(np.int64))
        self.spans.add(start_ns, end_ns)
        self.is_new = True

    def finish(self, before_ns: int) -> None:
        """Drop what no window will ask for again."""
        self.spans.forget(before_ns)
        self.is_new = False
