"""Speech detection in two stages: webrtcvad proposes, Silero's network confirms.

webrtcvad is nearly free and takes hum, clicks and noise for speech; Silero's network is right and
costs thirty times as much. So the network runs where webrtcvad, behind a floor that follows the
room's noise, proposes something, and nowhere else: a silent stream costs nothing. Sound is levelled
before either sees it, so that a quiet voice is one. Pure: what is said of a frame depends on the
samples up to its end alone, however they come in.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from engine.settings import SpeechSettings
from engine.wire.messages import SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

SILENCE_DBFS = -120.0
SILERO = Path(__file__).parent / "data" / "silero_vad_16k_sequence.onnx"
BLOCK = 512
"""Samples of one step of the network."""
PER_RUN = 2
"""Blocks that run together: a third cheaper than one by one, for 32 ms of patience."""
STEP = PER_RUN * BLOCK
CONTEXT = 64
"""Samples before a block that the network sees with it."""
STATE = 128
LEAD_BLOCKS = 45
"""Blocks before the first proposed one that the network hears first: with less than a second and a
half it misses one in twenty acted sentences."""
PAST = LEAD_BLOCKS * BLOCK + CONTEXT
HOLD_MS = 320
"""How long the network keeps listening after the last proposed frame."""
SURE, STILL = 0.3, 0.15
"""Probability of speech that starts it, and that keeps it going. Low ones: the network is unsure of
people who cry or shout, and of what is no voice it is sure (hum, clicks, noise, fan: below .1)."""
LEVEL_DBFS, MAX_GAIN_DB = -23.0, 40.0
QUIETEST_DBFS = LEVEL_DBFS - MAX_GAIN_DB
RELEASE_DB_PER_S = 12.0
FLOOR_MARGIN_DB = 4.0
STEADY = 10 ** (0.5 / 10)
"""Ratio of the powers of two stretches of 50 ms that no voice keeps up."""
FLOOR_BUCKET_MS, FLOOR_BUCKETS = 500, 8
NOTHING = np.zeros(1, np.float32)
UNCONFIRMED_START_MS = 200
"""Without the network a click is distinguished from speech by its length alone."""

Floats = NDArray[np.float32]
Samples = NDArray[np.int16]
Voiced = Callable[[bytes], bool]


class Confirm(Protocol):
    """Probability of speech in consecutive blocks; keeps its state between calls."""

    def reset(self) -> None:
        """Forget what was heard."""
        ...

    def push(self, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take blocks [n, CONTEXT + BLOCK], each with its context; return [n]."""
        ...


def level_dbfs(samples: NDArray[np.int16]) -> float:
    """RMS level of int16 samples in dB below full scale; -120 for digital silence."""
    if not len(samples):
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples.astype(np.float64)))) / 32768.0**2
    return max(SILENCE_DBFS, 10 * math.log10(power)) if power > 0 else SILENCE_DBFS


class Leveller:
    """Gain in dB that brings what is loud lately to a usual level."""

    def __init__(self, frame_ms: int) -> None:
        self._release_db = RELEASE_DB_PER_S * frame_ms / 1000
        self._peak_dbfs = QUIETEST_DBFS

    def push(self, levels: Floats) -> Floats:
        """Take the levels [k] of frames; return their gains [k]."""
        fallen = self._release_db * np.arange(1, len(levels) + 1, dtype=np.float32)
        peaks = np.maximum.accumulate(levels + fallen)
        peaks = np.maximum(np.maximum(peaks, self._peak_dbfs) - fallen, QUIETEST_DBFS)
        self._peak_dbfs = float(peaks[-1])
        gains: Floats = np.clip(LEVEL_DBFS - peaks, 0.0, MAX_GAIN_DB)
        return gains


