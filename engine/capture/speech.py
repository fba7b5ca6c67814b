"""Speech detection: webrtcvad behind a level floor, with hang-over, as a state machine."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from engine.settings import SpeechSettings
from engine.wire.messages import SAMPLE_RATE_HZ

SILENCE_DBFS = -120.0
Voiced = Callable[[bytes], bool]


def level_dbfs(samples: NDArray[np.int16]) -> float:
    """RMS level of int16 samples in dB below full scale; -120 for digital silence."""
    if not len(samples):
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples.astype(np.float64)))) / 32768.0**2
    return max(SILENCE_DBFS, 10 * math.log10(power)) if power > 0 else SILENCE_DBFS


class SpeechDetector:
    """Frames in, speech flags out.

    Silent until ``start_ms`` of voiced frames came in a row, then speaking until ``stop_ms`` of
    unvoiced ones did: a click is not speech, a short pause is not its end.
    """

    def __init__(self, settings: SpeechSettings, voiced: Voiced | None = None) -> None:
        """``voiced`` tells of one frame's bytes whether it is; webrtcvad unless given."""
        self.frame_samples = SAMPLE_RATE_HZ * settings.frame_ms // 1000
        self._floor_dbfs = settings.floor_dbfs
        self._start = max(1, settings.start_ms // settings.frame_ms)
        self._stop = max(1, settings.stop_ms // settings.frame_ms)
        self._voiced = voiced or _webrtc(settings.aggressiveness)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard, as after a gap."""
        self.speaking = False
        self._run = 0

    def push(self, samples: NDArray[np.int16]) -> tuple[bool, ...]:
        """Take whole frames [k * frame_samples]; return k flags.

        Raises:
            ValueError: the samples are not a whole number of frames.
        """
        count, rest = divmod(len(samples), self.frame_samples)
        if rest:
            raise ValueError(
                f"expected a multiple of {self.frame_samples} samples, got {len(samples)}"
            )
        frames = samples.reshape(count, self.frame_samples)
        return tuple(self._advance(frame) for frame in frames)

    def _advance(self, frame: NDArray[np.int16]) -> bool:
        voiced = level_dbfs(frame) >= self._floor_dbfs and self._voiced(frame.tobytes())
        self._run = self._run + 1 if voiced != self.speaking else 0
        if self._run >= (self._stop if self.speaking else self._start):
            self.speaking = voiced
            self._run = 0
        return self.speaking


def _webrtc(aggressiveness: int) -> Voiced:
    vad = webrtcvad.Vad(aggressiveness)

    def voiced(frame: bytes) -> bool:
        return bool(vad.is_speech(frame, SAMPLE_RATE_HZ))

    return voiced
