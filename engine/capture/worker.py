"""The body of a capture process: one device or clip to the inference worker, with 1 Hz status.

Pulse and status come from the loop that captures, so that a hung loop is seen.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from engine.capture import CaptureError
from engine.capture.camera import run_camera
from engine.capture.devices import DeviceLostError
from engine.capture.microphone import run_microphone
from engine.capture.playback import play
from engine.capture.route import WayIn, way_in
from engine.capture.stamps import Stamper
from engine.pulse import PERIOD_S, Pulse
from engine.settings import EngineSettings, StreamSettings
from engine.stop import Stop
from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Audio, Status, Video, WorkerState
from engine.wire.security import ClientSecurity

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
STATUS_PERIOD_S = 1.0
OPEN_S = 60.0
"""Opening a device may take this long before it counts as hung."""
MAX_DETAIL = 500
CaptureDevice = Literal["microphone", "camera", "source"]


class Outbox:
    """Sends one worker's messages and its status.

    A status goes out once a second and at every change of state. A clip's and a camera's messages
    come from one thread, a browser's from two: the one lock keeps the socket to one at a time.
    """

    def __init__(self, sender: WayIn, worker: str) -> None:
        self._sender = sender
        self._stamper = Stamper(worker, this_clock())
        self._lock = threading.Lock()
        self._last_ns = now_ns()
        self._state: WorkerState = "starting"
        self._detail = ""
        self.counters: Counter[str] = Counter()

    def emit(self, message: Audio | Video) -> None:
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
            counters = {"sent": self._sender.sent, "dropped": self._sender.dropped}
            counters |= self._sender.counters
            counters |= self.counters
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
    device: CaptureDevice,
    settings: EngineSettings,
    stop: Stop,
    pulse: Pulse | None = None,
    again: bool = False,
) -> None:
    """Capture until ``stop``, or until a clip that is not looped has ended.

    Args:
        stream: what to capture, and under which name.
        device: which of the stream's devices.
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
    with way_in(settings, stream.name, device, security) as sender:
        outbox = Outbox(sender, f"{stream.name}.{device}")
        pulse = pulse or Pulse()
        try:
            if stream.source is not None:
                outbox.change("running")
                here = Round(stop, pulse, outbox)
                play(stream.source, stream.name, settings, here, outbox.emit, outbox.counters)
                outbox.change("ended")
            else:
                _keep_open(stream, device, settings, stop, outbox, pulse, again)
        except CaptureError as error:
            outbox.change("ended", str(error)[:MAX_DETAIL])
            raise


def _keep_open(
    stream: StreamSettings,
    device: CaptureDevice,
    settings: EngineSettings,
    stop: Stop,
    outbox: Outbox,
    pulse: Pulse,
    again: bool,
) -> None:
    """Run a device, and open it again, ever more patiently, whenever it is lost."""
    stamper = Stamper(stream.name, this_clock())
    here = Round(stop, pulse, outbox)
    wait_s = FIRST_WAIT_S
    while not here.is_set():
        with contextlib.ExitStack() as opening:
            opening.enter_context(pulse.starting(OPEN_S))

            def opened(opening: contextlib.ExitStack = opening) -> None:
                nonlocal wait_s, again
                opening.close()
                wait_s, again = FIRST_WAIT_S, True
                outbox.change("running")

            try:
                _run_device(stream, device, settings, stamper, here, outbox, opened)
            except (DeviceLostError, CaptureError) as lost:
                if isinstance(lost, CaptureError) and not again:
                    raise
                reason = str(lost)
            else:
                return
        outbox.counters["lost"] += 1
        outbox.change("reconnecting", reason[:MAX_DETAIL])
        here.wait(wait_s)
        wait_s = min(LONGEST_WAIT_S, 2 * wait_s)


def _run_device(
    stream: StreamSettings,
    device: CaptureDevice,
    settings: EngineSettings,
    stamper: Stamper,
    here: Round,
    outbox: Outbox,
    opened: Callable[[], None],
) -> None:
    if device == "microphone" and stream.microphone is not None:
        run_microphone(
            stream.microphone, settings, stamper, here, outbox.emit, opened, outbox.counters
        )
    elif stream.camera is not None:
        run_camera(stream.camera, settings, stamper, here, outbox.emit, opened, outbox.counters)
