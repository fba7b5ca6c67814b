"""Tracks with stable identities, the choice of the scored face, and its crop."""

import numpy as np
import pytest

from engine.capture.detectors import Detection, HaarDetector
from engine.capture.faces import FaceReader, FaceTracker, cut, overlap
from engine.wire.messages import Box

LEFT, RIGHT = Box(10, 10, 50, 50), Box(200, 10, 60, 60)


def seen(*boxes: Box) -> list[Detection]:
    return [Detection(box, 0.9) for box in boxes]


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(LEFT, LEFT) == 1
    assert overlap(LEFT, RIGHT) == 0
    assert overlap(Box(0, 0, 10, 10), Box(5, 0, 10, 10)) == pytest.approx(1 / 3)


def test_a_single_detection_is_not_believed() -> None:
    tracker = FaceTracker()
    tracker.update(seen(LEFT))
    assert not tracker.confirmed
    tracker.update(seen())
    assert not tracker.tracks


def test_identities_survive_motion_and_misses_and_end_after_them() -> None:
    tracker = FaceTracker()
    for step in range(5):
        moved = Box(LEFT.x + 5 * step, LEFT.y, LEFT.width, LEFT.height)
        tracker.update(seen(RIGHT, moved) if step % 2 else seen(moved, RIGHT))
    left, right = sorted(tracker.confirmed, key=lambda track: track.box.x)
    assert {left.track_id, right.track_id} == {0, 1}
    tracker.update(seen(RIGHT))
    tracker.update(seen(RIGHT))
    assert len(tracker.confirmed) == 2
    tracker.update(seen(RIGHT))
    assert [track.track_id for track in tracker.confirmed] == [right.track_id]


def test_the_largest_most_central_face_is_scored_until_another_is_clearly_more_so() -> None:
    tracker = FaceTracker()
    central, edge = Box(130, 90, 60, 60), Box(0, 0, 62, 62)
    for _ in range(2):
        tracker.update(seen(central, edge))
    first = tracker.choose(320, 240)
    assert first is not None
    assert first.box.x == central.x
    larger = Box(0, 0, 80, 80)
    for _ in range(8):
        tracker.update(seen(central, larger))
    assert tracker.choose(320, 240) == next(t for t in tracker.confirmed if t.box.x > 100)
    huge = Box(0, 0, 110, 110)
    for _ in range(12):
        tracker.update(seen(central, larger if _ < 2 else huge))
    chosen = tracker.choose(320, 240)
    assert chosen is not None
    assert chosen.box.width > 100


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def detect(self, picture: np.ndarray) -> list[Detection]:
        self.calls += 1
        return seen(Box(40, 40, 60, 60))


def test_the_tracker_fills_in_between_detector_runs() -> None:
    detector = Counting()
    reader = FaceReader(detector, detect_every=3, crop_px=112)
    picture = np.zeros((240, 320, 3), np.uint8)
    found = [reader.read(picture) for _ in range(12)]
    assert detector.calls < 7
    assert found[0].crop is None
    assert all(sighting.crop is not None for sighting in found[1:])
    assert {sighting.track_id for sighting in found[1:]} == {0}


def test_a_crop_is_square_centred_and_never_stretched() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[40:60, 40:60] = 255
    crop = cut(picture, Box(40, 40, 20, 20), 50)
    assert crop is not None
    assert crop.shape == (50, 50, 3)
    white = crop[..., 0] > 128
    assert white[25, 25]
    assert white.any(0).sum() == pytest.approx(40, abs=2)
    assert not white[:3].any()
    corner = cut(picture, Box(-10, -10, 30, 30), 48)
    assert corner is not None
    assert corner.shape == (48, 48, 3)
    assert cut(picture, Box(500, 500, 20, 20), 48) is None


def test_haar_finds_no_face_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    assert HaarDetector(48, 320).detect(noise) == []