class NoiseFloor:
    """The quietest level of the last seconds: a steady sound becomes the floor."""

    def __init__(self, lowest_dbfs: float, frame_ms: int) -> None:
        self._lowest_dbfs = lowest_dbfs
        self._frames = max(1, FLOOR_BUCKET_MS // frame_ms)
        # At first anything above the lowest floor may be speech: a clip can begin with it.
        self._buckets = deque([lowest_dbfs] * FLOOR_BUCKETS, maxlen=FLOOR_BUCKETS)
        self._least, self._count = math.inf, 0

    def rises(self, levels: Floats) -> NDArray[np.bool_]:
        """Take the levels [k] of frames; whether each stands out of the floor, [k]."""
        found = np.zeros(len(levels), np.bool_)
        first = 0
        while first < len(levels):
            last = min(len(levels), first + self._frames - self._count)
            floor = min(self._buckets)
            above = self._lowest_dbfs if floor <= self._lowest_dbfs else floor + FLOOR_MARGIN_DB
            found[first:last] = levels[first:last] >= above
            self._least = min(self._least, float(levels[first:last].min()))
            self._count += last - first
            if self._count == self._frames:
                self._buckets.append(self._least)
                self._least, self._count = math.inf, 0
            first = last
        return found


class SpeechDetector:
    """Frames in, speech flags out.

    Silent until ``start_ms`` of voiced frames came in a row, then speaking until ``stop_ms`` of
    unvoiced ones did: a click is not speech, a short pause is not its end.
    """

    def __init__(
        self,
        settings: SpeechSettings,
        voiced: Voiced | None = None,
        confirm: Confirm | None = None,
    ) -> None:
        """Prepare; nothing is heard yet.

        Args:
            settings: frames, hang-over, floor.
            voiced: tells of one frame's bytes whether it may be speech; webrtcvad unless given.
            confirm: says how probable speech is; Silero's network unless ``voiced`` is given.
        """
        self.frame_samples = SAMPLE_RATE_HZ * settings.frame_ms // 1000
        self._settings = settings
        self._voiced = voiced or _webrtc(settings.aggressiveness)
        self._confirm = confirm if confirm is not None or voiced is not None else _silero()
        start_ms = settings.start_ms
        if self._confirm is None and voiced is None:
            start_ms = max(start_ms, UNCONFIRMED_START_MS)
        self._start = max(1, start_ms // settings.frame_ms)
        self._stop = max(1, settings.stop_ms // settings.frame_ms)
        self._hold = HOLD_MS // settings.frame_ms
        self._half = max(1, round(50 / settings.frame_ms))
        self.reset()

    def reset(self) -> None:
        """Forget what was heard, as after a gap."""
        self.speaking = False
        self._run = 0
        self._leveller = Leveller(self._settings.frame_ms)
        self._floor = NoiseFloor(self._settings.floor_dbfs, self._settings.frame_ms)
        self._sound: Samples = np.zeros(PAST, np.int16)
        self._unproposed = self._hold + 1
        self._is_wanted = False
        self._powers: Floats = np.zeros(2 * self._half, np.float32)
        self._listening = False
        self._sure = False
        if self._confirm is not None:
            self._confirm.reset()

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
        if not count:
            return ()
        frames = samples.reshape(count, self.frame_samples)
        proposed, gains = self._propose(frames)
        if self._confirm is None:
            return tuple(self._advance(voiced, False) for voiced in proposed)
        voiced = self._confirmed(samples, proposed, gains, self._confirm)
        return tuple(
            self._advance(flag, flag and not self.speaking and self._is_steady(count - index - 1))
            for index, flag in enumerate(voiced)
        )

    def _is_steady(self, before_last: int) -> bool:
        """Whether the level of 50 ms is that of the 50 ms before them."""
        end = len(self._powers) - before_last
        now = float(self._powers[end - self._half : end].sum())
        before = float(self._powers[end - 2 * self._half : end - self._half].sum())
        return now < before * STEADY and before < now * STEADY

    def _propose(self, frames: Samples) -> tuple[list[bool], Floats]:
        """Which frames may be speech, and the gain [k] that levels each."""
        floats = frames.astype(np.float32) / np.float32(32768)
        power = np.einsum("ij,ij->i", floats, floats) / np.float32(self.frame_samples)
        self._powers = np.concatenate((self._powers[-2 * self._half :], power))
        # Of 50 ms: single frames of a steady noise differ among themselves by many dB.
        sums = np.cumsum(np.concatenate((NOTHING, self._powers)), dtype=np.float32)
        smooth = (
            np.maximum((sums[self._half :] - sums[: -self._half])[-len(power) :], 0) / self._half
        )
        levels = 10 * np.log10(np.maximum(smooth, 1e-12))
        gains = np.power(10, self._leveller.push(levels) / 20, dtype=np.float32)
        rises = self._floor.rises(levels)
        if not rises.any():
            return [False] * len(frames), gains
        loud = np.clip(floats * (32767 * gains[:, None]), -32768, 32767).astype(np.int16)
        return [
            bool(rise) and self._voiced(frame.tobytes())
            for rise, frame in zip(rises, loud, strict=True)
        ], gains

    def _confirmed(
        self, samples: Samples, proposed: list[bool], gains: Floats, confirm: Confirm
    ) -> list[bool]:
        """Which frames the network takes for speech: each as the last whole step before its end.

        The steps of a call run together.
        """
        waiting = len(self._sound) - PAST
        self._sound = np.concatenate((self._sound, samples))
        steps = (len(self._sound) - PAST) // STEP
        # Frames and steps do not divide each other: a step counts from the frame that has its
        # last sample on.
        ends = [-((waiting - (step + 1) * STEP) // self.frame_samples) - 1 for step in range(steps)]
        wanted: list[bool] = []
        for index, is_proposed in enumerate(proposed):
            self._unproposed = 0 if is_proposed else self._unproposed + 1
            self._is_wanted |= self._unproposed <= self._hold
            while len(wanted) < steps and ends[len(wanted)] == index:
                wanted.append(self._is_wanted)
                self._is_wanted = self._unproposed <= self._hold
        probable = [0.0] * steps
        if any(wanted):
            probable = self._listen(wanted, gains[ends], confirm)
        elif steps:
            self._listening = False
        self._sound = self._sound[steps * STEP :]
        flags, done = [], 0
        for index in range(len(proposed)):
            while done < steps and ends[done] == index:
                self._sure = probable[done] >= (STILL if self._sure else SURE)
                done += 1
            flags.append(self._sure)
        return flags

    def _listen(self, wanted: list[bool], gains: Floats, confirm: Confirm) -> list[float]:
        """Probability of speech in each new step: 0 where nobody proposed any."""
        probable = [0.0] * len(wanted)
        step = 0
        while step < len(wanted):
            if not wanted[step]:
                self._listening = False
                step += 1
                continue
            last = step
            while last + 1 < len(wanted) and wanted[last + 1]:
                last += 1
            lead = 0 if self._listening else LEAD_BLOCKS
            if lead:
                confirm.reset()
                self._listening = True
            first, end = PER_RUN * step - lead, PER_RUN * (last + 1)
            sound = self._sound[PAST - CONTEXT + BLOCK * first : PAST + BLOCK * end]
            blocks = np.lib.stride_tricks.sliding_window_view(sound, CONTEXT + BLOCK)[::BLOCK]
            # What comes before the first proposed step is levelled as that is: a gain that
            # falls while somebody begins to speak is heard as something else.
            gain = np.concatenate(
                (np.repeat(gains[step], lead), np.repeat(gains[step : last + 1], PER_RUN))
            )
            scale = gain[:, None] / np.float32(32768)
            heard = np.clip(blocks * scale, -1, 1).astype(np.float32, copy=False)
            found = confirm.push(heard)[lead:].reshape(-1, PER_RUN).max(axis=1)
            probable[step : last + 1] = found.tolist()
            step = last + 1
        return probable

    def _advance(self, voiced: bool, steady: bool) -> bool:
        self._run = self._run + 1 if voiced != self.speaking else 0
        if self._run >= (self._stop if self.speaking else self._start):
            # Hum and buzz that set in may sound like a voice at first; no voice is as steady.
            if steady and not self.speaking:
                return False
            self.speaking = voiced
            self._run = 0
        return self.speaking


class Silero:
    """Silero's network (version 6.2.3, MIT) in ONNX Runtime, with the state of one stream."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._hidden = self._cell = np.zeros((1, 1, STATE), np.float32)

    def push(self, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take blocks [n, CONTEXT + BLOCK]; return the probability [n] of speech in each."""
        inputs = {"input": blocks, "h": self._hidden, "c": self._cell}
        found: NDArray[np.float32]
        found, self._hidden, self._cell = self._session.run(None, inputs)
        return found


@cache
def _session() -> Any:
    """The network, one for all streams of the process; None where its file is missing."""
    if not SILERO.is_file():
        log.warning("speech: %s is missing: webrtcvad alone tells speech from noise", SILERO)
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(SILERO), options, providers=["CPUExecutionProvider"])


def _silero() -> Silero | None:
    session = _session()
    return None if session is None else Silero(session)


def _webrtc(aggressiveness: int) -> Voiced:
    vad = webrtcvad.Vad(aggressiveness)

    def voiced(frame: bytes) -> bool:
        return bool(vad.is_speech(frame, SAMPLE_RATE_HZ))

    return voiced
