"""Events to metrics and to health. Pure: the time is an argument; ``clients.prometheus`` serves it.

Labels are bounded: streams and workers beyond the first 64 are pooled under ``other`` and counted,
latency is kept per stage and not per stream, and names of counters are the wire's plain names.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from clients.bridges import BridgeError, Names
from clients.events import NS_PER_S, OVER, Event, Gap, Stale
from engine.wire.messages import Latency, Modality, NoValueReason, Score, Status, WorkerState

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OTHER = "other"
REASONS = (*get_args(NoValueReason), "unknown")
MODALITIES: tuple[Modality, ...] = get_args(Modality)
STATES: tuple[WorkerState, ...] = get_args(WorkerState)
STAGES = Latency.__struct_fields__
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RECENT = 120
"""Scores over which the share without a value is taken."""
MAX_COUNTERS = 64
"""Names of counters and of gauges kept, over all workers."""
MAX_ENGINES = 1024
FORGET_NS = 600 * NS_PER_S
"""A stream silent for this long is no longer reported by name."""


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of /healthz."""

    healthy: bool
    reason: str


@dataclass(slots=True)
class _Stream:
    heard_ns: int
    dropped: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))


def _library() -> Any:
    """Import prometheus_client.

    Raises:
        BridgeError: it is not installed.
    """
    try:
        import prometheus_client
    except ImportError:
        raise BridgeError('metrics need prometheus-client: pip install -e ".[metrics]"') from None
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # double the size
    return prometheus_client


