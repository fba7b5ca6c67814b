"""One flat row per score: what recordings hold, the same in all three formats.

A row holds everything that its score does: ``score_of(row_of(score)) == score``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import cast

from engine.wire.messages import (
    Clock,
    Envelope,
    Interval,
    Latency,
    ModalityState,
    ModelInfo,
    NoValueReason,
    Score,
    TextSource,
    Trigger,
)

ROW_SCHEMA = 2
"""Raised when a column goes or changes its meaning; a new column raises it too where ``replay``
needs it. Schema 1 (before the column ``row_schema``) had no latency per stage and no clock."""


@dataclass(frozen=True, slots=True)
class Row:
    """A score, flat. ``None`` is an empty CSV cell, null in JSON and Parquet."""

    row_schema: int
    received_unix_s: float
    """When the score was received, in seconds since 1970 (UTC)."""
    stream: str
    seq: int
    t_start_ns: int
    t_end_ns: int
    """The window's span on the clock of ``clock_host`` and ``clock_boot_id``."""
    t_sent_ns: int
    clock_host: str
    clock_boot_id: str
    valence: float | None
    valence_window: float | None
    low: float | None
    high: float | None
    """The 90 % interval."""
    trend: float | None
    """Valence per second."""
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
    latency_transport_ms: float
    latency_wait_ms: float
    latency_encode_ms: float
    latency_fuse_ms: float
    latency_total_ms: float
    dropped: int
    mark: str | None
    model: str
    model_version: str
    model_sha256: str
    backend: str
    precision: str
    trained: bool
    """Stays the last column: of a cut CSV line its last cell tells whether it is whole."""


NAMES = tuple(field.name for field in fields(Row))


def row_of(score: Score, received_unix_s: float | None = None) -> Row:
    """Flatten a score; ``received_unix_s`` is now unless given."""
    envelope, interval = score.envelope, score.interval
    latency, model = score.latency_ms, score.model
    return Row(
        ROW_SCHEMA,
        time.time() if received_unix_s is None else received_unix_s,
        envelope.stream,
        envelope.seq,
        envelope.t_start_ns,
        envelope.t_end_ns,
        envelope.t_sent_ns,
        envelope.clock.host,
        envelope.clock.boot_id,
        score.valence,
        score.valence_window,
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        score.trend,
        score.trigger,
        score.reason,
        score.speaking,
        score.faces,
        *_cells(score.audio),
        *_cells(score.video),
        *_cells(score.text),
        score.text_source,
        latency.transport,
        latency.wait,
        latency.encode,
        latency.fuse,
        latency.total,
        score.dropped,
        score.mark,
        model.name,
        model.version,
        model.sha256,
        model.backend,
        model.precision,
        model.trained,
    )


def score_of(row: Row) -> Score:
    """Rebuild the score of a row, equal to the one that was recorded.

    The texts of ``trigger``, ``reason`` and ``text_source`` are taken as they are: a file's rows
    are checked by ``clients.reading``.
    """
    clock = Clock(row.clock_host, row.clock_boot_id)
    known = row.low is not None and row.high is not None
    return Score(
        Envelope(row.stream, row.seq, row.t_start_ns, row.t_end_ns, row.t_sent_ns, clock),
        row.valence,
        row.valence_window,
        Interval(cast(float, row.low), cast(float, row.high)) if known else None,
        row.trend,
        cast(Trigger, row.trigger),
        cast("NoValueReason | None", row.reason),
        ModalityState(row.audio_present, row.audio_coverage, row.audio_weight, row.audio_quality),
        ModalityState(row.video_present, row.video_coverage, row.video_weight, row.video_quality),
        ModalityState(row.text_present, row.text_coverage, row.text_weight, row.text_quality),
        cast(TextSource, row.text_source),
        row.speaking,
        row.faces,
        Latency(
            row.latency_transport_ms,
            row.latency_wait_ms,
            row.latency_encode_ms,
            row.latency_fuse_ms,
            row.latency_total_ms,
        ),
        row.dropped,
        ModelInfo(
            row.model,
            row.model_version,
            row.model_sha256,
            row.backend,
            row.precision,
            row.trained,
        ),
        row.mark,
    )


def _cells(state: ModalityState) -> tuple[bool, float, float, float | None]:
    return state.present, state.coverage, state.weight, state.quality
