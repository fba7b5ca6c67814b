"""Replay: a recording published again as a scores endpoint, at any speed.

The scores go out as they came in, with the clock and the stamps of their day. A worker called
``replay`` says ``running`` once a second and ``ended`` at the end, so that clients see who speaks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from clients.reading import RecordingFile
from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Envelope, Score, Status, WorkerState
from engine.wire.rows import Row
from engine.wire.scores import ScorePublisher

PATIENCE_MS = 5_000
"""A subscriber that takes nothing for this long loses scores rather than stopping the others."""
STATUS_S = 1.0
LONGEST_SLEEP_S = 0.1
"""A new subscriber is greeted within it."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a replay did."""

    scores: int
    gave_up: bool
    """A subscriber took nothing for ``PATIENCE_MS``; from then on nobody was waited for."""


def schedule(rows: Iterable[Row], speed: float) -> Iterator[tuple[float, Score]]:
    """Scores, each with the seconds after the start when it is due; pure.

    The pace is that of their arrival at the recorder; a wall clock that was set back while
    recording gives no negative pause.

    Args:
        rows: the recording.
        speed: 1 is as it was, 2 twice as fast, 0 without any pause.
    """
    due_s, before_s = 0.0, None
    for row in rows:
        if before_s is not None and speed > 0:
            due_s += max(0.0, row.received_unix_s - before_s) / speed
        before_s = row.received_unix_s
        yield due_s, row.score


class Replay:
    """Publishes a schedule; owns no socket and takes its clock as an argument."""

    def __init__(
        self,
        publisher: ScorePublisher,
        detail: str,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher, self._detail, self._now_s = publisher, detail, now_s
        self._status_s = float("-inf")
        self._statuses = 0
        publisher.wait_for_readers(PATIENCE_MS)

    def await_subscriber(self) -> None:
        """Wait until somebody subscribes, so that the beginning is not lost."""
        while not self._publisher.greet():
            self._publisher.raw.poll(1000)

    def play(self, scheduled: Iterable[tuple[float, Score]]) -> Played:
        """Publish every score when it is due, then the word ``ended``."""
        start_s, count = self._now_s(), 0
        for due_s, score in scheduled:
            while (wait_s := start_s + due_s - self._now_s()) > 0:
                self._serve(wait_s)
            self._serve(0)
            self._publisher.publish(score)
            count += 1
        self._say("ended")
        return Played(count, self._publisher.gave_up)

    def _serve(self, wait_s: float) -> None:
        """Greet new subscribers and tell of the state while waiting."""
        if self._now_s() - self._status_s >= STATUS_S:
            self._say("running")
        # Rounded up: a poll that ends just before the time would spin until it is reached.
        wait_ms = int(min(wait_s, LONGEST_SLEEP_S) * 1000 + 0.999)
        if self._publisher.raw.poll(wait_ms):
            self._publisher.greet()

    def _say(self, state: WorkerState) -> None:
        self._status_s, now = self._now_s(), now_ns()
        envelope = Envelope("replay", self._statuses, now, now, now, this_clock())
        self._statuses += 1
        self._publisher.publish(Status(envelope, "inference", state, self._detail))


def replay(
    recording: RecordingFile, bind: str, speed: float, wait: bool, say: Callable[[str], None]
) -> None:
    """Publish a recording on ``bind`` and tell, line by line, what happens.

    Raises:
        RecordError: a damaged recording.
        WireError: the endpoint is in use.
    """
    pace = "without pauses" if speed == 0 else f"at {speed:g}x"
    publisher = ScorePublisher(bind, stamps=False)
    try:
        player = Replay(publisher, f"replay of {recording.path.name} {pace}")
        say(f"{recording.path.name} {pace} on {publisher.endpoint}")
        if wait:
            say("waiting for a subscriber (--no-wait begins at once)")
            player.await_subscriber()
        played = player.play(schedule(recording.rows(), speed))
    except BaseException:
        publisher.close()
        raise
    for note in recording.notes:
        say(note)
    say(f"{played.scores} scores published")
    if played.gave_up:
        say(f"a subscriber took nothing for {PATIENCE_MS / 1000:g} s; it has lost scores")
    publisher.finish(PATIENCE_MS)
