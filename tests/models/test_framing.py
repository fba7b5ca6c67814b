"""The one cutter: exact, by fractions of a pixel, upright, and alike for corpora and cameras."""

import math

import cv2
import numpy as np
import pytest

from models.framing import Frame, cut, whole
from models.preprocessing import normalise_crop


def scene(height: int = 240, width: int = 320) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(float)
    return np.clip(128 + 5 * (smooth - smooth.mean()), 0, 255).astype(np.uint8)


def test_a_frame_of_the_networks_own_size_is_the_pixels_themselves() -> None:
    picture = scene()
    crop = cut(picture, Frame(100, 80, 48), 48)
    assert crop is not None
    np.testing.assert_array_equal(crop, picture[56:104, 76:124])
    np.testing.assert_array_equal(
        cut(picture[:48, :48], whole(picture[:48, :48]), 48), picture[:48, :48]
    )


def test_a_large_face_is_the_mean_of_its_pixels() -> None:
    picture = scene()
    crop = cut(picture, Frame(160, 120, 192), 48)
    assert crop is not None
    means = picture[24:216, 64:256].reshape(48, 4, 48, 4, 3).mean((1, 3))
    assert np.abs(crop - means).max() <= 1


def test_a_corpus_picture_and_the_same_face_in_a_camera_picture_give_the_same_input() -> None:
    for side in (48, 100, 137):
        face = scene(side, side)
        camera = np.full((360, 480, 3), 90, np.uint8)
        camera[120 : 120 + side, 200 : 200 + side] = face
        trained = cut(face, whole(face), 48)
        live = cut(camera, Frame(200 + side / 2, 120 + side / 2, side), 48)
        assert trained is not None
        assert live is not None
        difference = normalise_crop(trained, 48, 1) - normalise_crop(live, 48, 1)
        assert np.abs(difference[:, 1:-1, 1:-1]).max() < 0.08


def test_a_pixel_of_the_picture_moves_the_crop_by_half_of_its_own() -> None:
    picture = scene()
    before, between, after = (cut(picture, Frame(x, 120, 96), 48) for x in (160.0, 161.0, 162.0))
    assert before is not None
    assert between is not None
    assert after is not None
    np.testing.assert_array_equal(after[:, :-1], before[:, 1:])
    halfway = (before.astype(float) + after) / 2
    assert np.abs(between - halfway).mean() < 0.25 * np.abs(before - halfway).mean()


@pytest.mark.parametrize("degrees", [20, 40, 90, -30])
def test_a_turned_face_comes_out_upright(degrees: int) -> None:
    picture = scene()
    upright = cut(picture, Frame(160, 120, 90), 48)
    matrix = cv2.getRotationMatrix2D((159.5, 119.5), -degrees, 1)
    turned = cv2.warpAffine(picture, matrix, (320, 240))
    crop = cut(turned, Frame(160, 120, 90, math.radians(degrees)), 48)
    assert upright is not None
    assert crop is not None
    assert np.abs(crop.astype(int) - upright).mean() < 2


def test_edges_repeat_and_a_face_outside_has_no_crop() -> None:
    picture = scene()
    corner = cut(picture, Frame(0, 0, 60), 48)
    assert corner is not None
    assert (corner[:20, :20] == corner[0, 0]).all()
    assert cut(picture, Frame(-200, 100, 60), 48) is None
    assert cut(picture, Frame(100, 100, 0.5), 48) is None


def test_small_and_huge_pictures_are_cut_in_grey_too() -> None:
    for side in (8, 2160):
        picture = np.full((side, 2 * side, 1), 7, np.uint8)
        crop = cut(picture[..., 0], Frame(side, side / 2, side), 48)
        assert crop is not None
        assert crop.shape[:2] == (48, 48)
        assert (crop == 7).all()
