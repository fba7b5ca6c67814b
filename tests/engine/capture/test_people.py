"""From pictures to messages: pixels made square, crops of the bundle's size, JPEG or raw."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from engine.capture.clip import SAMPLE_CLIP
from engine.capture.people import DEFAULT_CROP_PX, People, crop_size
from engine.capture.pictures import square_size, squared
from engine.capture.stamps import Stamper
from engine.settings import EngineSettings, load
from engine.wire.clock import this_clock
from engine.wire.codec import decode, encode
from engine.wire.jpeg import opened
from engine.wire.messages import Video

PERIOD_NS = 100_000_000


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    with av.open(str(SAMPLE_CLIP)) as container:
        frames = container.decode(container.streams.video[0])
        return next(f for f in frames if f.time is not None and f.time > 1).to_ndarray(
            format="bgr24"
        )


def look(picture: np.ndarray, settings: EngineSettings, pictures: int = 1) -> list[Video]:
    people = People(Stamper("main", this_clock()), settings, PERIOD_NS)
    return [m for n in range(pictures) for m in people.look(picture, (n + 1) * PERIOD_NS)]


def test_a_crop_travels_as_jpeg_close_to_the_raw_one_and_far_smaller(picture: np.ndarray) -> None:
    (sent,) = look(picture, load(capture={"crop_px": 112}))
    (raw,) = look(picture, load(capture={"crop_px": 112, "crop_format": "raw"}))
    came = decode(encode(sent))
    assert isinstance(came, Video)
    assert sent.jpeg is not None
    assert raw.crop is not None
    assert len(sent.jpeg) < raw.crop.size / 4
    pixels = opened(came).crop
    assert pixels is not None
    assert pixels.shape == raw.crop.shape == (112, 112, 3)
    assert np.abs(pixels.mean(2) - raw.crop.mean(2)).mean() < 3


def test_the_crop_has_the_size_that_the_bundles_network_takes() -> None:
    assert crop_size(load()) == 48
    assert crop_size(load(capture={"crop_px": 64})) == 64
    assert crop_size(load(bundle="/nowhere/at/all")) == DEFAULT_CROP_PX


def test_a_still_picture_gives_the_same_crop_again_and_again(picture: np.ndarray) -> None:
    messages = look(picture, load(capture={"crop_format": "raw"}), pictures=12)
    crops = [m.crop for m in messages if m.crop is not None]
    assert len(crops) == 12
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(crops[3:])]
    assert max(steps) < 1.0


def test_stretched_pixels_are_made_square_before_anything_looks(picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    assert square_size(720, 576, Fraction(16, 15)) == (768, 576)
    assert square_size(1440, 1080, Fraction(4, 3)) == (1920, 1080)
    assert square_size(640, 480, Fraction(1, 2)) == (640, 960)
    assert square_size(3840, 2160, Fraction(1)) == (1920, 1080)
    assert square_size(640, 480, Fraction(0)) == (640, 480)
    narrow = squared(picture, Fraction(1, 2))
    assert narrow.shape[:2] == (2 * height, width)
    assert squared(picture, Fraction(1)) is picture


def three_of(picture: np.ndarray) -> np.ndarray:
    """Three people before one camera: a face, the same mirrored, and once more below."""
    rows = [[picture, picture[:, ::-1]], [picture, np.full_like(picture, 110)]]
    return np.ascontiguousarray(np.vstack([np.hstack(row) for row in rows]))


def streams_of(messages: list[Video]) -> dict[str, Video]:
    return {message.envelope.stream: message for message in messages}


def test_three_people_have_a_stream_each_that_begins_and_ends_with_them(
    picture: np.ndarray,
) -> None:
    people = People(Stamper("room", this_clock()), load(faces={"who": "all"}), PERIOD_NS)
    crowd, pair = three_of(picture), three_of(picture)
    pair[picture.shape[0] :] = 110  # the third leaves, for less than a second
    seen: list[dict[str, Video]] = []
    for n in range(60):
        away = 10 <= n < 17 or n >= 30
        shown = pair if away else crowd
        seen.append(streams_of(people.look(shown, (n + 1) * PERIOD_NS)))
    assert seen[0].keys() == {"room"}
    assert seen[0]["room"].faces == 3
    assert not any(messages["room"].has_face for messages in seen)
    everybody = {"room", "room/1", "room/2", "room/3"}
    assert all(messages.keys() == everybody for messages in seen[3:30])
    gone = {name for name, message in seen[12].items() if not message.has_face} - {"room"}
    assert len(gone) == 1
    (leaver,) = gone
    assert all(messages[leaver].has_face for messages in (seen[9], seen[20]))
    assert seen[9][leaver].track_id == seen[20][leaver].track_id
    last = [n for n, messages in enumerate(seen) if leaver in messages and messages[leaver].last]
    assert len(last) == 1
    assert 43 <= last[0] <= 48
    assert all(messages.keys() == everybody - {leaver} for messages in seen[last[0] + 1 :])
    ended = people.end()
    assert {m.envelope.stream for m in ended} == everybody - {"room", leaver}
    assert all(m.last and not m.has_face for m in ended)


def test_no_more_people_are_scored_than_asked_for(picture: np.ndarray) -> None:
    settings = load(faces={"who": "all", "max": 2})
    people = People(Stamper("room", this_clock()), settings, PERIOD_NS)
    for n in range(6):
        messages = people.look(three_of(picture), (n + 1) * PERIOD_NS)
    assert streams_of(messages).keys() == {"room", "room/1", "room/2"}
    assert messages[0].faces == 3


def test_a_persons_stream_travels_under_its_name(picture: np.ndarray) -> None:
    people = People(Stamper("room", this_clock()), load(faces={"who": "all"}), PERIOD_NS)
    for n in range(4):
        messages = people.look(picture, (n + 1) * PERIOD_NS)
    frames = encode(messages[1])
    assert bytes(frames[0]) == b"video/room/1/"
    came = decode(frames)
    assert came.envelope.stream == "room/1"
