"""What there is to show: streams with their history, workers, and whether the engine is there.

Pure: the clock is an argument. The board judges silence by what it last heard, so that an engine
that hangs looks as gone as one that was killed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal

from clients.dashboard.history import SLOT_MS, SPAN_MS, History
from clients.events import NS_PER_S, Event, Gap, Link, Stale
from engine.wire.clock import Clocks, this_clock
from engine.wire.messages import Clock, Score, Status
from engine.wire.rows import row_of

SILENT_S = 3.0
SILENT_HOPS = 3.0
"""A stream with a long hop is silent after this many of them."""
MAX_STREAMS = 64
MAX_WORKERS = 256
NS_PER_MS = 1_000_000
STEP_NS = NS_PER_S // 2
"""The wall clock was set where it is off by more."""

EngineState = Literal["waiting", "live", "gone"]


@dataclass(slots=True)
class _Stream:
    """What is known of one stream."""

    heard_ns: int
    history: History
    spacing_ns: int = 0
    newest: tuple[Score, float] | None = None
    """Its last score and when that was, in ms since 1970."""
    lost: int = 0


@dataclass(slots=True)
class _Worker:
    """What a worker said last."""

    heard_ns: int
    status: Status


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream's own state: ``silent_since_ms`` is nil while scores come."""

    name: str
    silent_since_ms: float | None
    lost: int
    """Scores lost between the engine and the dashboard."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker's last status."""

    name: str
    worker: str
    state: str
    detail: str
    silent_since_ms: float | None
    counters: dict[str, int]
    gauges: dict[str, float]


@dataclass(frozen=True, slots=True)
class BoardView:
    """Everything that is not a score."""

    now_ms: float
    engine: EngineState
    engine_since_ms: float
    """Since when it is in this state, in ms since 1970."""
    endpoint: str
    streams: tuple[StreamView, ...]
    workers: tuple[WorkerView, ...]
    streams_refused: int
    """Streams that are not shown because there are too many."""

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self, default=_fields, allow_nan=False)


def _fields(view: object) -> dict[str, object]:
    assert is_dataclass(view)
    return {entry.name: getattr(view, entry.name) for entry in fields(view)}


def score_json(score: Score, t_ms: float) -> str:
    """A score as flat JSON: the columns of a recording, and the time."""
    return json.dumps(row_of(score, t_ms / 1000).values() | {"t_ms": t_ms}, allow_nan=False)


