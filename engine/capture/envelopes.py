"""Sound and pictures of one stream to wire messages, numbered per kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.capture.faces import FaceView
from engine.capture.speech import SpeechDetector, level_dbfs
from engine.settings import EngineSettings
from engine.wire.clock import this_clock
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Envelope, Video

Samples = NDArray[np.int16]


class Sealer:
    """Numbers the messages of one stream and kind; ``seq`` rises by one."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._seq = 0

    def seal(self, t_start_ns: int, t_end_ns: int) -> Envelope:
        """The next envelope; its sending time is its end until it is sent."""
        envelope = Envelope(self._stream, self._seq, t_start_ns, t_end_ns, t_end_ns, this_clock())
        self._seq += 1
        return envelope


class Chunker:
    """Samples at 16 kHz to Audio messages of ``chunk_ms``, whole VAD frames each."""

    def __init__(self, stream: str, settings: EngineSettings, t_origin_ns: int) -> None:
        frame_ms = settings.speech.frame_ms
        frames = max(1, round(settings.capture.chunk_ms / frame_ms))
        self._frame_ms = frame_ms
        self._size = frames * frame_ms * SAMPLE_RATE_HZ // 1000
        self._speech = SpeechDetector(settings.speech)
        self._sealer = Sealer(stream)
        self._rest: Samples = np.zeros(0, np.int16)
        self._origin_ns, self._count, self._gap = t_origin_ns, 0, 0

    @property
    def t_next_ns(self) -> int:
        """Capture time of the next sample to be pushed, from the sample count."""
        return self._time(self._count + len(self._rest))

    def anchor(self, t_ns: int, lost: int = 0) -> None:
        """The next sample was taken at ``t_ns``; ``lost`` samples before it are a gap."""
        self._rest = np.zeros(0, np.int16)
        self._origin_ns, self._count = t_ns, 0
        self._gap += lost

    def push(self, samples: Samples) -> list[Audio]:
        """Take int16 samples [N]; the chunks they complete."""
        kept = np.concatenate((self._rest, samples))
        chunks = []
        while len(kept) >= self._size:
            chunk, kept = kept[: self._size].copy(), kept[self._size :]
            start = self._time(self._count)
            self._count += self._size
            chunks.append(
                Audio(
                    self._sealer.seal(start, self._time(self._count)),
                    chunk,
                    self._speech.push(chunk),
                    self._frame_ms,
                    level_dbfs(chunk),
                    self._gap,
                )
            )
            self._gap = 0
        self._rest = kept
        return chunks

    def _time(self, count: int) -> int:
        return self._origin_ns + count * 1_000_000_000 // SAMPLE_RATE_HZ


def to_int16(samples: NDArray[np.float32]) -> Samples:
    """Samples in [-1, 1] to int16, clipped."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def video_message(envelope: Envelope, view: FaceView) -> Video:
    """What the picture shows, as a message."""
    track = view.track
    if track is None:
        return Video(envelope, view.faces)
    return Video(envelope, view.faces, view.crop, track.box, track.track_id, track.score)
