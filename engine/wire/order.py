"""Scores in order and once each, where more than one relay, or more than one worker, sends them.

Pure. Two relays bring every score twice. A stream that has moved may be scored again for a window
that its former worker had scored before it died; and a worker that was taken for dead may come
back with old scores. The epoch says which placement of the stream is the newer one.
"""

from __future__ import annotations

from typing import TypeVar

from engine.wire.messages import Clock, Score, Status

MAX_SOURCES = 100_000
Value = TypeVar("Value")


class Order:
    """Remembers the newest score of every stream and status of every worker."""

    def __init__(self, several: bool) -> None:
        """``several``: there is more than one relay, so that repetitions are usual."""
        self._several = several
        self._scores: dict[str, tuple[int, int, Clock]] = {}
        self._status: dict[str, tuple[int, Clock]] = {}
        self.repeated = 0
        """Messages that were left out."""

    def admits(self, message: Score | Status) -> bool:
        """Whether a message is news."""
        envelope = message.envelope
        if isinstance(message, Status):
            known = self._status.get(envelope.stream)
            news = not self._several or known is None or known[1] != envelope.clock
            news = news or (known is not None and envelope.t_sent_ns > known[0])
            if news:
                _remember(self._status, envelope.stream, (envelope.t_sent_ns, envelope.clock))
        else:
            epoch, end_ns, clock = envelope.epoch, envelope.t_end_ns, envelope.clock
            last = self._scores.get(envelope.stream)
            if epoch == 0 and not self._several:
                return True  # of a single worker, who repeats for newcomers and may be restarted
            if last is None or clock != last[2]:
                news = last is None or epoch > last[0]
            else:
                news = epoch >= last[0] and end_ns > last[1]
            if news:
                _remember(self._scores, envelope.stream, (epoch, end_ns, clock))
        self.repeated += not news
        return news


def _remember(known: dict[str, Value], name: str, value: Value) -> None:
    known.pop(name, None)
    known[name] = value
    if len(known) > MAX_SOURCES:
        del known[next(iter(known))]
