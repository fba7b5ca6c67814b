"""Messages of the wire: what capture workers, the inference worker and clients say to each other.

Every message is a frozen dataclass; ``codec`` turns it into frames and back, and
``docs/protocol.md`` is the contract. All times are nanoseconds of the sender's
monotonic clock (``Clock`` says whose); all spans are half open, [t_start_ns, t_end_ns).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
"""Raised when the meaning of a field changes; adding a field does not raise it."""

SAMPLE_RATE_HZ = 16_000
VALENCE_RANGE = (-3.0, 3.0)

Modality = Literal["audio", "video", "text"]
TextSource = Literal["simulated", "given", "none"]
Trigger = Literal["hop", "speech_end"]
NoValueReason = Literal["no_voice_and_no_face", "warming_up"]
WorkerKind = Literal["capture", "inference"]
WorkerState = Literal["starting", "ready", "running", "paused", "reconnecting", "ended", "stopping"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Whose monotonic clock stamped a message: two equal clocks can be compared directly."""

    host: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every message carries: ``seq`` rises by one per stream and kind from 0."""

    stream: str
    seq: int
    t_start_ns: int
    t_end_ns: int
    t_sent_ns: int
    clock: Clock


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """A chunk of microphone sound with the speech flag of each of its VAD frames."""

    envelope: Envelope
    samples: NDArray[np.int16]
    """[N] mono at 16 kHz."""
    speech: tuple[bool, ...]
    """One flag per VAD frame of ``frame_ms``, after hang-over."""
    frame_ms: int
    level_dbfs: float
    """RMS level of the chunk; -120 for digital silence."""
    gap_samples: int = 0
    """Samples known to be lost between the previous chunk and this one."""


@dataclass(frozen=True, slots=True)
class Box:
    """A face in the camera picture, in pixels of the full frame."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """One sampled camera frame: the scored face's crop, or word that there is none."""

    envelope: Envelope
    faces: int
    """Faces seen in the frame."""
    crop: NDArray[np.uint8] | None = None
    """[H, W, 3] BGR crop of the scored face, nil without one."""
    box: Box | None = None
    track_id: int | None = None
    """Stable identity of the scored face within the stream."""
    detector_score: float | None = None
    """Detector's confidence in (0, 1]; nil where the detector gives none."""


@dataclass(frozen=True, slots=True)
class Text:
    """A real transcript of what was said from t_start_ns to t_end_ns."""

    envelope: Envelope
    text: str


@dataclass(frozen=True, slots=True)
class ModalityState:
    """One modality's part in a score."""

    present: bool
    coverage: float
    """Share of the window its samples cover, 0 to 1."""
    weight: float
    """Its share in the fusion, 0 to 1; the present ones sum to 1."""
    quality: float | None = None
    """0 to 1: share of voiced frames (audio), mean detector score (video); nil if unknown."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of each stage between the window's last sample and the score's sending."""

    transport: float
    """Capture of the newest sample to its arrival at the worker."""
    wait: float
    """Arrival to the start of the micro-batch."""
    encode: float
    fuse: float
    total: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model made a score, and on what."""

    name: str
    version: str
    sha256: str
    backend: str
    precision: str
    trained: bool
    """False for random weights: such a score means nothing."""


@dataclass(frozen=True, slots=True)
class Interval:
    """90 % interval of the valence."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """The rolling valence of a stream at t_end_ns, from the window that starts at t_start_ns."""

    envelope: Envelope
    valence: float | None
    """Rolling valence in [-3, 3]; nil when nothing supports one (``reason`` says why)."""
    valence_window: float | None
    """Unsmoothed valence of this window alone."""
    interval: Interval | None
    trend: float | None
    """Change of the rolling valence, per second, over the last seconds."""
    trigger: Trigger
    reason: NoValueReason | None
    audio: ModalityState
    video: ModalityState
    text: ModalityState
    text_source: TextSource
    speaking: bool
    faces: int
    latency_ms: Latency
    dropped: int
    """Messages of this stream lost or dropped so far, by sender and worker together."""
    model: ModelInfo
    mark: str | None = None
    """Label of the last ``mark`` that falls into this hop."""


@dataclass(frozen=True, slots=True)
class Status:
    """A worker's word about itself, once a second and at every change of state."""

    envelope: Envelope
    """``stream`` holds the worker's name; the span is the time since the last status."""
    worker: WorkerKind
    state: WorkerState
    detail: str = ""
    """One line for people: what is being reconnected, which device, which backend."""
    counters: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


Message = Audio | Video | Text | Score | Status
