"""Extractors: one clip's evidence of one modality to the frames that are stored.

Frames of a frozen encoder, or what an encoder that is trained along takes as its input. Here is
what they have in common, and a corpus's own features; ``sound``, ``pictures`` and ``transcripts``
hold those that read media.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trainer.corpus import Clip, CorpusError, Features, Media

Array = NDArray[np.generic]
Name = Literal["audio", "text", "simulated_text", "video"]
SOURCE: dict[Name, str] = {
    "audio": "audio",
    "text": "text",
    "simulated_text": "audio",
    "video": "video",
}
"""Which of a clip's modalities an extractor reads."""


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


@runtime_checkable
class BatchExtractor(Extractor, Protocol):
    """An extractor in two parts: a clip's file is read by itself, its encoder runs on several."""

    def load(self, clip: Clip) -> Any:
        """What ``encode`` takes of a clip.

        Raises:
            CorpusError: it cannot be read.
        """
        ...

    def is_full(self, loaded: Sequence[Any]) -> bool:
        """Whether so many are as many as should be encoded, or held in memory, at once."""
        ...

    def encode(self, loaded: Sequence[Any]) -> list[Extracted]:
        """Encode; what comes out does not depend on the others, but for rounding."""
        ...


class FeatureExtractor:
    """The corpus's own features, as they are.

    Args:
        name: modality.
        dim: columns.
        dtype: float16 where it holds every column's differences, else float32.
    """

    at_once = 1

    def __init__(self, name: Name, dim: int, dtype: str = "float32") -> None:
        self.name: Name = name
        self.dtype = dtype
        self.identity = f"features/{dim}/{dtype}/2"
        self.shape: tuple[int, ...] = (dim,)

    def takes(self, clip: Clip) -> bool:
        """Clips with features."""
        return clip.features(self.name) is not None

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Read; values that are not finite are 0, and counted; zeros throughout are no frames."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Extracted:
        source = clip.features(self.name)
        assert source is not None  # what ``takes`` has told
        values, repaired = source.read()
        if values.shape[1:] != self.shape:
            raise CorpusError(
                f"{clip.id}: {self.name} features: expected {self.shape[0]} columns, got "
                f"{values.shape[1]}"
            )
        if not values.any():
            values = values[:0]  # how corpora mark what they lack
        limit = float(np.finfo(self.dtype).max)
        return Extracted(np.clip(values, -limit, limit), clip.duration_s or 0.0, repaired)


def fits_half(samples: Sequence[Array]) -> bool:
    """Whether float16 holds what tells the rows [T, D] apart: a column of 40,000 +- 5 it does not.

    Compares the step of float16 at a column's largest value with the column's deviation.
    """
    values = np.concatenate([np.asarray(rows, np.float64) for rows in samples])
    largest = np.abs(values).max(0)
    if (largest > float(np.finfo(np.float16).max)).any():
        return False
    steps = np.spacing(largest.astype(np.float16)).astype(np.float64)
    deviation = values.std(0)
    return bool((steps <= 0.05 * deviation)[deviation > 0].all())


def media_of(source: Media | Features | None) -> Media:
    """The media of a clip that an extractor takes."""
    assert isinstance(source, Media)  # what ``takes`` has told
    return source
