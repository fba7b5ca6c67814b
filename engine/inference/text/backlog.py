"""Which reading comes next, and which are given up under load. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from engine.inference.text.pieces import Reading

MAX_WAIT_NS = 4_000_000_000
"""A piece that has waited this long says nothing about now."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A reading and whose it is."""

    stream: str
    session: int
    """Number of the stream's stretch, unlike any other's."""
    reading: Reading
    asked_ns: int
    """When it was asked for, on our clock."""
    needed_ns: int
    """When the first window that may know its words is due, on our clock."""


class Backlog:
    """Waiting readings of all streams.

    Pieces that have ended come first, then tentative readings, in turn over the streams. Within
    a stream the newest comes first: what was said last matters most. A tentative reading gives
    way to a newer one of its stream, and is given up once its time has passed (``words_thinned``);
    a piece is given up when it has waited too long (``words_dropped``).
    """

    def __init__(self) -> None:
        self._final: OrderedDict[str, list[Job]] = OrderedDict()
        self._tentative: OrderedDict[str, Job] = OrderedDict()
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tentative) + sum(map(len, self._final.values()))

    def push(self, job: Job) -> None:
        """Let a reading wait."""
        if self._tentative.pop(job.stream, None) is not None:
            self.counters["words_thinned"] += 1
        if job.reading.final:
            self._final.setdefault(job.stream, []).append(job)
        else:
            self._tentative[job.stream] = job

    def pop(self, now_ns: int) -> Job | None:
        """Hand out the next reading; None where nothing waits."""
        while self._final:
            stream, jobs = self._final.popitem(last=False)
            fresh = [job for job in jobs if now_ns - job.asked_ns <= MAX_WAIT_NS]
            self.counters["words_dropped"] += len(jobs) - len(fresh)
            if not fresh:
                continue
            job = fresh.pop()
            if fresh:
                self._final[stream] = fresh  # at the end of the line
            return job
        while self._tentative:
            _, job = self._tentative.popitem(last=False)
            if now_ns <= job.needed_ns:
                return job
            self.counters["words_thinned"] += 1
        return None

    def forget(self) -> None:
        """Drop everything."""
        self._final.clear()
        self._tentative.clear()
