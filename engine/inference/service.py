"""The worker without its sockets: what it does with messages, commands and time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from itertools import accumulate

import msgspec
import numpy as np
from msgspec.structs import replace

from engine.inference.core import InferenceCore
from engine.settings import EngineSettings
from engine.wire.membership import Held
from engine.wire.messages import (
    SCHEMA,
    Clock,
    Envelope,
    Message,
    ModelInfo,
    Score,
    Status,
    WorkerState,
)

STATUS_PERIOD_NS = 1_000_000_000
DESCRIBED_BYTES = 32 * 1024
"""Of stream names in the reply to ``describe``: half of what a reply may hold."""
MAX_CAPTURES = 1024
"""Capture workers whose status is passed on."""
LATENCIES = 1024
"""Scores over which the latency gauges are taken."""
RECENT_NS = 5_000_000_000
"""Span of the latency that says whether this worker may take more streams."""
SETTLE_NS = 3_000_000_000
"""Age from which a stream's latency counts towards it."""


class CommandError(Exception):
    """A control command that cannot be carried out; the text is for the client."""


class InferenceService:
    """Takes what comes in, and says what goes out, through ``publish``.

    Args:
        core: scores the streams.
        settings: the engine's settings, for ``describe``.
        clock: this host's clock.
        publish: sends a score or a status to the subscribers.
        now: reads that clock, in nanoseconds, for the time of sending.
        memory_mb: reads this process's resident memory.
        detail: one line on the backend, for people.
        forget: drops the last message of a kind and stream, which new subscribers would get.
    """

    def __init__(
        self,
        core: InferenceCore,
        settings: EngineSettings,
        clock: Clock,
        publish: Callable[[Score | Status], None],
        now: Callable[[], int],
        memory_mb: Callable[[], float],
        detail: str,
        forget: Callable[[str, str], None] = lambda kind, name: None,
    ) -> None:
        self._core = core
        self._forget = forget
        self._captures: dict[str, int] = {}
        self._settings = settings
        self._name = settings.cluster.name
        self._clock = clock
        self._publish = publish
        self._now = now
        self._memory_mb = memory_mb
        self._detail = detail
        self._counters: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._recent: deque[tuple[int, float]] = deque(maxlen=LATENCIES)
        self._began: dict[str, tuple[int, int]] = {}
        self._seq = 0
        self._status_ns = now()
        self.state: WorkerState = "starting"

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of the status, such as messages that could not be decoded."""
        self._counters[name] += number

    def set_state(self, state: WorkerState) -> None:
        """Change the state and tell the subscribers at once."""
        self.state = state
        self._publish_status(self._now())

    def push(self, message: Message, now_ns: int) -> None:
        """File a message of a capture worker or a client; pass a capture worker's status on."""
        if isinstance(message, Status):
            # Only this worker reports its own state: what others say of it is not passed on.
            if message.worker != "capture" or message.envelope.stream == self._name:
                self._counters["messages_unexpected"] += 1
            elif self._admit(message.envelope.stream, now_ns):
                self._publish(message)
            else:
                self._counters["workers_refused"] += 1
        elif self.state == "paused":
            self._counters["messages_paused"] += 1
        else:
            if self.state == "ready":
                self.set_state("running")
            self._core.push(message, now_ns)

    def _admit(self, worker: str, now_ns: int) -> bool:
        """Whether a capture worker's status is passed on: their number is limited."""
        if worker not in self._captures and len(self._captures) >= MAX_CAPTURES:
            return False
        self._captures[worker] = now_ns
        return True

    def _forget_silent(self, now_ns: int) -> None:
        """Forget the last messages of streams and capture workers that have gone."""
        for stream in self._core.pop_forgotten():
            self._forget("score", stream)
        oldest_ns = now_ns - int(self._settings.inference.stream_timeout_s * 1e9)
        for worker in [name for name, heard in self._captures.items() if heard < oldest_ns]:
            del self._captures[worker]
            self._forget("status", worker)

    def step(self, now_ns: int) -> None:
        """Score what is due and publish it; once a second, publish the status too."""
        if self.state != "paused":
            for score in self._core.pop_ready(now_ns):
                stamped = self._stamped(score)
                self._latencies.append(stamped.latency_ms.total)
                self._note_latency(stamped, now_ns)
                self._publish(stamped)
            for name in self._core.pop_ended():
                self._publish(self._farewell(name, now_ns))
        if now_ns - self._status_ns >= STATUS_PERIOD_NS:
            self._forget_silent(now_ns)
            self._publish_status(now_ns)

    def work_ahead(self) -> bool:
        """Do a part of the work for windows yet to come; False where nothing is left."""
        return self.state != "paused" and self._core.work_ahead()

    def _farewell(self, stream: str, now_ns: int) -> Status:
        """The status that ends a person's stream, in the name of the camera that saw them."""
        envelope = Envelope(f"{stream}.camera", 0, now_ns, now_ns, self._now(), self._clock)
        return Status(envelope, "capture", "ended", "the person has left")

    def _note_latency(self, score: Score, now_ns: int) -> None:
        """File a score's latency, but for that of a stream which has just come.

        Its first windows are of its past: late, but no sign of this worker's load.
        """
        name, epoch = score.envelope.stream, score.envelope.epoch
        if self._began.get(name, (-1, 0))[0] != epoch:
            self._began[name] = (epoch, now_ns)
        if now_ns - self._began[name][1] >= SETTLE_NS or epoch == 0:
            self._recent.append((now_ns, score.latency_ms.total))

    def wake_ns(self) -> int:
        """When ``step`` has to be called even if nothing comes in."""
        deadline_ns = None if self.state == "paused" else self._core.next_deadline_ns()
        status_ns = self._status_ns + STATUS_PERIOD_NS
        return status_ns if deadline_ns is None else min(status_ns, deadline_ns)

    def _stamped(self, score: Score) -> Score:
        if score.envelope.clock != self._clock:
            return score  # its stamps are the capture host's
        sent_ns = self._now()
        since_fused_ms = (sent_ns - score.envelope.t_sent_ns) / 1e6
        total_ms = score.latency_ms.total + max(since_fused_ms, 0.0)
        return replace(score, latency_ms=replace(score.latency_ms, total=total_ms))

    def _publish_status(self, now_ns: int) -> None:
        envelope = Envelope(
            self._name, self._seq, min(self._status_ns, now_ns), now_ns, self._now(), self._clock
        )
        self._seq += 1
        self._status_ns = now_ns
        for stream in self._began.keys() - set(self._core.streams):
            del self._began[stream]
        self._publish(
            Status(
                envelope=envelope,
                worker="inference",
                state=self.state,
                detail=self._detail,
                counters={**self._core.counters, **self._counters},
                gauges=self._gauges(),
            )
        )

    def _gauges(self) -> dict[str, float]:
        gauges = {"streams": float(len(self._core.streams)), "memory_mb": self._memory_mb()}
        if self._latencies:
            p50, p95, p99 = np.percentile(self._latencies, (50, 95, 99))
            gauges |= {
                "latency_p50_ms": float(p50),
                "latency_p95_ms": float(p95),
                "latency_p99_ms": float(p99),
            }
        return gauges

    def pause(self) -> None:
        """Drop what comes in and score nothing until ``resume``."""
        if self.state != "paused":
            self.set_state("paused")

    def resume(self) -> None:
        """Continue with fresh windows: what was said before the pause is not scored."""
        if self.state == "paused":
            self._core.forget()
            self.set_state("ready")

    def mark(self, label: str, stream: str | None = None) -> int:
        """Put a label on the next score of one stream or of all; return how many it reaches.

        Raises:
            CommandError: no such stream, or too many marks at once.
        """
        if stream is not None and stream not in self._core.streams:
            known = ", ".join(self._core.streams[:8]) or "none"
            raise CommandError(f"no stream {stream!r}; known: {known}")
        reached = self._core.mark(label, stream)
        if not reached and self._core.streams:
            raise CommandError("the next score has no room for another mark: ask again in a moment")
        return reached

    @property
    def model(self) -> ModelInfo:
        """The model that scores here."""
        return self._core.model

    @property
    def hop_ms(self) -> int:
        """Time between two scores of a stream."""
        return self._settings.inference.hop_ms

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that are here."""
        return self._core.streams

    def held(self) -> dict[str, Held]:
        """The streams that are here, and how far each is scored."""
        return self._core.held()

    def release(self, stream: str, epoch: int) -> Held:
        """Stop at once with a stream that lives elsewhere now; return how far it was scored."""
        self._began.pop(stream, None)
        for person in self._core.streams:
            if person.startswith(f"{stream}/"):
                self._core.release(person, epoch)
        return self._core.release(stream, epoch)

    def recent_p99_ms(self) -> float:
        """99th percentile of the last seconds' latency; 0 without a score."""
        oldest_ns = self._now() - RECENT_NS
        while self._recent and self._recent[0][0] < oldest_ns:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        return max(0.0, float(np.percentile([ms for _, ms in self._recent], 99)))

    def learn_clock(self, clock: Clock, offset_ns: int) -> None:
        """Take another host's clock as ours minus ``offset_ns``, as measured by its echoes."""
        self._core.learn_clock(clock, offset_ns)

    def describe(self) -> dict[str, object]:
        """What this engine is: schema, model, state, streams, endpoints and windows."""
        model, streams = self._core.model, self._core.streams
        # A reply is limited in size; the names of a thousand streams may exceed it.
        sizes = accumulate(len(name.encode()) + 5 for name in streams)
        named = [n for n, size in zip(streams, sizes, strict=True) if size <= DESCRIBED_BYTES]
        return {
            "schema": SCHEMA,
            "state": self.state,
            "detail": self._detail,
            "model": msgspec.to_builtins(model),
            "streams": list(named),
            "stream_count": len(streams),
            "scores": self._settings.scores,
            "ingest": self._settings.ingest,
            "hop_ms": self._settings.inference.hop_ms,
            "clock": msgspec.to_builtins(self._clock),
        }
