"""Extractors: one clip's evidence of one modality to the frames that are stored.

Frames of a frozen encoder, or what an encoder that is trained along takes as its input. Here is
what they have in common, and a corpus's own features; ``sound``, ``pictures`` and ``transcripts``
hold those that read media.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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


def media_of(source: Media | Features | None) -> Media:
    """The media of a clip that an extractor takes."""
    assert isinstance(source, Media)  # what ``takes`` has told
    return source
