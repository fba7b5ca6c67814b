"""Extractors that read pictures and videos: face crops, an image encoder's frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from models.encoders.specs import face_spec
from models.preprocessing import normalise_crop
from models.spec import ImageEncoderSpec
from trainer.corpus import Clip, Media
from trainer.features.extractors import Extracted, Name, media_of
from trainer.features.media import MediaReader


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

    def _one(self, clip: Clip) -> Extracted:
        spec = self._spec
        crops, seconds = self._reader.crops(media_of(clip.video), spec.size_px)
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
        self.identity = f"{identity}/{crops.identity}"

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
