"""Packets of a capturing browser: read with every bound checked, whatever comes."""

import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.browser.packets import (
    HEADER,
    MAX_PACKET,
    MAX_SAMPLES,
    PICTURE,
    SOUND,
    PacketError,
    Picture,
    Sound,
    jpeg_size,
    read_packet,
)


def packet(kind: int, content: bytes, t_ms: float = 12.5, flags: int = 0, zero: int = 0) -> bytes:
    return HEADER.pack(kind, flags, zero, 1, t_ms) + content


def jpeg(width: int = 320, height: int = 240, *options: int) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    picture = cv2.blur(picture, (9, 9))
    return cv2.imencode(".jpg", picture, list(options))[1].tobytes()


def test_sound_and_pictures_are_read() -> None:
    samples = np.arange(-400, 400, dtype=np.int16)
    sound = read_packet(packet(SOUND, samples.tobytes(), flags=1))
    assert isinstance(sound, Sound)
    assert sound.samples.tolist() == samples.tolist()
    assert (sound.t_end_ms, sound.lost_before) == (12.5, True)
    content = jpeg()
    picture = read_packet(packet(PICTURE, content))
    assert picture == Picture(12.5, content)


@pytest.mark.parametrize("size", [(320, 240), (33, 480), (640, 32)])
def test_the_declared_size_is_the_decoded_one(size: tuple[int, int]) -> None:
    assert jpeg_size(jpeg(*size)) == size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet(SOUND, b""),
        packet(SOUND, b"abc"),
        packet(SOUND, bytes(2 * MAX_SAMPLES + 2)),
        packet(3, b"xx"),
        packet(SOUND, b"xx", t_ms=float("nan")),
        packet(SOUND, b"xx", t_ms=float("inf")),
        packet(SOUND, b"xx", t_ms=-1),
        packet(SOUND, b"xx", flags=2),
        packet(SOUND, b"xx", zero=1),
        packet(PICTURE, b"\x89PNG\r\n"),
        packet(PICTURE, jpeg(16, 16)),
        packet(PICTURE, jpeg(800, 600)),
        packet(PICTURE, jpeg(320, 240, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        packet(PICTURE, jpeg()[:100]),
        packet(SOUND, bytes(MAX_PACKET)),
    ],
)
def test_what_breaks_a_rule_is_refused(data: bytes) -> None:
    with pytest.raises(PacketError):
        read_packet(data)


def test_a_few_bytes_that_declare_gigabytes_are_refused_before_decoding() -> None:
    content = jpeg()
    at = content.index(b"\xff\xc0") + 5
    bomb = content[:at] + struct.pack(">HH", 65_000, 65_000) + content[at + 4 :]
    with pytest.raises(PacketError, match="65000 x 65000"):
        read_packet(packet(PICTURE, bomb))


@given(st.binary(max_size=300), st.integers(0, 2), st.booleans())
def test_any_bytes_are_read_or_refused(content: bytes, kind: int, start: bool) -> None:
    data = packet(kind, (b"\xff\xd8" if start else b"") + content)
    with contextlib.suppress(PacketError):
        read_packet(data)
    with contextlib.suppress(PacketError):
        read_packet(content)
