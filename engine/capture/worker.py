"""The body of a capture process: one device or clip to the inference worker, with 1 Hz status."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, Protocol

from msgspec.structs import replace

from engine.capture.camera import run_camera
from engine.capture.devices import DeviceLostError
from engine.capture.microphone import run_microphone
from engine.capture.playback import play
from engine.capture.route import Route
from engine.capture.stamps import Stamper
from engine.settings import EngineSettings, StreamSettings
from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Audio, Status, Video, WorkerState
from engine.wire.security import ClientSecurity
from engine.wire.sockets import IngestSender

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
STATUS_PERIOD_S = 1.0
CaptureDevice = Literal["microphone", "camera", "source"]


class Stop(Protocol):
    """A flag from outside, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether the worker is to end."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it; True when it is set."""
        ...


class Outbox:
    """Sends one worker's messages and its status.

    A status goes out once a second and at every change of state, from whichever thread is
    there: the one lock keeps the socket to one thread at a time.
    """

    def __init__(self, sender: IngestSender | Route, worker: str) -> None:
        self._sender = sender
        self._stamper = Stamper(worker, this_clock(), now_ns)
        self._lock = threading.Lock()
        self._last_ns = now_ns()
        self._state: WorkerState = "starting"
        self._detail = ""
        self.counters: Counter[str] = Counter()

    def emit(self, message: Audio | Video) -> None:
        """Send now, or drop and count."""
        stamped = replace(message.envelope, t_sent_ns=now_ns())
        with self._lock:
            self._sender.send(replace(message, envelope=stamped))

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


def run_capture(
    stream: StreamSettings, device: CaptureDevice, settings: EngineSettings, stop: Stop
) -> None:
    """Capture until ``stop``, or until a clip that is not looped has ended.

    Raises:
        CaptureError: a user's mistake: unknown device, unreadable clip, missing package.
        WireError: no keys, or an endpoint that is none.
    """
    security = None
    if settings.security.mode == "curve":
        security = ClientSecurity.read(settings.security.keys_dir)
    over = threading.Event()
    with _sender(stream, device, settings, security) as sender:
        outbox = Outbox(sender, f"{stream.name}.{device}")

        def report() -> None:
            while not over.wait(STATUS_PERIOD_S):
                outbox.tell()

        reporter = threading.Thread(target=report, name="status", daemon=True)
        reporter.start()
        try:
            if stream.source is not None:
                outbox.change("running")
                play(stream.source, stream.name, settings, stop, outbox.emit, outbox.counters)
                outbox.change("ended")
            else:
                _keep_open(stream, device, settings, stop, outbox)
        finally:
            over.set()
            reporter.join()


def _sender(
    stream: StreamSettings,
    device: CaptureDevice,
    settings: EngineSettings,
    security: ClientSecurity | None,
) -> IngestSender | Route:
    """The way to the one worker, or to whichever of a cluster's has the stream."""
    if settings.cluster.directory is None:
        return IngestSender(settings.ingest, security)
    return Route(settings.cluster.directory, stream.name, device, security)


def _keep_open(
    stream: StreamSettings,
    device: CaptureDevice,
    settings: EngineSettings,
    stop: Stop,
    outbox: Outbox,
) -> None:
    """Run a device, and open it again, ever more patiently, whenever it is lost."""
    stamper = Stamper(stream.name, this_clock(), now_ns)
    wait_s = FIRST_WAIT_S

    def opened() -> None:
        nonlocal wait_s
        wait_s = FIRST_WAIT_S
        outbox.change("running")

    while not stop.is_set():
        try:
            if device == "microphone" and stream.microphone is not None:
                run_microphone(
                    stream.microphone, settings, stamper, stop, outbox.emit, opened, outbox.counters
                )
            elif stream.camera is not None:
                run_camera(
                    stream.camera, settings, stamper, stop, outbox.emit, opened, outbox.counters
                )
        except DeviceLostError as lost:
            outbox.counters["lost"] += 1
            outbox.change("reconnecting", str(lost))
            stop.wait(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
