"""Framing: which square of a picture a face network sees. The one cutter of training and live use.

A frame is a square around a face, turned so that the eyes lie level where the detector gives
them. It is cut with fractions of a pixel and brought to the network's size in one go: a face
that moves by a third of a pixel moves by as much in the crop, and a whole picture of a corpus
is cut by the same lines of code as a face in a camera's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

MAX_OVERSAMPLING = 16
"""Samples per pixel and side at most: a face of 4K at a 48 px crop needs 30, and loses nothing."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A square in a picture, in its pixels; the centre of the first pixel is (0.5, 0.5)."""

    x: float
    """Centre."""
    y: float
    side: float
    turn: float = 0.0
    """Radians by which the face is turned clockwise in the picture; the crop shows it upright."""


def whole(picture: Picture) -> Frame:
    """The frame of a corpus's picture that is a face crop already: its largest central square."""
    height, width = picture.shape[:2]
    return Frame(width / 2, height / 2, float(min(height, width)))


def cut(
    picture: Picture, frame: Frame, size_px: int, oversampling: int = MAX_OVERSAMPLING
) -> Picture | None:
    """The crop [size_px, size_px, C] of a frame; the picture's edge repeats beyond it.

    Each pixel is the mean of a grid of samples as fine as the picture's own pixels, so that
    nothing is lost or made up when a large face becomes a small crop.

    Args:
        picture: uint8 [H, W, C].
        frame: of the face; None comes back where it is outside of the picture.
        size_px: side of the crop.
        oversampling: samples per pixel and side at most.
    """
    import cv2

    height, width = picture.shape[:2]
    half = frame.side * (abs(math.cos(frame.turn)) + abs(math.sin(frame.turn))) / 2
    inside_x = -half < frame.x < width + half
    inside_y = -half < frame.y < height + half
    if frame.side < 1 or not (inside_x and inside_y):
        return None
    if frame == whole(picture) and frame.side == size_px and height == width:
        return picture
    times = min(oversampling, max(1, math.ceil(frame.side / size_px - 1e-6)))
    fine = size_px * times
    step = frame.side / fine
    cos, sin = step * math.cos(frame.turn), step * math.sin(frame.turn)
    # From a fine sample (u, v) to the picture; OpenCV counts from the centre of the first pixel.
    middle = (fine - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, frame.x - 0.5 - middle * (cos - sin)],
            [sin, cos, frame.y - 0.5 - middle * (sin + cos)],
        ]
    )
    samples = cv2.warpAffine(
        picture,
        matrix,
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if times > 1:
        samples = cv2.resize(samples, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(samples, np.uint8)
