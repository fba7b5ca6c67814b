"""Clips that are missing, broken or one-sided: one line, or the modality that is there."""

import shutil
import struct
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.capture import CaptureError
from engine.capture.clip import SAMPLE_CLIP, read_clip, read_sound, resolve_clip
from engine.settings import load
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Video


def kinds(path: Path) -> set[type]:
    return {type(message) for message in read_clip(path, load())}


def convert(out: Path, *options: str) -> Path:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed")
    command = [program, "-v", "error", "-i", str(SAMPLE_CLIP), *options, str(out)]
    subprocess.run(command, check=True, timeout=40)
    return out


def test_a_missing_clip() -> None:
    with pytest.raises(CaptureError, match=r"no clip at /nowhere\.mp4"):
        resolve_clip("/nowhere.mp4")


@pytest.mark.parametrize("content", [b"", b"not a media file at all" * 100, bytes(5000)])
def test_what_is_no_media_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"clip\.mp4: "):
        kinds(path)


def test_a_truncated_clip_without_its_index(tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    data = SAMPLE_CLIP.read_bytes()
    index = data.rindex(b"moov")
    path.write_bytes(data[: min(index, 40_000) if index > 1000 else 1000])
    with pytest.raises(CaptureError, match=r"half\.mp4: not a media file"):
        kinds(path)


def test_a_damaged_middle_is_skipped(tmp_path: Path) -> None:
    data = bytearray(SAMPLE_CLIP.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert kinds(path) == {Audio, Video}


def test_a_clip_without_sound(tmp_path: Path) -> None:
    assert kinds(convert(tmp_path / "silent.mp4", "-an", "-t", "3")) == {Video}


def test_a_clip_without_picture(tmp_path: Path) -> None:
    assert kinds(convert(tmp_path / "sound.wav", "-vn", "-t", "3")) == {Audio}


def test_a_picture_is_no_clip(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), np.full((90, 160, 3), 90, np.uint8))
    with pytest.raises(CaptureError, match=r"still\.png: expected a clip that lasts, got a single"):
        kinds(still)


def test_the_cover_of_a_song_is_no_picture_of_anybody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cover = tmp_path / "cover.png"
    cv2.imwrite(str(cover), np.full((90, 160, 3), 90, np.uint8))
    options = ["-i", str(cover), "-map", "0:a", "-map", "1", "-disposition:v", "attached_pic"]
    song = convert(tmp_path / "song.m4a", *options, "-c:v", "png", "-t", "3")
    assert kinds(song) == {Audio}
    assert caplog.records == []


def test_a_recording_whose_clock_began_hours_ago_begins_at_zero(tmp_path: Path) -> None:
    options = ["-t", "3", "-c:v", "mpeg2video", "-c:a", "mp2", "-output_ts_offset", "50000"]
    messages = list(read_clip(convert(tmp_path / "late.ts", *options), load(), silence=False))
    for kind in (Audio, Video):
        ends_ns = [m.envelope.t_end_ns for m in messages if isinstance(m, kind)]
        assert ends_ns[0] < 500_000_000
        assert ends_ns[-1] == pytest.approx(3e9, abs=3e8)


def test_sound_that_begins_late_lies_where_the_file_says(tmp_path: Path) -> None:
    late = tmp_path / "late.mov"
    options = ["-itsoffset", "1.0", "-i", str(SAMPLE_CLIP), "-map", "0:v", "-map", "1:a"]
    convert(late, *options, "-c:v", "copy", "-c:a", "pcm_s16le", "-ar", "16000")
    plain, moved = (read_sound(path).astype(float) for path in (SAMPLE_CLIP, late))
    assert not moved[: SAMPLE_RATE_HZ - 1600].any()
    asked = moved[2 * SAMPLE_RATE_HZ : 3 * SAMPLE_RATE_HZ]
    fits = [
        float(asked @ plain[lead : lead + SAMPLE_RATE_HZ])
        for lead in range(SAMPLE_RATE_HZ - 1600, SAMPLE_RATE_HZ + 1600, 4)
    ]
    found = SAMPLE_RATE_HZ - 1600 + 4 * int(np.argmax(fits))
    assert found == pytest.approx(SAMPLE_RATE_HZ, abs=SAMPLE_RATE_HZ * 0.07)


def test_other_rates_and_channels_are_heard_alike(tmp_path: Path) -> None:
    path = convert(tmp_path / "stereo.wav", "-vn", "-t", "3", "-ar", "44100", "-ac", "2")
    recorded = read_clip(path, load(), silence=False)
    samples = sum(len(m.samples) for m in recorded if isinstance(m, Audio))
    assert samples == pytest.approx(48_000, abs=800)


@pytest.mark.filterwarnings("error")
def test_sound_that_is_no_number_or_endless_is_heard_as_silence_or_clipped(
    tmp_path: Path,
) -> None:
    samples = np.full(16_000, np.nan, np.float32)
    samples[::7], samples[1::7] = np.inf, -np.inf
    data, path = samples.tobytes(), tmp_path / "nan.wav"
    form = struct.pack("<IHHIIHH", 16, 3, 1, 16_000, 64_000, 4, 32)
    size = struct.pack("<I", len(data))
    path.write_bytes(b"RIFF\xff\xff\xff\x7fWAVEfmt " + form + b"data" + size + data)
    heard = [m for m in read_clip(path, load()) if isinstance(m, Audio)]
    assert sum(len(m.samples) for m in heard) == pytest.approx(16_000, abs=1_000)


def test_a_turned_clip_is_shown_upright(tmp_path: Path) -> None:
    path = convert(tmp_path / "sideways.mp4", "-t", "3", "-vf", "transpose=1")
    turned = tmp_path / "turned.mp4"
    program = shutil.which("ffmpeg")
    assert program is not None
    command = [program, "-v", "error", "-display_rotation", "90", "-i", str(path), "-c", "copy"]
    if subprocess.run([*command, str(turned)], timeout=40, check=False).returncode:
        pytest.skip("this ffmpeg cannot write a display rotation")
    faces = [m.has_face for m in read_clip(turned, load()) if isinstance(m, Video)]
    assert any(faces)


def test_a_clip_of_pixels_that_are_not_square_is_made_square(tmp_path: Path) -> None:
    plain = convert(tmp_path / "plain.mp4", "-an", "-t", "3")
    squeezed = convert(
        tmp_path / "squeezed.mp4", "-an", "-t", "3", "-vf", "scale=iw/2:ih,setsar=2/1"
    )
    boxes = [
        [m.box for m in read_clip(path, load()) if isinstance(m, Video) and m.box is not None]
        for path in (plain, squeezed)
    ]
    assert len(boxes[1]) == pytest.approx(len(boxes[0]), abs=2)
    for a, b in zip(*boxes, strict=False):
        assert b.width == pytest.approx(a.width, rel=0.15)
        assert b.x == pytest.approx(a.x, abs=0.15 * a.width)


@pytest.mark.slow
def test_a_grey_portrait_and_a_huge_clip_are_looked_at(tmp_path: Path) -> None:
    for name, picture in (
        ("grey.mkv", "format=gray"),
        ("portrait.mp4", "pad=iw:iw*2:0:(oh-ih)/2"),
        ("huge.mp4", "scale=3840:2880"),
        ("tiny.mp4", "scale=160:120"),
    ):
        path = convert(tmp_path / name, "-an", "-t", "0.6", "-vf", picture)
        pictures = [m for m in read_clip(path, load()) if isinstance(m, Video)]
        assert pictures
        assert pictures[-1].has_face, name
