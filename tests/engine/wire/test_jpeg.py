"""JPEG crops of strangers: opened within bounds, refused otherwise."""

import numpy as np
import pytest

from engine.wire.fields import WireError
from engine.wire.jpeg import encode_jpeg, opened
from engine.wire.messages import Clock, Envelope, Video

ENVELOPE = Envelope("main", 0, 0, 100, 100, Clock("host", "boot"))


def video(jpeg: np.ndarray | None) -> Video:
    return Video(ENVELOPE, 1, jpeg=jpeg)


def test_a_crop_comes_back_about_as_it_was() -> None:
    crop = np.zeros((48, 40, 3), np.uint8)
    crop[10:30, 10:30] = (40, 90, 200)
    message = opened(video(encode_jpeg(crop, 95)))
    assert message.jpeg is None
    assert message.crop is not None
    assert message.crop.shape == crop.shape
    assert np.abs(message.crop.astype(int) - crop).mean() < 6
    assert opened(video(None)).crop is None


def test_what_is_too_large_or_no_picture_is_refused() -> None:
    huge = encode_jpeg(np.zeros((600, 20, 3), np.uint8), 90)
    with pytest.raises(WireError, match="at most 512 px"):
        opened(video(huge))
    fine = encode_jpeg(np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8), 90)
    for broken in (fine[:100], np.zeros(50, np.uint8), np.frombuffer(b"\xff\xd8\xff", np.uint8)):
        with pytest.raises(WireError):
            opened(video(broken))


def test_a_face_has_one_crop() -> None:
    with pytest.raises(ValueError, match="got both"):
        Video(ENVELOPE, 1, np.zeros((4, 4, 3), np.uint8), jpeg=np.zeros(4, np.uint8))
