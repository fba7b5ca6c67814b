"""What a subscriber hears besides scores: losses and silence. Pure: the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.messages import Clock, Score, Status

NS_PER_S = 1_000_000_000
OVER = ("ended", "stopping")
"""States in which a worker leaves: no status is expected after that."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Scores of a stream were lost on the way: this client was too slow, or the link broke."""

    stream: str
    missing: int


@dataclass(frozen=True, slots=True)
class Stale:
    """A stream, or a worker's status, has been silent for longer than it should."""

    source: str
    """The stream's or the worker's name."""
    silence_s: float
    worker: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """The connection to the engine was lost, or is there again after that."""

    endpoint: str
    connected: bool


Event = Score | Status | Gap | Stale | Link


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest score of a stream."""

    seq: int
    epoch: int
    t_end_ns: int
    clock: Clock
    hop_ns: int
    """Between it and its neighbour; 0 while that is not known."""

    @staticmethod
    def of(score: Score, before: _Last | None) -> _Last:
        at, hop_ns = score.envelope, 0 if before is None else before.hop_ns
        if before is not None and (at.epoch, at.seq) == (before.epoch, before.seq + 1):
            hop_ns = at.t_end_ns - before.t_end_ns
        return _Last(at.seq, at.epoch, at.t_end_ns, at.clock, max(hop_ns, 0))

    def missing(self, score: Score) -> int:
        """Scores between this one and the next that has come."""
        at = score.envelope
        if at.seq > self.seq:
            return at.seq - self.seq - 1
        # A worker that does not know the former one's numbers: the time says what was lost.
        moved = at.epoch > self.epoch and at.clock == self.clock and self.hop_ns > 0
        return max(0, round((at.t_end_ns - self.t_end_ns) / self.hop_ns) - 1) if moved else 0


class Tracker:
    """Sequence numbers and last arrivals of every stream and worker."""

    def __init__(self, stale_s: float) -> None:
        self._stale_ns = int(stale_s * NS_PER_S)
        self._last: dict[str, _Last] = {}
        self._status: dict[str, int] = {}
        self._engines: set[str] = set()
        """Inference workers that are at work: a cluster has several."""
        self._heard: dict[tuple[bool, str], int] = {}
        self._reported: set[tuple[bool, str]] = set()
        self._ended: set[str] = set()
        """Streams whose capture has ended: their last scores may still be on the way."""

    def take(self, message: Score | Status, now_ns: int) -> list[Event]:
        """Events that a message makes: a gap before it, and itself unless it is a repetition.

        A publisher repeats the last score and status for a new subscriber: that is news to it
        alone, and no sign of life to anyone. A number that falls back means that the worker was
        restarted: nothing is known to be lost.
        """
        name, fresh = message.envelope.stream, not message.envelope.repeated
        key = (isinstance(message, Status), name)
        if fresh:
            self._reported.discard(key)
        if isinstance(message, Status):
            self._hear(key, now_ns, fresh)
            known, self._status[name] = self._status.get(name), message.envelope.seq
            if not fresh and known == message.envelope.seq:
                return []
            if message.worker == "inference":
                self._engines.add(name)
            if message.state in OVER:
                self._forget(message)
            else:
                self._ended.discard(_captured(message))
            return [message]
        if name not in self._ended:
            self._hear(key, now_ns, fresh)
        last, envelope = self._last.get(name), message.envelope
        if last is not None and (last.epoch, last.seq) == (envelope.epoch, envelope.seq):
            return []
        missing = 0 if last is None else last.missing(message)
        self._last[name] = _Last.of(message, last)
        return [Gap(name, missing), message] if missing else [message]

    def _hear(self, key: tuple[bool, str], now_ns: int, fresh: bool) -> None:
        """Count silence from now on; of a repetition only where nothing was heard before."""
        if fresh or key not in self._heard:
            self._heard[key] = now_ns

    def silent(self, now_ns: int) -> list[Event]:
        """Who has become silent; each is reported once until it is heard again."""
        found: list[Event] = []
        for key, heard_ns in self._heard.items():
            if now_ns - heard_ns > self._stale_ns and key not in self._reported:
                self._reported.add(key)
                worker, name = key
                if worker:
                    self._engines.discard(name)
                found.append(Stale(name, (now_ns - heard_ns) / NS_PER_S, worker))
        return found

    def _forget(self, last: Status) -> None:
        """Expect nothing more of a worker that ended by itself, nor of the streams it fed.

        The inference worker passes on everything: with the last of them all streams and workers
        end. A capture worker's stream ends with the last of its workers (a microphone's and a
        camera's).
        """
        if last.worker == "inference":
            self._engines.discard(last.envelope.stream)
            self._heard.pop((True, last.envelope.stream), None)
            if not self._engines:
                self._heard.clear()
            return
        stream = _captured(last)
        self._heard.pop((True, last.envelope.stream), None)
        siblings = {name for worker, name in self._heard if worker}
        if not any(name.rpartition(".")[0] == stream for name in siblings):
            self._ended.add(stream)
            self._heard.pop((False, stream), None)


def _captured(status: Status) -> str:
    """Name of the stream that a capture worker feeds: the worker is called ``STREAM.DEVICE``."""
    return status.envelope.stream.rpartition(".")[0] if status.worker == "capture" else ""
