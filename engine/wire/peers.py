"""What a peer of a bound socket may use up: the kernel counts bytes, connection by connection.

ZeroMQ's own limits count messages: a message of endless parts is not one yet, subscriptions have
no limit at all, and a queue of 1000 may hold 1 GB. The kernel knows how many bytes a connection
has brought (``TCP_INFO``), so a thread compares that with a budget, and cuts the connection of
a peer that is beyond it. ZeroMQ then frees what it kept for it. An honest peer connects again.

Linux and ``tcp://`` only; of an ``ipc://`` socket its directory's permissions decide who may come.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

log = logging.getLogger(__name__)

LOOK_S = 0.05
MAX_MALFORMED = 100
"""Malformed messages after which a connection is cut."""
TCP_INFO, INFO_SIZE, RECEIVED_AT = 11, 136, 128
"""Linux: where ``tcp_info`` holds ``tcpi_bytes_received``."""
SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""Linux: a packet filter of one instruction, "keep 0 bytes"."""
KB, MB = 1024, 1024 * 1024
NAMES = {
    int(zmq.XPUB): "scores",
    int(zmq.PULL): "ingest",
    int(zmq.REP): "control",
    int(zmq.ROUTER): "the directory",
    int(zmq.XSUB): "a relay's intake",
}
EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that one connection may bring.

    ``burst`` at once and ``rate_hz`` bytes a second in the long run; what the application has taken
    (``PeerWatch.took``) is given back, so that with a rate of 0 the budget is one of bytes waiting.
    """

    burst: int
    rate_hz: float = 0.0


SUBSCRIPTIONS = Budget(128 * KB, 4 * KB)
"""A subscription of one stream takes some 80 bytes, a heartbeat 20."""
REQUESTS = Budget(256 * KB, 32 * KB)
DIRECTORY_MESSAGES = Budget(4 * MB, 512 * KB)
"""To a directory: four beats a second of a worker with 1000 streams are some 200 KB, a capture's
claims 150 bytes."""
MESSAGES = Budget(24 * MB)
"""Of messages that wait or are not complete: half a second of 160 people with faces."""


@dataclass(slots=True)
class _Peer:
    since_s: float
    address: tuple[object, ...]
    taken: int = 0


class PeerWatch:
    """Watches the connections of a socket from a thread of its own.

    Make it before the socket is bound; the socket's owner starts and closes it.
    """

    def __init__(
        self,
        watched: zmq.Socket[bytes],
        budget: Budget,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cut = 0
        """Connections that were cut for what they did."""
        self._watched, self._budget, self._now_s = watched, budget, now_s
        self._peers: dict[int, _Peer] = {}
        self._malformed: Counter[int] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        address = f"inproc://peers-{id(self)}"
        kind = int(watched.getsockopt(zmq.TYPE))
        self._name = NAMES[kind]
        watched.monitor(address, EVENTS)
        self._monitor: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)  # a full monitor would stop ZeroMQ's own thread
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(address)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def took(self, descriptor: int, size: int) -> None:
        """Note that the application has taken ``size`` bytes of a connection."""
        peer = self._peers.get(descriptor)
        if peer is not None:
            peer.taken += size

    def note_malformed(self, descriptor: int, fault: str = "") -> None:
        """Count a malformed message of a connection: after ``MAX_MALFORMED`` it is cut."""
        self._malformed[descriptor] += 1
        if self._malformed[descriptor] >= MAX_MALFORMED:
            self._malformed.pop(descriptor, None)  # the watch's own thread may have been first
            last = f": {fault}" if fault else ""
            self.drop(descriptor, f"sent {MAX_MALFORMED} malformed messages{last}")

    def drop(self, descriptor: int, why: str) -> None:
        """Cut one connection."""
        peer = self._peers.pop(descriptor, None)
        if peer is not None and _shut_down(descriptor, peer):
            self.cut += 1
            log.warning("cut a peer of %s that %s", self._name, why)

    def drop_all(self) -> None:
        """Cut every connection, uncounted: peers that are still allowed connect again."""
        for descriptor, peer in list(self._peers.items()):
            _shut_down(descriptor, peer)

    def close(self) -> None:
        """Stop watching; before the socket is closed."""
        if self._monitor.closed:
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._monitor.close(0)

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        now_s = self._now_s()
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            descriptor = int(event["value"])
            if event["event"] == zmq.EVENT_ACCEPTED:
                if (address := _peer_of(descriptor)) is not None:
                    self._peers[descriptor] = _Peer(now_s, address)
            else:
                # The next connection with this descriptor begins at 0.
                self._peers.pop(descriptor, None)
                self._malformed.pop(descriptor, None)
        for descriptor, peer in list(self._peers.items()):
            allowed = self._budget.burst + self._budget.rate_hz * (now_s - peer.since_s)
            if _received(descriptor) - peer.taken > allowed:
                self.drop(descriptor, "brought more than its budget of bytes")


def descriptor_of(frame: zmq.Frame) -> int:
    """Descriptor of the connection that a frame came by; -1 where it has none."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket object of a descriptor that belongs to ZeroMQ."""
    copy = socket.socket(fileno=os.dup(descriptor))
    try:
        yield copy
    finally:
        copy.close()


def _peer_of(descriptor: int) -> tuple[object, ...] | None:
    try:
        with _borrowed(descriptor) as peer:
            return (peer.getpeername(),) if peer.family != socket.AF_UNIX else None
    except OSError:
        return None


def _received(descriptor: int) -> int:
    try:
        with _borrowed(descriptor) as peer:
            info = peer.getsockopt(socket.IPPROTO_TCP, TCP_INFO, INFO_SIZE)
    except OSError:
        return 0
    return int(struct.unpack_from("=Q", info, RECEIVED_AT)[0]) if len(info) >= INFO_SIZE else 0


def _shut_down(descriptor: int, peer: _Peer) -> bool:
    """Let nothing more in: ZeroMQ reads what has come, then the end, and closes the connection.

    A reset would be shorter, but libzmq 4.3.5 may abort over a connection that breaks while it is
    not being read. A socket that is only shut down for reading still takes in what comes, so a
    filter drops that before.
    """
    try:
        with _borrowed(descriptor) as connection:
            # The descriptor may be another's by now: ZeroMQ closes it when it likes.
            if (connection.getpeername(),) != peer.address:
                return False
            program = ctypes.create_string_buffer(DROP_ALL)
            attached = struct.pack("@HP", 1, ctypes.addressof(program))
            connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
            connection.shutdown(socket.SHUT_RD)
    except OSError:
        return False
    return True
