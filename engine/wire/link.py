"""The sockets between the directory and those who ask it: one ROUTER, a DEALER at each of them.

What is for nobody who is there is dropped: every message here is repeated, or asked for again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass

import zmq

from engine.wire.fields import WireError
from engine.wire.gate import key_of
from engine.wire.membership import (
    MAX_BYTES,
    Inbound,
    Outbound,
    pack,
    unpack_inbound,
    unpack_outbound,
)
from engine.wire.peers import DIRECTORY_MESSAGES, descriptor_of
from engine.wire.security import ClientSecurity, ServerSecurity
from engine.wire.sockets import UNLIMITED, BoundSocket, Socket

log = logging.getLogger(__name__)

HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 500, 1_500
"""A peer that stops answering is given up after this: a stopped process still holds its sockets."""
QUEUE = 1_000
AWAY_S = 5.0
"""A directory that takes nothing for so long is logged; one that restarts is back sooner."""


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """Let the socket notice within 1.5 s that its peer hangs."""
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 500


@dataclass(frozen=True, slots=True)
class Received:
    """A message to the directory."""

    sender: bytes
    """The connection it came by; answers go there."""
    key: str
    """The sender's public key (Z85); empty without CURVE."""
    message: Inbound


class DirectorySocket(BoundSocket):
    """The directory's end: reads everything there is, hostile messages counted."""

    def __init__(self, endpoint: str, security: ServerSecurity | None = None) -> None:
        super().__init__(zmq.ROUTER, MAX_BYTES)
        self.rejected: Counter[str] = Counter()
        self._zmq.rcvhwm = UNLIMITED
        self._zmq.sndhwm = QUEUE
        self.listen(endpoint, DIRECTORY_MESSAGES, security)

    def receive_all(self, limit: int = 1_000) -> list[Received]:
        """Every message that has arrived, at most ``limit``; never waits, never raises."""
        messages: list[Received] = []
        for _ in range(limit):
            try:
                frames = self._zmq.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            if len(frames) != 2:
                self._refuse("frames", descriptor_of(frames[-1]))
                continue
            try:
                message = unpack_inbound(frames[1].bytes)
            except WireError:
                self._refuse("messages_malformed", descriptor_of(frames[1]))
                continue
            messages.append(Received(frames[0].bytes, key_of(frames[1]), message))
        return messages

    def _refuse(self, why: str, sender: int) -> None:
        self.rejected[why] += 1
        self.note_malformed(sender)

    def send(self, receiver: bytes, message: Outbound) -> None:
        """Send to one of the connections; nothing happens where it is gone."""
        try:
            self._zmq.send_multipart([receiver, pack(message)], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.rejected["answers_undelivered"] += 1


class DirectoryLink(Socket):
    """The other end: sends now or not at all, and reads what the directory says."""

    def __init__(self, endpoint: str, security: ClientSecurity | None = None) -> None:
        super().__init__(zmq.DEALER)
        self.rejected = 0
        self._endpoint = endpoint
        self._heard_s = time.monotonic()
        self._is_away = False
        # Without IMMEDIATE a message waits for a directory that is not there and arrives stale.
        self._zmq.immediate = 1
        self._zmq.sndhwm = QUEUE
        self._zmq.maxmsgsize = MAX_BYTES
        keep_alive(self._zmq)
        if security is not None:
            security.apply(self._zmq)
        self.connect_to(endpoint)

    def send(self, message: Inbound) -> bool:
        """Send without waiting; False where the directory does not take it.

        The log says once when no directory has taken a message for ``AWAY_S``.
        """
        now_s = time.monotonic()
        try:
            self._zmq.send(pack(message), zmq.NOBLOCK)
        except zmq.Again:
            if not self._is_away and now_s - self._heard_s >= AWAY_S:
                log.warning("no directory heard at %s for %.0f s", self._endpoint, AWAY_S)
                self._is_away = True
            return False
        if self._is_away:
            log.warning("the directory at %s is there", self._endpoint)
            self._is_away = False
        self._heard_s = now_s
        return True

    def receive_all(self) -> list[Outbound]:
        """Everything that has arrived; never waits."""
        found: list[Outbound] = []
        while True:
            try:
                frames = self._zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return found
            try:
                found.append(unpack_outbound(frames[-1]))
            except WireError:
                self.rejected += 1

    def ask(self, message: Inbound, timeout_ms: int) -> Outbound:
        """Send, waiting for the directory to be there, and wait for its answer.

        Raises:
            WireError: there is no answer in time.
        """
        self._zmq.sndtimeo = timeout_ms
        where = f"{self._endpoint} within {timeout_ms} ms"
        try:
            self._zmq.send(pack(message))
        except zmq.Again:
            raise WireError(f"no directory heard at {where}") from None
        if not self._zmq.poll(timeout_ms):
            raise WireError(f"no answer from the directory at {where}")
        return unpack_outbound(self._zmq.recv_multipart()[-1])
