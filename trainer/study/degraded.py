"""Recordings made worse as rooms, other people and light make them: for the noise table.

Nothing but the test split is heard so. Babble is other clips of the test split; music is made
here, as no recording of music comes with the product.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.preprocessing import SAMPLE_RATE_HZ
from trainer.corpus import Clip, CorpusError, Media
from trainer.features.keys import ContentKeys
from trainer.features.media import Crop, MediaReader

Floats = NDArray[np.float32]
Kind = Literal["babble", "music", "room", "dark", "covered"]
SNRS_DB = (20, 15, 10, 5, 0)
VERSION = 2
"""Of what is done to recordings: stores of another version are not read."""
VOICES = 4
"""Of other people in babble."""
RT60_S = 0.5


@dataclass(frozen=True)
class Condition:
    """One way in which sound or picture is worse."""

    kind: Kind
    snr_db: int | None = None

    @property
    def name(self) -> str:
        """For tables and folders."""
        return self.kind if self.snr_db is None else f"{self.kind}-{self.snr_db}dB"


SOUND = tuple(Condition(kind, snr) for kind in ("babble", "music", "room") for snr in SNRS_DB)
PICTURE = (Condition("dark"), Condition("covered"))


def folder(condition: Condition, others: Sequence[Clip]) -> str:
    """Name of a condition's stores, which hold a clip by its own content alone.

    Babble is made of the other clips, too: with other companions it is another sound.

    Raises:
        CorpusError: a recording cannot be read.
    """
    if condition.kind != "babble":
        return f"{condition.name}-{VERSION}"
    keys = ContentKeys()
    heard = [keys.media(clip.audio) for clip in others if isinstance(clip.audio, Media)]
    digest = hashlib.sha256("/".join(heard).encode()).hexdigest()
    return f"{condition.name}-{VERSION}-{digest[:16]}"


class DegradedReader(MediaReader):
    """Reads media under a condition.

    Args:
        condition: what is worse.
        others: clips whose sound babble is made of.
    """

    def __init__(self, condition: Condition, others: Sequence[Clip] = ()) -> None:
        super().__init__()
        self._condition = condition
        self._voices = [clip for clip in others if isinstance(clip.audio, Media)]

    def samples(self, media: Media) -> Floats:
        """Sound [N] under noise, or in a room."""
        clean = super().samples(media)
        kind, snr_db = self._condition.kind, self._condition.snr_db
        if snr_db is None:
            return clean
        code = zlib.crc32(f"{media.path.name}/{media.start_s}".encode())
        generator = np.random.default_rng([code, snr_db])
        if kind == "babble":
            noise = self._babble(len(clean), media, generator)
        elif kind == "music":
            noise = music(len(clean), generator)
        else:
            noise = reverberation(clean, generator)
        return mixed(clean, noise, snr_db)

    def crops(self, media: Media, size_px: int) -> tuple[list[Crop], float]:
        """Face crops in the dark, or with the mouth covered."""
        found, seconds = super().crops(media, size_px)
        if self._condition.kind == "dark":
            found = [darkened(crop) for crop in found]
        elif self._condition.kind == "covered":
            found = [covered(crop) for crop in found]
        return found, seconds

    def _babble(self, length: int, media: Media, generator: np.random.Generator) -> Floats:
        mix = np.zeros(length, np.float32)
        reader, found = MediaReader(), 0
        for index in generator.permutation(len(self._voices)):
            source = self._voices[int(index)].audio
            assert isinstance(source, Media)  # as __init__ chose
            if source.path == media.path:
                continue
            try:
                voice = reader.samples(source)
            except CorpusError:
                continue
            mix += np.resize(voice / max(1e-4, float(np.sqrt((voice**2).mean()))), length)
            found += 1
            if found == VOICES:
                break
        if not found:
            raise CorpusError("babble: expected other recordings in the test split, got none")
        return mix


def mixed(clean: Floats, noise: Floats, snr_db: float) -> Floats:
    """Sound and noise [N] at a ratio of their powers over the whole clip; within [-1, 1]."""
    power = float((clean**2).mean())
    scale = np.sqrt(power / max(1e-12, float((noise**2).mean())) / 10 ** (snr_db / 10))
    heard: Floats = np.clip(clean + scale * noise, -1, 1).astype(np.float32)
    return heard


def music(length: int, generator: np.random.Generator) -> Floats:
    """Chords of a slow progression with harmonics and a beat [N]."""
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    sound = np.zeros(length)
    chords = np.array([[0, 4, 7], [9, 12, 16], [5, 9, 12], [7, 11, 14]])
    root = 110 * 2 ** (generator.integers(0, 12) / 12)
    for beat in range(int(time_s[-1] / 0.5) + 1 if length else 0):
        inside = (time_s >= beat * 0.5) & (time_s < (beat + 1) * 0.5)
        decay = np.exp(-3 * (time_s[inside] - beat * 0.5))
        for semitone in chords[(beat // 4) % 4]:
            for harmonic in range(1, 7):
                hz = root * 2 ** (semitone / 12) * harmonic
                sound[inside] += decay * np.sin(2 * np.pi * hz * time_s[inside]) / harmonic
    return sound.astype(np.float32)


def reverberation(clean: Floats, generator: np.random.Generator) -> Floats:
    """The late reflections [N] of a room: what follows the direct sound."""
    length = round(RT60_S * SAMPLE_RATE_HZ)
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    tail = generator.normal(size=length) * 10 ** (-3 * time_s / RT60_S)
    tail[: round(0.005 * SAMPLE_RATE_HZ)] = 0
    size = len(clean) + length
    spectrum = np.fft.rfft(clean, size) * np.fft.rfft(tail, size)
    late: Floats = np.fft.irfft(spectrum, size)[: len(clean)].astype(np.float32)
    return late


def darkened(crop: Crop) -> Crop:
    """A face [H, W, 3] with a tenth of its light, and the sensor's noise."""
    generator = np.random.default_rng(int(crop.sum()) % 2**32)
    dim = crop.astype(np.float32) * 0.1 + generator.normal(0, 3, crop.shape)
    return np.clip(dim, 0, 255).astype(np.uint8)


def covered(crop: Crop) -> Crop:
    """A face [H, W, 3] whose lower half is behind a mask."""
    hidden = crop.copy()
    height, width = crop.shape[:2]
    cv2.rectangle(hidden, (0, height // 2), (width, height), (190, 190, 180), -1)
    return np.asarray(hidden, np.uint8)
