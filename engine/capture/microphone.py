"""A microphone as Audio messages; the callback copies, everything else is on the reader."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import numpy as np

from engine.capture import CaptureError
from engine.capture.devices import find, list_microphones, portaudio
from engine.capture.envelopes import Chunker, Samples, to_int16
from engine.settings import EngineSettings
from engine.wire.messages import SAMPLE_RATE_HZ, Audio
from models.preprocessing import Resampler

NS = 1_000_000_000
REANCHOR_NS = 20_000_000
Block = tuple[int, Samples, bool]


class DeviceLost(Exception):
    """The device went silent or away; it is to be opened again."""


class SoundClock:
    """Blocks with arrival stamps to chunks on the sample clock; pure."""

    def __init__(self, chunker: Chunker, rate_hz: int) -> None:
        self._chunker = chunker
        self._rate_hz = rate_hz
        self._resampler = Resampler(rate_hz, SAMPLE_RATE_HZ)
        self._origin_ns: int | None = None
        self._count = 0
        self.gaps = 0

    def push(self, t_end_ns: int, samples: Samples, overflow: bool) -> list[Audio]:
        """Take one block [N]; past 20 ms off, or after an overflow, the clock is anchored anew."""
        start_ns = t_end_ns - len(samples) * NS // self._rate_hz
        expected = self._origin_ns
        if expected is not None:
            expected += self._count * NS // self._rate_hz
        off_ns = 0 if expected is None else start_ns - expected
        if expected is None or overflow or abs(off_ns) > REANCHOR_NS:
            lost = max(0, off_ns) * SAMPLE_RATE_HZ // NS
            self.gaps += expected is not None
            self._resampler.flush()
            self._chunker.anchor(start_ns, lost)
            self._origin_ns, self._count = start_ns, 0
        self._count += len(samples)
        mono = samples.astype(np.float32) / 32768.0
        return self._chunker.push(to_int16(self._resampler.push(mono)))


def run_microphone(
    wanted: str | int,
    chunker: Chunker,
    settings: EngineSettings,
    stop: threading.Event,
    emit: Callable[[Audio], None],
    opened: Callable[[], None],
    gap: Callable[[], None],
) -> None:
    """Capture until ``stop``.

    Raises:
        CaptureError: unknown device, or PortAudio missing.
        DeviceLost: it cannot be opened, or no block came in time.
    """
    sounddevice = portaudio()
    device = find(wanted, list_microphones(), "microphone")
    blocks: queue.SimpleQueue[Block] = queue.SimpleQueue()

    def copy(data: bytes, frames: int, times: object, status: object) -> None:
        samples = np.frombuffer(data, np.int16).copy()
        blocks.put((time.monotonic_ns(), samples, bool(getattr(status, "input_overflow", False))))

    rate_hz = SAMPLE_RATE_HZ
    try:
        try:
            sounddevice.check_input_settings(device.index, 1, "int16", samplerate=rate_hz)
        except sounddevice.PortAudioError:
            rate_hz = int(sounddevice.query_devices(device.index)["default_samplerate"])
        size = rate_hz * settings.capture.chunk_ms // 1000
        with sounddevice.RawInputStream(rate_hz, size, device.index, 1, "int16", callback=copy):
            opened()
            clock = SoundClock(chunker, rate_hz)
            patience_s = settings.capture.stall_timeout_ms / 1000
            while not stop.is_set():
                try:
                    block = blocks.get(timeout=patience_s)
                except queue.Empty:
                    raise DeviceLost(f"no sound from {device.name} for {patience_s:g} s") from None
                before = clock.gaps
                for message in clock.push(*block):
                    emit(message)
                if clock.gaps > before:
                    gap()
    except sounddevice.PortAudioError as error:
        raise DeviceLost(f"{device.name}: {error.args[0]}") from CaptureError(str(error))
