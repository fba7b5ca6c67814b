"""Samples to wire messages: chunks get their times, numbers and flags here.

Pure but for the clock that is passed in; microphones, cameras and clips share it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from engine.capture.speech import SpeechDetector, level_dbfs
from engine.settings import EngineSettings
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Clock, Envelope

NS_PER_S = 1_000_000_000
REANCHOR_NS = 20_000_000
"""Sample count and clock may drift apart this far before the count is anchored again."""


SPACING_GAIN = 0.1
"""Share of a new spacing between pictures in the smoothed one."""
TIE_NS = 500_000


class Stamper:
    """Envelopes of one stream with their sequence numbers per kind; the socket stamps sending."""

    def __init__(self, stream: str, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._seq: Counter[str] = Counter()

    def of_person(self, number: int) -> Stamper:
        """Envelopes of one person before this stream's camera: ``room/1``."""
        return Stamper(f"{self._stream}/{number}", self._clock)

    def envelope(self, kind: str, t_start_ns: int, t_end_ns: int) -> Envelope:
        """The next envelope of a kind."""
        seq = self._seq[kind]
        self._seq[kind] += 1
        return Envelope(self._stream, seq, t_start_ns, t_end_ns, t_end_ns, self._clock)


class Chunker:
    """Samples at 16 kHz of any lengths to audio messages of ``chunk_ms`` with speech flags."""

    def __init__(self, settings: EngineSettings, stamper: Stamper) -> None:
        self._detector = SpeechDetector(settings.speech)
        self._frame_ms = settings.speech.frame_ms
        self._chunk = SAMPLE_RATE_HZ * settings.capture.chunk_ms // 1000
        self._stamper = stamper
        self._waiting: NDArray[np.int16] = np.zeros(0, np.int16)
        self._start_ns = 0
        self._slew_ns = 0
        self._gap_samples = 0

    def anchor(self, t_ns: int, lost_samples: int = 0) -> None:
        """Say when the next sample was captured; ``lost_samples`` before it are a gap.

        What waits for a whole chunk is dropped with the gap: its chunk will not come.
        """
        if lost_samples:
            self._gap_samples += lost_samples + len(self._waiting)
            self._detector.reset()
        self._waiting = np.zeros(0, np.int16)
        self._start_ns, self._slew_ns = t_ns, 0

    def slew(self, slew_ns: int) -> None:
        """Let the samples last this much longer than by their count: a device's clock drifts."""
        self._slew_ns += slew_ns

    def push(self, samples: NDArray[np.int16]) -> list[Audio]:
        """Add samples; return the chunks that are complete."""
        self._waiting = np.concatenate((self._waiting, samples))
        whole = len(self._waiting) // self._chunk * self._chunk
        return [self._take(self._chunk) for _ in range(0, whole, self._chunk)]

    def flush(self) -> list[Audio]:
        """The whole VAD frames that remain, as one shorter chunk."""
        frame = self._detector.frame_samples
        whole = len(self._waiting) // frame * frame
        return [self._take(whole)] if whole else []

    def _take(self, count: int) -> Audio:
        samples, self._waiting = self._waiting[:count], self._waiting[count:]
        start_ns, slew_ns = self._start_ns, self._slew_ns
        self._start_ns += count * NS_PER_S // SAMPLE_RATE_HZ + slew_ns
        self._slew_ns = 0
        gap, self._gap_samples = self._gap_samples, 0
        return Audio(
            self._stamper.envelope("audio", start_ns, self._start_ns),
            samples,
            self._detector.push(samples),
            self._frame_ms,
            level_dbfs(samples),
            gap,
        )


class FrameSampler:
    """Which pictures of a camera or clip are looked at: about ``rate_hz``, evenly spaced.

    Every n-th picture is kept, with the n that comes closest: of 25 pictures a second every
    third rather than two and three in turn. A window that waits for the next picture then
    knows when it comes.
    """

    def __init__(self, rate_hz: float) -> None:
        self.period_ns = round(NS_PER_S / rate_hz)
        self._spacing_ns = 0.0
        self._seen_ns: int | None = None
        self._kept_ns: int | None = None

    def wants(self, t_ns: int) -> bool:
        """Whether the picture of this capture time is one of them."""
        spacing_ns = 0 if self._seen_ns is None else t_ns - self._seen_ns
        if 0 < spacing_ns <= 2 * self.period_ns:  # a longer one is a pause
            gain = SPACING_GAIN if self._spacing_ns else 1.0
            self._spacing_ns += gain * (spacing_ns - self._spacing_ns)
        self._seen_ns = t_ns
        # The tolerance decides ties such as 2.5 pictures for good, whatever stamps round to.
        earliest_ns = self.period_ns - self._spacing_ns / 2 + TIE_NS
        if self._kept_ns is not None and t_ns - self._kept_ns < earliest_ns:
            return False
        self._kept_ns = t_ns
        return True


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Float samples in [-1, 1] to int16, clipped."""
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)
