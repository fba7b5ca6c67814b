"""What training hears: rooms, levels, pieces, tone frames of speech alone."""

import wave
from pathlib import Path

import numpy as np
import pytest

from engine.inference.text.pieces import MS, PieceCutter, Reading
from engine.wire.messages import Audio, Clock, Envelope
from models.hearing import LEVEL, levelled
from models.spec import SAMPLE_RATE_HZ, SequenceEncoderSpec
from trainer.corpus import Clip, CorpusError, Media
from trainer.features.media import MediaReader
from trainer.features.recogniser import pieces
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


def voiced_in(*spans: tuple[float, float], seconds: float) -> np.ndarray:
    voiced = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.bool_)
    for first, last in spans:
        voiced[round(first * SAMPLE_RATE_HZ) : round(last * SAMPLE_RATE_HZ)] = True
    return voiced


def live_pieces(heard: Heard) -> list[Reading]:
    """What the engine reads of the same sound in chunks of 50 ms, with silence behind it."""
    cutter = PieceCutter(4_000 * MS, 750 * MS)
    size, step = SAMPLE_RATE_HZ // 100, SAMPLE_RATE_HZ // 20
    sound = np.concatenate((heard.samples, np.zeros(SAMPLE_RATE_HZ, np.int16)))
    flags = np.concatenate((heard.voiced[::size], np.zeros(100, np.bool_)))
    for number, start in enumerate(range(0, len(sound), step)):
        envelope = Envelope(
            "s", number, number * 50 * MS, (number + 1) * 50 * MS, 0, Clock("h", "b")
        )
        own = tuple(flags[start // size : (start + step) // size].tolist())
        cutter.push(Audio(envelope, sound[start : start + step], own, 10, 0.0), False, 0)
    return [reading for reading in cutter.pop_ready() if reading.final]


@pytest.mark.parametrize(
    "spans",
    [
        [(0.5, 1.5), (1.7, 3.0)],  # a pause that a breath takes
        [(0.3, 9.0)],  # longer than a piece may be
        [(0.2, 1.0), (1.1, 2.0), (4.0, 5.99)],  # speech up to the end
        [(1.0, 1.05)],  # no word
        [],
    ],
)
def test_training_cuts_speech_as_the_engine_does(spans: list[tuple[float, float]]) -> None:
    samples = (noise(10) * 32767).astype(np.int16)
    samples[3 * SAMPLE_RATE_HZ :][: SAMPLE_RATE_HZ // 5] = 0
    heard = Heard(samples, voiced_in(*spans, seconds=10))
    found, live = pieces(heard), live_pieces(heard)
    assert len(found) == len(live)
    assert [p.voiced_ns for p in found] == [p.voiced_ns for p in live]
    for own, theirs in zip(found, live, strict=True):
        np.testing.assert_array_equal(own.samples, theirs.samples)


def test_a_breath_ends_a_piece() -> None:
    heard = Heard(np.ones(4 * SAMPLE_RATE_HZ, np.int16), voiced_in((1, 2), (2.2, 3), seconds=4))
    assert [piece.voiced_ns for piece in pieces(heard)] == [1_000 * MS, 800 * MS]


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
