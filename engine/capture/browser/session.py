"""A browser's camera and microphone as a capture worker: its packets in, wire messages out.

A browser has no dependable face detector without a model from somewhere, and speech flags have to
mean the same whoever sends them: so the engine's own speech state machine, face tracker and
stamping are run here, in memory, in the process of the web server, which takes a ``CaptureDesk``
as an argument. A picture is decoded, its face is cut out, and it is gone; only the crop and the
sound go onto the wire, as from any capture worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.capture import CaptureError
from engine.capture.browser.packets import MAX_PACKET, PacketError, Picture, Sound, read_packet
from engine.capture.microphone import Block, SampleClock
from engine.capture.people import People
from engine.capture.route import WayIn, way_in
from engine.capture.stamps import NS_PER_S, Chunker, Stamper
from engine.capture.worker import Outbox
from engine.settings import STREAM_NAME_PATTERN, EngineSettings, SettingsError, load
from engine.wire.clock import OffsetEstimator, this_clock
from engine.wire.fields import WireError
from engine.wire.messages import SAMPLE_RATE_HZ, Video
from engine.wire.security import ClientSecurity
from engine.wire.sockets import IngestSender

MAX_SESSIONS = 4
MAX_REMEMBERED = 16
"""Names of ended captures, which may be taken up again at once."""
MAX_FAULTS = 50
"""Malformed packets after which a session is ended."""
MAX_PICTURES_HZ = 15.0
SOUND_SLACK = 1.25
"""Sound may come this much faster than real time, for a clock that runs fast."""
SETTLE_PACKETS = 8
"""First packets of sound, which come in a heap while the page starts: used for their time only."""
NS_PER_MS = 1_000_000


class CaptureRefusedError(WireError):
    """A capture that may not begin or go on; one line for the person in front of the browser."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a browser asks for."""

    stream: str
    sound: bool
    pictures: bool
    consent: bool
    """The person in front of the camera has agreed in the page's dialog."""

    @staticmethod
    def read(values: object) -> Hello:
        """Read what came as JSON.

        Raises:
            CaptureRefusedError: a field is missing or of the wrong type, or there is no consent.
        """
        fields = values if isinstance(values, dict) else {}
        stream = fields.get("stream")
        wishes = [fields.get(name) for name in ("sound", "pictures", "consent")]
        if not isinstance(stream, str) or not all(isinstance(wish, bool) for wish in wishes):
            raise CaptureRefusedError("expected stream, sound, pictures and consent")
        if not re.fullmatch(STREAM_NAME_PATTERN, stream):
            raise CaptureRefusedError("a name has 1 to 64 letters, digits, dots, dashes or _")
        hello = Hello(stream, *(wish is True for wish in wishes))
        if not hello.consent:
            raise CaptureRefusedError("nothing is captured without consent")
        if not (hello.sound or hello.pictures):
            raise CaptureRefusedError("neither the camera nor the microphone was chosen")
        return hello


class RateLimit:
    """A token bucket on a clock that is passed in."""

    def __init__(self, rate_hz: float, burst: float) -> None:
        self._rate_hz, self._burst = rate_hz, burst
        self._tokens = burst
        self._last_ns: int | None = None

    def allows(self, amount: float, now: int) -> bool:
        """Whether ``amount`` more may come now; it is then spent."""
        if self._last_ns is not None:
            earned = (now - self._last_ns) / NS_PER_S * self._rate_hz
            self._tokens = min(self._burst, self._tokens + earned)
        self._last_ns = now
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True


