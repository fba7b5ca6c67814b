"""The face detectors that can be chosen: BlazeFace, YuNet from a user's file, OpenCV's cascade."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from engine.capture import CaptureError
from engine.capture.blazeface import BlazeFaceDetector
from engine.capture.detections import Detection, FaceDetector, Picture, look_around
from engine.capture.yunet import YunetDetector
from engine.settings import FaceSettings
from models.framing import Frame

HAAR_SCALE = 1.15
HAAR_NEIGHBOURS = 5
HAAR_WEIGHT = 3.0
"""Cascade weight at which a detection counts as 63 % sure."""
HAAR_SIDE, HAAR_SHIFT = 0.92, 0.04
"""What the face network sees, in sides of a cascade's box, and how far below its centre."""


def open_detector(settings: FaceSettings) -> FaceDetector:
    """The configured detector.

    Raises:
        CaptureError: weights are missing or unusable, or this OpenCV has no cascades.
    """
    import cv2

    cv2.setNumThreads(1)  # it turns and shrinks small squares: waking a second thread costs more
    if settings.detector == "yunet":
        assert settings.model is not None  # the settings' own rule
        return YunetDetector(settings.model, settings.width_px, settings.min_face_px)
    if settings.detector == "haar":
        return HaarDetector(settings.min_face_px, settings.width_px)
    far = settings.detector == "blazeface"
    enough = settings.max if settings.who == "all" else 1
    return BlazeFaceDetector(far, settings.min_face_px, enough)


class HaarDetector:
    """The frontal-face cascade that comes inside the OpenCV 4 wheel; finds no tilted faces.

    Raises:
        CaptureError: an OpenCV without cascades.
    """

    def __init__(self, min_face_px: int, width_px: int) -> None:
        import cv2

        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
            raise CaptureError(
                f"faces.detector = 'haar': OpenCV {cv2.__version__} has no cascades, 4 has; "
                "choose 'blazeface'"
            )
        self._cascade = cv2.CascadeClassifier(str(path))
        self._min_face_px = min_face_px
        self._width_px = width_px

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in a BGR picture, searched in a smaller grey one."""
        import cv2

        scale = min(1.0, self._width_px / picture.shape[1])
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        if scale < 1.0:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = max(16, round(self._min_face_px * scale / HAAR_SIDE))
        boxes, _, weights = self._cascade.detectMultiScale3(
            cv2.equalizeHist(grey),
            scaleFactor=HAAR_SCALE,
            minNeighbors=HAAR_NEIGHBOURS,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        found = []
        for (x, y, width, _height), weight in zip(boxes, np.ravel(weights), strict=True):
            side = float(width) / scale
            centre = (x / scale + side / 2, y / scale + side / 2 + HAAR_SHIFT * side)
            score = 1 - math.exp(-max(float(weight), 0.1) / HAAR_WEIGHT)
            found.append(Detection(Frame(*centre, HAAR_SIDE * side), score))
        return found

    def follow(self, picture: Picture, frame: Frame) -> Detection | None:
        """The face that was at ``frame``, looked for around it."""
        return look_around(self, picture, frame)
