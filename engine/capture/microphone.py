"""A microphone as audio messages: the callback copies, everything else runs outside of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.capture.device import DeviceLostError, Feed
from engine.capture.listing import find, list_microphones, portaudio
from engine.capture.stamps import NS_PER_S, Chunker, Stamper, to_int16
from engine.settings import EngineSettings
from engine.wire.clock import SampleCount, now_ns
from engine.wire.messages import SAMPLE_RATE_HZ, Audio
from models.preprocessing import Resampler, to_float


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What the callback copied: samples [N] at the device's rate."""

    t_start_ns: int
    samples: NDArray[np.int16]
    overflow: bool
    """Samples before this block were lost."""


class SampleClock:
    """Blocks to chunks on the clock of the sample count (``SampleCount``). Pure."""

    def __init__(self, chunker: Chunker, rate_hz: int) -> None:
        self._chunker = chunker
        self._rate_hz = rate_hz
        self._resampler = Resampler(rate_hz, SAMPLE_RATE_HZ)
        self._count = SampleCount(rate_hz)
        self.gaps = 0

    def push(self, block: Block) -> list[Audio]:
        """Take a block; return the chunks that are complete."""
        expected_ns = self._count.next_ns
        step = self._count.push(block.t_start_ns, len(block.samples), block.overflow)
        if step is None:
            self._chunker.anchor(block.t_start_ns)
        elif step.lost_ns or block.overflow:
            self.gaps += 1
            self._resampler = Resampler(self._rate_hz, SAMPLE_RATE_HZ)
            lost = step.lost_ns * SAMPLE_RATE_HZ // NS_PER_S
            self._chunker.anchor(expected_ns + step.lost_ns, lost)
        else:
            self._chunker.slew(step.slew_ns)
        return self._chunker.push(to_int16(self._resampler.push(to_float(block.samples))))


class Microphone:
    """A microphone as a device of the capture loop.

    Args:
        wanted: its name, a part of it, or its index.
        settings: chunks, speech, patience.
        stamper: numbers the messages.
    """

    def __init__(self, wanted: str | int, settings: EngineSettings, stamper: Stamper) -> None:
        self._wanted, self._settings, self._stamper = wanted, settings, stamper
        self.counters: Counter[str] = Counter()
        self._listed = False
        self._stream: Any = None
        self._blocks: Feed[Block]
        self._clock: SampleClock

    def open(self) -> None:
        """Find the microphone and start its stream."""
        sounddevice = portaudio()
        if self._listed:
            # PortAudio freezes its device list at the start; a device that came back is not in it.
            sounddevice._terminate()
            sounddevice._initialize()
        self._listed = True
        device = find(self._wanted, list_microphones(), "microphone")
        capture = self._settings.capture
        try:
            rate_hz = _rate_hz(sounddevice, device.index)
            self._blocks = Feed(f"sound from {device.name}", capture.stall_timeout_ms)
            self._clock = SampleClock(Chunker(self._settings, self._stamper), rate_hz)
            self._stream = sounddevice.RawInputStream(
                samplerate=rate_hz,
                blocksize=rate_hz * capture.chunk_ms // 1000,
                device=device.index,
                channels=1,
                dtype="int16",
                callback=partial(_copy, self._blocks, rate_hz),
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise DeviceLostError(f"{device.name}: {error.args[0]}") from None

    def read(self, timeout_s: float) -> list[Audio]:
        """The chunks that the next block completes."""
        block = self._blocks.get(timeout_s)
        if block is None:
            return []
        gaps = self._clock.gaps
        chunks = self._clock.push(block)
        self.counters["gaps"] += self._clock.gaps - gaps
        return chunks

    def close(self) -> list[Audio]:
        """Stop the stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        return []


def _copy(
    blocks: Feed[Block], rate_hz: int, data: Any, frames: int, times: Any, status: Any
) -> None:
    """PortAudio's callback: copy and stamp, nothing else."""
    samples = np.frombuffer(data, np.int16).copy()
    now = now_ns()
    # Several hosts give 0 or nonsense for the time of capture.
    age_s = times.currentTime - times.inputBufferAdcTime
    if not 0 < age_s < 1:
        age_s = frames / rate_hz
    blocks.put(Block(now - int(age_s * NS_PER_S), samples, bool(status.input_overflow)))


def _rate_hz(sounddevice: Any, index: int) -> int:
    """16 kHz where the device takes it, else its own rate."""
    try:
        sounddevice.check_input_settings(
            device=index, channels=1, dtype="int16", samplerate=SAMPLE_RATE_HZ
        )
    except sounddevice.PortAudioError:
        return int(sounddevice.query_devices(index)["default_samplerate"])
    return SAMPLE_RATE_HZ
