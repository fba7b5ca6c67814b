"""Extractors that read sound: log-mel, a voice encoder's frames, simulated text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.encoders.streaming import encode_clip
from models.preprocessing import N_MELS, SAMPLE_RATE_HZ, log_mel, mel_of_silence
from models.spec import SequenceEncoderSpec
from trainer.corpus import Clip, CorpusError, Media
from trainer.features.extractors import Extracted, Name, media_of
from trainer.features.keys import ContentKeys
from trainer.features.media import MediaReader
from trainer.features.store import SECONDS_DIGITS, FrameStore

Floats = NDArray[np.float32]


class MelExtractor:
    """Log-mel at 100 Hz, for a voice encoder that is trained along."""

    name: Name = "audio"
    identity = f"log-mel/{N_MELS}/1"
    shape: tuple[int, ...] = (N_MELS,)
    dtype = "float16"
    at_once = 1

    def __init__(self, reader: MediaReader) -> None:
        self._reader = reader

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return isinstance(clip.audio, Media)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Decode and transform."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Extracted:
        samples = self._reader.samples(media_of(clip.audio))
        return Extracted(log_mel(samples), len(samples) / SAMPLE_RATE_HZ)


class MelSource:
    """Log-mel of clips: out of the store of an earlier run where it is there, else made.

    What is made is rounded as the store would, so that a run does not depend on which it was.
    """

    def __init__(self, extractor: MelExtractor, store: FrameStore | None) -> None:
        self._extractor = extractor
        self._store = store
        self._keys = ContentKeys()

    def read(self, clip: Clip) -> tuple[Floats, float]:
        """Log-mel [N, 64] and seconds.

        Raises:
            CorpusError: the clip cannot be read.
        """
        if self._store is not None:
            key = self._keys.key(clip, self._extractor)
            if key in self._store:
                frames = np.asarray(self._store.read(key), np.float32)
                return frames, self._store.entry(key).seconds
        (made,) = self._extractor.extract([clip])
        stored = np.asarray(made.frames, self._extractor.dtype)
        return np.asarray(stored, np.float32), round(made.seconds, SECONDS_DIGITS)


class VoiceFrameExtractor:
    """Frames of a frozen voice encoder.

    Args:
        mel: makes or remembers the log-mel; None for an encoder that takes samples.
        reader: decodes, for an encoder that takes samples.
        encoder: module of ``spec``.
        spec: of the encoder.
        identity: of its weights.
    """

    name: Name = "audio"
    dtype = "float16"
    at_once = 1

    def __init__(
        self,
        mel: MelSource,
        reader: MediaReader,
        encoder: nn.Module,
        spec: SequenceEncoderSpec,
        identity: str,
    ) -> None:
        self._mel, self._reader = mel, reader
        self._encoder, self.spec = encoder.eval(), spec
        self.shape: tuple[int, ...] = (spec.dim,)
        self.identity = identity
        self._last: tuple[Clip, Extracted] | None = None

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return isinstance(clip.audio, Media)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Encode, as a live stream would be."""
        return [self.frames(clip) for clip in clips]

    def frames(self, clip: Clip) -> Extracted:
        """Frames of one clip; the last one's are kept, for the student."""
        if self._last is None or self._last[0] is not clip:
            self._last = (clip, self._encode(clip))
        return self._last[1]

    def _encode(self, clip: Clip) -> Extracted:
        if self.spec.input == "log_mel":
            mel, seconds = self._mel.read(clip)
            run = _runner(self._encoder)
            return Extracted(encode_clip(self.spec, run, mel, mel_of_silence()), seconds)
        samples = self._reader.samples(media_of(clip.audio))
        seconds = len(samples) / SAMPLE_RATE_HZ
        whole = len(samples) // self.spec.stride
        if whole == 0:
            raise CorpusError(f"{clip.id}: {seconds:.3f} s of sound are less than one frame")
        lead = np.zeros(self.spec.left_context, np.float32)
        frames = _run(self._encoder, np.concatenate((lead, samples))[None])[0]
        return Extracted(frames[-whole:], seconds)


class StudentExtractor:
    """Simulated text of a frozen student, behind its frozen voice encoder."""

    name: Name = "simulated_text"
    dtype = "float16"
    at_once = 1

    def __init__(
        self,
        voice: VoiceFrameExtractor,
        student: nn.Module,
        spec: SequenceEncoderSpec,
        identity: str,
    ) -> None:
        self._voice = voice
        self._student, self._spec = student.eval(), spec
        self.shape: tuple[int, ...] = (spec.dim,)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return self._voice.takes(clip)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Encode, then simulate."""
        found = []
        for clip in clips:
            voice = self._voice.frames(clip)
            inputs = np.asarray(voice.frames, np.float32)
            silence = np.zeros(inputs.shape[1], np.float32)
            frames = encode_clip(self._spec, _runner(self._student), inputs, silence)
            found.append(Extracted(frames, voice.seconds))
        return found


class LlmExtractor:
    """States of a language model recognising the clip's sound (the paper's simulated text)."""

    name: Name = "simulated_text"
    dtype = "float16"
    at_once = 1

    def __init__(self, reader: MediaReader, simulation: Any, identity: str) -> None:
        self._reader = reader
        self._simulation = simulation
        self.shape: tuple[int, ...] = (int(simulation.dim),)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return isinstance(clip.audio, Media)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Recognise."""
        found = []
        for clip in clips:
            samples = self._reader.samples(media_of(clip.audio))
            simulated = self._simulation.simulate([samples])[0]
            found.append(Extracted(simulated.frames, len(samples) / SAMPLE_RATE_HZ))
        return found


def _run(module: nn.Module, inputs: Floats) -> Floats:
    with torch.inference_mode():
        frames: Floats = module(torch.from_numpy(inputs)).float().cpu().numpy()
    return frames


def _runner(module: nn.Module) -> Any:
    return lambda inputs: _run(module, inputs)
