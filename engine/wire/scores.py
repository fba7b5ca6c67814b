"""The way out: scores and status to every client (XPUB, SUB).

Completeness before freshness: each subscriber has its own queue, and a new one gets the last score
at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import zmq

from engine.wire.codec import decode, encode, repeated, topic
from engine.wire.fields import WireError
from engine.wire.messages import Score, Status
from engine.wire.order import Order
from engine.wire.peers import SUBSCRIPTIONS
from engine.wire.security import ClientSecurity, ConnectionWatch, ServerSecurity
from engine.wire.sockets import MAX_FRAME, MAX_REQUEST, BoundSocket, Socket, sent_ns

SCORE_QUEUE = 1000
MAX_REMEMBERED, MAX_REMEMBERED_BYTES = 4096, 8 * 1024 * 1024
"""Last messages kept for new subscribers; beyond it the longest silent topic is forgotten."""
EVENTS = 256
"""Subscriptions taken in one step; the next step takes the next ones."""
FEW = 8
"""Subscriptions that may wait: ZeroMQ reads on as long as more come, whatever the caller wants."""
SMALL_BUFFER = 16 * 1024
"""Bytes that the kernel holds of what a subscriber says: what is there is read before its end."""
CLIENT_QUEUE = 100_000
"""Messages that a slow client holds: so many that it does not stop reading either."""
REPEAT_S = 0.25
"""Between two repetitions for newcomers: those who are there already get them too."""
SCORE_TOPIC, STATUS_TOPIC = b"score/", b"status/"


class ScorePublisher(BoundSocket):
    """The way out (XPUB): a new subscriber gets the last score and status of its topics."""

    def __init__(
        self,
        endpoint: str | None = None,
        security: ServerSecurity | None = None,
        stamps: bool = True,
    ) -> None:
        """Bind to ``endpoint``; without one, ``connect`` to relays that pass the messages on.

        ``stamps`` False leaves the time of sending as it is: of a recording that is replayed.
        """
        super().__init__(zmq.XPUB, MAX_REQUEST)
        self._stamps = stamps
        self._last: dict[bytes, list[Any]] = {}
        self._last_bytes = 0
        self._wanted: set[bytes] = set()
        self._repeat_s = 0.0
        self._relays: set[str] = set()
        self.gave_up = False
        """Whether a subscriber outlasted the patience of ``wait_for_readers``."""
        self._zmq.sndhwm = SCORE_QUEUE
        self._zmq.rcvhwm = FEW
        self._zmq.rcvbuf = SMALL_BUFFER
        self._zmq.xpub_verboser = 1
        if endpoint is not None:
            self.listen(endpoint, SUBSCRIPTIONS, security)
        elif security is not None:
            security.as_client().apply(self._zmq)

    def connect(self, relays: Iterable[str]) -> None:
        """Send to these relays from now on, and to no other.

        Raises:
            WireError: an endpoint is none.
        """
        wanted = set(relays)
        for endpoint in self._relays - wanted:
            self._zmq.disconnect(endpoint)
        for endpoint in wanted - self._relays:
            self.connect_to(endpoint)
        self._relays = wanted

    def publish(self, message: Score | Status) -> None:
        """Send to everyone who subscribed; never waits, but see ``wait_for_readers``."""
        self.forward(encode(message, sent_ns(message) if self._stamps else None))

    def forward(self, frames: list[Any]) -> None:
        """Send frames as they are, as a relay does; ``publish`` makes them of a message."""
        name = bytes(frames[0])
        self._forget(name)
        self._last[name] = frames
        self._last_bytes += sum(map(len, frames))
        while len(self._last) > MAX_REMEMBERED or self._last_bytes > MAX_REMEMBERED_BYTES:
            self._forget(next(iter(self._last)))
        self._send(frames)

    def greet(self) -> int:
        """Serve new subscriptions; call it often. Returns how many there were.

        XPUB cannot send to one subscriber, so those who are there already get the repetition too
        and skip it. However many subscribe at once (all, after an engine's restart), a topic is
        repeated once in ``REPEAT_S``, or fifty clients would fill each other's queues.
        """
        greeted = 0
        for _ in range(EVENTS):
            try:
                event = self._zmq.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if event[:1] == b"\x01":
                greeted += 1
                if len(self._wanted) < EVENTS:
                    self._wanted.add(event[1:])
                else:
                    self._wanted = {b""}
        now_s = time.monotonic()
        if self._wanted and now_s >= self._repeat_s:
            prefixes, self._wanted = tuple(self._wanted), set()
            self._repeat_s = now_s + REPEAT_S
            for name, frames in list(self._last.items()):
                if name.startswith(prefixes):
                    self._send(repeated(frames))
        return greeted

    def forget(self, kind: str, stream: str) -> None:
        """Keep no last message of a stream that is gone."""
        self._forget(topic(kind, stream))

    def _forget(self, name: bytes) -> None:
        if (frames := self._last.pop(name, None)) is not None:
            self._last_bytes -= sum(map(len, frames))

    def _send(self, frames: list[Any]) -> None:
        try:
            self._zmq.send_multipart(frames)
        except zmq.Again:  # nobody got it
            self._zmq.setsockopt(zmq.XPUB_NODROP, 0)
            self.gave_up = True
            self._zmq.send_multipart(frames)

    def wait_for_readers(self, patience_ms: int) -> None:
        """From now on wait for a subscriber whose queue is full, instead of dropping.

        One that takes nothing for ``patience_ms`` ends that for good (``gave_up``): it must not
        hold up the others with every message. For a source that can wait, such as a recording;
        a live engine never does.
        """
        self._zmq.setsockopt(zmq.XPUB_NODROP, 1)
        self._zmq.sndtimeo = patience_ms

    def finish(self, patience_ms: int) -> None:
        """Close once everything queued is sent, at most ``patience_ms`` later.

        For a program's end: it ends the process's ZeroMQ context, and waits for its other sockets.
        """
        self._zmq.linger = patience_ms
        self.close()
        zmq.Context.instance().term()


class ScoreReceiver(Socket):
    """A client's end (SUB): scores and status, malformed ones counted."""

    def __init__(
        self,
        endpoint: str,
        streams: Iterable[str] = (),
        status: bool = True,
        security: ClientSecurity | None = None,
    ) -> None:
        """``endpoint`` may be several, with commas between them: relays that send the same.

        ``streams`` empty subscribes to all of them.
        """
        super().__init__(zmq.SUB, MAX_FRAME)
        self.rejected = 0
        endpoints = [part.strip() for part in endpoint.split(",")]
        self._order = Order(several=len(endpoints) > 1)
        self._zmq.rcvhwm = CLIENT_QUEUE
        if security is not None:
            security.apply(self._zmq)
        self._watch = ConnectionWatch(self._zmq, endpoint, keyed=security is not None)
        names = tuple(streams)
        for name in names:
            self._zmq.subscribe(topic("score", name))
        if not names:
            self._zmq.subscribe(SCORE_TOPIC)
        if status:
            self._zmq.subscribe(STATUS_TOPIC)
        for part in endpoints:
            self.connect_to(part)

    def receive(self, timeout_ms: int | None = None) -> Score | Status | None:
        """Wait for the next message; None after ``timeout_ms``.

        Raises:
            WireError: the server refused this client's key.
        """
        self._watch.check()
        if not self._zmq.poll(timeout_ms):
            self._watch.check()
            return None
        return next(iter(self.receive_all(1)), None)

    def receive_all(self, limit: int = 10_000) -> list[Score | Status]:
        """Every message that has arrived; never waits."""
        found: list[Score | Status] = []
        while len(found) < limit:
            try:
                frames = self._zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                message = decode(frames)
            except WireError:
                self.rejected += 1
                continue
            if isinstance(message, Score | Status) and self._order.admits(message):
                found.append(message)
        return found

    def close(self) -> None:
        """Close the socket and its monitor."""
        self._watch.close()
        super().close()

    def pop_changes(self) -> list[bool]:
        """Connections made (True) and lost (False) since the last call, as ``receive`` saw them."""
        return self._watch.pop_changes()
