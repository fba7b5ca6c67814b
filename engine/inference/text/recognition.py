"""Recognises readings outside the scoring path, in a thread of its own that gives way to others.

A score takes the words that have come so far and never waits for more. Scoring a clip offline
there is no thread: what was asked for is read before the next window, so that the same words
count as they do live.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread, get_native_id
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.inference.text.backlog import Backlog, Job
from engine.inference.text.given import CLOSING_S
from engine.inference.text.transcript import Passage, Transcript
from engine.inference.tracks.rings import Frames
from models.hearing import levelled
from models.preprocessing import to_float
from models.recogniser.decoding import Transcription
from models.spec import RecogniserSpec

log = logging.getLogger(__name__)

NICE = 10
"""The recogniser's threads let capture and scoring go first, where the system can tell threads."""
MAX_TRANSCRIPTS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """What a stream's last utterances say, as the network reads it."""

    stream: str
    session: int
    passage: Passage
    frames: Frames
    """[n, D] of the text encoder; n is 0 where nothing is believed."""


class WordsModel(Protocol):
    """A recogniser and a reader of what it writes."""

    def transcribe(self, samples: NDArray[np.float32]) -> Transcription:
        """Write down a piece of speech [N] at 16 kHz."""
        ...

    def read(self, text: str) -> Frames:
        """Frames [n, D] of a text."""
        ...


class WordsSource(Protocol):
    """Reads pieces of speech, some time later."""

    @property
    def counters(self) -> Counter[str]:
        """What was read and what was given up."""
        ...

    def submit(self, job: Job) -> None:
        """Take a reading."""
        ...

    def pop_ready(self) -> list[Recognised]:
        """Hand out what is done."""
        ...


class Transcripts:
    """Rolling transcripts of all streams: a reading and what it found in, a passage out."""

    def __init__(self, spec: RecogniserSpec, model: WordsModel, dim: int) -> None:
        self._spec = spec
        self._model = model
        self._nothing = np.zeros((0, dim), np.float32)
        self._known: OrderedDict[int, Transcript] = OrderedDict()

    def recognise(self, job: Job) -> Recognised | None:
        """Carry out one reading; None where a later one made it needless."""
        found = self._model.transcribe(levelled(to_float(job.reading.samples)))
        transcript = self._known.setdefault(job.session, Transcript(self._spec))
        self._known.move_to_end(job.session)
        while len(self._known) > MAX_TRANSCRIPTS:
            self._known.popitem(last=False)
        passage = transcript.accept(job.reading, found)
        if passage is None:
            return None
        frames = self._model.read(passage.text) if passage.text else self._nothing
        return Recognised(job.stream, job.session, passage, frames)


class OfflineWords:
    """Carries out what was asked for when it is collected.

    Args:
        spec: of the bundle's recogniser.
        load: makes the model, with the first reading.
        dim: width of the text frames.
    """

    def __init__(self, spec: RecogniserSpec, load: Callable[[], WordsModel], dim: int) -> None:
        self._spec, self._load, self._dim = spec, load, dim
        self._transcripts: Transcripts | None = None
        self._waiting: list[Job] = []
        self.counters: Counter[str] = Counter()

    def submit(self, job: Job) -> None:
        """See ``WordsSource``."""
        self._waiting.append(job)

    def pop_ready(self) -> list[Recognised]:
        """See ``WordsSource``."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        if self._transcripts is None:
            self._transcripts = Transcripts(self._spec, self._load(), self._dim)
        self.counters["words_read"] += len(waiting)
        found = [self._transcripts.recognise(job) for job in waiting]
        return [item for item in found if item is not None]


class ThreadedWords:
    """Carries out readings in a thread, which loads the model first.

    Args:
        spec: of the bundle's recogniser.
        load: makes the model, in the thread.
        dim: width of the text frames.
        now: reads our clock, in nanoseconds.
    """

    def __init__(
        self,
        spec: RecogniserSpec,
        load: Callable[[], WordsModel],
        dim: int,
        now: Callable[[], int],
    ) -> None:
        self._spec, self._load, self._dim, self._now = spec, load, dim, now
        self._backlog = Backlog()
        self._changed = Condition()
        self._results: queue.SimpleQueue[Recognised] = queue.SimpleQueue()
        self._read = 0
        self._reading = False
        self._closing = False
        self.failure: str | None = None
        """Why no words are read; None while they are."""
        self._thread = Thread(target=self._run, name="words", daemon=True)
        self._thread.start()

    @property
    def counters(self) -> Counter[str]:
        """See ``WordsSource``."""
        with self._changed:
            return self._backlog.counters + Counter({"words_read": self._read})

    @property
    def busy(self) -> bool:
        """Whether a reading waits or is being carried out."""
        with self._changed:
            return self.failure is None and (self._reading or len(self._backlog) > 0)

    def submit(self, job: Job) -> None:
        """See ``WordsSource``; after a failure every reading is dropped."""
        with self._changed:
            if self.failure is not None:
                self._backlog.counters["words_dropped"] += 1
                return
            self._backlog.push(job)
            self._changed.notify()

    def pop_ready(self) -> list[Recognised]:
        """See ``WordsSource``."""
        found = []
        while not self._results.empty():
            found.append(self._results.get_nowait())
        return found

    def close(self) -> None:
        """End the thread after the reading in hand.

        A process that ends while it loads a model aborts: its runtime's own threads are running.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        give_way()
        try:
            transcripts = Transcripts(self._spec, self._load(), self._dim)
            while (job := self._next()) is not None:
                found = transcripts.recognise(job)
                if found is not None:
                    self._results.put(found)
                with self._changed:
                    self._read += 1
                    self._reading = False
        except Exception as error:  # a model's own errors have no common base
            log.error("no words from here on: %s", error)
            with self._changed:
                self.failure = str(error)
                self._backlog.forget()

    def _next(self) -> Job | None:
        """The next reading; None: no more."""
        with self._changed:
            job = None
            while not self._closing and (job := self._backlog.pop(self._now())) is None:
                self._changed.wait()
            if job is None:
                return None
            self._reading = True
            return job


def give_way() -> None:
    """Let every other thread go first, as far as the system allows."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)
