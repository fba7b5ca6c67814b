"""Extractors that read pictures and videos: face crops, an image encoder's frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.encoders.specs import face_spec
from models.preprocessing import normalise_crop
from models.spec import ImageEncoderSpec
from trainer.corpus import Clip, Media
from trainer.features.extractors import Extracted, Name, media_of
from trainer.features.media import Crop, MediaReader

CROPS_AT_ONCE = 64
"""Crops of one batch of a frozen image encoder."""


@dataclass(frozen=True, eq=False)
class LoadedCrops:
    """Face crops of a clip as they were cut, and its seconds."""

    crops: list[Crop]
    seconds: float


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
        self.identity = f"crops/{channels}x{size}/{self._spec.colour}/{reader.crop_settings}/3"

    def takes(self, clip: Clip) -> bool:
        """Clips with a picture or a video."""
        return isinstance(clip.video, Media)

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Decode, track and cut."""
        return [self._one(clip) for clip in clips]

    def load(self, clip: Clip) -> LoadedCrops:
        """Decode, track and cut; a byte per value."""
        return LoadedCrops(*self._reader.crops(media_of(clip.video), self._spec.size_px))

    def normalised(self, crops: Sequence[Crop]) -> NDArray[np.float32]:
        """Crops [N, C, S, S] as an encoder takes them."""
        spec = self._spec
        frames = [normalise_crop(c, spec.size_px, spec.channels_in, spec.colour) for c in crops]
        return np.stack(frames)

    def _one(self, clip: Clip) -> Extracted:
        loaded = self.load(clip)
        return Extracted(self.normalised(loaded.crops), loaded.seconds)


class ImageFrameExtractor:
    """Frames of a frozen image encoder, one per face crop; crops of several clips in one batch.

    Args:
        crops: cuts them.
        encoder: of crops [B, C, S, S].
        dim: width of its frames.
        identity: of its weights.
        device: where it runs.
    """

    name: Name = "video"
    dtype = "float16"
    at_once = 1

    def __init__(
        self,
        crops: CropExtractor,
        encoder: nn.Module,
        dim: int,
        identity: str,
        device: torch.device,
    ) -> None:
        self._crops = crops
        self._encoder, self._device = encoder.eval(), device
        self.shape: tuple[int, ...] = (dim,)
        self.identity = f"{identity}/{crops.identity}"

    def takes(self, clip: Clip) -> bool:
        """Clips with a picture or a video."""
        return self._crops.takes(clip)

    def load(self, clip: Clip) -> LoadedCrops:
        """Decode, track and cut."""
        return self._crops.load(clip)

    def is_full(self, loaded: Sequence[LoadedCrops]) -> bool:
        """A batch of crops, from however many clips."""
        return sum(len(one.crops) for one in loaded) >= CROPS_AT_ONCE

    @torch.inference_mode()
    def encode(self, loaded: Sequence[LoadedCrops]) -> list[Extracted]:
        """Encode every crop by itself."""
        self._encoder.to(self._device)
        crops = [crop for one in loaded for crop in one.crops]
        parts = []
        for start in range(0, len(crops), CROPS_AT_ONCE):
            inputs = torch.from_numpy(self._crops.normalised(crops[start : start + CROPS_AT_ONCE]))
            parts.append(self._encoder(inputs.to(self._device)).float().cpu().numpy())
        frames = np.concatenate(parts) if parts else np.zeros((0, *self.shape), np.float32)
        ends = np.cumsum([len(one.crops) for one in loaded])[:-1]
        rows = zip(np.split(frames, ends), loaded, strict=True)
        return [Extracted(own, one.seconds) for own, one in rows]

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Cut crops, then encode each."""
        return self.encode([self.load(clip) for clip in clips])
