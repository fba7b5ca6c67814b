"""Tracks with stable identities, the choice of the scored face, its steadied frame and crop."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.capture.detections import Detection, merge, nearest, overlap
from engine.capture.faces import REMEMBERED_NS, FaceReader, FaceTracker, box_of, steadied
from models.framing import Frame

LEFT, RIGHT = Frame(35, 35, 50), Frame(230, 40, 60)
SECOND = 1_000_000_000


def seen(*frames: Frame) -> list[Detection]:
    return [Detection(frame, 0.9) for frame in frames]


class Stage:
    """A detector of a scene whose faces are known: it finds what is there, and counts."""

    def __init__(self, *frames: Frame) -> None:
        self.faces = list(frames)
        self.searches = self.follows = 0

    def detect(self, picture: np.ndarray) -> list[Detection]:
        self.searches += 1
        return seen(*self.faces)

    def follow(self, picture: np.ndarray, frame: Frame) -> Detection | None:
        self.follows += 1
        return nearest(seen(*self.faces), frame)


PICTURE = np.zeros((240, 320, 3), np.uint8)


def play(reader: FaceReader, pictures: int, begin: int = 0) -> list[int | None]:
    """Identities of the scored face in pictures that come every 100 ms."""
    return [reader.read(PICTURE, (begin + n) * SECOND // 10).track_id for n in range(pictures)]


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(LEFT, LEFT) == 1
    assert overlap(LEFT, RIGHT) == 0
    assert overlap(Frame(5, 5, 10), Frame(10, 5, 10)) == pytest.approx(1 / 3)
    assert overlap(Frame(50, 50, 100), Frame(50, 50, 10)) == pytest.approx(0.01)


def test_neighbouring_detections_are_one_face_at_their_mean() -> None:
    faces = merge(
        [
            Detection(Frame(100, 100, 50, 3.1), 0.8),
            Detection(Frame(104, 100, 50, -3.1), 0.8),
            Detection(RIGHT, 0.7),
        ]
    )
    assert [face.score for face in faces] == [0.8, 0.7]
    assert faces[0].frame.x == pytest.approx(102)
    assert abs(faces[0].frame.turn) == pytest.approx(math.pi)


def test_a_face_is_scored_from_its_first_picture_and_followed_between_searches() -> None:
    stage = Stage(Frame(160, 120, 60))
    reader = FaceReader(stage, detect_every=5, crop_px=48)
    assert play(reader, 20) == [0] * 20
    assert stage.searches <= 5


def test_what_a_second_look_does_not_confirm_is_no_face() -> None:
    class Doubtful(Stage):
        def follow(self, picture: np.ndarray, frame: Frame) -> Detection | None:
            return None

    reader = FaceReader(Doubtful(Frame(160, 120, 60)), detect_every=5, crop_px=48)
    assert play(reader, 10) == [None] * 10


def test_a_face_that_is_gone_is_gone_within_two_pictures() -> None:
    stage = Stage(Frame(160, 120, 60))
    reader = FaceReader(stage, detect_every=10, crop_px=48)
    play(reader, 3)
    stage.faces.clear()
    reader.read(PICTURE, SECOND)
    sighting = reader.read(PICTURE, SECOND + SECOND // 10)
    assert (sighting.faces, sighting.crop) == (0, None)


def test_a_still_face_is_followed_in_every_second_picture_and_a_moving_one_in_each() -> None:
    stage = Stage(Frame(160, 120, 60))
    reader = FaceReader(stage, detect_every=60, crop_px=48)
    play(reader, 20)
    at_rest = stage.follows
    assert at_rest <= 12
    for n in range(20):
        stage.faces = [Frame(100 + 4 * n, 120, 60)]
        assert reader.read(PICTURE, (20 + n) * SECOND // 10).crop is not None
    assert stage.follows - at_rest >= 18


@pytest.mark.parametrize(("away", "same"), [(10, True), (18, False)])
def test_an_identity_survives_a_second_of_absence(away: int, same: bool) -> None:
    stage = Stage(Frame(160, 120, 60))
    reader = FaceReader(stage, detect_every=3, crop_px=48)
    play(reader, 5)
    faces, stage.faces = stage.faces, []
    assert set(play(reader, away, 5)[1:]) == {None}
    stage.faces = [replace(faces[0], x=190)]
    assert play(reader, 3, 5 + away) == [0 if same else 1] * 3


def test_another_person_does_not_take_over_an_identity() -> None:
    tracker = FaceTracker()
    tracker.add(seen(LEFT), 0)
    tracker.follow({0: None}, 1)
    tracker.add(seen(replace(LEFT, side=2 * LEFT.side)), 2)
    assert [track.track_id for track in tracker.visible] == [1]
    tracker.follow({1: None}, REMEMBERED_NS + 3)
    assert tracker.tracks == ()


def test_two_people_keep_their_identities_while_they_move() -> None:
    stage = Stage(LEFT, RIGHT)
    reader = FaceReader(stage, detect_every=3, crop_px=48, max_faces=4)
    for n in range(10):
        stage.faces = [replace(LEFT, x=35 + 4 * n), replace(RIGHT, x=230 - 4 * n)][
            :: 1 if n % 2 else -1
        ]
        found = reader.read_all(PICTURE, n * SECOND // 10)
    places = {s.track_id: s.box.x for s in found if s.box is not None}
    assert len(places) == 2
    assert sorted(places, key=lambda track: places[track]) == [
        track for track, _ in sorted(places.items(), key=lambda item: item[1])
    ]
    assert all(s.faces == 2 for s in found)
    assert max(places) <= 1


def test_of_thirty_faces_the_most_prominent_are_handed_out() -> None:
    crowd = [Frame(20 + 50 * (n % 6), 20 + 40 * (n // 6), 20 + n) for n in range(30)]
    stage = Stage(*crowd)
    reader = FaceReader(stage, detect_every=5, crop_px=48, max_faces=3)
    for n in range(4):
        found = reader.read_all(PICTURE, n * SECOND // 10)
    assert len(found) == 3
    assert stage.follows <= 30 + 4 * 30
    sizes = sorted(s.box.width for s in found if s.box is not None)
    assert sizes[0] >= 40


class Glancing(Stage):
    """A detector that sees all of a crowd at one time, and three of it at the next."""

    def detect(self, picture: np.ndarray) -> list[Detection]:
        found = super().detect(picture)
        return found if self.searches % 2 else found[:3]


def test_a_crowd_that_a_search_sees_in_part_is_still_there() -> None:
    crowd = [Frame(30 + 50 * (n % 6), 30 + 45 * (n // 6), 40) for n in range(30)]
    reader = FaceReader(Glancing(*crowd), detect_every=4, crop_px=48)
    found = [reader.read(PICTURE, n * SECOND // 10) for n in range(24)]
    assert {sighting.faces for sighting in found} == {30}
    assert len({sighting.track_id for sighting in found}) == 1


def test_the_scored_face_is_followed_where_others_are_more_prominent() -> None:
    scored = Frame(160, 120, 60)
    stage = Stage(scored)
    reader = FaceReader(stage, detect_every=10, crop_px=48)
    play(reader, 2)
    stage.faces = [scored, Frame(60, 120, 72), Frame(260, 120, 72)]
    assert set(play(reader, 10, 2)) == {0}
    for n in range(8):
        stage.faces[0] = replace(scored, x=160 + 6 * n)
        sighting = reader.read(PICTURE, (12 + n) * SECOND // 10)
        assert sighting.faces == 3
        assert sighting.track_id == 0
        assert sighting.box is not None
        assert sighting.box.x == pytest.approx(stage.faces[0].x - 30, abs=8)


def test_the_scored_face_stays_until_another_is_clearly_more_prominent() -> None:
    central, edge = Frame(160, 120, 60), Frame(31, 31, 62)
    stage = Stage(central, edge)
    reader = FaceReader(stage, detect_every=2, crop_px=48, max_faces=2)
    first = set(play(reader, 4))
    stage.faces[1] = replace(edge, side=75)
    assert set(play(reader, 8, 4)) == first
    stage.faces[1] = Frame(60, 60, 110)
    assert set(play(reader, 8, 12)[-3:]) != first


def test_another_face_is_not_scored_in_the_moment_of_a_turned_head() -> None:
    stage = Stage(Frame(160, 120, 60), RIGHT)
    reader = FaceReader(stage, detect_every=2, crop_px=48, max_faces=2)
    assert set(play(reader, 4)) == {0}
    stage.faces = [RIGHT]
    assert set(play(reader, 8, 4)[1:]) == {None}
    assert play(reader, 8, 12)[-1] == 1


def test_a_still_face_is_steadied_and_a_moving_one_is_not_held_back() -> None:
    rng = np.random.default_rng(0)
    place = Frame(100, 100, 80)
    shaking = [place]
    raw = []
    for _ in range(200):
        noisy = Frame(*(rng.normal(0, 0.4, 2) + 100), 80 + rng.normal(0, 0.4), rng.normal(0, 0.004))
        raw.append(noisy)
        shaking.append(steadied(shaking[-1], noisy))
    assert np.std(np.diff([f.x for f in shaking])) < 0.3 * np.std(np.diff([f.x for f in raw]))
    assert steadied(place, replace(place, x=130)) == replace(place, x=130)
    turned = steadied(replace(place, turn=3.1), replace(place, turn=-3.1))
    assert abs(turned.turn) > 3.0


def test_a_box_is_the_upright_square_in_whole_pixels() -> None:
    box = box_of(Frame(100.2, 50.4, 40.3, 0.5))
    assert (box.x, box.y, box.width, box.height) == (80, 30, 40, 40)
