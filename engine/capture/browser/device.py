"""A browser's microphone and camera as one device of the capture loop.

A browser has no dependable face detector without a model from somewhere, and speech flags have to
mean the same whoever sends them: so its sound and pictures pass the engine's own speech detection,
face tracker and stamping. A picture is decoded, its face is cut out, and it is dropped.
"""

from __future__ import annotations

import threading
from collections import Counter, deque

import numpy as np

from engine.capture.browser.hello import CaptureRefusedError, Hello
from engine.capture.browser.packets import PacketError, Picture, Sound, read_packet
from engine.capture.microphone import Block, SampleClock
from engine.capture.people import People
from engine.capture.stamps import NS_PER_S, Chunker, Stamper
from engine.settings import EngineSettings
from engine.wire.clock import OffsetEstimator, this_clock
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Video

MAX_FAULTS = 50
"""Malformed packets after which a capture is ended."""
MAX_PICTURES_HZ = 15.0
SOUND_SLACK = 1.25
"""Sound may come this much faster than real time, for a clock that runs fast."""
SETTLE_PACKETS = 8
"""First packets of sound, which come in a heap while the page starts: used for their time only."""
MAX_WAITING = 128
"""Packets of sound that wait for the loop, some 6 s."""
NS_PER_MS = 1_000_000


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


class BrowserDevice:
    """Takes packets from the web server's thread, and is read by the capture loop's.

    Args:
        hello: what the browser may send, and under which name.
        settings: chunks, speech and faces.
    """

    def __init__(self, hello: Hello, settings: EngineSettings) -> None:
        self._hello, self._settings = hello, settings
        self.counters: Counter[str] = Counter()
        """``pictures`` that were looked at, those ``skipped`` for newer ones, packets that were
        ``malformed`` or ``over_rate``."""
        self.faces = 0
        self.speaking = False
        self._clock = OffsetEstimator()
        self._sound_rate = RateLimit(SAMPLE_RATE_HZ * SOUND_SLACK, 2 * SAMPLE_RATE_HZ)
        self._picture_rate = RateLimit(MAX_PICTURES_HZ, MAX_PICTURES_HZ)
        self._settling = SETTLE_PACKETS
        self._arrived = threading.Condition()
        self._blocks: deque[Block] = deque(maxlen=MAX_WAITING)
        self._picture: tuple[int, bytes] | None = None
        self._ended = False
        self._sound: SampleClock | None = None
        self._people: People | None = None

    def push(self, data: bytes, now: int) -> None:
        """Take in a packet that arrived ``now``; one that breaks a rule or a rate is dropped.

        Raises:
            CaptureRefusedError: too many malformed packets.
        """
        try:
            packet = read_packet(data)
        except PacketError as fault:
            self.fault(str(fault))
            return
        if isinstance(packet, Sound):
            self._push_sound(packet, now)
        else:
            self._push_picture(packet, now)

    def fault(self, reason: str) -> None:
        """Count something malformed.

        Raises:
            CaptureRefusedError: it was one too many.
        """
        self.counters["malformed"] += 1
        if self.counters["malformed"] >= MAX_FAULTS:
            raise CaptureRefusedError(f"{MAX_FAULTS} malformed packets, the last one: {reason}")

    def end(self) -> None:
        """Say that the browser sends no more; what waits is still read, but for a picture."""
        with self._arrived:
            self._ended = True
            self._picture = None
            self._arrived.notify()

    def open(self) -> None:
        """Make the speech detector and the face tracker ready."""
        stamper = Stamper(self._hello.stream, this_clock())
        self._sound = SampleClock(Chunker(self._settings, stamper), SAMPLE_RATE_HZ)
        period_ns = round(NS_PER_S / self._settings.capture.video_rate_hz)
        self._people = People(stamper, self._settings, period_ns)

    def read(self, timeout_s: float) -> list[Audio] | list[Video] | None:
        """The chunks of the sound that waits; where none does, the faces of the newest picture.

        Raises:
            CaptureRefusedError: too many pictures that cannot be decoded.
        """
        with self._arrived:
            if not (self._blocks or self._picture or self._ended):
                self._arrived.wait(timeout_s)
            if self._blocks:
                blocks, picture = list(self._blocks), None
                self._blocks.clear()
            else:
                blocks, picture, self._picture = [], self._picture, None
                if picture is None:
                    return None if self._ended else []
        return self._hear(blocks) if picture is None else self._look(*picture)

    def close(self) -> list[Video]:
        """End what the face tracker follows."""
        people, self._people = self._people, None
        return [] if people is None else people.end()

    def _push_sound(self, packet: Sound, now: int) -> None:
        if not self._hello.sound or not self._sound_rate.allows(len(packet.samples), now):
            self.counters["over_rate"] += 1
            return
        end_ns = self._stamp_ns(packet.t_end_ms, now)
        if self._settling:
            self._settling -= 1
            return
        start_ns = end_ns - len(packet.samples) * NS_PER_S // SAMPLE_RATE_HZ
        with self._arrived:
            self.counters["skipped"] += len(self._blocks) == MAX_WAITING
            self._blocks.append(Block(start_ns, packet.samples, packet.lost_before))
            self._arrived.notify()

    def _push_picture(self, packet: Picture, now: int) -> None:
        if not self._hello.pictures or not self._picture_rate.allows(1, now):
            self.counters["over_rate"] += 1
            return
        with self._arrived:
            self.counters["skipped"] += self._picture is not None
            self._picture = (self._stamp_ns(packet.t_ms, now), packet.jpeg)
            self._arrived.notify()

    def _stamp_ns(self, t_ms: float, arrived_ns: int) -> int:
        """Our time of a browser's time; never later than its packet's arrival."""
        t_ns = int(t_ms * NS_PER_MS)
        return t_ns + self._clock.observe(t_ns, arrived_ns)

    def _hear(self, blocks: list[Block]) -> list[Audio]:
        assert self._sound is not None
        chunks = [chunk for block in blocks for chunk in self._sound.push(block)]
        if chunks:
            self.speaking = any(chunks[-1].speech)
        return chunks

    def _look(self, t_ns: int, jpeg: bytes) -> list[Video]:
        import cv2

        assert self._people is not None
        try:
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            picture = None
        if picture is None:
            self.fault("a picture that cannot be decoded")
            return []
        messages = self._people.look(np.asarray(picture, np.uint8), t_ns)
        self.faces = messages[0].faces
        self.counters["pictures"] += 1
        return messages