class CaptureSession:
    """One browser's capture; used by the server's event loop, pictures are read in a thread."""

    def __init__(
        self,
        hello: Hello,
        settings: EngineSettings,
        sender: WayIn,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """``released`` is called once when the session is closed."""
        self.hello = hello
        self._released = released
        self.counters: Counter[str] = Counter()
        self.faces = 0
        self.speaking = False
        self._sender = sender
        self._outbox = Outbox(sender, f"{hello.stream}.browser")
        self._stamper = Stamper(hello.stream, this_clock())
        self._sound = SampleClock(Chunker(settings, self._stamper), SAMPLE_RATE_HZ)
        self._sound_rate = RateLimit(SAMPLE_RATE_HZ * SOUND_SLACK, 2 * SAMPLE_RATE_HZ)
        self._picture_rate = RateLimit(MAX_PICTURES_HZ, MAX_PICTURES_HZ)
        self._period_ns = round(NS_PER_S / settings.capture.video_rate_hz)
        self._people = People(self._stamper, settings, self._period_ns)
        self._clock = OffsetEstimator()
        self._settling = SETTLE_PACKETS
        self._picture: tuple[int, bytes] | None = None
        self._arrived = asyncio.Event()

    @property
    def stream(self) -> str:
        """Name of the stream that it sends."""
        return self.hello.stream

    def take(self, data: bytes, now: int) -> None:
        """Take in a packet; what breaks a rule or a rate is counted and dropped.

        Raises:
            CaptureRefusedError: too many malformed packets.
            WireError: the engine refused the dashboard's key.
        """
        try:
            packet = read_packet(data)
        except PacketError as fault:
            self.fault(str(fault))
            return
        if isinstance(packet, Sound):
            self._take_sound(packet, now)
        else:
            self._take_picture(packet, now)

    def fault(self, reason: str) -> None:
        """Count something malformed.

        Raises:
            CaptureRefusedError: it was one too many.
        """
        self.counters["malformed"] += 1
        self._outbox.counters["malformed"] += 1
        if self.counters["malformed"] >= MAX_FAULTS:
            raise CaptureRefusedError(f"{MAX_FAULTS} malformed packets, the last one: {reason}")

    async def watch(self) -> None:
        """Read pictures, always the newest, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._picture is None:
                continue
            (t_ns, jpeg), self._picture = self._picture, None
            messages = await asyncio.to_thread(_look, self._people, jpeg, t_ns)
            if messages is None:
                self.fault("a picture that cannot be decoded")
                continue
            self.faces = messages[0].faces
            self.counters["pictures"] += 1
            for message in messages:
                self._outbox.emit(message)

    def start(self) -> None:
        """Tell the engine that the capture runs."""
        self._outbox.change("running", "a browser's camera and microphone")

    def tell(self) -> dict[str, int | bool]:
        """Send the worker's status; return what the browser's own page shows."""
        self._outbox.tell()
        return {
            "sent": self._sender.sent,
            "dropped": self._sender.dropped,
            "pictures": self.counters["pictures"],
            "refused": self.counters["malformed"] + self.counters["over_rate"],
            "skipped": self.counters["skipped"],
            "faces": self.faces,
            "speaking": self.speaking,
        }

    def close(self) -> None:
        """Say goodbye, close the socket and give the name back."""
        self._released()
        with contextlib.suppress(WireError):  # a refused key: there is nobody to say it to
            for message in self._people.end():
                self._outbox.emit(message)
        with contextlib.suppress(WireError):  # a refused key: there is nobody to say it to
            self._outbox.change("ended", "the browser's capture has ended")
        if isinstance(self._sender, IngestSender):
            # LINGER is 0: give the last word a moment to leave.
            self._sender.raw.linger = 200
        self._sender.close()

    def _take_sound(self, packet: Sound, now: int) -> None:
        if not self.hello.sound or not self._sound_rate.allows(len(packet.samples), now):
            self.counters["over_rate"] += 1
            return
        end_ns = self._stamp_ns(packet.t_end_ms, now)
        if self._settling:
            self._settling -= 1
            return
        start_ns = end_ns - len(packet.samples) * NS_PER_S // SAMPLE_RATE_HZ
        for chunk in self._sound.push(Block(start_ns, packet.samples, packet.lost_before)):
            self.speaking = any(chunk.speech)
            self._outbox.emit(chunk)

    def _stamp_ns(self, t_ms: float, arrived_ns: int) -> int:
        """Our time of a browser's time; never later than its packet's arrival."""
        t_ns = int(t_ms * NS_PER_MS)
        return t_ns + self._clock.observe(t_ns, arrived_ns)

    def _take_picture(self, packet: Picture, now: int) -> None:
        if not self.hello.pictures or not self._picture_rate.allows(1, now):
            self.counters["over_rate"] += 1
            return
        if self._picture is not None:
            self.counters["skipped"] += 1
        self._picture = (self._stamp_ns(packet.t_ms, now), packet.jpeg)
        self._arrived.set()


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
            SettingsError: settings that cannot be used.
            WireError: no usable keys.
        """
        self._settings = load(config) if ingest is None else load(config, ingest=ingest)
        self._security = None if keys_dir is None else ClientSecurity.read(keys_dir)
        self._limit = limit
        self._names: set[str] = set()
        self._ended: deque[str] = deque(maxlen=MAX_REMEMBERED)

    @property
    def ingest(self) -> str:
        """Where the captures are sent."""
        return self._settings.ingest

    @property
    def max_packet(self) -> int:
        """Bytes of the largest packet that a session takes."""
        return MAX_PACKET

    def open(self, greeting: object, running: Callable[[], frozenset[str]]) -> CaptureSession:
        """Begin a capture; ``close`` it at the end.

        Args:
            greeting: what the browser asks for, as it came in JSON (``Hello``).
            running: names of the streams that the engine scores now.

        Raises:
            CaptureRefusedError: a greeting that breaks a rule, too many captures, a name that is
                in use, or no face detector.
            WireError: an endpoint that is none.
        """
        hello = Hello.read(greeting)
        if len(self._names) >= self._limit:
            raise CaptureRefusedError(f"{self._limit} browsers capture already")
        # The engine goes on scoring a stream for some seconds after its capture has ended.
        others = running() - frozenset(self._ended)
        if hello.stream in self._names or hello.stream in others:
            raise CaptureRefusedError(f"a stream called {hello.stream} is running: choose another")
        sender = way_in(self._settings, hello.stream, "browser", self._security)
        try:
            session = CaptureSession(
                hello, self._settings, sender, lambda: self._release(hello.stream)
            )
        except CaptureError as error:
            sender.close()
            raise CaptureRefusedError(str(error)) from None
        self._names.add(hello.stream)
        return session

    def _release(self, stream: str) -> None:
        self._names.discard(stream)
        self._ended.append(stream)


def open_desk(ingest: str | None, keys_dir: Path | None, config: Path | None) -> CaptureDesk:
    """Make a desk whose errors are the caller's own kind.

    Raises:
        CaptureRefusedError: settings that cannot be used.
        WireError: no usable keys.
    """
    try:
        return CaptureDesk(ingest, keys_dir, config)
    except SettingsError as error:
        raise CaptureRefusedError(str(error)) from None


def _look(people: People, jpeg: bytes, t_ns: int) -> list[Video] | None:
    """Decode a picture and look at the faces in it; None where it cannot be decoded."""
    import cv2

    try:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if picture is None else people.look(np.asarray(picture, np.uint8), t_ns)
