"""People before a camera: pictures in, video messages out. One for cameras, clips and browsers."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from engine.capture.detectors import open_detector
from engine.capture.faces import FaceReader, Sighting
from engine.capture.stamps import Stamper
from engine.settings import EngineSettings
from engine.wire.jpeg import encode_jpeg
from engine.wire.messages import Video
from models.bundle import BundleError, read_config

BEGINS_AFTER = 3
"""Pictures of a face before its stream begins: a passer-by's flicker makes none."""
MAX_PEOPLE = 10_000
"""Numbers of people come round after these many."""
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
        self._each = settings.faces.who == "all"
        self._reader = FaceReader(
            open_detector(settings.faces),
            settings.faces.detect_every,
            crop_size(settings),
            settings.faces.max if self._each else 1,
        )
        self._seen: Counter[int] = Counter()
        self._streams: dict[int, Stamper] = {}
        self._came = 0
        self._shown_ns = 0

    def look(self, picture: NDArray[np.uint8], t_ns: int) -> list[Video]:
        """The messages of the next sampled BGR picture [H, W, 3], captured at ``t_ns``.

        The first one is the camera's own stream. Where everybody is scored, it says only how
        many faces there are, and each person's stream follows: it begins with the third picture
        of a face, says so while the face is away, and ends when it is forgotten.
        """
        self._shown_ns = t_ns
        if not self._each:
            return [self._message(self._stamper, self._reader.read(picture, t_ns), t_ns)]
        sightings = self._reader.read_all(picture, t_ns)
        faces = sightings[0].faces if sightings else 0
        found = {s.track_id: s for s in sightings if s.track_id is not None}
        messages = [self._message(self._stamper, Sighting(faces), t_ns)]
        self._seen.update(found.keys())
        for track_id in sorted(found.keys() - self._streams.keys()):
            if self._seen[track_id] >= BEGINS_AFTER:
                self._came += 1
                self._streams[track_id] = self._stamper.of_person(self._came % MAX_PEOPLE)
        for track_id, stamper in list(self._streams.items()):
            over = track_id not in self._reader.known
            sighting = found.get(track_id, Sighting(faces))
            messages.append(self._message(stamper, sighting, t_ns, over))
            if over:
                del self._streams[track_id], self._seen[track_id]
        return messages

    def end(self) -> list[Video]:
        """The last messages of everybody's own stream, when the camera or clip ends."""
        stampers, self._streams = list(self._streams.values()), {}
        t_ns = self._shown_ns + self._period_ns
        return [self._message(stamper, Sighting(0), t_ns, last=True) for stamper in stampers]

    def _message(
        self, stamper: Stamper, sighting: Sighting, t_ns: int, last: bool = False
    ) -> Video:
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
            last,
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
