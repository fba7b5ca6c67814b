"""Face crops as JPEG: how they travel by default, and how untrusted ones are opened safely."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.wire.fields import WireError
from engine.wire.messages import Video

MAX_SIDE_PX = 512
BASELINE = 0xC0
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xC8, 0xCC}


def encode_jpeg(crop: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A BGR crop [H, W, 3] as the bytes [N] of a baseline JPEG."""
    import cv2

    _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(data, np.uint8).reshape(-1)


def opened(message: Video) -> Video:
    """The message with its crop as pixels, whichever way it travelled.

    Raises:
        WireError: its JPEG is not one, is too large, or cannot be decoded.
    """
    if message.jpeg is None:
        return message
    import cv2

    size = declared_size(message.jpeg.tobytes())
    if not all(1 <= side <= MAX_SIDE_PX for side in size):
        raise WireError(f"jpeg: expected at most {MAX_SIDE_PX} px a side, got {size}")
    try:
        crop = cv2.imdecode(message.jpeg, cv2.IMREAD_COLOR)
    except cv2.error:
        crop = None
    if crop is None:
        raise WireError("jpeg: expected a picture, it cannot be decoded")
    return msgspec.structs.replace(message, crop=np.asarray(crop, np.uint8), jpeg=None)


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height that a baseline JPEG declares, without decoding it.

    A few kilobytes can declare gigabytes of pixels, or hundreds of progressive scans, so this
    is read before any decoder sees the picture.

    Raises:
        WireError: not a JPEG, or none of the plain kind.
    """
    if data[:2] != b"\xff\xd8":
        raise WireError("expected a JPEG picture")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker in STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or marker in OTHER_FRAMES or marker in (0xD8, 0xD9, 0xDA):
            break
        if marker == BASELINE and length >= 8 and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length
    raise WireError("expected a baseline JPEG picture")
