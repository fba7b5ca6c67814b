"""Pictures as they are shown: pixels made square, and no larger than a face needs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

MAX_SIDE_PX = 1920
"""Longer side that larger pictures are shrunk to while they are converted."""
ASPECTS = (Fraction(1, 4), Fraction(4))
"""Shapes of a pixel that are believed: the rest are mistakes of a file's header."""


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height of a picture whose pixels are ``aspect`` times as wide as high.

    The longer axis of the pixels is stretched, so that nothing is lost; a picture larger than
    ``MAX_SIDE_PX`` is shrunk as a whole.
    """
    if not ASPECTS[0] <= aspect <= ASPECTS[1]:
        aspect = Fraction(1)
    wide, high = Fraction(width), Fraction(height)
    if aspect >= 1:
        wide *= aspect
    else:
        high /= aspect
    shrunk = min(Fraction(1), MAX_SIDE_PX / max(wide, high))
    return max(1, round(wide * shrunk)), max(1, round(high * shrunk))


def squared(picture: NDArray[np.uint8], aspect: Fraction) -> NDArray[np.uint8]:
    """A picture [H, W, 3] in its ``square_size``."""
    import cv2

    height, width = picture.shape[:2]
    size = square_size(width, height, aspect)
    if size == (width, height):
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
