"""From ZeroMQ to any number of browsers, each with a bounded queue of its own.

A queue keeps the newest: a browser that reads too slowly loses its oldest waiting points, is told
how many, and slows nobody. State (engine, workers, silences) is not queued but replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from clients.dashboard.board import Board
from clients.subscriber import AsyncSubscriber
from engine.wire.clock import now_ns

log = logging.getLogger(__name__)

QUEUE = 512
MAX_VIEWERS = 64
BREATH = 64
"""Events after which the browsers' own tasks get a turn, however fast more come."""
STATE_PERIOD_S = 1.0


class Mailbox:
    """What waits for one browser; used by one event loop."""

    def __init__(self, limit: int = QUEUE) -> None:
        self._limit = limit
        self._scores: deque[str] = deque()
        self._state: str | None = None
        self._filled = asyncio.Event()
        self.lost = 0
        """Points that this browser was too slow for."""
        self.is_outdated = False
        """The clock was set: the browser has to be given its history again, by another mailbox."""

    def put(self, score: str) -> None:
        """Queue a score; the oldest makes room."""
        if len(self._scores) == self._limit:
            self._scores.popleft()
            self.lost += 1
        self._scores.append(score)
        self._filled.set()

    def replace_state(self, state: str) -> None:
        """Set what the browser is to know of the state."""
        self._state = state
        self._filled.set()

    async def take(self) -> str:
        """Everything that waits as one JSON message; waits for something to be there."""
        await self._filled.wait()
        self._filled.clear()
        scores = ",".join(self._scores)
        self._scores.clear()
        state, self._state = self._state or "null", None
        return f'{{"kind":"news","lost":{self.lost},"state":{state},"scores":[{scores}]}}'


class Bridge:
    """One subscriber, one board, many mailboxes."""

    def __init__(self, endpoint: str, keys_dir: Path | None = None, queue: int = QUEUE) -> None:
        started_ns = now_ns()
        self.board = Board(endpoint, time.time_ns() - started_ns, started_ns)
        self._endpoint, self._keys_dir, self._queue = endpoint, keys_dir, queue
        self._mailboxes: set[Mailbox] = set()
        self._places = 0
        self.faults = 0
        """Exceptions of ours so far: each was logged and survived."""

    def count_fault(self) -> None:
        """Count an exception of ours."""
        self.faults += 1

    @contextlib.contextmanager
    def place(self) -> Iterator[bool]:
        """Take one of ``MAX_VIEWERS`` places before anything is awaited; False: none is free."""
        if self._places >= MAX_VIEWERS:
            yield False
            return
        self._places += 1
        try:
            yield True
        finally:
            self._places -= 1

    async def run(self) -> None:
        """Subscribe and hand on until cancelled.

        Raises:
            WireError: no usable endpoint or keys, or the engine refused this client's key.
        """
        async with AsyncSubscriber(self._endpoint, keys_dir=self._keys_dir) as subscriber:
            heartbeat = asyncio.create_task(self._tell_state())
            try:
                taken = 0
                async for event in subscriber.events():
                    taken += 1
                    if taken % BREATH == 0:
                        await asyncio.sleep(0)
                    try:
                        score = self.board.take(event, now_ns())
                    except Exception:
                        self.count_fault()
                        log.exception("an event could not be shown")
                        continue
                    if score is not None:
                        for mailbox in self._mailboxes:
                            mailbox.put(score)
            finally:
                heartbeat.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await heartbeat

    @contextlib.contextmanager
    def viewer(self) -> Iterator[tuple[list[bytes], Mailbox]]:
        """Join: the history so far, and a mailbox that continues it without a hole."""
        mailbox = Mailbox(self._queue)
        for score in self.board.newest():
            mailbox.put(score)
        mailbox.replace_state(self.board.view(now_ns()).to_json())
        self._mailboxes.add(mailbox)
        try:
            yield self.board.frames(now_ns()), mailbox
        finally:
            self._mailboxes.discard(mailbox)

    async def _tell_state(self) -> None:
        while True:
            try:
                self._replace_state(now_ns())
            except Exception:
                self.count_fault()
                log.exception("the state could not be shown")
            await asyncio.sleep(STATE_PERIOD_S)

    def _replace_state(self, now: int) -> None:
        self.board.prune(now)
        if self.board.set_clock(time.time_ns() - now):
            log.warning("the clock of this computer was set: all times follow it from now on")
            for mailbox in self._mailboxes:
                mailbox.is_outdated = True
        state = self.board.view(now).to_json()
        for mailbox in self._mailboxes:
            mailbox.replace_state(state)
