"""Incremental encoding of one stream: each sample goes through its encoder once.

A track takes one modality's messages, keeps what has not been encoded yet, hands it out as
inputs of a graph, and keeps the frames that come back with their capture times; ``Evidence``
does so a second time, for the network's projection of each frame. The graphs themselves are run
by the core, for all streams in one batch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.inference.speech_text import SpeechGatherer, SpokenText
from engine.inference.windows import FrameRing, Frames, Progress, Spans
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Text, Video
from models.encoders.streaming import SequenceStream
from models.preprocessing import HOP, LogMel, mel_of_silence, normalise_crop, to_float
from models.spec import BundleConfig, ImageEncoderSpec, SequenceEncoderSpec

Times = NDArray[np.int64]
NS_PER_S = 1_000_000_000
JITTER_NS = 20_000_000
"""A chunk that starts this far from where it should is still taken as the next one."""
MAX_VIDEO_RATE_HZ = 60
MAX_TOKENS_PER_S = 50


class TimedStream:
    """A ``SequenceStream`` that knows when each of its frames ends."""

    def __init__(self, spec: SequenceEncoderSpec, pad_row: NDArray[np.float32]) -> None:
        self._stream = SequenceStream(spec, pad_row)
        self._stride = spec.stride
        self._t_end: Times = np.zeros(0, np.int64)

    def push(self, inputs: NDArray[np.float32], t_end_ns: Times) -> None:
        """Add inputs [n, F] that end at ``t_end_ns`` [n]."""
        self._stream.push(inputs)
        self._t_end = np.concatenate((self._t_end, t_end_ns))

    def pending(self) -> NDArray[np.float32] | None:
        """Left context and whole strides of new inputs [N, F]; None without a whole stride."""
        return self._stream.pending()

    def accept(self, frames: Frames) -> tuple[Frames, Times]:
        """Take the graph's frames for ``pending``; return the new ones [k, D] and their ends."""
        count = len(self._t_end) // self._stride
        new = self._stream.accept(frames)
        t_end_ns = self._t_end[self._stride - 1 : count * self._stride : self._stride]
        self._t_end = self._t_end[count * self._stride :]
        return new, t_end_ns


class Evidence:
    """Frames of one modality as the network reads them, by time: each is projected once.

    Args:
        projected_dim: width of a projected frame.
        capacity: projected frames that are kept.
    """

    def __init__(self, projected_dim: int, capacity: int) -> None:
        self._ring = FrameRing(projected_dim, capacity)
        self._waiting: list[Frames] = []
        self._t_end: list[Times] = []

    def add(self, frames: Frames, t_end_ns: Times) -> None:
        """Let frames [n, D] that end at ``t_end_ns`` [n] wait for their projection."""
        if len(frames):
            self._waiting.append(frames)
            self._t_end.append(t_end_ns)

    def pending(self) -> Frames | None:
        """What waits, [n, D]; None where nothing does."""
        return np.concatenate(self._waiting) if self._waiting else None

    def accept(self, projected: Frames) -> None:
        """Take the projections [n, P] of ``pending``."""
        t_end_ns = np.concatenate(self._t_end)
        self._waiting.clear()
        self._t_end.clear()
        # A clock's jitter may have re-anchored times a little backwards.
        t_end_ns = np.maximum.accumulate(t_end_ns)
        if (newest_ns := self._ring.newest_ns) is not None:
            t_end_ns = np.maximum(t_end_ns, newest_ns)
        self._ring.append(projected, t_end_ns)

    def between(self, start_ns: int, end_ns: int) -> Frames:
        """Return the projected frames [n, P] whose end lies in (start_ns, end_ns]: a view."""
        return self._ring.between(start_ns, end_ns)


@dataclass(slots=True)
class Segment:
    """Sound without a gap: the encoders' context does not reach over its beginning."""

    audio: TimedStream
    text: TimedStream | None
    mel: LogMel | None
    chunks: list[NDArray[np.int16]] = field(default_factory=list)
    t_end_ns: int = 0
    samples: int = 0
    """Samples that went through ``mel`` so far."""


