"""Extractors behind the engine's own ear: tone frames of a recogniser, and the words it hears.

Speech is found, cut and levelled as it is live. Clips of training are heard in a room, once each:
behind a stretch of silence of random length, with noise at a random distance below the voice, some
of them with echo. Validation and test are heard as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.capture.speech import SpeechDetector
from engine.settings import SpeechSettings
from models.encoders.streaming import encode_voiced
from models.hearing import levelled
from models.preprocessing import SAMPLE_RATE_HZ, to_float
from models.spec import SequenceEncoderSpec
from trainer.corpus import Clip, CorpusError, Media
from trainer.features.extractors import Extracted, Name, media_of
from trainer.features.media import MediaReader

Floats = NDArray[np.float32]
Encode = Callable[[Floats], Floats]
"""[1, N] samples to [1, T, D] frames."""

LEAD_S = (0.1, 1.2)
TAIL_S = 0.5
"""Silence behind every clip: what is heard last counts, as in a stream that continues."""
NOISY, ECHOING = 0.5, 0.3
SNR_DB = (8.0, 40.0)
RT60_S = (0.15, 0.6)
CHUNK = SAMPLE_RATE_HZ


@dataclass(frozen=True, eq=False)
class Heard:
    """Sound [N] as int16, and which of it [N] is speech by the engine's detector."""

    samples: NDArray[np.int16]
    voiced: NDArray[np.bool_]

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / SAMPLE_RATE_HZ


class Ear:
    """Clips' sound as the engine would hear it; keeps the last clip's."""

    def __init__(self, reader: MediaReader) -> None:
        self._reader = reader
        self._settings = SpeechSettings()
        self._last: tuple[Clip, Heard] | None = None

    def hear(self, clip: Clip) -> Heard:
        """Sound and speech of a clip.

        Raises:
            CorpusError: it cannot be decoded.
        """
        if self._last is None or self._last[0] is not clip:
            samples = self._reader.samples(media_of(clip.audio))
            generator = np.random.default_rng(zlib.crc32(clip.id.encode()))
            sound = in_a_room(samples, generator if clip.split == "train" else None)
            self._last = (clip, Heard(sound, voiced_samples(sound, self._settings)))
        return self._last[1]


def voiced_samples(samples: NDArray[np.int16], settings: SpeechSettings) -> NDArray[np.bool_]:
    """Which of the samples [N] are speech, [N], by the engine's detector."""
    detector = SpeechDetector(settings)
    size = detector.frame_samples
    flags: list[bool] = []
    whole = len(samples) // size * size
    for first in range(0, whole, CHUNK):
        flags += detector.push(samples[first : min(first + CHUNK, whole)])
    voiced = np.zeros(len(samples), np.bool_)
    voiced[:whole] = np.repeat(np.array(flags, np.bool_), size)
    return voiced


def in_a_room(samples: Floats, generator: np.random.Generator | None) -> NDArray[np.int16]:
    """A clip with silence behind it; with a generator in a room: echo, noise, silence before it."""
    tail = np.zeros(int(TAIL_S * SAMPLE_RATE_HZ), np.float32)
    if generator is not None:
        lead = np.zeros(int(generator.uniform(*LEAD_S) * SAMPLE_RATE_HZ), np.float32)
        samples = np.concatenate((lead, samples))
        if generator.random() < ECHOING:
            samples = _echo(samples, generator)
    sound = np.concatenate((samples, tail))
    if generator is not None and generator.random() < NOISY:
        sound = sound + _noise(sound, generator)
    peak = float(np.abs(sound).max(initial=1e-6))
    sound = sound / max(peak, 1.0)
    return np.round(sound * 32767).astype(np.int16)


def _noise(sound: Floats, generator: np.random.Generator) -> Floats:
    """Noise between white and brown, so far below the loud part of the sound."""
    spectrum = np.fft.rfft(generator.standard_normal(len(sound)).astype(np.float32))
    colour = generator.uniform(0, 1)
    place = np.maximum(np.arange(len(spectrum)), 20 * len(sound) / SAMPLE_RATE_HZ)
    noise = np.fft.irfft(spectrum / place**colour, len(sound))
    loud = np.sqrt(np.quantile(np.square(sound), 0.9) + 1e-10)
    gain = loud / noise.std() * 10 ** (-generator.uniform(*SNR_DB) / 20)
    return np.asarray(noise * gain, np.float32)


def _echo(sound: Floats, generator: np.random.Generator) -> Floats:
    """The sound with an exponentially decaying tail of reflections."""
    rt60 = generator.uniform(*RT60_S)
    time = np.arange(int(rt60 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail[: SAMPLE_RATE_HZ // 200] = 0
    tail *= 10 ** (generator.uniform(-14, -3) / 20) / np.sqrt(np.sum(tail**2) + 1e-9)
    tail[0] = 1.0
    size = len(sound) + len(tail)
    mixed = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)
    return np.asarray(mixed[: len(sound)], np.float32)


class ToneExtractor:
    """Frames of a recogniser's middle layer, of blocks with speech in them.

    Args:
        ear: hears clips.
        encode: the encoder's graph.
        spec: of the encoder.
        identity: of its weights.
    """

    name: Name = "audio"
    dtype = "float16"
    at_once = 1

    def __init__(self, ear: Ear, encode: Encode, spec: SequenceEncoderSpec, identity: str) -> None:
        self._ear, self._encode, self.spec = ear, encode, spec
        self.shape: tuple[int, ...] = (spec.dim,)
        self.identity = f"{identity}/{spec.left_context}/{spec.block}/room1"

    def takes(self, clip: Clip) -> bool:
        """Clips with sound."""
        return isinstance(clip.audio, Media)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Encode, as a live stream would be."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Extracted:
        heard = self._ear.hear(clip)
        silence = np.zeros((), np.float32)
        frames, _ = encode_voiced(
            self.spec,
            lambda inputs: self._encode(levelled(inputs)),
            to_float(heard.samples),
            silence,
            heard.voiced,
        )
        if not len(frames):
            raise CorpusError(f"{clip.id}: no speech is heard in {heard.seconds:.1f} s of sound")
        return Extracted(frames, heard.seconds)


class SpokenTextExtractor:
    """States of the words that a recogniser hears: the text encoder's, of the joined words.

    Args:
        ear: hears clips.
        write: the words of a clip's sound, None where they are not believed.
        read: states [T, D] of a text's tokens.
        dim: width of the states.
        identity: of the recogniser and the text encoder.
        skipped: corpora whose clips it does not take: of the same few sentences by all speakers
            one reading is as good as a thousand.
    """

    name: Name = "simulated_text"
    dtype = "float16"
    at_once = 1

    def __init__(
        self,
        ear: Ear,
        write: Callable[[Heard], str | None],
        read: Callable[[str], Floats],
        dim: int,
        identity: str,
        skipped: frozenset[str] = frozenset(),
    ) -> None:
        self._skipped = skipped
        self._ear, self._write, self._read = ear, write, read
        self.shape: tuple[int, ...] = (dim,)
        self.identity = f"{identity}/room1/live-pieces"

    def takes(self, clip: Clip) -> bool:
        """Clips with sound whose words are known, too: the two flows of one utterance."""
        known = isinstance(clip.audio, Media) and clip.transcript is not None
        return known and clip.corpus not in self._skipped

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Write down, then read."""
        found = []
        for clip in clips:
            heard = self._ear.hear(clip)
            words = self._write(heard)
            frames = self._read(words) if words else np.zeros((0, *self.shape), np.float32)
            found.append(Extracted(frames, heard.seconds))
        return found
