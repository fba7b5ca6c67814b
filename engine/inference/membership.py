"""A worker's part in a cluster: its beat to the directory, and what the directory asks of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.inference.service import InferenceService
from engine.settings import ClusterSettings
from engine.wire.gate import Gate
from engine.wire.link import DirectoryLink
from engine.wire.membership import (
    Admit,
    Admitted,
    Beat,
    Drain,
    Outbound,
    Rejected,
    Relays,
    Release,
)
from engine.wire.messages import SCHEMA

log = logging.getLogger(__name__)

BEAT_S = 0.25
QUICK_S = 0.05
"""Soonest beat after a change of the streams."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a worker is reached."""

    ingest: str
    control: str


class Membership:
    """Says where this worker is and what it holds; carries out what the directory asks.

    Args:
        link: the connection to the directory.
        settings: name, host, generation and capacity.
        endpoints: where this process is reached.
        service: what the worker holds.
        follow: sends scores to these relays from now on.
        gate: lets clients' keys in for streams.
    """

    def __init__(
        self,
        link: DirectoryLink,
        settings: ClusterSettings,
        endpoints: Endpoints,
        service: InferenceService,
        follow: Callable[[Iterable[str]], None],
        gate: Gate,
    ) -> None:
        self.link = link
        self._settings, self._endpoints, self._service = settings, endpoints, service
        self._follow, self._gate = follow, gate
        self._incarnation = time.time_ns()
        self._beat_s = 0.0
        self._draining = False
        self._reported: tuple[str, ...] = ()

    def step(self) -> None:
        """Read what the directory says, and send a beat if it is time to."""
        for message in self.link.receive_all():
            self._take(message)
        since_s = time.monotonic() - self._beat_s
        if since_s >= BEAT_S or (since_s >= QUICK_S and self._service.streams != self._reported):
            self.beat()

    def beat(self) -> None:
        """Send a beat."""
        self._beat_s = time.monotonic()
        self._reported = self._service.streams
        settings, service = self._settings, self._service
        self.link.send(
            Beat(
                worker=settings.name,
                host=settings.host,
                pid=os.getpid(),
                incarnation=self._incarnation,
                ingest=self._endpoints.ingest,
                control=self._endpoints.control,
                schema=SCHEMA,
                model=service.model.sha256,
                generation=settings.generation,
                capacity=settings.capacity,
                hop_ms=service.hop_ms,
                p99_ms=service.recent_p99_ms(),
                ready=service.state in ("ready", "running", "paused"),
                draining=self._draining,
                streams=service.held(),
            )
        )

    def _take(self, message: Outbound) -> None:
        match message:
            case Release():
                self._service.release(message.stream, message.epoch)
                self._gate.forget(message.stream)
            case Drain():
                self._draining = True
            case Relays():
                self._follow(message.intakes)
            case Admit():
                self._gate.admit(message.key, message.stream)
                self.link.send(Admitted(message.stream, message.epoch))
            case Rejected():
                log.warning("the directory does not take this worker: %s", message.reason)
