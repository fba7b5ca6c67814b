"""Face detectors behind one protocol: a picture in, boxes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.capture import CaptureError
from engine.settings import FaceSettings
from engine.wire.messages import Box

Picture = NDArray[np.uint8]
YUNET_MIN_SCORE = 0.7
HAAR_SCALE = 1.15
HAAR_NEIGHBOURS = 5
HAAR_WEIGHT = 3.0
"""Cascade weight at which a detection counts as 63 % sure."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face found in one picture."""

    box: Box
    score: float
    """In (0, 1]."""


class FaceDetector(Protocol):
    """Finds faces in a picture."""

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in a BGR picture [H, W, 3], in its own pixels."""
        ...


def open_detector(settings: FaceSettings) -> FaceDetector:
    """The configured detector.

    Raises:
        CaptureError: YuNet's model file is missing or unusable.
    """
    if settings.detector == "yunet":
        assert settings.model is not None  # the settings' own rule
        return YunetDetector(settings.model, settings.width_px)
    return HaarDetector(settings.min_face_px, settings.width_px)


class HaarDetector:
    """The frontal-face cascade that comes inside the OpenCV 4 wheel."""

    def __init__(self, min_face_px: int, width_px: int) -> None:
        import cv2

        cv2.setNumThreads(1)
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(path))
        self._min_face_px = min_face_px
        self._width_px = width_px

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in a BGR picture, searched in a smaller grey one."""
        import cv2

        small, scale = _shrink(picture, self._width_px)
        grey = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
        smallest = max(16, round(self._min_face_px * scale))
        boxes, _, weights = self._cascade.detectMultiScale3(
            grey,
            scaleFactor=HAAR_SCALE,
            minNeighbors=HAAR_NEIGHBOURS,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        found = []
        for values, weight in zip(boxes, np.ravel(weights), strict=True):
            score = 1 - math.exp(-max(float(weight), 0.1) / HAAR_WEIGHT)
            found.append(Detection(_box(values, scale), score))
        return found


class YunetDetector:
    """YuNet (cv2.FaceDetectorYN): better than Haar, its model file comes from the user."""

    def __init__(self, model: Path, width_px: int) -> None:
        import cv2

        cv2.setNumThreads(1)
        model = model.expanduser()
        if not model.is_file():
            raise CaptureError(f"faces.model: no YuNet model file at {model}")
        try:
            self._detector: Any = cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), YUNET_MIN_SCORE
            )
        except cv2.error as error:
            raise CaptureError(f"faces.model: {model} is not a YuNet model: {error.err}") from None
        self._width_px = width_px

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in a BGR picture."""
        small, scale = _shrink(picture, self._width_px)
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._detector.detect(small)
        if rows is None:
            return []
        return [Detection(_box(row[:4], scale), min(1.0, float(row[14]))) for row in rows]


def _shrink(picture: Picture, width_px: int) -> tuple[Picture, float]:
    import cv2

    scale = min(1.0, width_px / picture.shape[1])
    if scale == 1.0:
        return picture, 1.0
    size = (round(picture.shape[1] * scale), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8), scale


def _box(values: Sequence[float] | NDArray[Any], scale: float) -> Box:
    x, y, width, height = (round(float(value) / scale) for value in values)
    return Box(x, y, width, height)