class AudioTrack:
    """Sound and simulated text of one stream."""

    def __init__(self, config: BundleConfig) -> None:
        self.progress = Progress()
        self.heard = Spans()
        self.voiced = Spans()
        self._spec = config.audio_encoder
        self._text_spec = config.text_simulation
        self._segments: deque[Segment] = deque()
        window_s = config.window_ms / 1000.0
        projected_dim = config.network.projected_dim
        audio_hz, text_hz, _ = config.frame_rates_hz
        self.frames: Evidence | None = None
        self.text: Evidence | None = None
        self._text_period_ns = 0
        self.speech: SpeechGatherer | None = None
        """Speech for a language model; its text then comes by ``accept_spoken``."""
        self._spoken = Spans()
        if self._spec is not None:
            self.frames = Evidence(projected_dim, capacity(window_s * audio_hz))
            if self._text_spec is not None and self._text_spec.kind == "llm":
                self.text = Evidence(projected_dim, capacity(window_s * MAX_TOKENS_PER_S))
                self.speech = SpeechGatherer(config.window_ms * 1_000_000)
                self._text_spec = None  # no graph makes it
            elif self._text_spec is not None:
                self.text = Evidence(projected_dim, capacity(window_s * text_hz))
                self._text_period_ns = int(NS_PER_S / text_hz)

    def push(self, message: Audio) -> bool:
        """Take a chunk; True if it followed a gap."""
        envelope = message.envelope
        start_ns, end_ns = envelope.t_start_ns, envelope.t_end_ns
        expected_ns = self.progress.newest_ns
        gap = message.gap_samples > 0 or (
            expected_ns is not None and start_ns > expected_ns + JITTER_NS
        )
        if expected_ns is not None and not gap:
            start_ns = min(start_ns, expected_ns)
        self.progress.advance(end_ns)
        self.heard.add(start_ns, end_ns)
        frame_ns = message.frame_ms * 1_000_000
        for index, voiced in enumerate(message.speech):
            if voiced:
                first_ns = start_ns + index * frame_ns
                self.voiced.add(first_ns, min(first_ns + frame_ns, end_ns))
        if self.speech is not None:
            self.speech.push(message, gap)
        if self._spec is not None:
            if gap or not self._segments:
                self._segments.append(self._new_segment(self._spec))
            segment = self._segments[-1]
            segment.chunks.append(message.samples)
            segment.t_end_ns = end_ns
        return gap

    def _new_segment(self, spec: SequenceEncoderSpec) -> Segment:
        text = self._text_spec
        mel = LogMel() if spec.input == "log_mel" else None
        pad_row = mel_of_silence() if mel is not None else np.zeros((), np.float32)
        return Segment(
            audio=TimedStream(spec, pad_row),
            text=None if text is None else TimedStream(text, np.zeros(spec.dim, np.float32)),
            mel=mel,
        )

    def prepare(self) -> list[Segment]:
        """Bring waiting sound into the form of the encoder's input; return all segments."""
        for segment in self._segments:
            if not segment.chunks:
                continue
            samples = to_float(np.concatenate(segment.chunks))
            segment.chunks.clear()
            segment.samples += len(samples)
            inputs, per_input, rest = samples, 1, 0
            if segment.mel is not None:
                inputs, per_input, rest = segment.mel.push(samples), HOP, segment.samples % HOP
            back = rest + per_input * np.arange(len(inputs) - 1, -1, -1, dtype=np.int64)
            segment.audio.push(inputs, segment.t_end_ns - back * NS_PER_S // SAMPLE_RATE_HZ)
        return list(self._segments)

    def accept_audio(self, segment: Segment, output: Frames) -> None:
        """Keep the audio frames of a segment and pass them on to the text simulation."""
        frames, t_end_ns = segment.audio.accept(output)
        if self.frames is not None:
            self.frames.add(frames, t_end_ns)
        if segment.text is not None:
            segment.text.push(frames, t_end_ns)

    def accept_text(self, segment: Segment, output: Frames) -> None:
        """Keep the simulated text frames of a segment."""
        if segment.text is not None and self.text is not None:
            self.text.add(*segment.text.accept(output))

    def accept_spoken(self, spoken: SpokenText) -> None:
        """Keep the text that a language model made of a speech segment."""
        if self.text is not None:
            self.text.add(spoken.frames, spoken.t_end_ns)
            if len(spoken.frames):
                self._spoken.add(spoken.segment.t_start_ns, spoken.segment.t_end_ns)

    def simulated(self, start_ns: int, end_ns: int) -> tuple[Frames, float] | None:
        """Simulated text frames [n, D] of a window and how much of it they cover, 0 to 1."""
        if self.text is None:
            return None
        frames = self.text.between(start_ns, end_ns)
        if self.speech is not None:
            return frames, self._spoken.coverage(start_ns, end_ns)
        return frames, min(len(frames) * self._text_period_ns / (end_ns - start_ns), 1.0)

    def finish(self, before_ns: int) -> None:
        """Drop the segments that have ended and what no window will ask for again."""
        while len(self._segments) > 1:
            self._segments.popleft()
        self.heard.forget(before_ns)
        self.voiced.forget(before_ns)
        self._spoken.forget(before_ns)


@dataclass(slots=True)
class WaitingCrop:
    """A face that has not been encoded yet."""

    t_end_ns: int
    crop: NDArray[np.uint8]


class VideoTrack:
    """Faces of one stream."""

    def __init__(self, config: BundleConfig) -> None:
        self.progress = Progress()
        self.seen = Spans()
        self.faces = 0
        self._spec: ImageEncoderSpec | None = config.video_encoder
        _, _, rate_hz = config.frame_rates_hz
        self._period_ns = int(NS_PER_S / rate_hz)
        self._scores: deque[tuple[int, float]] = deque()
        self._waiting: list[WaitingCrop] = []
        self.frames: Evidence | None = None
        if self._spec is not None:
            most = config.window_ms / 1000.0 * max(MAX_VIDEO_RATE_HZ, rate_hz)
            self.frames = Evidence(config.network.projected_dim, capacity(most))

    def push(self, message: Video) -> None:
        """Take a picture: a face, or word that there is none."""
        end_ns = message.envelope.t_end_ns
        self.progress.advance(end_ns)
        self.faces = message.faces
        if message.crop is None:
            return
        last_ns = self.seen.newest_ns
        near = last_ns is not None and end_ns - last_ns <= 2 * self._period_ns
        self.seen.add(last_ns if near and last_ns else end_ns - self._period_ns, end_ns)
        if message.detector_score is not None:
            self._scores.append((end_ns, message.detector_score))
        if self._spec is not None:
            self._waiting.append(WaitingCrop(end_ns, message.crop))

    def prepare(self) -> tuple[list[Frames], Times]:
        """Hand out the waiting crops as encoder inputs [C, S, S] with their times."""
        waiting, self._waiting = self._waiting, []
        spec = self._spec
        if spec is None:
            return [], np.zeros(0, np.int64)
        crops = [
            normalise_crop(item.crop, spec.size_px, spec.channels_in, spec.colour)
            for item in waiting
        ]
        return crops, np.array([item.t_end_ns for item in waiting], np.int64)

    def accept(self, frames: Frames, t_end_ns: Times) -> None:
        """Keep the frames [n, D] of the crops handed out."""
        if self.frames is not None:
            self.frames.add(frames, t_end_ns)

    def quality(self, start_ns: int, end_ns: int) -> float | None:
        """Mean detector score within the window; None where the detector gives none."""
        scores = [score for time, score in self._scores if start_ns < time <= end_ns]
        return sum(scores) / len(scores) if scores else None

    def finish(self, before_ns: int) -> None:
        """Drop what no window will ask for again."""
        self.seen.forget(before_ns)
        while self._scores and self._scores[0][0] <= before_ns:
            self._scores.popleft()


class TextTrack:
    """Given transcripts of one stream."""

    def __init__(self, config: BundleConfig) -> None:
        self.spans = Spans()
        most = config.window_ms / 1000.0 * MAX_TOKENS_PER_S
        self.frames = Evidence(config.network.projected_dim, capacity(most))
        self._waiting: list[Text] = []
        self.is_new = False
        """Whether a transcript was taken in since the last window."""

    @property
    def newest_ns(self) -> int | None:
        """End of the last transcript."""
        return self._waiting[-1].envelope.t_end_ns if self._waiting else self.spans.newest_ns

    def push(self, message: Text) -> None:
        """Take a transcript that begins no earlier than the one before it ended."""
        self._waiting.append(message)

    def prepare(self) -> list[Text]:
        """Hand out the transcripts that wait for their frames."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def accept(self, message: Text, frames: Frames) -> None:
        """Spread a transcript's token frames [n, D] evenly over the time it was spoken in."""
        start_ns, end_ns = message.envelope.t_start_ns, message.envelope.t_end_ns
        share = np.arange(1, len(frames) + 1) / max(len(frames), 1)
        self.frames.add(frames, start_ns + (share * (end_ns - start_ns)).astype(np.int64))
        self.spans.add(start_ns, end_ns)
        self.is_new = True

    def finish(self, before_ns: int) -> None:
        """Drop what no window will ask for again."""
        self.spans.forget(before_ns)
        self.is_new = False


def capacity(frames_per_window: float) -> int:
    """Size a ring for a window, and for windows that are scored late."""
    return int(2 * frames_per_window) + 16
