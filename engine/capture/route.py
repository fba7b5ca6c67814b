"""The way of a stream's messages into a cluster: asks the directory, and follows its worker.

``Route`` is one thread that owns the sockets. A worker's end is seen in the connection itself (TCP
closes at once, ZMTP's heartbeat within 1.5 s): the route then asks for another and plays its tape
from a hop boundary, so that no window is lost. Where the directory is away the stream runs on;
nothing of it passes through there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from queue import Empty, SimpleQueue

import zmq
from msgspec.structs import replace
from zmq.utils.monitor import recv_monitor_message

from engine.capture.tape import Media, Tape
from engine.settings import EngineSettings
from engine.wire.clock import now_ns, this_clock
from engine.wire.closing import Closing
from engine.wire.codec import encode
from engine.wire.control import ControlClient
from engine.wire.fields import WireError
from engine.wire.ingest import INGEST_QUEUE, IngestSender
from engine.wire.link import DirectoryLink, keep_alive
from engine.wire.membership import Claim, Leave, Outbound, Place, Placed, Refused
from engine.wire.messages import Message, Resume, Status
from engine.wire.security import ClientSecurity
from engine.wire.sockets import Socket

log = logging.getLogger(__name__)

CLAIM_S = 1.0
ANSWER_S = 0.3
"""An answer of the directory that takes longer is asked for again."""
KNOCK_S = 0.02
CONNECT_S = 1.0
RELEASE_MS = 500
FINISH_S = 1.0
IDLE_MS = 100
REFUSED_S = 3.0
"""A refusal is logged after this: while workers are being started it is usual."""
REMIND_S = 30.0
LOST = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Line(Socket):
    """The connection to one process of a worker; once it is lost it stays lost."""

    def __init__(self, placed: Placed, security: ClientSecurity | None) -> None:
        super().__init__(zmq.PUSH)
        self.placed = placed
        self.began_s = time.monotonic()
        self.connected = False
        self._zmq.immediate = 1
        self._zmq.sndhwm = INGEST_QUEUE
        keep_alive(self._zmq)
        # Another process may come to listen there: it is not the one that knew the stream.
        self._zmq.reconnect_ivl = -1
        if security is not None:
            security.apply(self._zmq)
        self.monitor = self._zmq.get_monitor_socket(LOST | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.connect_to(placed.ingest)

    def is_lost(self) -> bool:
        """Whether the worker, or the way there, is gone."""
        lost = not self.connected and time.monotonic() - self.began_s > CONNECT_S
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            self.connected = self.connected or event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            lost = lost or event != zmq.EVENT_HANDSHAKE_SUCCEEDED
        return lost

    def send(self, message: Message) -> bool:
        """Send without waiting; False where the worker does not take it now."""
        try:
            self._zmq.send_multipart(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def finish(self) -> None:
        """Close once everything is sent."""
        self._zmq.linger = int(FINISH_S * 1000)
        self.close()

    def close(self) -> None:
        """Close the connection and its monitor."""
        self._zmq.disable_monitor()
        self.monitor.close(0)
        super().close()


class Route(Closing):
    """Sends one device's messages to wherever its stream lives; any thread may send.

    Args:
        directory: the directory's endpoint.
        stream: the stream's name.
        device: what is captured: microphone, camera or source.
        security: this client's keys, where the cluster asks for them.
    """

    def __init__(
        self, directory: str, stream: str, device: str, security: ClientSecurity | None = None
    ) -> None:
        self._stream, self._device, self._security = stream, device, security
        # A capture that its supervisor starts again has the same parent; another engine has not.
        clock = this_clock()
        self._owner = f"{clock.host}:{clock.boot_id[:8]}:{os.getppid()}"
        self._directory = directory
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._awake, self._wake = socket.socketpair()
        self._awake.setblocking(False)
        self._wake.setblocking(False)
        self._over = threading.Event()
        self._tape = Tape()
        self._status: Status | None = None
        self._line: Line | None = None
        self._epoch = 0
        self._lost = ""
        self._ask_s = 0.0
        self._claim_s = 0.0
        self._asks_since_s = time.monotonic()
        self._refusal, self._refused_s = "", 0.0
        self.sent = 0
        self.counters: Counter[str] = Counter()
        """``moves``, ``replayed`` messages, ``workers_lost``, ``places_refused``."""
        self._thread = threading.Thread(target=self._run, name="route", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Messages that no worker took in time."""
        return self._tape.dropped

    def send(self, message: Message) -> bool:
        """Hand over a message; it goes out as soon as a worker takes it."""
        self._inbox.put(message)
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._wake.send(b"x")
        return True

    def close(self) -> None:
        """Send what is left, tell the directory, and end."""
        self._over.set()
        self._thread.join()
        self._awake.close()
        self._wake.close()

    def _run(self) -> None:
        with DirectoryLink(self._directory, self._security) as link:
            end_s = float("inf")
            while time.monotonic() < end_s:
                self._wait(link)
                self._receive()
                for answer in link.receive_all():
                    self._take(answer)
                if self._line is not None and self._line.is_lost():
                    self._lose(self._line)
                self._flush()
                self._speak(link)
                if self._over.is_set():
                    end_s = min(end_s, time.monotonic() + FINISH_S)
                    if not self._tape.unsent and self._inbox.empty():
                        break
            if self._line is not None:
                self._line.finish()
            link.send(Leave(self._stream, self._device, self._owner))
            link.raw.linger = int(FINISH_S * 1000)

    def _wait(self, link: DirectoryLink) -> None:
        poller = zmq.Poller()
        poller.register(self._awake, zmq.POLLIN)
        poller.register(link.raw, zmq.POLLIN)
        wait_ms = IDLE_MS
        if self._line is None:
            wait_ms = min(wait_ms, max(0, round((self._ask_s - time.monotonic()) * 1000)))
        if self._line is not None:
            poller.register(self._line.monitor, zmq.POLLIN)
            if self._tape.unsent:
                wait_ms = 5 if self._line.connected else 20
        poller.poll(wait_ms)
        with contextlib.suppress(BlockingIOError):
            self._awake.recv(4096)

    def _receive(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                message = self._inbox.get_nowait()
                if isinstance(message, Status):
                    self._status = message
                elif isinstance(message, Media):
                    self._tape.push(message)

    def _take(self, answer: Outbound) -> None:
        if isinstance(answer, Refused):
            self.counters["places_refused"] += 1
            now_s = time.monotonic()
            self._ask_s = now_s + answer.retry_ms / 1000
            is_news = answer.reason != self._refusal or now_s - self._refused_s >= REMIND_S
            if is_news and now_s - self._asks_since_s >= REFUSED_S:
                log.warning("stream %s: %s", self._stream, answer.reason)
                self._refusal, self._refused_s = answer.reason, now_s
        elif isinstance(answer, Placed) and answer.epoch > self._epoch:
            self._follow(answer)

    def _follow(self, placed: Placed) -> None:
        """Turn to the worker that the directory names, and play the tape to it."""
        t_end_ns, seq = placed.t_end_ns, placed.seq
        if self._line is not None:
            t_end_ns, seq = self._release(self._line.placed, t_end_ns, seq)
            self._line.close()
        self.counters["moves"] += self._epoch > 0
        self._line, self._epoch, self._lost = Line(placed, self._security), placed.epoch, ""
        self._refusal = ""
        self.counters["replayed"] += self._tape.rewind(placed.hop_ms * 1_000_000, t_end_ns, seq)
        log.info("stream %s: to worker %s", self._stream, placed.worker)

    def _release(self, former: Placed, t_end_ns: int, seq: int) -> tuple[int, int]:
        """Stop the former worker at once; it says how far it has come."""
        control = ControlClient(former.control, RELEASE_MS, self._security)
        try:
            with control:
                reply = control.request("release", stream=self._stream, epoch=former.epoch)
        except WireError as error:
            log.warning("stream %s: worker %s: %s", self._stream, former.worker, error)
            return t_end_ns, seq
        scored = reply.get("t_end_ns"), reply.get("seq")
        if isinstance(scored[0], int) and isinstance(scored[1], int) and scored[0] >= t_end_ns:
            return scored[0], scored[1]
        return t_end_ns, seq

    def _lose(self, line: Line) -> None:
        log.warning("stream %s: lost worker %s", self._stream, line.placed.worker)
        self.counters["workers_lost"] += 1
        self._lost = line.placed.worker
        line.close()
        self._line, self._ask_s, self._asks_since_s = None, 0.0, time.monotonic()

    def _flush(self) -> None:
        line = self._line
        if line is None:
            return
        while (item := self._tape.next()) is not None:
            message, resume = item
            if resume is not None and message.envelope.stream != self._stream:
                # A person before this camera: how far that stream was scored is not known here.
                resume = Resume(t_end_ns=-1, seq=-1, until_ns=resume.until_ns)
            # A stamp from before the move would tell a transport of seconds.
            envelope = replace(
                message.envelope, t_sent_ns=now_ns(), epoch=self._epoch, resume=resume
            )
            if not line.send(replace(message, envelope=envelope)):
                break
            self._tape.sent()
            self.sent += 1
        if self._status is not None and line.send(self._status):
            self._status = None

    def _speak(self, link: DirectoryLink) -> None:
        """Ask for a place, or claim the one that is held."""
        now_s = time.monotonic()
        if self._line is None:
            if now_s >= self._ask_s:
                place = Place(self._stream, self._device, self._owner, self._epoch, self._lost)
                self._ask_s = now_s + (ANSWER_S if link.send(place) else KNOCK_S)
        elif now_s - self._claim_s >= CLAIM_S:
            self._claim_s = now_s
            worker = self._line.placed.worker
            link.send(Claim(self._stream, self._device, self._owner, self._epoch, worker))


WayIn = IngestSender | Route


def way_in(
    settings: EngineSettings, stream: str, device: str, security: ClientSecurity | None
) -> WayIn:
    """The way to the one worker, or to whichever of a cluster's has the stream.

    Raises:
        WireError: an endpoint that is none.
    """
    if settings.cluster.directory is None:
        return IngestSender(settings.ingest, security)
    return Route(settings.cluster.directory, stream, device, security)
