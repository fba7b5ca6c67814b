"""What a recording holds, stream by stream: times on one axis, losses, and a summary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from engine.wire.clock import OffsetEstimator
from engine.wire.messages import Clock
from engine.wire.rows import BY_NAME, Row

NS_PER_S = 1_000_000_000
SLOWEST_NS = 3600 * NS_PER_S
"""A score that was received later than this was sent by a clock that was set since."""
PAUSE = 3.5
"""A step of this many usual ones between two scores is a pause: no line is drawn across it."""
POSITIVE = 0.5
"""A valence beyond it counts as positive, below its negative as negative (annotators' words:
1 is weakly positive, -1 weakly negative; half-way to 0 they would have rounded there)."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Scores that the recorder never got, or messages that the engine had to drop."""

    t_s: float
    count: int
    kind: str
    """``lost`` (a jump in ``seq``) or ``dropped`` (the engine's counter rose)."""


@dataclass(frozen=True, slots=True)
class Session:
    """One stream's rows in order of time; all arrays are [N]."""

    stream: str
    rows: tuple[Row, ...]
    t_s: NDArray[np.float64]
    """Time of each score: seconds after the recording's first one, on the wall clock."""
    losses: tuple[Loss, ...]
    step_s: float
    """Usual time between two scores."""

    def column(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; none is NaN."""
        column = BY_NAME[name]
        values = (column.of(row) for row in self.rows)
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def pauses(self) -> NDArray[np.intp]:
        """Indices of the scores that follow a pause."""
        return np.flatnonzero(np.diff(self.t_s) > PAUSE * self.step_s) + 1

    def curve(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Time and a column for drawing: a NaN breaks it before the score that ends a pause."""
        at = self.pauses()
        t_s = np.insert(self.t_s, at, self.t_s[at] - self.step_s)
        return t_s, np.insert(self.column(name), at, np.nan)

    def binned(self, name: str, bin_s: float) -> Binned:
        """A column by bins of time, for a recording with more scores than a picture has pixels."""
        bins = np.floor((self.t_s - self.t_s[0]) / bin_s).astype(np.intp)
        values, size = self.column(name), int(bins[-1]) + 1
        known = np.isfinite(values)
        bins, values = bins[known], values[known]
        counts = np.bincount(bins, minlength=size)
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(low, bins, values)
        np.maximum.at(high, bins, values)
        empty = counts == 0
        low[empty] = high[empty] = np.nan
        sums = np.bincount(bins, values, minlength=size)
        mean = np.divide(sums, counts, out=np.full(size, np.nan), where=~empty)
        return Binned(self.t_s[0] + (np.arange(size) + 0.5) * bin_s, mean, low, high)


@dataclass(frozen=True, slots=True)
class Binned:
    """Mean and extremes of a column in bins of time, all [B]; NaN in an empty bin."""

    t_s: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the table; a share is of all scores, 0 to 1; None where nothing is known."""

    stream: str
    scores: int
    seconds: float
    mean: float | None
    positive: float | None
    """Share of the valued scores above ``POSITIVE``."""
    negative: float | None
    width: float | None
    """Mean width of the interval."""
    nil: float
    speaking: float
    face: float
    latency_p50_ms: float
    latency_p95_ms: float
    lost: int
    dropped: int
    marks: int
    model: str
    trained: bool


def sessions(rows: Iterable[Row]) -> list[Session]:
    """Sort rows by stream, in the order of the streams' first appearance."""
    by_stream: dict[str, list[Row]] = {}
    times: dict[str, list[float]] = {}
    clocks: dict[Clock, OffsetEstimator] = {}
    for row in rows:
        envelope = row.score.envelope
        by_stream.setdefault(envelope.stream, []).append(row)
        # A recorder may have been slow to read: that is no reason to distrust a clock.
        estimator = clocks.setdefault(envelope.clock, OffsetEstimator(stale_ns=SLOWEST_NS))
        offset_ns = estimator.observe(envelope.t_sent_ns, int(row.received_unix_s * NS_PER_S))
        times.setdefault(envelope.stream, []).append((envelope.t_end_ns + offset_ns) / NS_PER_S)
    if not by_stream:
        return []
    start = min(min(found) for found in times.values())
    return [_session(n, by_stream[n], np.array(times[n]) - start) for n in by_stream]


def _session(name: str, rows: Sequence[Row], t_s: NDArray[np.float64]) -> Session:
    order = np.argsort(t_s, kind="stable")
    t_s, ordered = t_s[order], tuple(rows[i] for i in order)
    steps = np.diff(t_s)
    step_s = float(np.median(steps)) if len(steps) else 0.5
    return Session(name, ordered, t_s, tuple(_losses(ordered, t_s)), step_s)


def _losses(rows: Sequence[Row], t_s: NDArray[np.float64]) -> Iterable[Loss]:
    for index, (before, after) in enumerate(pairwise(row.score for row in rows), 1):
        missing = after.envelope.seq - before.envelope.seq - 1
        if missing > 0:
            yield Loss(float(t_s[index]), missing, "lost")
        if after.dropped > before.dropped:
            yield Loss(float(t_s[index]), after.dropped - before.dropped, "dropped")


def summary(session: Session) -> Summary:
    """Sum up one stream."""
    scores = [row.score for row in session.rows]
    valued = [score.valence for score in scores if score.valence is not None]
    widths = [s.interval.high - s.interval.low for s in scores if s.interval is not None]
    p50, p95 = np.percentile(session.column("latency_total_ms"), (50, 95))
    models = dict.fromkeys(
        f"{m.name} {m.version} on {m.backend}" for m in (s.model for s in scores)
    )

    def share(count: int) -> float:
        return count / len(scores)

    return Summary(
        session.stream,
        len(scores),
        float(session.t_s[-1] - session.t_s[0]),
        fmean(valued) if valued else None,
        sum(v > POSITIVE for v in valued) / len(valued) if valued else None,
        sum(v < -POSITIVE for v in valued) / len(valued) if valued else None,
        fmean(widths) if widths else None,
        share(len(scores) - len(valued)),
        share(sum(score.speaking for score in scores)),
        share(sum(score.faces > 0 for score in scores)),
        float(p50),
        float(p95),
        sum(loss.count for loss in session.losses if loss.kind == "lost"),
        sum(loss.count for loss in session.losses if loss.kind == "dropped"),
        sum(score.mark is not None for score in scores),
        ", ".join(models),
        all(score.model.trained for score in scores),
    )
