"""The detectors on real pixels: upright, tilted, small and nearly black faces; none in noise."""

import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.capture import CaptureError
from engine.capture.blazeface import DATA, VARIANTS, BlazeFace, BlazeFaceDetector, square_parts
from engine.capture.clip import SAMPLE_CLIP
from engine.capture.detections import overlap
from engine.capture.detectors import HaarDetector, open_detector
from engine.capture.faces import FaceReader
from engine.capture.yunet import YunetDetector, read_stride
from engine.settings import FaceSettings, SettingsError, load
from models.framing import Frame

full_range = pytest.mark.skipif(
    not (DATA / VARIANTS["full"].file).is_file(), reason="the full-range network is not installed"
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    with av.open(str(SAMPLE_CLIP)) as container:
        frames = container.decode(container.streams.video[0])
        return next(f for f in frames if f.time is not None and f.time > 1).to_ndarray(
            format="bgr24"
        )


def tilted(picture: np.ndarray, degrees: float) -> np.ndarray:
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 0.8)
    return cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def only(detector: BlazeFaceDetector, picture: np.ndarray) -> Frame:
    found = detector.detect(picture)
    assert len(found) == 1
    return found[0].frame


@pytest.mark.parametrize("kind", ["short", pytest.param("full", marks=full_range)])
def test_blazeface_gives_a_score_for_each_of_its_anchors(kind: str) -> None:
    network = BlazeFace(kind)  # type: ignore[arg-type]
    noise = np.random.default_rng(0).integers(0, 255, (network.size_px, network.size_px, 3))
    assert network.run(noise.astype(np.uint8), 0.6) == []


@pytest.mark.parametrize("far", [False, True])
def test_one_face_upright_with_its_eyes_level(picture: np.ndarray, far: bool) -> None:
    frame = only(BlazeFaceDetector(far, 24), picture)
    assert 0 < frame.x < picture.shape[1]
    assert 0 < frame.y < picture.shape[0]
    assert abs(frame.turn) < 0.25


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_a_tilted_face_is_found_with_its_tilt(picture: np.ndarray, degrees: int) -> None:
    detector = BlazeFaceDetector(False, 24)
    level = only(detector, tilted(picture, 0)).turn
    found = only(detector, tilted(picture, degrees)).turn
    assert math.degrees(found - level) == pytest.approx(degrees, abs=8)


@pytest.mark.parametrize("darker", [4, 16, 32])
def test_a_dim_face_is_found_where_it_is(picture: np.ndarray, darker: int) -> None:
    detector = BlazeFaceDetector(False, 24)
    noise = np.random.default_rng(0).normal(0, 0.7, picture.shape)
    dim = np.clip(picture / darker + noise, 0, 255).astype(np.uint8)
    assert overlap(only(detector, dim), only(detector, picture)) > 0.7


def test_a_face_is_followed_to_where_it_moved_and_not_where_none_is(picture: np.ndarray) -> None:
    detector = BlazeFaceDetector(False, 24)
    frame = only(detector, picture)
    moved = np.roll(picture, 12, axis=1)
    seen = detector.follow(moved, frame)
    assert seen is not None
    assert seen.frame.x - frame.x == pytest.approx(12, abs=0.06 * frame.side)
    assert seen.frame.side == pytest.approx(frame.side, rel=0.12)
    grey = np.full_like(picture, 120)
    assert detector.follow(grey, frame) is None


@full_range
@pytest.mark.parametrize("upright", [False, True])
def test_a_face_of_a_twentieth_of_a_pictures_length_is_found(
    picture: np.ndarray, upright: bool
) -> None:
    scale = 66 / only(BlazeFaceDetector(True, 24), picture).side
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    room = np.full((1280, 720, 3) if upright else (720, 1280, 3), 90, np.uint8)
    room[30 : 30 + small.shape[0], 20 : 20 + small.shape[1]] = small
    detector = BlazeFaceDetector(True, 32)
    frame = only(detector, room)
    assert frame.side == pytest.approx(66, rel=0.2)
    face = only(detector, small)
    assert math.dist((frame.x - 20, frame.y - 30), (face.x, face.y)) < 0.15 * frame.side
    assert detector.follow(room, frame) is not None


@full_range
@pytest.mark.parametrize("near_left", [0, 320])
def test_everybody_counts_a_far_face_beside_a_near_one(picture: np.ndarray, near_left: int) -> None:
    room = np.full((720, 1280, 3), 90, np.uint8)
    near = cv2.resize(picture, (960, 720))
    room[:, near_left : near_left + 960] = near
    scale = 84 / only(BlazeFaceDetector(True, 24), picture).side
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    far_left = 20 if near_left else 1260 - small.shape[1]
    room[30 : 30 + small.shape[0], far_left : far_left + small.shape[1]] = small
    reader = FaceReader(
        open_detector(FaceSettings(who="all")), detect_every=2, crop_px=48, max_faces=6
    )
    counts = [len(reader.read_all(room, step * 100_000_000)) for step in range(24)]
    assert counts[8:] == [2] * 16