class Metrics:
    """Events to metrics; owns no socket, takes the time as an argument. One thread at a time."""

    def __init__(self, endpoint: str, stale_s: float, limit: int = 64) -> None:
        """Make the metrics.

        Args:
            endpoint: where the engine is expected, for the reasons of /healthz.
            stale_s: silence that is unhealthy.
            limit: streams, and workers, that are reported by name.

        Raises:
            BridgeError: prometheus-client is not installed.
        """
        library = _library()
        Counter, Gauge = library.Counter, library.Gauge  # noqa: N806 - classes
        self.registry: CollectorRegistry = library.CollectorRegistry()
        self._endpoint, self._stale_ns = endpoint, int(stale_s * NS_PER_S)
        self._streams: dict[str, _Stream] = {}
        self._silent: set[str] = set()
        self._stream_names, self._worker_names = Names(limit), Names(limit)
        self._value_names = Names(MAX_COUNTERS)
        self._engines: dict[str, tuple[int, Status]] = {}
        """The last status of every inference worker: a cluster has several."""

        def metric(kind: Any, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"undertone_{name}", text, labels, registry=self.registry, **options)

        self._scores = metric(Counter, "scores", "Scores received", "stream")
        self._nil = metric(Counter, "scores_nil", "Scores without a valence", "stream", "reason")
        self._dropped = metric(
            Counter, "engine_dropped", "Messages lost or dropped by capture and worker", "stream"
        )
        self._lost = metric(Counter, "scores_lost", "Scores lost on the way here", "stream")
        self._gaps = metric(Counter, "gaps", "Gaps in the sequence of scores", "stream")
        self._valence = metric(Gauge, "valence", "Rolling valence, -3 to 3; NaN: none", "stream")
        self._alone = metric(
            Gauge, "modality_valence", "What a modality says by itself; NaN: nothing",
            "stream", "modality",
        )  # fmt: skip
        self._mixed = metric(Gauge, "mixed", "1: modalities contradict each other", "stream")
        self._nil_share = metric(
            Gauge, "nil_share", f"Share without a valence of the last {RECENT} scores", "stream"
        )
        self._age = metric(Gauge, "last_score_age_seconds", "Since the last score", "stream")
        self._latency = metric(
            library.Histogram, "latency_seconds", "From a window's last sample on, by stage",
            "stage", buckets=BUCKETS_S,
        )  # fmt: skip
        self._state = metric(Gauge, "worker_state", "1 for the worker's state", "worker", "state")
        self._counter = metric(
            Gauge, "worker_counter", "Counters since the worker's start", "worker", "counter"
        )
        self._gauge = metric(Gauge, "worker_gauge", "Gauges of the worker", "worker", "gauge")
        self._up = metric(Gauge, "up", "1 if /healthz says that the engine is healthy")
        self._pooled = metric(Gauge, "streams_pooled", f"Streams reported as {OTHER!r}")
        self._pooled_workers = metric(Gauge, "workers_pooled", f"Workers reported as {OTHER!r}")
        self._trained = metric(Gauge, "model_trained", "0: random weights, scores mean nothing")

    def take(self, event: Event, now_ns: int) -> None:
        """Take in an event."""
        if isinstance(event, Score):
            self._take_score(event, now_ns)
        elif isinstance(event, Status):
            self._take_status(event, now_ns)
        elif isinstance(event, Gap):
            name = self._stream_name(event.stream)
            self._gaps.labels(name).inc()
            self._lost.labels(name).inc(event.missing)
        elif isinstance(event, Stale) and not event.worker:
            self._silent.add(event.source)

    def exposition(self, now_ns: int) -> bytes:
        """The text of /metrics, ages as of now."""
        from prometheus_client import generate_latest

        for name in [n for n, (at, _) in self._engines.items() if now_ns - at > FORGET_NS][1:]:
            del self._engines[name]
        for name, stream in list(self._streams.items()):
            silent_ns = now_ns - stream.heard_ns
            if silent_ns > FORGET_NS:
                self._forget(name)
            else:
                self._age.labels(name).set(silent_ns / NS_PER_S)
        self._up.set(self.health(now_ns).healthy)
        self._pooled.set(self._stream_names.refused)
        self._pooled_workers.set(self._worker_names.refused)
        return generate_latest(self.registry)

    def health(self, now_ns: int) -> Health:
        """Whether an inference worker is there, works, and sends scores of the streams it has."""
        if not self._engines:
            return Health(False, f"no engine heard on {self._endpoint}")
        working = [
            status
            for heard_ns, status in self._engines.values()
            if now_ns - heard_ns <= self._stale_ns and status.state not in (*OVER, "starting")
        ]
        heard_ns, status = max(self._engines.values(), key=lambda entry: entry[0])
        silent_ns = now_ns - heard_ns
        if silent_ns > self._stale_ns and status.state not in OVER:
            return Health(False, f"engine silent for {silent_ns / NS_PER_S:.1f} s")
        if not working:
            return Health(False, f"engine {status.state}")
        status = next((s for s in working if s.state == "running"), working[0])
        # A stream whose capture ended by itself is never told as stale, nor counted by the worker.
        newest_ns = max((stream.heard_ns for stream in self._streams.values()), default=now_ns)
        held = sum(status.gauges.get("streams", 1) for status in working)
        expected = self._silent and held > 0
        if expected and status.state == "running" and now_ns - newest_ns > self._stale_ns:
            return Health(False, f"no score for {(now_ns - newest_ns) / NS_PER_S:.1f} s")
        if len(working) < len(self._engines):
            return Health(True, f"{len(working)} of {len(self._engines)} workers at work")
        return Health(True, f"engine {status.state}")

    def _take_score(self, score: Score, now_ns: int) -> None:
        self._silent.discard(score.envelope.stream)
        name = self._stream_name(score.envelope.stream)
        stream = self._streams.setdefault(name, _Stream(now_ns, score.dropped))
        stream.heard_ns = now_ns
        stream.recent.append(score.valence is None)
        self._scores.labels(name).inc()
        for counter in (self._gaps, self._lost):
            counter.labels(name)  # a rate needs the 0 before the first loss
        self._nil_share.labels(name).set(sum(stream.recent) / len(stream.recent))
        if score.valence is None:
            self._nil.labels(name, score.reason or "unknown").inc()
        if name != OTHER:  # of a pool of streams neither a valence nor a running count can be told
            self._valence.labels(name).set(math.nan if score.valence is None else score.valence)
            for modality in MODALITIES:
                alone = getattr(score, modality).valence
                self._alone.labels(name, modality).set(math.nan if alone is None else alone)
            self._mixed.labels(name).set(bool(score.mixed))
            rise = score.dropped - stream.dropped
            self._dropped.labels(name).inc(rise if rise >= 0 else score.dropped)
            stream.dropped = score.dropped
        for stage in STAGES:
            self._latency.labels(stage).observe(max(0.0, getattr(score.latency_ms, stage)) / 1000)
        self._trained.set(score.model.trained)

    def _take_status(self, status: Status, now_ns: int) -> None:
        name = status.envelope.stream
        if status.worker == "inference":
            self._engines.pop(name, None)
            self._engines[name] = (now_ns, status)
            if len(self._engines) > MAX_ENGINES:
                del self._engines[next(iter(self._engines))]
        if not self._worker_names.admit(name):
            return
        for state in STATES:
            self._state.labels(name, state).set(state == status.state)
        for kind, values in (
            (self._counter, status.counters),
            (self._gauge, status.gauges),
        ):
            for key, value in values.items():
                if self._value_names.admit(key):
                    kind.labels(name, key).set(value)

    def _stream_name(self, stream: str) -> str:
        return stream if self._stream_names.admit(stream) else OTHER

    def _forget(self, name: str) -> None:
        """Drop the metrics of a stream that is gone; its counters would stand still for ever."""
        del self._streams[name]
        self._silent.discard(name)
        self._stream_names.forget(name)
        for metric in (
            self._scores,
            self._dropped,
            self._lost,
            self._gaps,
            self._valence,
            self._nil_share,
            self._mixed,
            self._age,
        ):
            with suppress(KeyError):
                metric.remove(name)
        for modality in MODALITIES:
            with suppress(KeyError):
                self._alone.remove(name, modality)
        for reason in REASONS:
            with suppress(KeyError):
                self._nil.remove(name, reason)
