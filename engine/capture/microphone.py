"""A microphone as audio messages: the callback copies, everything else runs outside of it."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.capture import CaptureError
from engine.capture.devices import DeviceLostError, find, list_microphones, portaudio
from engine.capture.stamps import NS_PER_S, Chunker, Stamper, to_int16
from engine.settings import EngineSettings
from engine.stop import Stop
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


def run_microphone(
    wanted: str | int,
    settings: EngineSettings,
    stamper: Stamper,
    stop: Stop,
    emit: Callable[[Audio], None],
    opened: Callable[[], None],
    counters: Counter[str],
) -> None:
    """Capture until ``stop``.

    Raises:
        CaptureError: an unknown device at the first opening, or PortAudio is missing.
        DeviceLostError: the device cannot be opened, has gone, or gives no block in time.
    """
    sounddevice = portaudio()
    if counters["lost"]:
        # PortAudio freezes its device list at the start; a device that came back is not in it.
        sounddevice._terminate()
        sounddevice._initialize()
    try:
        device = find(wanted, list_microphones(), "microphone")
    except CaptureError as error:
        if counters["lost"]:
            raise DeviceLostError(str(error)) from None
        raise
    blocks: queue.SimpleQueue[Block] = queue.SimpleQueue()

    def copy(data: Any, frames: int, times: Any, status: Any) -> None:
        samples = np.frombuffer(data, np.int16).copy()
        now = now_ns()
        # Several hosts give 0 or nonsense for the time of capture.
        age_s = times.currentTime - times.inputBufferAdcTime
        if not 0 < age_s < 1:
            age_s = frames / rate_hz
        blocks.put(Block(now - int(age_s * NS_PER_S), samples, bool(status.input_overflow)))

    try:
        rate_hz = _rate_hz(sounddevice, device.index)
        size = rate_hz * settings.capture.chunk_ms // 1000
        with sounddevice.RawInputStream(
            samplerate=rate_hz,
            blocksize=size,
            device=device.index,
            channels=1,
            dtype="int16",
            callback=copy,
        ):
            opened()
            clock = SampleClock(Chunker(settings, stamper), rate_hz)
            patience_s = settings.capture.stall_timeout_ms / 1000
            waited_s = 0.0
            while not stop.is_set():
                try:
                    block = blocks.get(timeout=0.1)
                except queue.Empty:
                    waited_s += 0.1
                    if waited_s >= patience_s:
                        reason = f"no sound from {device.name} for {patience_s:g} s"
                        raise DeviceLostError(reason) from None
                    continue
                waited_s = 0.0
                for message in clock.push(block):
                    emit(message)
                counters["gaps"] = clock.gaps
    except sounddevice.PortAudioError as error:
        raise DeviceLostError(f"{device.name}: {error.args[0]}") from None


def _rate_hz(sounddevice: Any, index: int) -> int:
    """16 kHz where the device takes it, else its own rate."""
    try:
        sounddevice.check_input_settings(
            device=index, channels=1, dtype="int16", samplerate=SAMPLE_RATE_HZ
        )
    except sounddevice.PortAudioError:
        return int(sounddevice.query_devices(index)["default_samplerate"])
    return SAMPLE_RATE_HZ
