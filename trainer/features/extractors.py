"""Extractors: one clip's evidence of one modality to the frames that are stored.

Frames of a frozen encoder, or what an encoder that is trained along takes as its input: log-mel,
normalised crops, token ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.encoders.specs import face_spec
from models.encoders.streaming import encode_clip
from models.preprocessing import N_MELS, SAMPLE_RATE_HZ, log_mel, mel_of_silence, normalise_crop
from models.spec import ImageEncoderSpec, SequenceEncoderSpec
from models.text_encoders import TextEncoder, tokenize
from trainer.corpus import Clip, CorpusError, Features, Media
from trainer.features.media import MediaReader
from trainer.features.store import SECONDS_DIGITS, FrameStore

Array = NDArray[np.generic]
Floats = NDArray[np.float32]
Name = Literal["audio", "text", "simulated_text", "video"]
SOURCE: dict[Name, str] = {
    "audio": "audio",
    "text": "text",
    "simulated_text": "audio",
    "video": "video",
}
"""Which of a clip's modalities an extractor reads."""
TEXTS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Extracted:
    """Frames [T, ...] of a clip, how long it is, and how many values were repaired."""

    frames: Array
    seconds: float
    repaired: int = 0


class Extractor(Protocol):
    """Makes one modality's frames."""

    name: Name
    identity: str
    """Names the encoder, its weights and its input: frames of another identity differ."""
    shape: tuple[int, ...]
    dtype: str
    at_once: int
    """Clips per call that are worth it."""

    def takes(self, clip: Clip) -> bool:
        """Whether the clip has what this extractor reads."""
        ...

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Extract; each clip is one that this extractor takes.

        Raises:
            CorpusError: a clip cannot be read.
        """
        ...


class FeatureExtractor:
    """The corpus's own features, as they are."""

    dtype = "float16"
    at_once = 1

    def __init__(self, name: Literal["audio", "text", "video"], dim: int) -> None:
        self.name: Name = name
        self.identity = f"features/{dim}"
        self.shape: tuple[int, ...] = (dim,)

    def takes(self, clip: Clip) -> bool:
        """Clips with features."""
        return isinstance(getattr(clip, self.name), Features)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Read; values that are not finite are 0, and counted."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Extracted:
        source: Features = getattr(clip, self.name)
        values, repaired = source.read()
        if values.shape[1:] != self.shape:
            raise CorpusError(
                f"{clip.id}: {self.name} features: expected {self.shape[0]} columns, got "
                f"{values.shape[1]}"
            )
        limit = float(np.finfo(np.float16).max)
        return Extracted(np.clip(values, -limit, limit), clip.duration_s or 0.0, repaired)


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
        samples = self._reader.samples(_media(clip.audio))
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


class CropExtractor:
    """Normalised face crops [C, S, S], for a face encoder that is trained along."""

    name: Name = "video"
    dtype = "float16"
    at_once = 1

    def __init__(self, reader: MediaReader, spec: ImageEncoderSpec | None = None) -> None:
        self._reader = reader
        self._spec = spec or face_spec()
        size, channels = self._spec.size_px, self._spec.channels_in
        self.shape: tuple[int, ...] = (channels, size, size)
        self.identity = f"crops/{channels}x{size}/{self._spec.colour}/1"

    def takes(self, clip: Clip) -> bool:
        """Clips with a picture or a video."""
        return isinstance(clip.video, Media)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Decode, track and cut."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Extracted:
        crops, seconds = self._reader.crops(_media(clip.video))
        spec = self._spec
        frames = [normalise_crop(c, spec.size_px, spec.channels_in, spec.colour) for c in crops]
        return Extracted(np.stack(frames), seconds)


