"""What training hears: rooms, levels, pieces, tone frames of speech alone."""

import wave
from pathlib import Path

import numpy as np
import pytest

from models.hearing import LEVEL, levelled
from models.spec import SAMPLE_RATE_HZ, SequenceEncoderSpec
from trainer.corpus import Clip, CorpusError, Media
from trainer.features.media import MediaReader
from trainer.features.recogniser import LONGEST_S, pieces
from trainer.features.speech import (
    TAIL_S,
    Ear,
    Heard,
    SpokenTextExtractor,
    ToneExtractor,
    in_a_room,
)

SPEC = SequenceEncoderSpec(
    kind="recogniser",
    input="samples",
    dim=2,
    stride=384,
    left_context=2 * 384,
    causal=False,
    block=4,
)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    count = int(seconds * SAMPLE_RATE_HZ)
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def clip_of(path: Path, split: str = "valid", text: str | None = "well", corpus: str = "c") -> Clip:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((noise(1.5) * 32767).astype("<i2").tobytes())
    return Clip("c/1", corpus, split, 1.0, audio=Media(path), transcript=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("gain", [0.03, 0.1, 1.0, 3.0])
def test_levelled_sound_is_the_same_whatever_its_level(gain: float) -> None:
    sound = noise(1) * 0.3
    assert np.sqrt(np.mean(levelled(sound * np.float32(gain)) ** 2)) == pytest.approx(LEVEL, 1e-3)
    np.testing.assert_allclose(levelled(sound * np.float32(gain)), levelled(sound), atol=1e-4)


def test_levelling_is_bounded_and_silence_stays_silent() -> None:
    assert not levelled(np.zeros(100, np.float32)).any()
    faint = np.full(100, 1e-5, np.float32)
    assert levelled(faint)[0] == pytest.approx(1e-3, 1e-3)


def test_rows_are_levelled_by_themselves() -> None:
    rows = np.stack([noise(1), 0.01 * noise(1, 1)])
    np.testing.assert_array_equal(levelled(rows)[1], levelled(rows[1]))


def test_a_room_is_the_clips_own_and_only_training_is_in_one() -> None:
    sound = noise(1)
    plain = in_a_room(sound, None)
    assert len(plain) == len(sound) + TAIL_S * SAMPLE_RATE_HZ
    np.testing.assert_array_equal(plain[: len(sound)], np.round(sound * 32767))
    rooms = [in_a_room(sound, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(rooms[0], rooms[1])
    assert len(rooms[2]) > len(plain)
    assert not np.array_equal(rooms[0][:1000], rooms[2][:1000])


def test_long_speech_is_cut_at_quiet_points_and_nothing_is_lost() -> None:
    sound = (noise(10) * 32767).astype(np.int16)
    quiet = int(3.0 * SAMPLE_RATE_HZ)
    sound[quiet : quiet + SAMPLE_RATE_HZ // 5] = 0
    found = pieces(Heard(sound, np.ones(len(sound), np.bool_)))
    assert max(len(piece) for piece in found) <= LONGEST_S * SAMPLE_RATE_HZ
    np.testing.assert_array_equal(np.concatenate(found), sound)
    assert abs(len(found[0]) - quiet - SAMPLE_RATE_HZ // 10) < SAMPLE_RATE_HZ // 10


def test_a_pause_ends_a_piece() -> None:
    voiced = np.zeros(6 * SAMPLE_RATE_HZ, np.bool_)
    voiced[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] = True
    voiced[4 * SAMPLE_RATE_HZ : 5 * SAMPLE_RATE_HZ] = True
    found = pieces(Heard(np.zeros(len(voiced), np.int16), voiced))
    assert len(found) == 2
    assert pieces(Heard(np.zeros(100, np.int16), np.zeros(100, np.bool_))) == []


class Known(Ear):
    """Takes the first half second for speech."""

    def __init__(self, voiced_s: float) -> None:
        super().__init__(MediaReader())
        self.voiced_s = voiced_s

    def hear(self, clip: Clip) -> Heard:
        heard = super().hear(clip)
        voiced = np.arange(len(heard.samples)) < self.voiced_s * SAMPLE_RATE_HZ
        return Heard(heard.samples, voiced)


def mean_and_level(samples: np.ndarray) -> np.ndarray:
    count = samples.shape[1] // 384
    level = np.sqrt(np.mean(samples**2))
    return np.full((1, count, 2), level, np.float32)


def test_only_blocks_with_speech_have_tone_and_all_of_one_level(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav")
    (made,) = ToneExtractor(Known(0.05), mean_and_level, SPEC, "x").extract([clip])
    assert made.frames.shape == (4, 2)
    np.testing.assert_allclose(made.frames, LEVEL, rtol=1e-3)
    assert made.seconds == pytest.approx(1.5 + TAIL_S)


def test_a_clip_without_speech_says_so(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav")
    with pytest.raises(CorpusError, match="c/1: no speech is heard"):
        ToneExtractor(Known(0.0), mean_and_level, SPEC, "x").extract([clip])


def test_words_that_are_not_believed_are_no_text(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav")

    def extractor(words: str | None, skipped: frozenset[str] = frozenset()) -> SpokenTextExtractor:
        def read(text: str) -> np.ndarray:
            return np.ones((len(text.split()), 3), np.float32)

        return SpokenTextExtractor(Known(1), lambda heard: words, read, 3, "x", skipped)

    assert extractor("two words").extract([clip])[0].frames.shape == (2, 3)
    assert extractor(None).extract([clip])[0].frames.shape == (0, 3)
    assert extractor("a").takes(clip)
    assert not extractor("a", frozenset({"c"})).takes(clip)
    assert not extractor("a").takes(clip_of(tmp_path / "a.wav", text=None))
