"""Subscribers: scores as a blocking iterator, as the latest value, or asynchronously.

    with Subscriber() as scores:
        for score in scores:
            print(score.envelope.stream, score.valence, score.interval)

It connects again by itself, within 3 s where packets vanish without a word; what was lost or has
fallen silent is reported by ``events``.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clients.events import NS_PER_S, Event, Gap, Link, Tracker
from engine.wire.clock import Clocks, now_ns, this_clock
from engine.wire.closing import Closing
from engine.wire.messages import Score, Status
from engine.wire.scores import ScoreReceiver
from engine.wire.security import ClientSecurity

SCORES = "tcp://127.0.0.1:5571"
STALE_S = 3.0
POLL_MS = 100
MAX_WAITING = 1_000
"""Events kept for ``events`` while only ``latest`` is asked: as many as a socket's queue holds."""


@dataclass(frozen=True, slots=True)
class _Latest:
    """The newest score of a stream, with its times on our clock."""

    arrived_ns: int
    published_ns: int | None
    score: Score


class Subscriber(Closing):
    """Receives scores of one engine; used by one thread."""

    def __init__(
        self,
        endpoint: str = SCORES,
        streams: Iterable[str] = (),
        keys_dir: Path | None = None,
        stale_s: float = STALE_S,
    ) -> None:
        """Connect; needs no engine to be there yet.

        Args:
            endpoint: the engine's scores endpoint.
            streams: names of the streams wanted; none for all of them.
            keys_dir: directory of this client's CURVE keys, if the engine requires them.
            stale_s: silence after which ``events`` tells of it.

        Raises:
            WireError: the endpoint is none, or there are no keys.
        """
        security = None if keys_dir is None else ClientSecurity.read(keys_dir)
        self._receiver = ScoreReceiver(endpoint, tuple(streams), security=security)
        self._tracker = Tracker(stale_s)
        self._latest: dict[str, _Latest] = {}
        self._clocks = Clocks(this_clock(), replays=True)
        self._waiting: deque[Event] = deque()
        self._skipped: Counter[str] = Counter()
        """Scores by stream that waited for ``events`` until there was no room for them."""
        self._closed = False
        self._endpoint, self._lost = endpoint, False

    @property
    def rejected(self) -> int:
        """Malformed messages so far."""
        return self._receiver.rejected

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def fileno(self) -> int:
        """Descriptor that becomes readable when something happens (ZeroMQ's FD: an edge)."""
        return self._receiver.raw.fileno()

    def __iter__(self) -> Iterator[Score]:
        """Every score as it comes; waits for the next, ends when the subscriber is closed."""
        return (event for event in self.events() if isinstance(event, Score))

    def events(self) -> Iterator[Event]:
        """Scores, worker status, gaps and silences as they come.

        Raises:
            WireError: the engine refused this client's key.
        """
        while not self._closed:
            yield from self.poll(POLL_MS)

    def poll(self, timeout_ms: int = 0) -> list[Event]:
        """Events that have come within ``timeout_ms``; empty where there are none.

        Raises:
            WireError: the engine refused this client's key.
        """
        self._wait(timeout_ms)
        events: list[Event] = [Gap(name, missing) for name, missing in self._skipped.items()]
        events += self._waiting
        self._skipped.clear()
        self._waiting.clear()
        return events

    def latest(self, stream: str | None = None, max_age_ms: float | None = None) -> Score | None:
        """The newest score of a stream (of any, without a name), without waiting.

        None before the first one, or where the newest was published longer than ``max_age_ms``
        ago, or at an unknown time: the engine repeats its last score for a new subscriber. Of the
        events that it reads past the newest 1000 are kept for ``events``, which tells of the others
        as a ``Gap``.
        """
        self._wait(0)
        self._make_room()
        known = [self._latest[stream]] if stream in self._latest else []
        if stream is None:
            known = list(self._latest.values())
        if not known:
            return None
        newest = max(known, key=lambda latest: latest.arrived_ns)
        if max_age_ms is None:
            return newest.score
        if newest.published_ns is None:
            return None
        age_ms = (now_ns() - newest.published_ns) * 1000 / NS_PER_S
        return None if age_ms > max_age_ms else newest.score

    def close(self) -> None:
        """Disconnect; a running iteration ends."""
        if not self._closed:
            self._closed = True
            self._receiver.close()

    def _wait(self, timeout_ms: int) -> None:
        first = None if self._waiting else self._receiver.receive(timeout_ms)
        if first is not None:
            self._take(first)
        for message in self._receiver.receive_all():
            self._take(message)
        for connected in self._receiver.pop_changes():
            if connected and not self._lost:
                continue  # the first connection is what everybody expects
            self._lost = not connected
            self._waiting.append(Link(self._endpoint, connected))
        self._waiting += self._tracker.silent(now_ns())

    def _take(self, message: Score | Status) -> None:
        now = now_ns()
        envelope = message.envelope
        offset_ns = self._clocks.observe(envelope, now)
        if isinstance(message, Score):
            published_ns = None if offset_ns is None else envelope.t_sent_ns + offset_ns
            self._latest[envelope.stream] = _Latest(now, published_ns, message)
        self._waiting += self._tracker.take(message, now)

    def _make_room(self) -> None:
        """Keep what waits for ``events`` bounded: nobody may ever ask for it."""
        while len(self._waiting) > MAX_WAITING:
            oldest = self._waiting.popleft()
            if isinstance(oldest, Score):
                self._skipped[oldest.envelope.stream] += 1


class AsyncSubscriber:
    """The same verbs for asyncio: ``async for score in subscriber``."""

    def __init__(
        self,
        endpoint: str = SCORES,
        streams: Iterable[str] = (),
        keys_dir: Path | None = None,
        stale_s: float = STALE_S,
    ) -> None:
        """Connect; see ``Subscriber``."""
        self._subscriber = Subscriber(endpoint, streams, keys_dir, stale_s)

    @property
    def rejected(self) -> int:
        """Malformed messages so far."""
        return self._subscriber.rejected

    async def __aiter__(self) -> AsyncIterator[Score]:
        """Every score as it comes."""
        async for event in self.events():
            if isinstance(event, Score):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """Scores, worker status, gaps and silences as they come."""
        while not self._subscriber.closed:
            events = self._subscriber.poll(0)
            for event in events:
                yield event
            if not events:
                await self._readable()

    def latest(self, stream: str | None = None, max_age_ms: float | None = None) -> Score | None:
        """The newest score, without waiting; see ``Subscriber.latest``."""
        return self._subscriber.latest(stream, max_age_ms)

    async def close(self) -> None:
        """Disconnect; a running iteration ends."""
        self._subscriber.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def _readable(self) -> None:
        """Wait for the socket's edge, at most ``POLL_MS``: an edge before it is set is missed.

        Not ``zmq.asyncio``: its socket is another class, and both subscribers are one receiver.
        """
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        descriptor = self._subscriber.fileno()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        loop.add_reader(descriptor, wake)
        try:
            await asyncio.wait([woken], timeout=POLL_MS / 1000)
        finally:
            loop.remove_reader(descriptor)