class ImageFrameExtractor:
    """Frames of a frozen image encoder, one per face crop."""

    name: Name = "video"
    dtype = "float16"
    at_once = 1

    def __init__(self, crops: CropExtractor, encoder: nn.Module, dim: int, identity: str) -> None:
        self._crops = crops
        self._encoder = encoder.eval()
        self.shape: tuple[int, ...] = (dim,)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with a picture or a video."""
        return self._crops.takes(clip)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Cut crops, then encode each."""
        found = []
        for clip in clips:
            cut = self._crops.extract([clip])[0]
            frames = self._encoder(torch.from_numpy(np.asarray(cut.frames, np.float32)))
            found.append(Extracted(frames.numpy(), cut.seconds))
        return found


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
        samples = self._reader.samples(_media(clip.audio))
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


class TokenExtractor:
    """Token ids, for a text encoder that is tuned along."""

    name: Name = "text"
    shape: tuple[int, ...] = ()
    dtype = "int32"
    at_once = TEXTS_AT_ONCE

    def __init__(self, tokenizer: Any, source: str) -> None:
        self._tokenizer = tokenizer
        self.identity = f"tokens/{source}/1"

    def takes(self, clip: Clip) -> bool:
        """Clips with a transcript."""
        return clip.transcript is not None

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Tokenize."""
        return [
            Extracted(tokenize(self._tokenizer, clip.transcript or ""), clip.duration_s or 0.0)
            for clip in clips
        ]


class TextFrameExtractor:
    """States of a frozen text encoder, one per token."""

    name: Name = "text"
    dtype = "float16"
    at_once = TEXTS_AT_ONCE

    def __init__(self, encoder: TextEncoder, identity: str) -> None:
        self._encoder = encoder
        self.shape: tuple[int, ...] = (encoder.spec.dim,)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with a transcript."""
        return clip.transcript is not None

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Encode, like lengths together."""
        order = sorted(range(len(clips)), key=lambda i: len(clips[i].transcript or ""))
        found: list[Extracted | None] = [None] * len(clips)
        size = TEXTS_AT_ONCE // 4
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            texts = [clips[i].transcript or "" for i in chosen]
            for i, frames in zip(chosen, self._encoder.encode(texts), strict=True):
                found[i] = Extracted(frames, clips[i].duration_s or 0.0)
        return [extracted for extracted in found if extracted is not None]


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
            samples = self._reader.samples(_media(clip.audio))
            simulated = self._simulation.simulate([samples])[0]
            found.append(Extracted(simulated.frames, len(samples) / SAMPLE_RATE_HZ))
        return found


class ContentKeys:
    """Content hashes of clips' evidence: a renamed or moved corpus is not extracted again."""

    def __init__(self) -> None:
        self._files: dict[tuple[Path, str | None], str] = {}

    def key(self, clip: Clip, extractor: Extractor) -> str:
        """Key of a clip's frames in the extractor's store.

        Raises:
            CorpusError: the file cannot be read.
        """
        modality = SOURCE[extractor.name]
        source: Media | Features | None = getattr(clip, modality)
        if modality == "text" and source is None:
            return _digest(f"transcript/{clip.transcript}".encode())
        if isinstance(source, Media):
            place = (source.path, source.member)
            if place not in self._files:
                self._files[place] = _digest_media(source)
            stretch = f"{source.start_s:.4f}-{source.end_s}-{source.still}"
            return _digest(f"{self._files[place]}/{stretch}".encode())
        if isinstance(source, Features):
            values, _ = source.read()
            return _digest(str(values.shape).encode() + values.tobytes())
        raise CorpusError(f"{clip.id}: has no {modality}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _digest_media(media: Media) -> str:
    if media.member is not None:
        return _digest(media.read_bytes())
    try:
        with media.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise CorpusError(f"{media.path}: cannot be read: {error.strerror}") from None


def _media(source: Media | Features | None) -> Media:
    assert isinstance(source, Media)  # what ``takes`` has told
    return source


def _run(module: nn.Module, inputs: Floats) -> Floats:
    with torch.inference_mode():
        frames: Floats = module(torch.from_numpy(inputs)).float().cpu().numpy()
    return frames


def _runner(module: nn.Module) -> Any:
    return lambda inputs: _run(module, inputs)
