"""Sound of one stream, and the text that is simulated from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.inference.text.spoken import SpeechGatherer, SpokenText
from engine.inference.tracks.evidence import (
    NS_PER_S,
    Evidence,
    TimedStream,
)
from engine.inference.tracks.rings import Frames, Progress, Spans
from engine.wire.messages import SAMPLE_RATE_HZ, Audio
from models.graphs import MAX_TOKENS_PER_S, kept_frames
from models.preprocessing import HOP, LogMel, mel_of_silence, to_float
from models.spec import BundleConfig, SequenceEncoderSpec

JITTER_NS = 20_000_000
"""A chunk that starts this far from where it should is still taken as the next one."""

BEHIND_S = 2.0
"""Sound that waits for its encoder, of a stream that is played faster than it is spoken."""


@dataclass(slots=True)
class Segment:
    """Sound without a gap: the encoders' context does not reach over its beginning."""

    audio: TimedStream
    text: TimedStream | None
    mel: LogMel | None
    chunks: list[NDArray[np.int16]] = field(default_factory=list)
    voiced: list[NDArray[np.bool_]] = field(default_factory=list)
    """Which samples of the chunks are speech."""
    t_end_ns: int = 0
    samples: int = 0
    """Samples that went through ``mel`` so far."""

    @property
    def waiting(self) -> int:
        """Samples that are not encoded yet, where the encoder takes samples."""
        return self.audio.waiting + sum(map(len, self.chunks))

    def waiting_s(self, rate_hz: float) -> float:
        """Seconds of sound that are not encoded yet; ``rate_hz`` of the encoder's inputs."""
        return self.audio.waiting / rate_hz + sum(map(len, self.chunks)) / SAMPLE_RATE_HZ


class AudioTrack:
    """Sound and simulated text of one stream."""

    def __init__(self, config: BundleConfig) -> None:
        self.progress = Progress()
        self.heard = Spans()
        self.voiced = Spans()
        self._spec = config.audio_encoder
        self.block_ns = 0
        """Sound that an encoder waits for, at most, before it makes frames of it."""
        if self._spec is not None and self._spec.block > 1:
            samples = self._spec.block * self._spec.stride
            self.block_ns = int(samples / self._spec.input_rate_hz * NS_PER_S)
        self.in_blocks = self._spec is not None and self._spec.block > 1
        """Whether the encoder takes whole blocks of sound, of one stream at a time."""
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
            self.frames = Evidence(projected_dim, kept_frames(window_s * audio_hz))
            if self._text_spec is not None and self._text_spec.kind == "llm":
                self.text = Evidence(projected_dim, kept_frames(window_s * MAX_TOKENS_PER_S))
                self.speech = SpeechGatherer(config.window_ms * 1_000_000)
                self._text_spec = None  # no graph makes it
            elif self._text_spec is not None:
                self.text = Evidence(projected_dim, kept_frames(window_s * text_hz))
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
            if self._spec.block > 1:
                segment.voiced.append(_voiced_samples(message))
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

    @property
    def behind(self) -> bool:
        """Whether more sound waits than that of a stream which is played as it is spoken."""
        if self._spec is None or not self.in_blocks:
            return False
        rate_hz = self._spec.input_rate_hz
        return any(segment.waiting_s(rate_hz) >= BEHIND_S for segment in self._segments)

    def has_blocks(self, blocks: int) -> bool:
        """Whether an encoder of blocks has so many whole ones waiting; it may pass over them."""
        if self._spec is None or not self.in_blocks:
            return False
        size = blocks * self._spec.block * self._spec.stride
        return any(segment.waiting >= size for segment in self._segments)

    def skip(self, before_ns: int) -> int:
        """Leave out the sound that waits from before ``before_ns``; return how many samples.

        It stays the context of what follows. What is that old waits only where the machine is
        too slow for all streams.
        """
        skipped = 0
        for segment in self.prepare():
            inputs = segment.audio.skip(before_ns)
            skipped += inputs * (1 if segment.mel is None else HOP)
        while len(self._segments) > 1 and self._segments[0].t_end_ns <= before_ns:
            self._segments.popleft()
        return skipped

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
            t_end_ns = segment.t_end_ns - back * NS_PER_S // SAMPLE_RATE_HZ
            voiced = None
            if segment.voiced and segment.mel is None:
                voiced = np.concatenate(segment.voiced)
                segment.voiced.clear()
            segment.audio.push(inputs, t_end_ns, voiced)
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
        if self._segments and self._segments[-1].t_end_ns <= before_ns:
            self._segments.clear()  # what comes after such a silence follows a gap
        for evidence in (self.frames, self.text):
            if evidence is not None:
                evidence.finish(before_ns)
        self.heard.forget(before_ns)
        self.voiced.forget(before_ns)
        self._spoken.forget(before_ns)


def _voiced_samples(message: Audio) -> NDArray[np.bool_]:
    """Which samples [N] of a chunk are speech."""
    voiced = np.zeros(len(message.samples), np.bool_)
    size = SAMPLE_RATE_HZ * message.frame_ms // 1000
    for index, is_voiced in enumerate(message.speech):
        if is_voiced:
            voiced[index * size : (index + 1) * size] = True
    return voiced
