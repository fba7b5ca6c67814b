"""What a crop shows of a face: less in the dark, out of focus and from afar."""

import cv2
import numpy as np
import pytest

from engine.capture.clip import SAMPLE_CLIP, read_clip
from engine.settings import load
from engine.wire.jpeg import opened
from engine.wire.messages import Video
from models.calibration import Calibration, PatternCalibration
from models.clarity import clarity


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    videos = (m for m in read_clip(SAMPLE_CLIP, load()) if isinstance(m, Video) and m.has_face)
    found = opened(next(videos)).crop
    assert found is not None
    return np.asarray(found)


def test_a_lit_sharp_face_is_clear_and_half_the_light_changes_nothing(crop: np.ndarray) -> None:
    assert clarity(crop) > 0.9
    assert clarity((crop // 2).astype(np.uint8)) > 0.9


def test_dark_blurred_and_far_faces_are_less_clear(crop: np.ndarray) -> None:
    dark = np.round(crop / 32).astype(np.uint8)
    blurred = cv2.GaussianBlur(crop, (0, 0), 2.5)
    far = cv2.resize(cv2.resize(crop, (12, 12), interpolation=cv2.INTER_AREA), (48, 48))
    for worse in (dark, blurred, far):
        assert clarity(worse) < 0.6 * clarity(crop)
    assert clarity(np.full_like(crop, 80)) == 0


def test_clarity_does_not_hang_on_the_size_of_the_crop(crop: np.ndarray) -> None:
    larger = cv2.resize(crop, (96, 96), interpolation=cv2.INTER_CUBIC)
    assert clarity(larger) == pytest.approx(clarity(crop), abs=0.15)


def test_doubt_and_a_world_never_seen_widen_an_interval_about_the_valence() -> None:
    patterns = {"video": PatternCalibration(margin=0.1, clips=99, stretch=1.5)}
    known, plain = Calibration(patterns=patterns), PatternCalibration(margin=0.1, clips=99)
    low, high = Calibration(patterns={"video": plain}).interval("video", 1.0, 0.6, 1.2)
    assert (low, high) == pytest.approx((0.5, 1.3))
    assert known.interval("video", 1.0, 0.6, 1.2) == pytest.approx((0.25, 1.45))
    doubted = known.interval("video", 1.0, 0.6, 1.2, doubt=1.0)
    assert doubted == pytest.approx((1 - 0.5 * 1.5 * 1.25, 1 + 0.3 * 1.5 * 1.25))
    assert known.interval("video", 2.9, 2.0, 2.95, doubt=1.0)[1] <= 3.0