@dataclass(slots=True)
class Board:
    """Events in, views out."""

    endpoint: str
    unix_offset_ns: int
    """Time since 1970 minus this host's monotonic clock."""
    started_ns: int
    max_streams: int = MAX_STREAMS
    span_ms: int = SPAN_MS
    own_clock: Clock = field(default_factory=this_clock)
    _streams: dict[str, _Stream] = field(default_factory=dict)
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _clocks: Clocks = field(init=False)
    _heard_ns: int | None = None
    _since_ns: int | None = None
    _refused: int = 0

    def __post_init__(self) -> None:
        """Compare every other clock, and recordings that are replayed, with our own."""
        self._clocks = Clocks(self.own_clock, replays=True)

    def take(self, event: Event, now_ns: int) -> str | None:
        """Take in an event; a score that is shown comes back as its JSON text."""
        if isinstance(event, Stale | Link):
            return None  # judged by ``view``, from the same silence
        if isinstance(event, Gap):
            if event.stream in self._streams:
                self._streams[event.stream].lost += event.missing
            return None
        if event.envelope.repeated:
            return self._take_repeated(event, now_ns)
        if self._heard_ns is None or now_ns - self._heard_ns > SILENT_S * NS_PER_S:
            self._since_ns = now_ns
        self._heard_ns = now_ns
        if isinstance(event, Status):
            self._take_status(event, now_ns)
            return None
        return self._take_score(event, now_ns)

    def frames(self, now_ns: int) -> list[bytes]:
        """The history of every stream, a binary message each."""
        now_ms = self._unix_ms(now_ns)
        return [stream.history.frame(name, now_ms) for name, stream in self._streams.items()]

    def newest(self) -> list[str]:
        """The newest score of every stream, as JSON text."""
        return [score_json(*stream.newest) for stream in self._streams.values() if stream.newest]

    def set_clock(self, unix_offset_ns: int) -> bool:
        """Take the wall clock's distance; True where it was set since, and all times have moved."""
        by_ns = unix_offset_ns - self.unix_offset_ns
        if abs(by_ns) < STEP_NS:
            return False
        self.unix_offset_ns = unix_offset_ns
        by_ms = by_ns / NS_PER_MS
        for stream in self._streams.values():
            stream.history.shift(by_ms)
            if stream.newest is not None:
                score, t_ms = stream.newest
                stream.newest = (score, t_ms + by_ms)
        return True

    def running(self, now_ns: int) -> frozenset[str]:
        """Names of the streams that are not silent."""
        return frozenset(n for n, s in self._streams.items() if not self._silent(s, now_ns))

    def view(self, now_ns: int) -> BoardView:
        """The state now."""
        engine, since_ns = self._engine(now_ns)
        return BoardView(
            self._unix_ms(now_ns),
            engine,
            self._unix_ms(since_ns),
            self.endpoint,
            tuple(
                StreamView(
                    name,
                    self._unix_ms(stream.heard_ns) if self._silent(stream, now_ns) else None,
                    stream.lost,
                )
                for name, stream in self._streams.items()
            ),
            tuple(self._worker_view(name, now_ns) for name in sorted(self._workers)),
            self._refused,
        )

    def prune(self, now_ns: int) -> None:
        """Forget streams and workers that have been silent for the whole span."""
        oldest_ns = now_ns - self.span_ms * NS_PER_MS
        for name in [n for n, s in self._streams.items() if s.heard_ns < oldest_ns]:
            del self._streams[name]
        for name in [n for n, w in self._workers.items() if w.heard_ns < oldest_ns]:
            del self._workers[name]

    def _take_score(self, score: Score, now_ns: int) -> str | None:
        name = score.envelope.stream
        stream = self._streams.get(name)
        if stream is None:
            if not self._make_room(now_ns):
                self._refused += 1
                return None
            stream = self._streams[name] = _Stream(now_ns, History(self.span_ms, SLOT_MS))
        else:
            stream.spacing_ns = min(now_ns - stream.heard_ns, 10 * NS_PER_S)
        stream.heard_ns = now_ns
        offset_ns = self._clocks.observe(score.envelope, now_ns)
        t_ns = now_ns if offset_ns is None else score.envelope.t_end_ns + offset_ns
        t_ms = self._unix_ms(t_ns)
        stream.history.add(t_ms, score)
        stream.newest = (score, t_ms)
        return score_json(score, t_ms)

    def _take_repeated(self, event: Score | Status, now_ns: int) -> str | None:
        """Show what was said before we came, as long as nothing newer is known; it is no life."""
        name = event.envelope.stream
        if isinstance(event, Score):
            return None if name in self._streams else self._take_score(event, now_ns)
        if name not in self._workers:
            self._take_status(event, now_ns)
        return None

    def _take_status(self, status: Status, now_ns: int) -> None:
        name = status.envelope.stream
        if name not in self._workers and len(self._workers) >= MAX_WORKERS:
            del self._workers[min(self._workers, key=lambda n: self._workers[n].heard_ns)]
        self._workers[name] = _Worker(now_ns, status)

    def _make_room(self, now_ns: int) -> bool:
        """Whether another stream fits; the longest silent one makes room."""
        if len(self._streams) < self.max_streams:
            return True
        name = min(self._streams, key=lambda n: self._streams[n].heard_ns)
        if not self._silent(self._streams[name], now_ns):
            return False
        del self._streams[name]
        return True

    def _engine(self, now_ns: int) -> tuple[EngineState, int]:
        if self._heard_ns is None or self._since_ns is None:
            return "waiting", self.started_ns
        if now_ns - self._heard_ns > SILENT_S * NS_PER_S:
            return "gone", self._heard_ns
        return "live", self._since_ns

    def _silent(self, stream: _Stream, now_ns: int) -> bool:
        allowed_ns = max(SILENT_S * NS_PER_S, SILENT_HOPS * stream.spacing_ns)
        return now_ns - stream.heard_ns > allowed_ns

    def _worker_view(self, name: str, now_ns: int) -> WorkerView:
        worker = self._workers[name]
        status = worker.status
        silent = status.state != "ended" and now_ns - worker.heard_ns > SILENT_S * NS_PER_S
        return WorkerView(
            name,
            status.worker,
            status.state,
            status.detail,
            self._unix_ms(worker.heard_ns) if silent else None,
            status.counters,
            status.gauges,
        )

    def _unix_ms(self, t_ns: int) -> float:
        return round((t_ns + self.unix_offset_ns) / NS_PER_MS, 1)
