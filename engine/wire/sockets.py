"""What every socket of the wire has in common: limits, heartbeats, LINGER 0, and who may connect.

Each is owned by one thread. What they carry has a module each: ``ingest`` (the way in), ``scores``
(the way out) and ``control``.
"""

from __future__ import annotations

import zmq

from engine.wire.clock import now_ns, this_clock
from engine.wire.closing import Closing
from engine.wire.codec import MAX_BUFFER, MAX_HEADER
from engine.wire.fields import WireError
from engine.wire.messages import Message
from engine.wire.peers import Budget, PeerWatch, descriptor_of
from engine.wire.security import ServerSecurity

MAX_REQUEST = 4096
"""Bytes of a subscription, and of a control request."""
MAX_FRAME = max(MAX_BUFFER, MAX_HEADER)
UNLIMITED = 0
"""Messages that a bound socket may hold back: the peers' budgets of bytes are the limit. A full
queue would stop reading, and libzmq 4.3.5 aborts the process where a connection that it does not
read breaks just before a heartbeat."""
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 500, 2_000
"""A connection without a sign of life for this long is given up and made again. It is ZeroMQ's own
thread that answers, so a peer that computes is not cut, nor one behind a link of some 300 ms."""
CONNECT_TIMEOUT_MS, HANDSHAKE_MS = 1_000, 3_000


class Socket(Closing):
    """A socket with its limits, heartbeats and LINGER 0; a context manager.

    Args:
        kind: ZeroMQ's kind of socket.
        max_frame: bytes of one frame; who sends more is cut off.
    """

    def __init__(self, kind: int, max_frame: int = MAX_FRAME) -> None:
        self._zmq: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        self._zmq.setsockopt(zmq.LINGER, 0)
        self._zmq.setsockopt(zmq.MAXMSGSIZE, max_frame)
        self._zmq.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._zmq.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        self._zmq.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
        self._zmq.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
        self._zmq.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)

    @property
    def raw(self) -> zmq.Socket[bytes]:
        """The ZeroMQ socket, for pollers."""
        return self._zmq

    @property
    def endpoint(self) -> str:
        """Where a bound socket really is, its port number filled in."""
        return bytes(self._zmq.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def close(self) -> None:
        """Close at once; what is still queued is dropped."""
        self._zmq.close()

    def bind(self, endpoint: str) -> None:
        """Bind.

        Raises:
            WireError: the endpoint is none, or in use.
        """
        # Who connects sends the heartbeats, and says how soon to miss them: enough for both sides,
        # and a timer less for a connection that is not being read (see UNLIMITED).
        self._zmq.setsockopt(zmq.HEARTBEAT_IVL, 0)
        try:
            self._zmq.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            reason = "in use by another program" if error.errno == zmq.EADDRINUSE else str(error)
            raise WireError(f"cannot listen on {endpoint}: {reason}") from None

    def connect_to(self, endpoint: str) -> None:
        """Connect.

        Raises:
            WireError: the endpoint is none.
        """
        try:
            self._zmq.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(f"cannot connect to {endpoint}: {error}") from None


class BoundSocket(Socket):
    """A socket that anybody may reach: connections are watched, and keys checked."""

    _peers: PeerWatch | None = None
    _security: ServerSecurity | None = None

    @property
    def cut(self) -> int:
        """Connections that were cut for what they brought."""
        return 0 if self._peers is None else self._peers.cut

    def listen(self, endpoint: str, budget: Budget, security: ServerSecurity | None) -> None:
        """Bind, and watch who connects.

        Raises:
            WireError: the endpoint is none, or in use.
        """
        self._peers = PeerWatch(self._zmq, budget)
        if security is not None:
            self._security = security
            security.apply(self._zmq)
            security.standing.append(self._peers.drop_all)
        self.bind(endpoint)
        self._peers.start()

    def take(self) -> tuple[zmq.Frame, list[bytes]] | None:
        """The next message that has arrived: its first frame (it knows its sender), and its bytes.

        None where nothing has arrived. The sender's budget gets the bytes back.
        """
        try:
            first = self._zmq.recv(zmq.NOBLOCK, copy=False)
            frames = [first.bytes, *(self._zmq.recv_multipart() if first.more else ())]
        except zmq.Again:
            return None
        if self._peers is not None:
            self._peers.took(descriptor_of(first), sum(map(len, frames)))
        return first, frames

    def note_malformed(self, sender: int, fault: str = "") -> None:
        """Count a malformed message of a connection: after ``MAX_MALFORMED`` it is cut."""
        if self._peers is not None:
            self._peers.note_malformed(sender, fault)

    def close(self) -> None:
        """Close at once; what is still queued is dropped."""
        if self._peers is not None:
            if self._security is not None and self._peers.drop_all in self._security.standing:
                self._security.standing.remove(self._peers.drop_all)
            self._peers.close()
        super().close()


def sent_ns(message: Message) -> int | None:
    """Now, for a message of this host's clock: its sending is stamped here and nowhere else."""
    return now_ns() if message.envelope.clock == this_clock() else None
