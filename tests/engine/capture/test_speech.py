"""The speech state machine, its two stages, and what they make of real sounds."""

import csv
from pathlib import Path

import numpy as np
import pytest

from engine.capture.clip import read_sound
from engine.capture.speech import (
    BLOCK,
    CONTEXT,
    LEAD_BLOCKS,
    SILERO,
    SpeechDetector,
    level_dbfs,
)
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


class Confirming:
    """Says so of every block, and keeps what it was given."""

    def __init__(self, probability: float = 1.0) -> None:
        self.probability = probability
        self.runs: list[int] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def push(self, blocks: np.ndarray) -> np.ndarray:
        assert blocks.shape[1] == CONTEXT + BLOCK
        assert blocks.dtype == np.float32
        self.runs.append(len(blocks))
        return np.full(len(blocks), self.probability, np.float32)


def two_stages(proposes: bool, confirm: Confirming) -> SpeechDetector:
    return SpeechDetector(SpeechSettings(), lambda frame: proposes, confirm)


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that swells: no steady level."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (noise * 3000 * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * time))).astype(np.int16)


def in_pieces(speech: SpeechDetector, samples: np.ndarray, size: int = 800) -> list[bool]:
    whole = len(samples) // size * size
    return [flag for i in range(0, whole, size) for flag in speech.push(samples[i : i + size])]


def test_what_is_not_proposed_costs_the_network_nothing() -> None:
    confirm = Confirming()
    assert not any(in_pieces(two_stages(False, confirm), speech_like(2)))
    assert confirm.runs == []


def test_what_is_proposed_needs_the_networks_word() -> None:
    assert not any(in_pieces(two_stages(True, Confirming(0.1)), speech_like(2)))
    heard = in_pieces(two_stages(True, Confirming(0.9)), speech_like(2))
    assert np.mean(heard) > 0.8


def test_the_network_hears_what_came_before_the_first_proposal_once() -> None:
    confirm = Confirming()
    in_pieces(two_stages(True, confirm), speech_like(3))
    assert confirm.runs[0] == LEAD_BLOCKS + 2
    assert set(confirm.runs[1:]) == {2}


def test_flags_do_not_depend_on_how_the_sound_comes_in() -> None:
    samples = speech_like(3, seed=1)
    answers = [in_pieces(SpeechDetector(SpeechSettings()), samples, n) for n in (160, 800, 4800)]
    assert answers[0] == answers[1] == answers[2]


needs_network = pytest.mark.skipif(not SILERO.is_file(), reason="Silero's network is not there")


def sounds_of_no_voice() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    time = np.arange(6 * 16_000) / 16_000
    spectrum = np.fft.rfft(random.normal(size=len(time)))
    fan = np.fft.irfft(spectrum / np.maximum(5, np.arange(len(spectrum))))
    clicks = np.zeros(len(time))
    for place in random.integers(0, len(time) - 400, 36):
        clicks[place : place + 400] += random.normal(size=400) * np.exp(-np.arange(400) / 60) / 4
    buzz = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 8))
    return {
        "silence": np.zeros(len(time)),
        "hum": 0.1 * np.sin(2 * np.pi * 100 * time),
        "buzz": 0.1 * np.asarray(buzz),
        "white noise": 0.03 * random.normal(size=len(time)),
        "fan": 0.02 * fan / fan.std() * (1 + 0.3 * np.sin(2 * np.pi * 23 * time)),
        "clicks": clicks,
    }


@needs_network
@pytest.mark.parametrize("name", list(sounds_of_no_voice()))
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_hum_clicks_noise_and_fan_are_no_speech(name: str, gain: float) -> None:
    sound = np.clip(sounds_of_no_voice()[name] * gain * 32768, -32768, 32767).astype(np.int16)
    assert not any(in_pieces(SpeechDetector(SpeechSettings()), sound))


RAVDESS = Path(__file__).parents[4] / "shared" / "data" / "voices" / "ravdess"


@needs_network
@pytest.mark.skipif(not RAVDESS.is_dir(), reason="the recordings of RAVDESS are not there")
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_acted_sentences_are_heard_as_they_are_and_20_db_quieter(gain: float) -> None:
    with (RAVDESS / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "valid"][::6]
    for row in rows:
        sound = np.round(read_sound(RAVDESS / row["audio"]) * gain).astype(np.int16)
        heard = in_pieces(SpeechDetector(SpeechSettings()), sound)
        assert sum(heard) >= 20, row["id"]  # frames of 10 ms


def test_levels_are_relative_to_full_scale() -> None:
    assert level_dbfs(np.zeros(10, np.int16)) == -120
    assert level_dbfs(np.full(10, -32768, np.int16)) == pytest.approx(0)
    assert level_dbfs(np.full(10, 3277, np.int16)) == pytest.approx(-20, abs=0.01)
