"""Sockets of the wire: thin shells around ZeroMQ that speak in messages.

Each is owned by one thread. Freshness before completeness on the way in: a sender drops and
counts when nobody reads, a receiver reads until empty. Completeness on the way out: every
subscriber has its own queue, and a new one gets the last score at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import msgpack
import zmq

from engine.wire.clock import now_ns, this_clock
from engine.wire.codec import MAX_BUFFER, MAX_HEADER, decode, encode, repeated, topic
from engine.wire.fields import WireError
from engine.wire.gate import Gate, key_of
from engine.wire.messages import Message, Score, Status
from engine.wire.order import Order
from engine.wire.peers import MESSAGES, REQUESTS, SUBSCRIPTIONS, Budget, PeerWatch, descriptor_of
from engine.wire.security import ClientSecurity, ConnectionWatch, ServerSecurity

INGEST_QUEUE = 256
"""Messages a sender queues for a slow worker: some seconds, then the newest are dropped."""
SCORE_QUEUE = 1000
MAX_REMEMBERED, MAX_REMEMBERED_BYTES = 4096, 8 * 1024 * 1024
"""Last messages kept for new subscribers; beyond it the longest silent topic is forgotten."""
MAX_REQUEST = 4096
"""Bytes of a subscription, and of a control request."""
MAX_FRAME = max(MAX_BUFFER, MAX_HEADER)
EVENTS, REQUESTS_AT_ONCE = 256, 32
"""Subscriptions, and requests, taken in one step; the next step takes the next ones."""
RECEIVE_S = 0.025
"""Longest time that one step spends on what comes in."""
FEW = 8
"""Subscriptions that may wait: ZeroMQ reads on as long as more come, whatever the caller wants."""
SMALL_BUFFER = 16 * 1024
"""Bytes that the kernel holds of what a subscriber says: what is there is read before its end."""
UNLIMITED = 0
"""Messages that a bound socket may hold back: the peers' budgets of bytes are the limit. A full
queue would stop reading, and libzmq 4.3.5 aborts the process where a connection that it does not
read breaks just before a heartbeat."""
CLIENT_QUEUE = 100_000
"""Messages that a slow client holds: so many that it does not stop reading either."""
REPEAT_S = 0.25
"""Between two repetitions for newcomers: those who are there already get them too."""
MAX_MALFORMED = 100
"""Malformed messages after which a connection is cut."""
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 500, 2_000
"""A connection without a sign of life for this long is given up and made again. It is ZeroMQ's own
thread that answers, so a peer that computes is not cut, nor one behind a link of some 300 ms."""
CONNECT_TIMEOUT_MS, HANDSHAKE_MS = 1_000, 3_000
SCORE_TOPIC, STATUS_TOPIC = b"score/", b"status/"


class _Socket:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _bind(self, endpoint: str) -> None:
        # Who connects sends the heartbeats, and says how soon to miss them: enough for both sides,
        # and a timer less for a connection that is not being read (see UNLIMITED).
        self._zmq.setsockopt(zmq.HEARTBEAT_IVL, 0)
        try:
            self._zmq.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            reason = "in use by another program" if error.errno == zmq.EADDRINUSE else str(error)
            raise WireError(f"cannot listen on {endpoint}: {reason}") from None

    def _connect(self, endpoint: str) -> None:
        try:
            self._zmq.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(f"cannot connect to {endpoint}: {error}") from None


def _sent_ns(message: Message) -> int | None:
    """Now, for a message of this host's clock: its sending is stamped here and nowhere else."""
    return now_ns() if message.envelope.clock == this_clock() else None


class IngestSender(_Socket):
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
        self._connect(endpoint)

    def send(self, message: Message) -> bool:
        """Send without waiting; False (and counted) where no worker takes it.

        Raises:
            WireError: the worker refused this client's key.
        """
        if self._watch is not None:
            self._watch.check()
        frames = encode(message, _sent_ns(message))
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


class _Bound(_Socket):
    """A socket that strangers reach: their connections are watched, and their keys checked."""

    _peers: PeerWatch | None = None
    _security: ServerSecurity | None = None

    @property
    def cut(self) -> int:
        """Connections that were cut for what they brought."""
        return 0 if self._peers is None else self._peers.cut

    def _listen(self, endpoint: str, budget: Budget, security: ServerSecurity | None) -> None:
        self._peers = PeerWatch(self._zmq, budget)
        if security is not None:
            self._security = security
            security.apply(self._zmq)
            security.standing.append(self._peers.drop_all)
        self._bind(endpoint)
        self._peers.start()

    def close(self) -> None:
        """Close at once; what is still queued is dropped."""
        if self._peers is not None:
            if self._security is not None and self._peers.drop_all in self._security.standing:
                self._security.standing.remove(self._peers.drop_all)
            self._peers.close()
        super().close()


