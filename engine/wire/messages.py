"""Messages of the wire: the one description of what workers and clients say to each other.

Every message is a frozen msgspec struct whose types carry its ranges; ``codec`` turns it into
frames and back by these types, ``rows`` flattens a score by them, and ``docs/protocol.md`` (the
contract) and the tests' makers are checked against them. All times are nanoseconds of the
sender's monotonic clock (``Clock`` says whose); all spans are half open, [t_start_ns, t_end_ns).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

SCHEMA = 1
"""Raised when the meaning of a field changes; adding a field does not raise it."""

SAMPLE_RATE_HZ = 16_000
VALENCE_RANGE = (-3.0, 3.0)
LEVEL_RANGE_DBFS = (-120.0, 0.0)
INT64_MAX = 2**63 - 1

Natural = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Recent = Annotated[int, Meta(ge=-1, le=INT64_MAX)]
"""A time or number that is -1 while there is none."""
Faces = Annotated[int, Meta(ge=0, le=10_000)]
Pixels = Annotated[int, Meta(ge=-100_000, le=100_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Valence = Annotated[float, Meta(ge=VALENCE_RANGE[0], le=VALENCE_RANGE[1])]
Level = Annotated[float, Meta(ge=LEVEL_RANGE_DBFS[0], le=LEVEL_RANGE_DBFS[1])]
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
"""Bounds of a float also keep NaN and infinity out."""
Name = Annotated[str, Meta(max_length=64)]
Label = Annotated[str, Meta(max_length=256)]
Counter = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]{1,64}\Z")]
"""A name that is safe to repeat in an error, a log or a metric."""

Modality = Literal["audio", "video", "text"]
TextSource = Literal["simulated", "given", "none"]
Trigger = Literal["hop", "speech_end"]
NoValueReason = Literal["no_voice_and_no_face", "warming_up"]
WorkerKind = Literal["capture", "inference"]
WorkerState = Literal["starting", "ready", "running", "paused", "reconnecting", "ended", "stopping"]


@dataclass(frozen=True, slots=True)
class Raw:
    """How an array travels: a raw frame after the header, described by its ``buffers``."""

    dtype: str
    axes: int
    longest: int
    """Of any axis."""
    last: int | None = None
    """Length of the last axis, where it is fixed."""

    @property
    def itemsize(self) -> int:
        """Bytes of an item: the digits of its dtype."""
        return int(self.dtype[2:])


ADDED = "added"
"""Marks a field that came after schema 1 was in use: who does not send it means its default.

Every other field has to be there, unless it may be nil; its default serves our own calls only.
"""


class Clock(Struct, frozen=True):
    """Whose monotonic clock stamped a message: two equal clocks can be compared directly."""

    host: Label
    boot_id: Label


class Resume(Struct, frozen=True):
    """A stream has moved here: what comes, up to ``until_ns``, is played from its past."""

    t_end_ns: Recent
    """End of the newest window that is known to be scored; -1 where none is."""
    seq: Recent
    """Number of that window's score; -1 where there is none."""
    until_ns: Natural


class Envelope(Struct, frozen=True):
    """What every message carries; its fields are in the header itself."""

    stream: Name
    """Who is watched; of a status, the worker's name. Printable, without a slash."""
    seq: Natural
    """Rises by one per stream and kind, from 0."""
    t_start_ns: Natural
    t_end_ns: Natural
    t_sent_ns: Natural
    """When it was sent; a socket of ours stamps it."""
    clock: Clock
    repeated: Annotated[bool, ADDED] = False
    """Sent before, and sent again for a new subscriber: no news, and no sign of life."""
    epoch: Annotated[Natural, ADDED] = 0
    """In a cluster: which placement of the stream this belongs to; it only rises."""
    resume: Annotated[Resume | None, ADDED] = None
    """Of media that are played to the worker that takes a stream over."""


class Audio(Struct, frozen=True, eq=False):
    """A chunk of microphone sound with the speech flag of each of its VAD frames."""

    envelope: Envelope
    samples: Annotated[NDArray[np.int16], Raw("<i2", 1, 16_000)]
    """[N] mono at 16 kHz."""
    speech: Annotated[tuple[bool, ...], Meta(max_length=100)]
    """One flag per VAD frame of ``frame_ms``, after hang-over."""
    frame_ms: Literal[10, 20, 30]
    level_dbfs: Level
    """RMS level of the chunk; -120 for digital silence, and for anything below it."""
    gap_samples: Natural = 0
    """Samples known to be lost between the previous chunk and this one."""
    rate_hz: Literal[16_000] = 16_000


class Box(Struct, frozen=True, array_like=True):
    """A face in the camera picture, in pixels of the full frame."""

    x: Pixels
    y: Pixels
    width: Pixels
    height: Pixels


