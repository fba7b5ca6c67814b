"""Faces: detections to tracks with stable identities, and the crop of the one that is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.capture.detectors import Detection, FaceDetector
from engine.wire.messages import Box

Picture = NDArray[np.uint8]

MIN_OVERLAP = 0.3
"""Intersection over union from which a detection continues a track."""
CONFIRMED_HITS = 2
"""Detections before a track counts: a single one is Haar's usual false alarm."""
MAX_MISSES = 2
"""Detector runs in a row without the face before its track ends."""
SMOOTHING = 0.6
"""Share of a new box in the smoothed one, against the detector's jitter."""
SWITCH_RATIO = 1.3
"""How much more prominent another face has to be to be scored instead."""
CROP_MARGIN = 0.12
"""Added around the box on each side, as a share of its size."""


@dataclass(frozen=True, slots=True)
class Track:
    """One face over time."""

    track_id: int
    box: Box
    score: float
    hits: int = 1
    misses: int = 0

    @property
    def confirmed(self) -> bool:
        """Seen often enough to be believed."""
        return self.hits >= CONFIRMED_HITS


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What one sampled picture shows: how many faces, and the scored one's crop."""

    faces: int
    crop: Picture | None = None
    box: Box | None = None
    track_id: int | None = None
    score: float | None = None


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (a.width * a.height + b.width * b.height - shared)


class FaceTracker:
    """Detections in, tracks out. Pure: one call per detector run."""

    def __init__(self) -> None:
        self.tracks: tuple[Track, ...] = ()
        self._next_id = 0
        self._scored: int | None = None

    @property
    def confirmed(self) -> tuple[Track, ...]:
        """The tracks that count."""
        return tuple(track for track in self.tracks if track.confirmed)

    @property
    def settled(self) -> bool:
        """Whether every track is confirmed and was seen last time: no need to look at once."""
        return bool(self.tracks) and all(t.confirmed and t.misses == 0 for t in self.tracks)

    def update(self, detections: Sequence[Detection]) -> None:
        """Take the detections of one picture: best overlaps first, the rest are new tracks."""
        pairs = sorted(
            (
                (overlap(track.box, detection.box), t, d)
                for t, track in enumerate(self.tracks)
                for d, detection in enumerate(detections)
            ),
            reverse=True,
        )
        matched: dict[int, int] = {}
        for shared, t, d in pairs:
            if shared >= MIN_OVERLAP and t not in matched and d not in matched.values():
                matched[t] = d
        tracks = []
        for index, track in enumerate(self.tracks):
            if index in matched:
                seen = detections[matched[index]]
                box = _blend(track.box, seen.box)
                tracks.append(
                    replace(track, box=box, score=seen.score, hits=track.hits + 1, misses=0)
                )
            elif track.confirmed and track.misses < MAX_MISSES:
                tracks.append(replace(track, misses=track.misses + 1))
        for index, detection in enumerate(detections):
            if index not in matched.values():
                tracks.append(Track(self._next_id, detection.box, detection.score))
                self._next_id += 1
        self.tracks = tuple(tracks)

    def choose(self, width: int, height: int) -> Track | None:
        """The largest and most central face of a picture; stays with one while it can."""
        best: Track | None = None
        best_value = 0.0
        for track in self.confirmed:
            value = _prominence(track.box, width, height)
            if track.track_id == self._scored:
                value *= SWITCH_RATIO
            if best is None or value > best_value:
                best, best_value = track, value
        self._scored = None if best is None else best.track_id
        return best


class FaceReader:
    """Pictures in, sightings out: runs the detector now and then, the tracker fills in between."""

    def __init__(self, detector: FaceDetector, detect_every: int, crop_px: int) -> None:
        self._detector = detector
        self._detect_every = detect_every
        self._crop_px = crop_px
        self._tracker = FaceTracker()
        self._since = detect_every

    def read(self, picture: Picture) -> Sighting:
        """Take the next sampled BGR picture [H, W, 3]."""
        self._since += 1
        if self._since >= self._detect_every or not self._tracker.settled:
            self._tracker.update(self._detector.detect(picture))
            self._since = 0
        faces = len(self._tracker.confirmed)
        track = self._tracker.choose(picture.shape[1], picture.shape[0])
        if track is None:
            return Sighting(faces)
        crop = cut(picture, track.box, self._crop_px)
        if crop is None:
            return Sighting(faces)
        return Sighting(faces, crop, track.box, track.track_id, track.score)


def cut(picture: Picture, box: Box, size_px: int) -> Picture | None:
    """Square crop [size_px, size_px, 3] around a box; edges repeat beyond the picture.

    None where the box lies outside of the picture.
    """
    import cv2

    side = round(max(box.width, box.height) * (1 + 2 * CROP_MARGIN))
    left = box.x + box.width // 2 - side // 2
    top = box.y + box.height // 2 - side // 2
    height, width = picture.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + side, width), min(top + side, height)
    if x1 <= x0 or y1 <= y0:
        return None
    crop: NDArray[np.uint8] = np.asarray(picture[y0:y1, x0:x1], np.uint8)
    around = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    if any(around):
        crop = np.asarray(cv2.copyMakeBorder(crop, *around, cv2.BORDER_REPLICATE), np.uint8)
    method = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (size_px, size_px), interpolation=method), np.uint8)


def _blend(old: Box, new: Box) -> Box:
    def mix(a: int, b: int) -> int:
        return round((1 - SMOOTHING) * a + SMOOTHING * b)

    return Box(
        mix(old.x, new.x),
        mix(old.y, new.y),
        mix(old.width, new.width),
        mix(old.height, new.height),
    )


def _prominence(box: Box, width: int, height: int) -> float:
    """Area, up to halved towards the picture's corners."""
    across = abs(box.x + box.width / 2 - width / 2) / (width / 2)
    along = abs(box.y + box.height / 2 - height / 2) / (height / 2)
    return box.width * box.height * (1 - 0.25 * min(across, 1) - 0.25 * min(along, 1))