class IngestReceiver(_Bound):
    """The inference worker's way in (PULL): everything there is, hostile messages counted."""

    def __init__(
        self, endpoint: str, security: ServerSecurity | None = None, gate: Gate | None = None
    ) -> None:
        """``gate`` says which client may send which stream; without it, who is in may send all."""
        # Somewhat too large a frame is counted as what it is; a huge one ends its connection.
        super().__init__(zmq.PULL, 4 * MAX_FRAME)
        self.rejected: Counter[str] = Counter()
        self.last_fault = ""
        self._malformed: Counter[int] = Counter()
        self._gate = gate
        self._zmq.rcvhwm = UNLIMITED
        self._listen(endpoint, MESSAGES, security)

    def receive_all(self, limit: int = 4096, seconds: float = RECEIVE_S) -> list[Message]:
        """Every message that has arrived, at most ``limit``; never waits, never raises.

        A flood is taken for ``seconds`` at most, in turns with the other peers.
        """
        messages: list[Message] = []
        end_s = time.monotonic() + seconds
        while len(messages) < limit and time.monotonic() < end_s:
            try:
                first = self._zmq.recv(zmq.NOBLOCK, copy=False)
                frames = [first.bytes, *(self._zmq.recv_multipart() if first.more else ())]
            except zmq.Again:
                break
            sender = descriptor_of(first)
            if self._peers is not None:
                self._peers.took(sender, sum(map(len, frames)))
            try:
                message = decode(frames)
            except WireError as fault:
                self._refuse(sender, str(fault))
                continue
            stream = message.envelope.stream
            if self._gate is None or self._gate.allows(key_of(first), stream):
                messages.append(message)
            else:
                self._refuse(sender, "stream: this key has not been given a place for it")
        return messages

    def _refuse(self, sender: int, fault: str) -> None:
        self.last_fault = fault
        place = fault.partition(":")[0].partition("[")[0]
        self.rejected[".".join(place.split(".")[:2])] += 1
        self._malformed[sender] += 1
        if self._peers is not None and self._malformed[sender] >= MAX_MALFORMED:
            del self._malformed[sender]
            self._peers.drop(sender, f"sent {MAX_MALFORMED} malformed messages: {fault}")


class ScorePublisher(_Bound):
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
        """Whether a subscriber made ``wait_for_readers`` lose its patience."""
        self._zmq.sndhwm = SCORE_QUEUE
        self._zmq.rcvhwm = FEW
        self._zmq.rcvbuf = SMALL_BUFFER
        self._zmq.xpub_verboser = 1
        if endpoint is not None:
            self._listen(endpoint, SUBSCRIPTIONS, security)
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
            self._connect(endpoint)
        self._relays = wanted

    def publish(self, message: Score | Status) -> None:
        """Send to everyone who subscribed; never waits, but see ``wait_for_readers``."""
        self.forward(encode(message, _sent_ns(message) if self._stamps else None))

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


class ScoreReceiver(_Socket):
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
            self._connect(part)

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


class ControlServer(_Bound):
    """Answers control requests (REP): one map in, one map out."""

    def __init__(self, endpoint: str, security: ServerSecurity | None = None) -> None:
        super().__init__(zmq.REP, MAX_REQUEST)
        self._zmq.rcvhwm = UNLIMITED
        self._zmq.sndhwm = REQUESTS_AT_ONCE
        self._listen(endpoint, REQUESTS, security)

    def serve(self, answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> int:
        """Answer the requests that have arrived, ``REQUESTS_AT_ONCE`` at most; returns how many.

        ``answer`` raises WireError for a request that it cannot take: the client gets its text.
        """
        served = 0
        while served < REQUESTS_AT_ONCE:
            try:
                frames = self._zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                if len(frames) != 1:
                    raise WireError(f"request: expected one frame, got {len(frames)}")
                reply = {"ok": True, **answer(_unpack(frames[0]))}
            except WireError as fault:
                reply = {"ok": False, "error": str(fault)}
            self._zmq.send(msgpack.packb(reply))
            served += 1
        return served


class ControlClient:
    """Sends control requests (REQ); a socket that lost its reply is made anew."""

    def __init__(
        self, endpoint: str, timeout_ms: int = 2_000, security: ClientSecurity | None = None
    ) -> None:
        self._endpoint, self._timeout_ms, self._security = endpoint, timeout_ms, security
        self._socket: _Socket | None = None

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the reply's map.

        Raises:
            WireError: no reply in time, or the worker refused; says which.
        """
        if self._socket is None:
            self._socket = _Socket(zmq.REQ, MAX_FRAME)
            if self._security is not None:
                self._security.apply(self._socket.raw)
            self._socket._connect(self._endpoint)
        raw = self._socket.raw
        raw.send(msgpack.packb({"command": command, **arguments}))
        if not raw.poll(self._timeout_ms):
            self.close()
            raise WireError(f"no reply from {self._endpoint} within {self._timeout_ms} ms")
        reply = dict(_unpack(raw.recv()))
        if reply.pop("ok", False) is not True:
            raise WireError(f"{command}: {reply.get('error', 'refused')}")
        return reply

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unpack(frame: bytes) -> Mapping[str, Any]:
    if len(frame) > MAX_HEADER:
        raise WireError(f"request: expected at most {MAX_HEADER} bytes, got {len(frame)}")
    try:
        values = msgpack.unpackb(frame, strict_map_key=True)
    except Exception as error:  # msgpack raises a dozen kinds
        raise WireError(f"request: not msgpack ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise WireError(f"request: expected a map, got {type(values).__name__}")
    return values
