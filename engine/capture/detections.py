"""What every face detector gives, and what is done to it: one face, one detection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.framing import Frame

Picture = NDArray[np.uint8]

SAME_FACE = 0.3
"""Intersection over union from which two squares are of one face."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face found in one picture."""

    frame: Frame
    """As the face network sees faces; not turned where the detector does not find eyes."""
    score: float
    """In (0, 1]."""


class FaceDetector(Protocol):
    """Finds faces in pictures."""

    def detect(self, picture: Picture) -> list[Detection]:
        """All faces in a BGR picture [H, W, 3], in its own pixels."""
        ...

    def follow(self, picture: Picture, frame: Frame) -> Detection | None:
        """The face that was at ``frame`` a moment ago, looked for around there."""
        ...


def overlap(a: Frame, b: Frame) -> float:
    """Intersection over union of two squares, taken as upright, 0 to 1."""
    reach = (a.side + b.side) / 2
    width = min(reach - abs(a.x - b.x), a.side, b.side)
    height = min(reach - abs(a.y - b.y), a.side, b.side)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (a.side**2 + b.side**2 - shared)


def merge(detections: Sequence[Detection]) -> list[Detection]:
    """One detection per face: the mean, weighted by score, of those that overlap the best one.

    Steadier than keeping the best alone: neighbouring anchors err in different directions.
    """
    rest = sorted(detections, key=lambda detection: -detection.score)
    faces = []
    while rest:
        best = rest[0]
        same, others = [best], list[Detection]()
        for d in rest[1:]:
            (same if overlap(best.frame, d.frame) >= SAME_FACE else others).append(d)
        faces.append(Detection(_mean(same), best.score))
        rest = others
    return faces


def _mean(detections: Sequence[Detection]) -> Frame:
    """Weighted by score. A handful of numbers: numpy takes five times as long for them."""
    x = y = side = sin = cos = total = 0.0
    for d in detections:
        frame, weight = d.frame, d.score
        x += weight * frame.x
        y += weight * frame.y
        side += weight * frame.side
        sin += weight * math.sin(frame.turn)
        cos += weight * math.cos(frame.turn)
        total += weight
    return Frame(x / total, y / total, side / total, math.atan2(sin, cos))


def look_around(detector: FaceDetector, picture: Picture, frame: Frame) -> Detection | None:
    """What ``follow`` is for a detector that only knows whole pictures."""
    height, width = picture.shape[:2]
    reach = 1.2 * frame.side
    left, top = max(0, round(frame.x - reach)), max(0, round(frame.y - reach))
    right, bottom = min(width, round(frame.x + reach)), min(height, round(frame.y + reach))
    if right - left < 16 or bottom - top < 16:
        return None
    part = np.ascontiguousarray(picture[top:bottom, left:right])
    found = [
        Detection(Frame(d.frame.x + left, d.frame.y + top, d.frame.side, d.frame.turn), d.score)
        for d in detector.detect(part)
    ]
    return nearest(found, frame)


def nearest(detections: Sequence[Detection], frame: Frame) -> Detection | None:
    """The detection that overlaps a frame most, if it is of one face with it."""
    best = max(detections, key=lambda d: overlap(d.frame, frame), default=None)
    return best if best is not None and overlap(best.frame, frame) >= SAME_FACE else None
