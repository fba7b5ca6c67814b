"""The body of a capture process: one device or clip to the inference worker, with 1 Hz status."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from engine.capture.camera import run_camera
from engine.capture.clip import read_clip
from engine.capture.detectors import open_detector
from engine.capture.envelopes import Chunker, Sealer
from engine.capture.faces import FaceFinder
from engine.capture.microphone import DeviceLost, run_microphone
from engine.settings import EngineSettings, StreamSettings
from engine.wire.messages import Audio, Status, Video, WorkerState
from engine.wire.security import ClientSecurity
from engine.wire.sockets import IngestSender

NS = 1_000_000_000
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
CaptureDevice = Literal["microphone", "camera", "clip", "source"]


class Outbox:
    """Sends one worker's messages and status; the sender is guarded by one lock."""

    def __init__(self, sender: IngestSender, name: str) -> None:
        self._sender, self._sealer = sender, Sealer(name)
        self._lock = threading.Lock()
        self._last_ns = time.monotonic_ns()
        self.counters: Counter[str] = Counter()
        self.state: WorkerState = "starting"
        self.detail = ""

    def emit(self, message: Audio | Video) -> None:
        """Send now or drop and count."""
        stamped = replace(message.envelope, t_sent_ns=time.monotonic_ns())
        with self._lock:
            self._sender.send(replace(message, envelope=stamped))

    def change(self, state: WorkerState, detail: str = "") -> None:
        """Change the state and tell at once."""
        self.state, self.detail = state, detail
        self.tell()

    def tell(self) -> None:
        """Send the status."""
        now_ns = time.monotonic_ns()
        with self._lock:
            counts = {"sent": self._sender.sent, "dropped": self._sender.dropped, **self.counters}
            envelope = self._sealer.seal(self._last_ns, now_ns)
            self._last_ns = now_ns
            self._sender.send(Status(envelope, "capture", self.state, self.detail, counts))


def run_capture(
    stream: StreamSettings,
    device: CaptureDevice,
    settings: EngineSettings,
    stop: threading.Event,
) -> None:
    """Capture until ``stop``, or until a clip that is not looped has ended.

    Raises:
        CaptureError: a user's mistake: unknown device, unreadable clip, missing package.
    """
    security = None
    if settings.security.mode == "curve":
        security = ClientSecurity.read(settings.security.keys_dir.expanduser())
    kind = "source" if device == "clip" else device
    over = threading.Event()
    with IngestSender(settings.ingest, security) as sender:
        outbox = Outbox(sender, f"{stream.name}.{kind}")

        def report() -> None:
            while not over.wait(1.0):
                outbox.tell()

        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        try:
            if kind == "source":
                _play(stream, settings, stop, outbox)
            else:
                _keep_open(stream, kind, settings, stop, outbox)
        finally:
            over.set()
            reporter.join()


def passes(path: str, stream: str, settings: EngineSettings) -> Iterator[Audio | Video]:
    """A clip's messages from time 0, again and again where ``capture.loop`` says so."""
    start_ns, counts = 0, {Audio: 0, Video: 0}
    while True:
        end_ns = start_ns
        for message in read_clip(path, stream, settings, start_ns):
            envelope = replace(message.envelope, seq=counts[type(message)])
            counts[type(message)] += 1
            end_ns = max(end_ns, envelope.t_end_ns)
            yield replace(message, envelope=envelope)
        if not settings.capture.loop or end_ns == start_ns:
            return
        start_ns = end_ns


def _play(
    stream: StreamSettings, settings: EngineSettings, stop: threading.Event, outbox: Outbox
) -> None:
    messages = passes(stream.source or "", stream.name, settings)
    origin_ns: int | None = None
    for message in messages:
        if origin_ns is None:
            origin_ns = time.monotonic_ns()
            outbox.change("running")
        old = message.envelope
        end_ns = origin_ns + old.t_end_ns
        if stop.wait(max(0.0, (end_ns - time.monotonic_ns()) / NS)):
            return
        envelope = replace(old, t_start_ns=origin_ns + old.t_start_ns, t_end_ns=end_ns)
        outbox.emit(replace(message, envelope=envelope))
    outbox.change("ended")


def _keep_open(
    stream: StreamSettings,
    kind: str,
    settings: EngineSettings,
    stop: threading.Event,
    outbox: Outbox,
) -> None:
    wait_s = FIRST_WAIT_S
    chunker = Chunker(stream.name, settings, time.monotonic_ns())
    sealer = Sealer(stream.name)
    crop_px = settings.capture.crop_px

    def opened() -> None:
        nonlocal wait_s
        wait_s = FIRST_WAIT_S
        outbox.change("running")

    def gap() -> None:
        outbox.counters["gaps"] += 1

    while not stop.is_set():
        try:
            if kind == "microphone" and stream.microphone is not None:
                run_microphone(stream.microphone, chunker, settings, stop, outbox.emit, opened, gap)
            elif stream.camera is not None:
                finder = FaceFinder(open_detector(settings.faces), settings.faces, crop_px)
                run_camera(stream.camera, sealer, finder, settings, stop, outbox.emit, opened)
        except DeviceLost as lost:
            outbox.change("reconnecting", str(lost))
            stop.wait(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
