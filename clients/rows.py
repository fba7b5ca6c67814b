"""One flat row per score: what recordings hold, the same in all three formats."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

from engine.wire.messages import ModalityState, Score


@dataclass(frozen=True, slots=True)
class Row:
    """A score, flat. ``None`` is an empty CSV cell, null in JSON and Parquet."""

    received_unix_s: float
    """When the score was received, in seconds since 1970 (UTC)."""
    stream: str
    seq: int
    t_start_ns: int
    t_end_ns: int
    valence: float | None
    valence_window: float | None
    low: float | None
    high: float | None
    trend: float | None
    trigger: str
    reason: str | None
    speaking: bool
    faces: int
    audio_present: bool
    audio_coverage: float
    audio_weight: float
    audio_quality: float | None
    video_present: bool
    video_coverage: float
    video_weight: float
    video_quality: float | None
    text_present: bool
    text_coverage: float
    text_weight: float
    text_quality: float | None
    text_source: str
    latency_ms: float
    dropped: int
    mark: str | None
    model: str
    model_version: str
    model_sha256: str
    backend: str
    precision: str
    trained: bool


NAMES = tuple(field.name for field in fields(Row))


def row_of(score: Score, received_unix_s: float | None = None) -> Row:
    """Flatten a score."""
    envelope, interval, model = score.envelope, score.interval, score.model
    return Row(
        time.time() if received_unix_s is None else received_unix_s,
        envelope.stream,
        envelope.seq,
        envelope.t_start_ns,
        envelope.t_end_ns,
        score.valence,
        score.valence_window,
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        score.trend,
        score.trigger,
        score.reason,
        score.speaking,
        score.faces,
        *_state(score.audio),
        *_state(score.video),
        *_state(score.text),
        score.text_source,
        score.latency_ms.total,
        score.dropped,
        score.mark,
        model.name,
        model.version,
        model.sha256,
        model.backend,
        model.precision,
        model.trained,
    )


def _state(state: ModalityState) -> tuple[bool, float, float, float | None]:
    return state.present, state.coverage, state.weight, state.quality
