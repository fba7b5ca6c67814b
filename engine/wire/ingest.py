"""The way in: captures to the inference worker (PUSH, PULL).

Freshness before completeness: a sender drops and counts when nobody reads, the receiver reads until
empty.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import zmq

from engine.wire.codec import decode, encode
from engine.wire.fields import WireError
from engine.wire.gate import Gate, key_of
from engine.wire.messages import Message
from engine.wire.peers import MESSAGES, descriptor_of
from engine.wire.security import ClientSecurity, ServerSecurity
from engine.wire.sockets import (
    MAX_FRAME,
    MAX_REQUEST,
    UNLIMITED,
    BoundSocket,
    Socket,
    sent_ns,
)

INGEST_QUEUE = 256
"""Messages a sender queues for a slow worker: some seconds, then the newest are dropped."""
RECEIVE_S = 0.025
"""Longest time that one step spends on what comes in."""


class IngestSender(Socket):
    """A capture worker's or client's way in (PUSH): sends now or drops and counts."""

    def __init__(self, endpoint: str, security: ClientSecurity | None = None) -> None:
        super().__init__(zmq.PUSH, MAX_REQUEST)
        self.dropped = 0
        self.sent = 0
        self.counters: Counter[str] = Counter()
        # Without IMMEDIATE a message waits for a peer that is not there and arrives stale.
        self._zmq.immediate = 1
        self._zmq.sndhwm = INGEST_QUEUE
        self._watch = security.watch(self._zmq, endpoint) if security is not None else None
        self.connect_to(endpoint)

    def send(self, message: Message) -> bool:
        """Send without waiting; False (and counted) where no worker takes it.

        Raises:
            WireError: the worker refused this client's key.
        """
        if self._watch is not None:
            self._watch.check()
        frames = encode(message, sent_ns(message))
        try:
            self._zmq.send_multipart(frames, zmq.NOBLOCK, copy=True)
        except zmq.Again:
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        """Close the socket and its monitor."""
        if self._watch is not None:
            self._watch.close()
        super().close()


class IngestReceiver(BoundSocket):
    """The inference worker's way in (PULL): everything there is, hostile messages counted."""

    def __init__(
        self, endpoint: str, security: ServerSecurity | None = None, gate: Gate | None = None
    ) -> None:
        """``gate`` says which client may send which stream; without it, who is in may send all."""
        # Somewhat too large a frame is counted as what it is; a huge one ends its connection.
        super().__init__(zmq.PULL, 4 * MAX_FRAME)
        self.rejected: Counter[str] = Counter()
        self.last_fault = ""
        self._gate = gate
        self._zmq.rcvhwm = UNLIMITED
        self.listen(endpoint, MESSAGES, security)

    def receive_all(self, limit: int = 4096, seconds: float = RECEIVE_S) -> list[Message]:
        """Every message that has arrived, as ``receive`` gives them, at most ``limit``."""
        return list(islice(self.receive(seconds), limit))

    def receive(self, seconds: float = RECEIVE_S) -> Iterator[Message]:
        """The messages that have arrived, one by one; never waits, never raises.

        A flood is taken for ``seconds`` at most, what the caller does with it included, in turns
        with the other peers.
        """
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if (taken := self.take()) is None:
                break
            first, frames = taken
            try:
                message = decode(frames)
            except WireError as fault:
                self._refuse(first, str(fault))
                continue
            stream = message.envelope.stream
            if self._gate is None or self._gate.allows(key_of(first), stream):
                yield message
            else:
                self._refuse(first, "stream: this key has not been given a place for it")

    def _refuse(self, first: zmq.Frame, fault: str) -> None:
        self.last_fault = fault
        place = fault.partition(":")[0].partition("[")[0]
        self.rejected[".".join(place.split(".")[:2])] += 1
        self.note_malformed(descriptor_of(first), fault)
