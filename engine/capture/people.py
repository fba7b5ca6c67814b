"""People before a camera: pictures in, video messages out. One for cameras, clips and browsers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.capture.detectors import open_detector
from engine.capture.faces import FaceReader, Sighting
from engine.capture.stamps import Stamper
from engine.settings import EngineSettings
from engine.wire.jpeg import encode_jpeg
from engine.wire.messages import Video
from models.bundle import BundleError, read_config

DEFAULT_CROP_PX = 96
"""Where the bundle is not on this machine, as on a capture host of a cluster."""


class People:
    """The faces of one camera.

    Args:
        stamper: numbers and stamps the stream's messages.
        settings: of faces and crops.
        period_ns: time between two sampled pictures.

    Raises:
        CaptureError: the detector's weights are missing or unusable.
    """

    def __init__(self, stamper: Stamper, settings: EngineSettings, period_ns: int) -> None:
        self._stamper = stamper
        self._capture = settings.capture
        self._period_ns = period_ns
        self._reader = FaceReader(
            open_detector(settings.faces), settings.faces.detect_every, crop_size(settings)
        )

    def look(self, picture: NDArray[np.uint8], t_ns: int) -> list[Video]:
        """The messages of the next sampled BGR picture [H, W, 3], captured at ``t_ns``."""
        return [self._message(self._stamper, self._reader.read(picture, t_ns), t_ns)]

    def _message(self, stamper: Stamper, sighting: Sighting, t_ns: int) -> Video:
        """It stands for the period that ends with the picture."""
        crop, jpeg = sighting.crop, None
        if sighting.crop is not None and self._capture.crop_format == "jpeg":
            crop, jpeg = None, encode_jpeg(sighting.crop, self._capture.jpeg_quality)
        return Video(
            stamper.envelope("video", max(0, t_ns - self._period_ns), t_ns),
            sighting.faces,
            crop,
            sighting.box,
            sighting.track_id,
            sighting.score,
            jpeg,
        )


def crop_size(settings: EngineSettings) -> int:
    """Side of a crop, px: as set, or what the bundle's face network takes."""
    if settings.capture.crop_px is not None:
        return settings.capture.crop_px
    try:
        encoder = read_config(settings.bundle).video_encoder
    except BundleError:
        return DEFAULT_CROP_PX
    return DEFAULT_CROP_PX if encoder is None else encoder.size_px