@pytest.mark.parametrize(
    ("size", "lefts"),
    [
        ((720, 1280), [0, 560]),
        ((480, 640), [0, 160]),
        ((400, 480), []),
        ((100, 900), [0, 400, 800]),
    ],
)
def test_square_parts_cover_a_long_picture(size: tuple[int, int], lefts: list[int]) -> None:
    wide = np.zeros((*size, 3), np.uint8)
    assert [left for left, _, _ in square_parts(wide)] == lefts
    assert [top for _, top, _ in square_parts(wide.transpose(1, 0, 2))] == lefts
    assert {part.shape[:2] for _, _, part in square_parts(wide)} <= {(size[0], size[0])}


def test_faces_below_the_smallest_size_are_left_out(picture: np.ndarray) -> None:
    side = only(BlazeFaceDetector(False, 16), picture).side
    assert BlazeFaceDetector(False, round(side * 1.2)).detect(picture) == []


def test_a_face_about_the_smallest_size_does_not_come_and_go(picture: np.ndarray) -> None:
    side = only(BlazeFaceDetector(False, 16), picture).side
    reader = FaceReader(BlazeFaceDetector(False, round(side * 0.97)), 10, 48)
    height, width = picture.shape[:2]
    shown = []
    for step in range(12):  # somebody leans back and forth by a tenth
        scale = 1 - 0.05 * (1 - math.cos(step * math.pi / 3))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        down, across = height - small.shape[0], width - small.shape[1]
        room = cv2.copyMakeBorder(
            small,
            down // 2,
            down - down // 2,
            across // 2,
            across - across // 2,
            cv2.BORDER_REPLICATE,
        )
        shown.append(reader.read(room, step * 100_000_000).crop is not None)
    assert all(shown)


@pytest.mark.parametrize("shape", [(2160, 3840), (120, 160), (640, 360), (40, 1200), (16, 16)])
def test_pictures_of_any_shape_are_searched(shape: tuple[int, int]) -> None:
    detector = BlazeFaceDetector(True, 16)
    grey = np.full((*shape, 3), 90, np.uint8)
    assert detector.detect(grey) == []
    assert detector.follow(grey, Frame(5, 5, 40)) is None


def test_noise_holds_no_face() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    assert BlazeFaceDetector(True, 16).detect(noise) == []


@pytest.mark.skipif(not hasattr(cv2, "CascadeClassifier"), reason="this OpenCV has no cascades")
def test_the_cascade_frames_a_face_about_as_blazeface_does(picture: np.ndarray) -> None:
    detector = HaarDetector(48, 480)
    (found,) = detector.detect(picture)
    assert overlap(found.frame, only(BlazeFaceDetector(False, 24), picture)) > 0.5
    assert detector.follow(picture, found.frame) is not None
    assert HaarDetector(round(min(picture.shape[:2])), 480).detect(picture) == []
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    assert detector.detect(noise) == []


@pytest.mark.skipif(hasattr(cv2, "CascadeClassifier"), reason="this OpenCV has cascades")
def test_an_opencv_without_cascades_is_told() -> None:
    with pytest.raises(CaptureError, match=r"no cascades, 4 has; choose 'blazeface'"):
        HaarDetector(48, 480)


def test_yunets_outputs_are_read_by_cell_and_stride() -> None:
    classes = objects = np.zeros((12, 1), np.float32)
    classes, objects = classes.copy(), objects.copy()
    classes[7], objects[7] = 0.9, 0.9
    boxes = np.zeros((12, 4), np.float32)
    boxes[7] = (0.5, 0.25, math.log(3), math.log(3))
    points = np.zeros((12, 10), np.float32)
    points[7, :4] = (0, 0, 1, 1)
    (found,) = read_stride(classes, objects, boxes, points, (3, 4), 16, 0.5)
    # Cell 7 is column 3 of row 1.
    assert (found.frame.x, found.frame.y) == (3.5 * 32, 1.25 * 32)
    assert found.frame.side == pytest.approx(1.06 * 96)
    assert found.frame.turn == pytest.approx(math.pi / 4)
    assert found.score == pytest.approx(0.9)


def test_what_is_no_yunet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no YuNet model file"):
        YunetDetector(tmp_path / "none.onnx", 480, 32)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not onnx")
    with pytest.raises(CaptureError, match=r"not a YuNet model"):
        YunetDetector(broken, 480, 32)
    other = DATA / VARIANTS["short"].file
    settings = FaceSettings(detector="yunet", model=other)
    with pytest.raises(CaptureError, match=r"no output bbox_16"):
        open_detector(settings)
    with pytest.raises(SettingsError, match=r"goes with faces.detector = 'yunet'"):
        load(faces={"model": str(other)})
