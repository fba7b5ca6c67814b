"""Browsers' captures: one session each, with the capture loop in a thread of its own.

They run in the process of the web server, which takes a ``CaptureDesk`` as an argument. Only crops
and sound go onto the wire, as from any capture worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from engine.capture import CaptureError
from engine.capture.browser.device import BrowserDevice
from engine.capture.browser.hello import CaptureRefusedError, Hello
from engine.capture.browser.packets import MAX_PACKET
from engine.capture.route import WayIn, way_in
from engine.capture.worker import Outbox, Round, pump
from engine.pulse import Pulse
from engine.settings import EngineSettings, SettingsError, load
from engine.wire.fields import WireError
from engine.wire.ingest import IngestSender
from engine.wire.security import ClientSecurity

MAX_SESSIONS = 4
MAX_REMEMBERED = 16
"""Names of ended captures, which may be taken up again at once."""
LAST_WORD_MS = 200


class CaptureSession:
    """One browser's capture: packets in from the server's event loop, messages out by a thread.

    Args:
        hello: what the browser asked for.
        settings: of the engine.
        sender: where messages go; the session closes it.
        released: called once when the session is closed.
    """

    def __init__(
        self,
        hello: Hello,
        settings: EngineSettings,
        sender: WayIn,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self.stream = hello.stream
        self.device = BrowserDevice(hello, settings)
        self._sender, self._released = sender, released
        self._outbox = Outbox(sender, f"{hello.stream}.browser", self.device.counters)
        self._thread = ThreadPoolExecutor(1, "browser-capture")
        self._loop: Future[None] | None = None

    def start(self) -> None:
        """Open the device, and begin to send what it gives.

        Raises:
            CaptureRefusedError: no face detector.
            WireError: the engine refused the dashboard's key.
        """
        try:
            self.device.open()
        except CaptureError as error:
            raise CaptureRefusedError(str(error)) from None
        self._outbox.change("running", "a browser's camera and microphone")
        here = Round(threading.Event(), Pulse(), self._outbox)
        self._loop = self._thread.submit(pump, self.device, self._outbox, here)

    def push(self, data: bytes, now: int) -> None:
        """Take in a packet that arrived ``now``.

        Raises:
            CaptureRefusedError: too many malformed packets.
        """
        self.device.push(data, now)

    def fault(self, reason: str) -> None:
        """Count something malformed.

        Raises:
            CaptureRefusedError: it was one too many.
        """
        self.device.fault(reason)

    async def watch(self) -> None:
        """Wait for the end of the capture loop.

        Raises:
            CaptureRefusedError: too many pictures that cannot be decoded.
            WireError: the engine refused the dashboard's key.
        """
        assert self._loop is not None
        await asyncio.shield(asyncio.wrap_future(self._loop))

    def report(self) -> dict[str, int | bool]:
        """What the browser's own page shows."""
        counters = self.device.counters
        return {
            "sent": self._sender.sent,
            "dropped": self._sender.dropped,
            "pictures": counters["pictures"],
            "refused": counters["malformed"] + counters["over_rate"],
            "skipped": counters["skipped"],
            "faces": self.device.faces,
            "speaking": self.device.speaking,
        }

    def close(self) -> None:
        """Send what is left, close the socket and give the name back."""
        self._released()
        self.device.end()
        self._thread.shutdown()
        with contextlib.suppress(WireError):  # a refused key: there is nobody to say it to
            for message in self.device.close():
                self._outbox.emit(message)
            self._outbox.change("ended", "the browser's capture has ended")
        if isinstance(self._sender, IngestSender):
            # LINGER is 0: give the last word a moment to leave.
            self._sender.raw.linger = LAST_WORD_MS
        self._sender.close()


class CaptureDesk:
    """Where browsers' captures begin: how many, under which names, to which engine."""

    def __init__(
        self,
        ingest: str | None = None,
        keys_dir: Path | None = None,
        config: Path | None = None,
        limit: int = MAX_SESSIONS,
    ) -> None:
        """Read the engine's settings, for the speech and face options and the address.

        Raises:
            CaptureRefusedError: settings that cannot be used.
            WireError: no usable keys.
        """
        try:
            self._settings = load(config) if ingest is None else load(config, ingest=ingest)
        except SettingsError as error:
            raise CaptureRefusedError(str(error)) from None
        self._security = None if keys_dir is None else ClientSecurity.read(keys_dir)
        self._limit = limit
        self._names: set[str] = set()
        self._ended: deque[str] = deque(maxlen=MAX_REMEMBERED)

    @property
    def max_packet(self) -> int:
        """Bytes of the largest packet that a session takes."""
        return MAX_PACKET

    def open(self, greeting: object, running: Callable[[], frozenset[str]]) -> CaptureSession:
        """Make a session to ``start``, and to ``close`` at the end.

        Args:
            greeting: what the browser asks for, as it came in JSON (``Hello``).
            running: names of the streams that the engine scores now.

        Raises:
            CaptureRefusedError: a greeting that breaks a rule, too many captures, or a name that
                is in use.
            WireError: an endpoint that is none.
        """
        hello = Hello.read(greeting)
        if len(self._names) >= self._limit:
            raise CaptureRefusedError(f"{self._limit} browsers capture already")
        # The engine still scores a stream for some seconds after its capture has ended.
        others = running() - frozenset(self._ended)
        if hello.stream in self._names or hello.stream in others:
            raise CaptureRefusedError(f"a stream called {hello.stream} is running: choose another")
        sender = way_in(self._settings, hello.stream, "browser", self._security)
        self._names.add(hello.stream)
        return CaptureSession(hello, self._settings, sender, lambda: self._release(hello.stream))

    def _release(self, stream: str) -> None:
        self._names.discard(stream)
        self._ended.append(stream)
