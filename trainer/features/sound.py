"""Extractors that read sound: log-mel, a voice encoder's frames, simulated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
PADDED_S = 120
"""Sound of one padded batch of a frozen speech model, padding included."""
HELD_S = 480
"""Sound that is held to be sorted by length."""


@dataclass(frozen=True, eq=False)
class LoadedSound:
    """Samples [N] of a clip at 16 kHz."""

    samples: Floats

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / SAMPLE_RATE_HZ


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
    """Frames of a frozen voice encoder that takes log-mel.

    Args:
        mel: makes or remembers the log-mel.
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
        encoder: nn.Module,
        spec: SequenceEncoderSpec,
        identity: str,
    ) -> None:
        self._mel = mel
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
        mel, seconds = self._mel.read(clip)
        run = _runner(self._encoder)
        return Extracted(encode_clip(self.spec, run, mel, mel_of_silence()), seconds)


class SpeechFrameExtractor:
    """Frames of a frozen transformers speech model, which takes samples, in padded batches.

    Args:
        reader: decodes.
        encoder: takes samples [B, N] and a mask of them.
        spec: of the encoder.
        identity: of its weights.
        device: where it runs.
    """

    name: Name = "audio"
    dtype = "float16"
    at_once = 1

    def __init__(
        self,
        reader: MediaReader,
        encoder: nn.Module,
        spec: SequenceEncoderSpec,
        identity: str,
        device: torch.device,
    ) -> None:
        self._reader = reader
        self._encoder, self.spec = encoder.eval(), spec
        self._device = device
        self.shape: tuple[int, ...] = (spec.dim,)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return isinstance(clip.audio, Media)

    def load(self, clip: Clip) -> LoadedSound:
        """Decode."""
        loaded = LoadedSound(self._reader.samples(media_of(clip.audio)))
        if len(loaded.samples) < self.spec.stride:
            raise CorpusError(f"{clip.id}: {loaded.seconds:.3f} s of sound are less than one frame")
        return loaded

    def is_full(self, loaded: Sequence[LoadedSound]) -> bool:
        """Enough to find like lengths among."""
        return sum(one.seconds for one in loaded) >= HELD_S

    def encode(self, loaded: Sequence[LoadedSound]) -> list[Extracted]:
        """Encode behind silence, as a live stream would be; like lengths together."""
        self._encoder.to(self._device)
        batches = like_lengths([one.seconds for one in loaded], PADDED_S)
        return in_batches(loaded, batches, self._together)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Decode and encode."""
        return self.encode([self.load(clip) for clip in clips])

    def _together(self, loaded: Sequence[LoadedSound]) -> list[Extracted]:
        lead, stride = self.spec.left_context, self.spec.stride
        longest = max(len(one.samples) for one in loaded)
        sound = torch.zeros(len(loaded), lead + longest)
        kept = torch.zeros(sound.shape, dtype=torch.bool)
        for row, one in enumerate(loaded):
            end = lead + len(one.samples)
            sound[row, lead:end] = torch.from_numpy(one.samples)
            kept[row, :end] = True
        with torch.inference_mode():
            frames = self._encoder(sound.to(self._device), kept.to(self._device))
        states, first = frames.float().cpu().numpy(), lead // stride
        return [
            Extracted(row[first : first + len(one.samples) // stride], one.seconds)
            for row, one in zip(states, loaded, strict=True)
        ]


def in_batches(
    loaded: Sequence[LoadedSound],
    batches: Sequence[Sequence[int]],
    together: Callable[[Sequence[LoadedSound]], list[Extracted]],
) -> list[Extracted]:
    """Encode batches of indices ``together``; return each clip's frames in its own place."""
    found: dict[int, Extracted] = {}
    for chosen in batches:
        own = [loaded[index] for index in chosen]
        found.update(zip(chosen, together(own), strict=True))
    return [found[index] for index in range(len(loaded))]


def like_lengths(seconds: Sequence[float], padded_s: float) -> list[list[int]]:
    """Indices in batches of like lengths, each at most ``padded_s`` long with its padding.

    One that is longer by itself is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=lambda i: seconds[i]):
        if batches and (len(batches[-1]) + 1) * seconds[index] <= padded_s:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


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
    """States of a language model recognising the clip's sound (the paper's simulated text).

    Args:
        reader: decodes.
        simulation: the models.
        identity: of their weights.
        together: clips that are recognised in one batch.
    """

    name: Name = "simulated_text"
    dtype = "float16"
    at_once = 1

    def __init__(
        self, reader: MediaReader, simulation: Any, identity: str, together: int = 1
    ) -> None:
        self._reader = reader
        self._simulation = simulation
        self._count = together
        self.shape: tuple[int, ...] = (int(simulation.dim),)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return isinstance(clip.audio, Media)

    def load(self, clip: Clip) -> LoadedSound:
        """Decode."""
        return LoadedSound(self._reader.samples(media_of(clip.audio)))

    def is_full(self, loaded: Sequence[LoadedSound]) -> bool:
        """A few batches, to find like lengths among."""
        return len(loaded) >= 4 * self._count

    def encode(self, loaded: Sequence[LoadedSound]) -> list[Extracted]:
        """Recognise, like lengths together."""
        order = sorted(range(len(loaded)), key=lambda index: len(loaded[index].samples))
        starts = range(0, len(order), self._count)
        batches = [order[start : start + self._count] for start in starts]
        return in_batches(loaded, batches, self._together)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Decode and recognise."""
        return self.encode([self.load(clip) for clip in clips])

    def _together(self, loaded: Sequence[LoadedSound]) -> list[Extracted]:
        simulated = self._simulation.simulate([one.samples for one in loaded])
        return [
            Extracted(text.frames, one.seconds) for text, one in zip(simulated, loaded, strict=True)
        ]


def _run(module: nn.Module, inputs: Floats) -> Floats:
    with torch.inference_mode():
        frames: Floats = module(torch.from_numpy(inputs)).float().cpu().numpy()
    return frames


def _runner(module: nn.Module) -> Any:
    return lambda inputs: _run(module, inputs)
