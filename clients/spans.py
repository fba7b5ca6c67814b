"""Averages of a recording: from each mark to the next, and by the minute. Pure.

An average's interval is the mean of its scores' intervals, not narrower for being many: windows
overlap and share the model's errors, so that an average of many is no surer than one of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clients.sessions import POSITIVE, Session

MINUTE_S = 60.0
FIRST = "beginning"
"""Label of what comes before a stream's first mark."""


@dataclass(frozen=True, slots=True)
class Average:
    """What a stretch of one stream was like; None where nothing had a value."""

    recording: str
    stream: str
    kind: Literal["mark", "minute"]
    label: str
    start_s: float
    end_s: float
    """Seconds after the recording's first score."""
    scores: int
    valence: float | None
    low: float | None
    high: float | None
    """Mean ends of the intervals."""
    positive: float
    """Share of all scores above 0.5; with ``negative``, ``neutral`` and ``unknown`` it makes 1."""
    neutral: float
    negative: float
    unknown: float
    """Share without a valence."""
    speaking: float
    face: float
    audio: float | None
    text: float | None
    video: float | None
    """Mean of what each modality says by itself."""
    mixed: float
    """Share of all scores in which two of them contradict each other."""


NAMES = tuple(field.name for field in fields(Average))


def averages(session: Session, recording: str = "") -> list[Average]:
    """Every stretch between marks, where there are marks, then every minute."""
    found = list(_by_mark(session, recording))
    end_s = float(session.t_s[-1])
    minutes = int(end_s // MINUTE_S) + 1
    edges = [(str(n + 1), n * MINUTE_S, (n + 1) * MINUTE_S) for n in range(minutes)]
    found += _averaged(session, recording, "minute", edges)
    return found


def _by_mark(session: Session, recording: str) -> Iterator[Average]:
    starts = [
        (float(t_s), row.score.mark)
        for t_s, row in zip(session.t_s, session.rows, strict=True)
        if row.score.mark is not None
    ]
    if not starts:
        return
    begin_s, after_s = float(session.t_s[0]), float(session.t_s[-1]) + session.step_s
    if starts[0][0] > begin_s:
        starts.insert(0, (begin_s, FIRST))
    ends = [start_s for start_s, _ in starts[1:]] + [after_s]
    edges = [(label, start_s, end_s) for (start_s, label), end_s in zip(starts, ends, strict=True)]
    yield from _averaged(session, recording, "mark", edges)


def _averaged(
    session: Session,
    recording: str,
    kind: Literal["mark", "minute"],
    edges: Iterable[tuple[str, float, float]],
) -> Iterator[Average]:
    valence, low, high = (session.column(name) for name in ("valence", "low", "high"))
    speaking = np.array([row.score.speaking for row in session.rows])
    face = np.array([row.score.faces > 0 for row in session.rows])
    audio, text, video = (session.column(f"{name}_valence") for name in ("audio", "text", "video"))
    mixed = np.array([bool(row.score.mixed) for row in session.rows])
    for label, start_s, end_s in edges:
        held = (session.t_s >= start_s) & (session.t_s < end_s)
        count = int(held.sum())
        if not count:
            continue
        values = valence[held]
        known = np.isfinite(values)
        positive = float((values[known] > POSITIVE).sum() / count)
        negative = float((values[known] < -POSITIVE).sum() / count)
        unknown = float((~known).sum() / count)
        yield Average(
            recording,
            session.stream,
            kind,
            label,
            start_s,
            min(end_s, float(session.t_s[-1])),
            count,
            _mean(values),
            _mean(low[held]),
            _mean(high[held]),
            positive,
            max(0.0, 1.0 - positive - negative - unknown),
            negative,
            unknown,
            float(speaking[held].mean()),
            float(face[held].mean()),
            _mean(audio[held]),
            _mean(text[held]),
            _mean(video[held]),
            float(mixed[held].mean()),
        )


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def to_csv(found: Iterable[Average]) -> str:
    """Write averages as CSV, an empty cell for None."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(NAMES)
    for average in found:
        values = (getattr(average, name) for name in NAMES)
        writer.writerow(["" if value is None else _cell(value) for value in values])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    # A text that a spreadsheet would take for a formula is kept a text.
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
