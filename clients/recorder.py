"""The recorder: scores of a subscriber into a recording, until it is asked to end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from clients.record import Recording
from clients.subscriber import Subscriber
from engine.wire.messages import Score
from engine.wire.rows import row_of

POLL_MS = 100


def run(
    subscriber: Subscriber,
    recording: Recording,
    seconds: float | None,
    stopped: Callable[[], bool],
    words: bool = False,
) -> int:
    """Record for ``seconds`` (None: for ever) or until ``stopped``; return how many scores.

    Without ``words`` what people said is left out, even where the engine publishes it.

    Raises:
        OSError: the disk is full or gone.
        WireError: the engine refused this client's key.
    """
    count, known = 0, set[str]()
    end_s = None if seconds is None else time.monotonic() + seconds
    over = False
    while not over:
        # Looked at before the last poll: what has arrived by the end is still recorded.
        over = stopped() or (end_s is not None and time.monotonic() >= end_s)
        for event in subscriber.poll(POLL_MS):
            if not isinstance(event, Score):
                continue
            stream = event.envelope.stream
            # What the engine repeats for a newcomer was said before this recording began.
            if event.envelope.repeated and stream not in known:
                continue
            known.add(stream)
            recording.write(row_of(event if words else without_words(event)))
            count += 1
        recording.tick()
    return count


def without_words(score: Score) -> Score:
    """A score that does not say what was understood."""
    if score.transcript.words is None:
        return score
    return replace(score, transcript=replace(score.transcript, words=None))


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a flag: an exception could fall between two halves of a write.

    Outside, and so while files are joined at the end, Ctrl-C interrupts as always.
    """
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: caught.append(number)) for n in numbers}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
