"""The speech state machine: hang-over, floor, and real speech."""

import numpy as np
import pytest

from engine.capture.speech import SpeechDetector, level_dbfs
from engine.settings import SpeechSettings

FRAME = 160
LOUD = np.full(FRAME, 8000, np.int16)


def detector(verdicts: list[bool], **settings: object) -> SpeechDetector:
    answers = iter(verdicts)
    return SpeechDetector(
        SpeechSettings.model_validate({"frame_ms": 10, **settings}), lambda frame: next(answers)
    )


def flags(verdicts: list[bool], **settings: object) -> str:
    found = detector(verdicts, **settings).push(np.tile(LOUD, len(verdicts)))
    return "".join("#" if flag else "." for flag in found)


def test_speech_starts_and_stops_after_its_hang_over() -> None:
    verdicts = [True] * 5 + [False] * 5
    assert flags(verdicts, start_ms=30, stop_ms=40) == "..######.."


def test_a_click_is_no_speech_and_a_short_pause_not_its_end() -> None:
    click = [False, True, True, False, False]
    assert flags(click, start_ms=30, stop_ms=30) == "....."
    pause = [True] * 3 + [False] * 2 + [True] * 3
    assert flags(pause, start_ms=30, stop_ms=30) == "..######"


def test_without_hang_over_every_frame_counts_by_itself() -> None:
    assert flags([True, False, True], start_ms=0, stop_ms=0) == "#.#"


def test_below_the_floor_nothing_is_asked() -> None:
    quiet = SpeechDetector(SpeechSettings(floor_dbfs=-50.0), lambda frame: pytest.fail("asked"))
    assert not any(quiet.push(np.full(10 * FRAME, 30, np.int16)))


def test_a_part_of_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 160 samples, got 161"):
        detector([]).push(np.zeros(161, np.int16))


def test_reset_forgets_that_somebody_spoke() -> None:
    speaking = detector([True] * 4, start_ms=0)
    speaking.push(np.tile(LOUD, 4))
    assert speaking.speaking
    speaking.reset()
    assert not speaking.speaking


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_webrtc_hears_a_voice_and_no_silence(frame_ms: int) -> None:
    real = SpeechDetector(SpeechSettings.model_validate({"frame_ms": frame_ms}))
    time = np.arange(16_000 // real.frame_samples * real.frame_samples) / 16_000
    pitch = 120 * (1 + 0.05 * np.sin(2 * np.pi * 5 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 25)) * (0.6 + 0.4 * np.sin(9 * time))
    assert not any(real.push(np.zeros(len(time), np.int16)))
    assert np.mean(real.push((voice * 6000).astype(np.int16))) > 0.5


def test_levels_are_relative_to_full_scale() -> None:
    assert level_dbfs(np.zeros(10, np.int16)) == -120
    assert level_dbfs(np.full(10, -32768, np.int16)) == pytest.approx(0)
    assert level_dbfs(np.full(10, 3277, np.int16)) == pytest.approx(-20, abs=0.01)
