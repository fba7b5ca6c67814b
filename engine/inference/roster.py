"""The streams that are here, and whose turn it is. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from engine.inference.grid import Due
from engine.inference.stream import StreamState
from engine.settings import InferenceSettings
from engine.wire.membership import Held
from engine.wire.messages import Clock, Envelope

MAX_DUE, FIRST = 64, 32
"""Windows scored in one step: messages, requests and the pulse are never behind more. Among them
those of the streams that were here first, so that a crowd of newcomers silences nobody."""
OTHERS_NS = 60_000_000
"""Time that a step spends on the sound of the others, whose next ones wait for the next step."""
LATE_FOR_NS = 30_000_000_000
"""After a window was taken up so late that others are dropped, the machine counts as too slow for
so long. Sound that comes late, or is replayed after a move, makes no machine slow."""
MAX_NUMBERED = 4096
"""Streams whose score numbers go on after they were forgotten: those that were scored last."""
MAX_RELEASED = 4096
"""Released streams that are remembered, against messages of theirs that are still under way."""


class Roster:
    """Streams by name, from their first message until they end, are released or forgotten.

    Args:
        settings: how many there may be, and how long one may send nothing.
        counters: what comes and goes is counted there.
        timer: nanoseconds, for the time that a step takes.
    """

    def __init__(
        self, settings: InferenceSettings, counters: Counter[str], timer: Callable[[], int]
    ) -> None:
        self._settings, self._counters, self._timer = settings, counters, timer
        self._hop_ns = settings.hop_ms * 1_000_000
        self._streams: dict[str, StreamState] = {}
        self._touched: set[str] = set()
        self._owing: set[str] = set()
        self._deadlines: list[tuple[int, str]] = []
        self._score_seq: dict[str, int] = {}
        self._forgotten: list[str] = []
        self._ended: list[str] = []
        self._released: dict[str, tuple[int, Held]] = {}
        self._late_until_ns = 0
        self.is_late = False
        """Whether this machine was too slow for all streams just now."""

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[StreamState]:
        return iter(self._streams.values())

    def __getitem__(self, name: str) -> StreamState:
        return self._streams[name]

    def get(self, name: str) -> StreamState | None:
        """Return the stream of a name, or None."""
        return self._streams.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the streams that are known now."""
        return tuple(self._streams)

    def refusal(self, envelope: Envelope) -> str | None:
        """Return the counter of why a message is not taken; None where it is."""
        name, epoch = envelope.stream, envelope.epoch
        state = self._streams.get(name)
        if epoch <= self._released.get(name, (-1, None))[0] or (
            state is not None and epoch < state.epoch
        ):
            return "messages_of_old_epoch"
        if state is None and len(self._streams) >= self._settings.max_streams:
            return "streams_refused"
        return None

    def current(self, envelope: Envelope) -> StreamState | None:
        """Return the stream that a message continues; None where it begins one."""
        state = self._streams.get(envelope.stream)
        if state is None or state.epoch < envelope.epoch:
            return None  # of a newer epoch: it went to another worker, and has come back
        if state.clock != envelope.clock:
            self._counters["streams_restarted"] += 1
            return None
        return state

    def enter(self, state: StreamState) -> None:
        """Take a stream that got a message: it is looked at in the next step."""
        if state.name not in self._streams:
            heapq.heappush(self._deadlines, (state.deadline_ns, state.name))
        self._streams[state.name] = state
        self._touched.add(state.name)

    def reschedule(self, state: StreamState) -> None:
        """Take a stream's new deadline: it rested, and does so no more."""
        self._unschedule(state.name)
        heapq.heappush(self._deadlines, (state.deadline_ns, state.name))

    def next_deadline_ns(self) -> int | None:
        """When ``take`` must be called even if no message comes; None without streams."""
        if self._owing:
            return 0
        return self._deadlines[0][0] if self._deadlines else None

    def next_seq(self, state: StreamState, end_ns: int) -> int:
        """Return the number of a stream's next score, which ends at ``end_ns``."""
        seq = state.next_seq(end_ns, self._score_seq.pop(state.name, 0))
        self._score_seq[state.name] = seq + 1
        if len(self._score_seq) > MAX_NUMBERED:
            del self._score_seq[next(iter(self._score_seq))]
        state.last_score = (end_ns, seq)
        return seq

    def pop_forgotten(self) -> list[str]:
        """Hand out the names of the streams that were forgotten since the last call."""
        names, self._forgotten = self._forgotten, []
        return names

    def pop_ended(self) -> list[str]:
        """Hand out the streams that have ended since the last call: their people have left."""
        ended, self._ended = self._ended, []
        return ended

    def forget(self) -> None:
        """Forget every stream, as after a pause; score numbers go on."""
        self._forgotten += self._streams
        self._streams.clear()
        self._touched.clear()
        self._owing.clear()
        self._deadlines.clear()

    def end(self, name: str) -> None:
        """Forget a stream whose person has left."""
        self._remove(name)
        self._counters["streams_ended"] += 1
        self._ended.append(name)

    def release(self, stream: str, epoch: int) -> Held:
        """Stop at once with a stream held under ``epoch`` or an older one: it lives elsewhere now.

        Returns how far it was scored; asked once more, the same.
        """
        state = self._streams.get(stream)
        if state is not None and state.epoch <= epoch:
            self._remove(stream)
            self._counters["streams_released"] += 1
            self._released[stream] = (epoch, _held(state))
            if len(self._released) > MAX_RELEASED:
                del self._released[next(iter(self._released))]
        return self._released.get(stream, (0, Held(epoch)))[1]

    def held(self) -> dict[str, Held]:
        """The streams that are here, and how far each is scored."""
        return {name: _held(state) for name, state in self._streams.items()}

    def learn_offset(self, clock: Clock, offset_ns: int) -> None:
        """Give the streams of a clock its offset."""
        for state in self._streams.values():
            if state.clock == clock:
                state.offset_ns = offset_ns

    def in_order(self, names: Iterable[str]) -> list[StreamState]:
        """Streams as their turn comes: those here first, then who has waited longest."""
        return self._sorted(names, self._first())

    def _sorted(self, names: Iterable[str], first: set[str]) -> list[StreamState]:
        known = [self._streams[name] for name in names if name in self._streams]
        return sorted(known, key=lambda s: (s.name not in first, s.deadline_ns, s.name))

    def take(
        self, now_ns: int, started: int, prepare: Callable[[StreamState], None]
    ) -> list[tuple[StreamState, Due]]:
        """Due windows of the streams that got messages or whose deadline has passed.

        Args:
            now_ns: the time, on our clock.
            started: when the step began, by the timer.
            prepare: does the work of a stream's sound that may take long; a step does only as
                much of it as there is time for, and those here first are not held up by it.
        """
        names, self._touched, self._owing = self._touched | self._owing, set(), set()
        popped: list[str] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            popped.append(heapq.heappop(self._deadlines)[1])
        self.is_late = now_ns < self._late_until_ns
        names.update(popped)
        if not names:
            return []
        due: list[tuple[StreamState, Due]] = []
        timeout_ns = self._settings.stream_timeout_s * 1e9
        first = self._first()
        # A step takes a bounded number, the next one the rest.
        for state in self._sorted(names, first):
            name = state.name
            if now_ns - state.arrived_ns > timeout_ns:
                del self._streams[name]
                self._forgotten.append(name)
                self._counters["streams_forgotten"] += 1
                self._counters["marks_lost"] += state.mark is not None
                continue
            if len(due) >= MAX_DUE:
                self._touched.add(name)
                continue
            old = name in first and state.is_settled
            if not old and self._timer() - started > OTHERS_NS:
                self._touched.add(name)
                continue
            overdue = not state.grid.owes and now_ns - state.deadline_ns >= self._hop_ns
            window = state.take(now_ns)
            if window is not None:
                if overdue and window.skipped:
                    self.is_late, self._late_until_ns = True, now_ns + LATE_FOR_NS
                state.skip(window.start_ns, self._counters)
                if not old:
                    prepare(state)
                self._counters["windows_dropped"] += window.skipped
                due.append((state, window))
                if state.grid.owes:
                    self._owing.add(name)
        # Each stream has one entry in the heap; one whose window was ready early is merely
        # looked at once more.
        for name in popped:
            if name in self._streams:
                heapq.heappush(self._deadlines, (self._streams[name].deadline_ns, name))
        return due

    def _first(self) -> set[str]:
        """Streams that were here first, as far as they are played as they are spoken."""
        first = islice(self._streams.items(), FIRST)
        return {name for name, state in first if not state.audio.behind}

    def _remove(self, name: str) -> None:
        del self._streams[name]
        self._forgotten.append(name)
        self._touched.discard(name)
        self._owing.discard(name)
        self._unschedule(name)

    def _unschedule(self, name: str) -> None:
        self._deadlines = [item for item in self._deadlines if item[1] != name]
        heapq.heapify(self._deadlines)


def _held(state: StreamState) -> Held:
    t_end_ns, seq = state.last_score or (-1, -1)
    return Held(state.epoch, t_end_ns, seq)
