"""Faces of one stream: crops that wait for the face encoder, and the frames that came of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from engine.inference.tracks.evidence import NS_PER_S, Evidence, Times
from engine.inference.tracks.rings import Frames, Progress, Spans
from engine.wire.messages import Video
from models.clarity import clarity
from models.graphs import MAX_VIDEO_RATE_HZ, kept_frames
from models.preprocessing import normalise_crop
from models.spec import BundleConfig, ImageEncoderSpec


@dataclass(slots=True)
class WaitingCrop:
    """A face that has not been encoded yet."""

    t_end_ns: int
    inputs: Frames
    """[C, S, S] as the encoder takes it: the picture that came may be a hundred times as large."""


class VideoTrack:
    """Faces of one stream."""

    def __init__(self, config: BundleConfig) -> None:
        self.progress = Progress()
        self.seen = Spans()
        self.faces = 0
        self.over_ns: int | None = None
        """When the person left for good; None while more may come."""
        self._spec: ImageEncoderSpec | None = config.video_encoder
        _, _, rate_hz = config.frame_rates_hz
        self._period_ns = int(NS_PER_S / rate_hz)
        self._scores: deque[tuple[int, float]] = deque()
        self._clarity: deque[tuple[int, float]] = deque()
        self._waiting: list[WaitingCrop] = []
        self.frames: Evidence | None = None
        if self._spec is not None:
            most = config.window_ms / 1000.0 * max(MAX_VIDEO_RATE_HZ, rate_hz)
            self.frames = Evidence(config.network.projected_dim, kept_frames(most))

    def push(self, message: Video) -> None:
        """Take a picture, with a face or without."""
        end_ns = message.envelope.t_end_ns
        self.progress.advance(end_ns)
        self.faces = message.faces
        self.over_ns = end_ns if message.last else None
        if message.crop is None:
            return
        last_ns = self.seen.newest_ns
        follows = last_ns is not None and end_ns - last_ns <= 2 * self._period_ns
        begin_ns = last_ns if follows and last_ns is not None else end_ns - self._period_ns
        self.seen.add(begin_ns, end_ns)
        seen = clarity(message.crop)
        self._clarity.append((end_ns, seen))
        if message.detector_score is not None:
            self._scores.append((end_ns, message.detector_score * seen))
        if self._spec is not None:
            inputs = normalise_crop(
                message.crop, self._spec.size_px, self._spec.channels_in, self._spec.colour
            )
            self._waiting.append(WaitingCrop(end_ns, inputs))

    @property
    def waiting(self) -> int:
        """Faces that are not encoded yet."""
        return len(self._waiting)

    def skip(self, before_ns: int) -> int:
        """Drop the faces that wait from before ``before_ns``; return how many."""
        count = 0
        while count < len(self._waiting) and self._waiting[count].t_end_ns <= before_ns:
            count += 1
        del self._waiting[:count]
        return count

    def prepare(self) -> tuple[list[Frames], Times]:
        """Hand out the waiting crops as encoder inputs [C, S, S] with their times."""
        waiting, self._waiting = self._waiting, []
        crops = [item.inputs for item in waiting]
        return crops, np.array([item.t_end_ns for item in waiting], np.int64)

    def accept(self, frames: Frames, t_end_ns: Times) -> None:
        """Keep the frames [n, D] of the crops handed out."""
        if self.frames is not None:
            self.frames.add(frames, t_end_ns)

    def quality(self, start_ns: int, end_ns: int) -> float | None:
        """Mean of detector score times clarity; None where the detector gives no score."""
        return _mean(self._scores, start_ns, end_ns)

    def clarity(self, start_ns: int, end_ns: int) -> float:
        """How much of the face is seen on average, 0 to 1; 1 where there is none."""
        mean = _mean(self._clarity, start_ns, end_ns)
        return 1.0 if mean is None else mean

    def gone(self, after_ns: int) -> bool:
        """Whether pictures have come without the face for ``after_ns``."""
        shown_ns, seen_ns = self.progress.newest_ns, self.seen.newest_ns
        if shown_ns is None or seen_ns is None:
            return False
        return shown_ns - seen_ns > after_ns

    def finish(self, before_ns: int) -> None:
        """Drop what no window will ask for again."""
        self.seen.forget(before_ns)
        if self.frames is not None:
            self.frames.finish(before_ns)
        for series in (self._scores, self._clarity):
            while series and series[0][0] <= before_ns:
                series.popleft()


def _mean(series: deque[tuple[int, float]], start_ns: int, end_ns: int) -> float | None:
    values = [value for time, value in series if start_ns < time <= end_ns]
    return sum(values) / len(values) if values else None
