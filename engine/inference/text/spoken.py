"""Text simulated once per speech segment, outside the scoring path (``llm`` text simulation).

A language model takes from tenths of a second to seconds for a segment. So speech is gathered
per stream until it pauses, simulated in a thread of its own, all streams' waiting segments in
one batch, and the states join the stream's text ring when they are there: a score takes what
has come so far and never waits.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Clock
from models.preprocessing import to_float
from models.text_simulation.protocol import TextSimulation

log = logging.getLogger(__name__)

NS_PER_S = 1_000_000_000
SHORTEST_NS = 200_000_000
"""Speech shorter than this holds no word."""
MAX_BATCH = 16
LATE_NS = 8 * NS_PER_S
"""Speech that ended so long before its stream's newest has left the window of the words."""
MAX_WAITING = 64
"""Segments in all; beyond that the oldest are dropped and counted."""


@dataclass(frozen=True, slots=True, eq=False)
class SpeechSegment:
    """Speech of one stream without a pause."""

    stream: str
    clock: Clock
    t_start_ns: int
    t_end_ns: int
    samples: NDArray[np.float32]
    """[N] at 16 kHz."""


@dataclass(frozen=True, slots=True, eq=False)
class SpokenText:
    """What a segment was simulated to."""

    segment: SpeechSegment
    frames: NDArray[np.float32]
    """[T, D]; T may be 0."""
    t_end_ns: NDArray[np.int64]
    """[T], on the stream's clock."""


class SpeechGatherer:
    """Cuts one stream's sound into speech segments by its speech flags. Pure.

    Args:
        longest_ns: speech without a pause is cut here, so that its text is not too late.
    """

    def __init__(self, longest_ns: int) -> None:
        self._longest_ns = longest_ns
        self._chunks: list[NDArray[np.int16]] = []
        self._start_ns = self._end_ns = 0
        self._done: list[SpeechSegment] = []

    def push(self, message: Audio, gap: bool) -> None:
        """Take a chunk; ``gap``: it does not follow on the one before."""
        start_ns = message.envelope.t_start_ns
        if gap:
            self._close(message)
        per_frame = SAMPLE_RATE_HZ * message.frame_ms // 1000
        for index, voiced in enumerate(message.speech):
            first = index * per_frame
            if not voiced or self._end_ns - self._start_ns >= self._longest_ns:
                self._close(message)
            if voiced:
                frame = message.samples[first : first + per_frame]
                if not self._chunks:
                    self._start_ns = start_ns + first * NS_PER_S // SAMPLE_RATE_HZ
                self._chunks.append(frame)
                self._end_ns = start_ns + (first + len(frame)) * NS_PER_S // SAMPLE_RATE_HZ

    def pop_ready(self) -> list[SpeechSegment]:
        """Hand out the segments that have ended."""
        done, self._done = self._done, []
        return done

    def _close(self, message: Audio) -> None:
        chunks, self._chunks = self._chunks, []
        if chunks and self._end_ns - self._start_ns >= SHORTEST_NS:
            envelope = message.envelope
            samples = to_float(np.concatenate(chunks))
            self._done.append(
                SpeechSegment(
                    envelope.stream, envelope.clock, self._start_ns, self._end_ns, samples
                )
            )
        self._start_ns = self._end_ns = 0


class SpeechSimulator(Protocol):
    """Simulates the text of segments, some time later."""

    def submit(self, segment: SpeechSegment) -> int:
        """Take a segment; return how many had to be dropped for it."""
        ...

    def pop_ready(self) -> list[SpokenText]:
        """Hand out what is done, without waiting for what is not."""
        ...


class ThreadedSimulator:
    """Runs a text simulation in a thread of its own.

    Live, speech that is too late to count is dropped: a simulation that cannot keep up simulates
    the newest speech, and says once what it costs.

    Args:
        load: makes the simulation; called in the thread, with the first segment.
        wait: ``pop_ready`` waits until nothing is left to do: for clips scored offline.
    """

    def __init__(self, load: Callable[[], TextSimulation], wait: bool = False) -> None:
        self._load = load
        self._wait = wait
        self._waiting: list[SpeechSegment] = []
        self._busy = 0
        self._changed = Condition()
        self._results: queue.SimpleQueue[SpokenText] = queue.SimpleQueue()
        self._thread: Thread | None = None
        self._failed = False
        self._late = 0
        self._has_warned = False

    def submit(self, segment: SpeechSegment) -> int:
        """See ``SpeechSimulator``; after a failure to load, every segment is dropped."""
        with self._changed:
            if self._failed:
                return 1
            if self._thread is None:
                self._thread = Thread(target=self._run, name="text-simulation", daemon=True)
                self._thread.start()
            self._waiting.append(segment)
            dropped = max(0, len(self._waiting) - MAX_WAITING) if not self._wait else 0
            del self._waiting[:dropped]
            late, self._late = self._late, 0
            self._changed.notify_all()
            return dropped + late

    def pop_ready(self) -> list[SpokenText]:
        """See ``SpeechSimulator``."""
        if self._wait:
            with self._changed:
                self._changed.wait_for(lambda: self._failed or not (self._waiting or self._busy))
        found = []
        while not self._results.empty():
            found.append(self._results.get_nowait())
        return found

    def _run(self) -> None:
        try:
            simulation = self._load()
            while True:
                self._step(simulation)
        except Exception as error:  # a model's own errors have no common base
            log.warning("text is not simulated from here on: %s", error)
            with self._changed:
                self._failed = True
                self._waiting.clear()
                self._changed.notify_all()

    def _step(self, simulation: TextSimulation) -> None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting))
            if not self._wait:
                self._drop_late()
            batch = self._waiting[:MAX_BATCH]
            del self._waiting[: len(batch)]
            self._busy = len(batch)
        started = time.monotonic()
        for segment, text in zip(
            batch, simulation.simulate([segment.samples for segment in batch]), strict=True
        ):
            ends = segment.t_start_ns + (text.t_end_s * NS_PER_S).astype(np.int64)
            self._results.put(SpokenText(segment, text.frames, ends))
        self._tell_cost(batch, time.monotonic() - started)
        with self._changed:
            self._busy = 0
            self._changed.notify_all()

    def _drop_late(self) -> None:
        newest: dict[str, int] = {}
        for segment in self._waiting:
            newest[segment.stream] = max(newest.get(segment.stream, 0), segment.t_end_ns)
        kept = [s for s in self._waiting if newest[s.stream] - s.t_end_ns <= LATE_NS]
        self._late += len(self._waiting) - len(kept)
        self._waiting = kept

    def _tell_cost(self, batch: Sequence[SpeechSegment], spent_s: float) -> None:
        """One line, once, if the machine does not keep up with what is said."""
        spoken_s = sum(segment.t_end_ns - segment.t_start_ns for segment in batch) / NS_PER_S
        if self._has_warned or self._wait or spent_s <= spoken_s:
            return
        self._has_warned = True
        log.warning(
            "simulated text takes %.1f s per second of speech on this machine: what is more than "
            "%d s late is dropped and counted (speech_dropped)",
            spent_s / spoken_s,
            LATE_NS // NS_PER_S,
        )
