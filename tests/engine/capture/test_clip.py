"""Real clips become messages in the order of time, whatever is missing in them."""

from pathlib import Path

import numpy as np
import pytest

from engine.capture.clip import SAMPLE_CLIP, read_clip, read_sound
from engine.capture.stamps import Stamper
from engine.settings import EngineSettings, load
from engine.wire.clock import this_clock
from engine.wire.jpeg import opened
from engine.wire.messages import Audio, Video
from tests.support.media import write_sound


def read(path: Path, settings: EngineSettings | None = None) -> tuple[list[Audio], list[Video]]:
    messages = list(read_clip(path, settings or load()))
    ends = [message.envelope.t_end_ns for message in messages]
    assert ends == sorted(ends)
    sound = [message for message in messages if isinstance(message, Audio)]
    pictures = [message for message in messages if isinstance(message, Video)]
    for kind in (sound, pictures):
        assert [message.envelope.seq for message in kind] == list(range(len(kind)))
    return sound, pictures


def seconds(sound: list[Audio]) -> float:
    return sum(len(message.samples) for message in sound) / 16_000


def recorded_seconds(sound: list[Audio]) -> float:
    """Without the silence that follows a voice."""
    return max(m.envelope.t_end_ns for m in sound if any(m.samples)) / 1e9


def test_the_sample_clip_has_a_voice_and_a_face_and_a_stretch_without() -> None:
    sound, pictures = read(SAMPLE_CLIP)
    assert recorded_seconds(sound) == pytest.approx(27, abs=0.3)
    speech = [flag for message in sound for flag in message.speech]
    assert 0.2 < np.mean(speech) < 0.95
    assert np.mean([message.has_face for message in pictures]) > 0.6
    away = [m.has_face for m in pictures if 15e9 < m.envelope.t_end_ns < 18e9]
    assert len(away) > 20
    assert not any(away)
    assert pictures[-1].has_face
    crops = {opened(m).crop.shape for m in pictures if m.has_face}
    assert crops == {(48, 48, 3)}


def beginning_of_the_sample(path: Path, duration_s: float) -> Path:
    return write_sound(path, read_sound(SAMPLE_CLIP)[: int(duration_s * 16_000)])


def test_silence_follows_a_clip_that_ends_while_somebody_speaks(tmp_path: Path) -> None:
    sound, _ = read(beginning_of_the_sample(tmp_path / "cut.wav", 2.0))
    assert seconds(sound) == pytest.approx(2.0 + 1.75, abs=0.1)
    assert not any(any(message.samples) for message in sound if message.envelope.t_start_ns >= 2e9)
    assert sound[-1].envelope.t_end_ns == pytest.approx(seconds(sound) * 1e9), "without a gap"
    assert not any(sound[-1].speech)
    recorded = list(read_clip(tmp_path / "cut.wav", load(), silence=False))
    assert recorded[-1].envelope.t_end_ns == pytest.approx(2e9, abs=3e7)
    longer = EngineSettings.model_validate({"words": {"delay_ms": 1750}})
    assert seconds(read(tmp_path / "cut.wav", longer)[0]) == pytest.approx(4.75, abs=0.1)


def test_a_clip_that_ends_in_silence_ends_there(tmp_path: Path) -> None:
    sound, _ = read(beginning_of_the_sample(tmp_path / "quiet.wav", 9.0))
    assert seconds(sound) == pytest.approx(9.0, abs=0.05)


def test_a_talker_in_the_wild(shared_data: Path) -> None:
    sound, pictures = read(shared_data / "clips" / "vlog_05.mp4")
    assert recorded_seconds(sound) == pytest.approx(15.3, abs=0.2)
    assert np.mean([flag for message in sound for flag in message.speech]) > 0.6
    assert np.mean([message.has_face for message in pictures]) > 0.8
    assert len({m.track_id for m in pictures if m.track_id is not None}) <= 3


def test_old_formats_and_faces_that_leave(shared_data: Path) -> None:
    sound, pictures = read(shared_data / "clips" / "grid_00.mpg")
    assert recorded_seconds(sound) == pytest.approx(2.96, abs=0.1)
    assert pictures
    _, leaving = read(shared_data / "clips" / "edge_face_noface.mov")
    seen = [message.has_face for message in leaving]
    assert any(seen[: len(seen) // 2])
    assert not any(seen[-5:])


@pytest.mark.slow
def test_reading_twice_gives_the_same_and_a_later_start_only_shifts() -> None:
    settings = load()
    stamper = Stamper("main", this_clock())
    first = list(read_clip(SAMPLE_CLIP, settings))
    second = list(read_clip(SAMPLE_CLIP, settings, stamper, start_ns=10**9))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert b.envelope.t_end_ns - a.envelope.t_end_ns == 10**9
        if isinstance(a, Audio):
            assert isinstance(b, Audio)
            assert np.array_equal(a.samples, b.samples)
            assert a.speech == b.speech