class Video(Struct, frozen=True, eq=False):
    """One sampled camera frame: the scored face's crop, or that there is none."""

    envelope: Envelope
    faces: Faces
    """Faces seen in the frame."""
    crop: Annotated[NDArray[np.uint8] | None, Raw("|u1", 3, 512, last=3)] = None
    """[H, W, 3] BGR crop of the scored face, nil without one or where it comes as ``jpeg``."""
    box: Box | None = None
    track_id: Natural | None = None
    """Stable identity of the scored face within the stream."""
    detector_score: Share | None = None
    """Detector's confidence; nil where the detector gives none."""
    jpeg: Annotated[NDArray[np.uint8] | None, Raw("|u1", 1, 256 * 1024)] = None
    """[N] the crop as a baseline JPEG of at most 512 px a side, in place of ``crop``."""
    last: Annotated[bool, ADDED] = False
    """The person has gone: the stream ends with this message."""

    def __post_init__(self) -> None:
        """Refuse two crops of one face."""
        if self.crop is not None and self.jpeg is not None:
            raise ValueError("expected a crop or a jpeg, got both")

    @property
    def has_face(self) -> bool:
        """Whether there is a crop, in whichever form."""
        return self.crop is not None or self.jpeg is not None


class Text(Struct, frozen=True):
    """A real transcript of what was said from t_start_ns to t_end_ns."""

    envelope: Envelope
    text: Annotated[str, Meta(max_length=10_000)]


class Interval(Struct, frozen=True, array_like=True):
    """Interval of a valence, low <= high; ``ModelInfo.coverage`` says how often it holds."""

    low: Valence
    high: Valence

    def __post_init__(self) -> None:
        """Refuse an interval that is upside down."""
        if self.low > self.high:
            raise ValueError("expected [low, high] with low <= high")


class ModalityState(Struct, frozen=True):
    """One modality's part in a score."""

    present: bool
    coverage: Share
    """Share of the window its samples cover."""
    weight: Share
    """Its share in the fusion; the present ones sum to 1."""
    quality: Share | None = None
    """Share of voiced frames (audio), mean of detector score times clarity of the picture (video),
    how surely the words were understood (text that is not given); nil if unknown."""
    valence: Valence | None = None
    """What it says of this window by itself, the others masked; nil if absent or not asked."""
    interval: Interval | None = None
    """Around its own ``valence``."""


class Modalities(Struct, frozen=True):
    """Each modality's part."""

    audio: ModalityState
    video: ModalityState
    text: ModalityState


class Word(Struct, frozen=True):
    """A word that was understood, and about when it was said."""

    text: Label
    t_start_ns: Natural
    t_end_ns: Natural
    tentative: bool
    """The person is still speaking: it may yet be understood otherwise."""


class TextState(Struct, frozen=True):
    """Where the text representation of a score comes from."""

    source: TextSource
    words: Annotated[tuple[Word, ...], Meta(max_length=256)] | None = None
    """What was understood; nil unless the engine's ``words.publish`` is set."""


class Latency(Struct, frozen=True):
    """Milliseconds of each stage between the window's last sample and the score's sending."""

    transport: Number
    """Capture of the newest sample to its arrival at the worker."""
    wait: Number
    """Arrival to the start of the micro-batch."""
    encode: Number
    fuse: Number
    total: Number


class ModelInfo(Struct, frozen=True):
    """Which model made a score, and on what."""

    name: Label
    version: Label
    sha256: Label
    backend: Label
    precision: Label
    trained: bool
    """False for random weights: such a score means nothing."""
    coverage: Share | None = None
    """Share of the labels that the intervals are made to cover; nil of an older engine: 0.9."""

    @property
    def coverage_text(self) -> str:
        """The coverage as charts and tables call the interval: ``90 %``."""
        return f"{100 * (0.9 if self.coverage is None else self.coverage):g} %"


class Score(Struct, frozen=True, kw_only=True):
    """The rolling valence of a stream at t_end_ns, from the window that starts at t_start_ns."""

    envelope: Envelope
    valence: Valence | None
    """Rolling valence; nil when nothing supports one (``reason`` says why)."""
    valence_window: Valence | None
    """Unsmoothed valence of this window alone."""
    interval: Interval | None
    """Around ``valence``."""
    trend: Number | None
    """Change of the rolling valence, per second, over the last seconds."""
    trigger: Trigger
    reason: NoValueReason | None
    speaking: bool
    faces: Faces
    modalities: Modalities
    mixed: bool | None = None
    """Two modalities contradict each other: other signs, and intervals that do not touch; nil where
    fewer than two said anything."""
    transcript: TextState = field(name="text")
    latency_ms: Latency
    dropped: Natural
    """Messages of this stream lost or dropped so far, by sender and worker together."""
    mark: Label | None = None
    """Label of the last ``mark`` that falls into this hop."""
    model: ModelInfo

    @property
    def audio(self) -> ModalityState:
        """The sound's part."""
        return self.modalities.audio

    @property
    def video(self) -> ModalityState:
        """The face's part."""
        return self.modalities.video

    @property
    def text(self) -> ModalityState:
        """The text's part, given or simulated."""
        return self.modalities.text

    @property
    def text_source(self) -> TextSource:
        """Where the text comes from."""
        return self.transcript.source


class Status(Struct, frozen=True):
    """A worker's report about itself, once a second and at every change of state."""

    envelope: Envelope
    """``stream`` holds the worker's name; the span is the time since the last status."""
    worker: WorkerKind
    state: WorkerState
    detail: Annotated[str, Meta(max_length=1000)] = ""
    """One line for people: what is being reconnected, which device, which backend."""
    counters: Annotated[dict[Counter, Natural], Meta(max_length=256)] = field(default_factory=dict)
    gauges: Annotated[dict[Counter, Number], Meta(max_length=256)] = field(default_factory=dict)


Message = Audio | Video | Text | Score | Status
