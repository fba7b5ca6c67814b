"""A relay: every worker's scores to every client, whatever worker a stream is with.

Workers connect to its intake (XSUB), clients to its scores (XPUB). It passes frames on as they
are, remembers the last of each topic for new clients, and is a process of its own: two of them
run at a time, each with everything, and a client that hears both misses nothing when one dies.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import zmq

from engine.wire.codec import MAX_HEADER, MAX_TOPIC
from engine.wire.gate import POOL
from engine.wire.link import DirectoryLink
from engine.wire.membership import RelayBeat
from engine.wire.peers import MESSAGES
from engine.wire.scores import SCORE_TOPIC, STATUS_TOPIC, ScorePublisher
from engine.wire.security import ServerSecurity
from engine.wire.sockets import UNLIMITED, BoundSocket

log = logging.getLogger(__name__)

BEAT_S = 0.25
BATCH = 1_000
"""Messages passed on between two looks at the other sockets."""


class ScoreIntake(BoundSocket):
    """Where workers' scores come in (XSUB): raw frames, those of another shape counted."""

    def __init__(self, endpoint: str, security: ServerSecurity | None = None) -> None:
        super().__init__(zmq.XSUB)
        self.rejected = 0
        self._zmq.rcvhwm = UNLIMITED
        if security is not None:
            self._zmq.zap_domain = POOL.encode()
        self.listen(endpoint, MESSAGES, security)
        self._zmq.send(b"\x01")  # everything: a new client gets the last score of every topic

    def receive_all(self) -> list[list[bytes]]:
        """The messages that have arrived: [topic, header]; never waits."""
        found: list[list[bytes]] = []
        for _ in range(BATCH):
            if (taken := self.take()) is None:
                break
            _, frames = taken
            if _is_score_or_status(frames):
                found.append(frames)
            else:
                self.rejected += 1
        return found


def _is_score_or_status(frames: list[bytes]) -> bool:
    if len(frames) != 2 or len(frames[0]) > MAX_TOPIC or len(frames[1]) > MAX_HEADER:
        return False
    return frames[0].startswith((SCORE_TOPIC, STATUS_TOPIC))


def run_relay(
    name: str,
    intake: str,
    scores: str,
    directory: str,
    stopped: Callable[[], bool],
    security: ServerSecurity | None = None,
) -> None:
    """Run a relay in this process until ``stopped``.

    Raises:
        WireError: an endpoint is in use.
    """
    member = None if security is None else security.as_client()
    with (
        ScoreIntake(intake, security) as incoming,
        ScorePublisher(scores, security) as outgoing,
        DirectoryLink(directory, member) as link,
    ):
        beat = RelayBeat(name, os.getpid(), incoming.endpoint, outgoing.endpoint)
        log.info("relay from %s to %s", incoming.endpoint, outgoing.endpoint)
        poller = zmq.Poller()
        for socket in (incoming, outgoing):
            poller.register(socket.raw, zmq.POLLIN)
        beat_s = 0.0
        while not stopped():
            poller.poll(int(BEAT_S * 1000))
            outgoing.greet()
            for frames in incoming.receive_all():
                outgoing.forward(frames)
            link.receive_all()
            if (now_s := time.monotonic()) - beat_s >= BEAT_S:
                link.send(beat)
                beat_s = now_s
