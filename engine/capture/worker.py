"""The body of a capture process: one device to the inference worker, with a status a second.

Pulse and status come from the loop that captures, so that a hung loop is seen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from engine.capture import CaptureError
from engine.capture.camera import Camera
from engine.capture.device import Device, DeviceLostError, Media
from engine.capture.microphone import Microphone
from engine.capture.playback import Playback
from engine.capture.route import WayIn, way_in
from engine.capture.stamps import Stamper
from engine.pulse import PERIOD_S, Pulse
from engine.settings import DeviceKind, EngineSettings, StreamSettings
from engine.stop import Stop
from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Status, WorkerState
from engine.wire.security import ClientSecurity

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
STATUS_PERIOD_S = 1.0
READ_S = 0.1
"""Longest wait for a device's next message: then the loop comes round, and its pulse beats."""
OPEN_S = 60.0
"""Opening a device may take this long before it counts as hung."""
MAX_DETAIL = 500


class Outbox:
    """Sends one worker's messages and its status.

    A status goes out once a second and at every change of state. A browser's capture begins and
    ends in another thread than its loop's: the lock gives the socket to one at a time.

    Args:
        sender: where messages go.
        worker: name of the worker in its status.
        counters: the device's own.
    """

    def __init__(self, sender: WayIn, worker: str, counters: Counter[str]) -> None:
        self._sender = sender
        self.counters = counters
        self._stamper = Stamper(worker, this_clock())
        self._lock = threading.Lock()
        self._last_ns = now_ns()
        self._state: WorkerState = "starting"
        self._detail = ""

    def emit(self, message: Media) -> None:
        """Send now, or drop and count."""
        with self._lock:
            self._sender.send(message)

    def change(self, state: WorkerState, detail: str = "") -> None:
        """Change the state and tell at once."""
        self._state, self._detail = state, detail
        self.tell()

    def tell(self) -> None:
        """Send the status."""
        with self._lock:
            start_ns, self._last_ns = self._last_ns, now_ns()
            envelope = self._stamper.envelope("status", start_ns, self._last_ns)
            sender = {"sent": self._sender.sent, "dropped": self._sender.dropped}
            counters = {**sender, **self._sender.counters, **self.counters}
            status = Status(envelope, "capture", self._state, self._detail, counters)
            self._sender.send(status)


class Round:
    """The stop flag as a worker's loop asks for it, once a round: asking shows that it lives."""

    def __init__(self, stop: Stop, pulse: Pulse, outbox: Outbox) -> None:
        self._stop, self._pulse, self._outbox = stop, pulse, outbox
        self._told_s = time.monotonic()

    def is_set(self) -> bool:
        """Whether the worker is to end."""
        self._pulse.beat()
        if (now_s := time.monotonic()) - self._told_s >= STATUS_PERIOD_S:
            self._told_s = now_s
            self._outbox.tell()
        return self._stop.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the flag; True when it is set."""
        end_s = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left_s = PERIOD_S if end_s is None else min(PERIOD_S, end_s - time.monotonic())
            if left_s <= 0:
                return False
            self._stop.wait(left_s)
        return True


def run_capture(
    stream: StreamSettings,
    kind: DeviceKind,
    settings: EngineSettings,
    stop: Stop,
    pulse: Pulse | None = None,
    again: bool = False,
) -> None:
    """Capture until ``stop``, or until a clip that is not looped has ended.

    Args:
        stream: what to capture, and under which name.
        kind: which of the stream's devices.
        settings: the engine's settings.
        stop: ends the capture.
        pulse: beats with the loop.
        again: the device was there before, so one that is missing now may come back.

    Raises:
        CaptureError: a user's mistake: unknown device, unreadable clip, missing package.
        WireError: no keys, or an endpoint that is none.
    """
    security = None
    if settings.security.mode == "curve":
        security = ClientSecurity.read(settings.security.keys_dir)
    device = device_of(stream, kind, settings)
    pulse = pulse or Pulse()
    with way_in(settings, stream.name, kind, security) as sender:
        outbox = Outbox(sender, f"{stream.name}.{kind}", device.counters)
        try:
            keep_open(device, outbox, Round(stop, pulse, outbox), pulse, again)
        except CaptureError as error:
            outbox.change("ended", str(error)[:MAX_DETAIL])
            raise
        outbox.change("ended")


def device_of(stream: StreamSettings, kind: DeviceKind, settings: EngineSettings) -> Device:
    """The device of a stream, not yet open."""
    if kind == "source":
        return Playback(str(stream.source), stream.name, settings)
    stamper = Stamper(stream.name, this_clock())
    if kind == "microphone" and stream.microphone is not None:
        return Microphone(stream.microphone, settings, stamper)
    if kind == "camera" and stream.camera is not None:
        return Camera(stream.camera, settings, stamper)
    raise ValueError(f"stream {stream.name!r} has no {kind}")


def keep_open(device: Device, outbox: Outbox, here: Round, pulse: Pulse, again: bool) -> None:
    """Read a device until ``here`` says stop or it ends; open it again when it is lost.

    Raises:
        CaptureError: it cannot be opened the first time, or a clip cannot be decoded.
    """
    wait_s = FIRST_WAIT_S
    while not here.is_set():
        try:
            _open(device, pulse, again)
            outbox.change("running")
            wait_s, again = FIRST_WAIT_S, True
            return pump(device, outbox, here)
        except DeviceLostError as lost:
            reason = str(lost)
        finally:
            for message in device.close():
                outbox.emit(message)
        outbox.counters["lost"] += 1
        outbox.change("reconnecting", reason[:MAX_DETAIL])
        here.wait(wait_s)
        wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
    return None


def pump(device: Device, outbox: Outbox, here: Round) -> None:
    """Send what an open device gives, until it ends or ``here`` says stop: the one capture loop.

    Raises:
        DeviceLostError: the device went silent or away.
        CaptureError: a clip that cannot be decoded.
    """
    while not here.is_set():
        messages = device.read(READ_S)
        if messages is None:
            return
        for message in messages:
            outbox.emit(message)


def _open(device: Device, pulse: Pulse, again: bool) -> None:
    """Open a device; one that was there before is lost rather than a mistake when it is missing."""
    try:
        with pulse.starting(OPEN_S):
            device.open()
    except CaptureError as error:
        if again:
            raise DeviceLostError(str(error)) from None
        raise
