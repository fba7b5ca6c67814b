"""Preprocessing against independent references, and chunk by chunk against the whole."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from models.preprocessing import (
    HOP,
    N_MELS,
    LogMel,
    PreprocessingError,
    Resampler,
    log_mel,
    mel_of_silence,
    normalise_crop,
    resample,
)

RATES = [44_100, 48_000, 8_000, 22_050, 11_025, 16_000]


def chunks(values: np.ndarray, longest: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    cuts = np.cumsum(generator.integers(1, longest, len(values)))
    return np.split(values, cuts[cuts < len(values)])


@pytest.mark.parametrize("rate_hz", RATES)
def test_resampling_agrees_with_an_independent_filter(rate_hz: int) -> None:
    time = np.arange(rate_hz) / rate_hz
    sound = np.sin(2 * np.pi * 300 * time) + 0.5 * np.sin(2 * np.pi * 2_900 * time)
    ours = resample(sound.astype(np.float32), rate_hz, 16_000)
    reference = resample_poly(sound, 16_000, rate_hz)
    assert len(ours) == 16_000
    np.testing.assert_allclose(ours[500:-500], reference[500:-500], atol=5e-3)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_what_lies_above_the_new_band_is_gone(rate_hz: int) -> None:
    time = np.arange(rate_hz) / rate_hz
    for hertz in (9_000, 12_000, 20_000):
        tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
        left = resample(tone, rate_hz, 16_000)[500:-500]
        assert 20 * np.log10(np.abs(left).max()) < -60


@pytest.mark.parametrize("rate_hz", RATES)
def test_resampled_chunks_are_the_whole(rate_hz: int) -> None:
    sound = np.random.default_rng(1).normal(size=rate_hz // 2).astype(np.float32)
    whole = resample(sound, rate_hz, 16_000)
    streaming = Resampler(rate_hz, 16_000)
    parts = [streaming.push(part) for part in chunks(sound, 900)]
    np.testing.assert_array_equal(np.concatenate([*parts, streaming.flush()]), whole)


def plain_log_mel(samples: np.ndarray) -> np.ndarray:
    """The definition, frame by frame: 25 ms that end with the frame, HTK's mel triangles."""
    padded = np.concatenate([np.zeros(400 - HOP), samples])
    hertz = np.arange(257) * 16_000 / 512
    mel = [2595 * np.log10(1 + f / 700) for f in (60.0, 7600.0)]
    edges = 700 * (10 ** (np.linspace(*mel, N_MELS + 2) / 2595) - 1)
    rows = []
    for k in range(len(samples) // HOP):
        frame = padded[k * HOP : k * HOP + 400] * (
            0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
        )
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        bands = [
            sum(
                p * max(0, min((f - a) / (b - a), (c - f) / (c - b)))
                for f, p in zip(hertz, power, strict=True)
            )
            for a, b, c in zip(edges[:-2], edges[1:-1], edges[2:], strict=True)
        ]
        rows.append((np.log10(np.maximum(bands, 1e-8)) + 4) / 4)
    return np.array(rows)


def test_log_mel_is_what_its_definition_says() -> None:
    sound = np.random.default_rng(2).normal(size=1_000).astype(np.float32) * 0.1
    np.testing.assert_allclose(log_mel(sound), plain_log_mel(sound), atol=1e-4)


def test_log_mel_chunks_are_the_whole_and_look_at_the_past_only() -> None:
    sound = np.random.default_rng(3).normal(size=16_000).astype(np.float32)
    streaming = LogMel()
    parts = [streaming.push(part) for part in chunks(sound, 700)]
    np.testing.assert_allclose(np.concatenate(parts), log_mel(sound), atol=1e-6)
    changed = sound.copy()
    changed[8_000:] = 0
    np.testing.assert_array_equal(log_mel(changed)[:50], log_mel(sound)[:50])
    np.testing.assert_allclose(log_mel(np.zeros(320, np.float32))[0], mel_of_silence())


def test_crops_lose_their_lighting_and_keep_their_shape() -> None:
    picture = np.random.default_rng(4).integers(60, 120, (90, 70, 3), np.uint8)
    grey = normalise_crop(picture, 48, 1)
    assert grey.shape == (1, 48, 48)
    assert grey.mean() == pytest.approx(0, abs=1e-5)
    assert grey.std() == pytest.approx(1, abs=1e-4)
    brighter = normalise_crop((picture * 2.0).astype(np.uint8), 48, 1)
    np.testing.assert_allclose(brighter, grey, atol=0.3)  # rounding of the grey values
    assert np.corrcoef(brighter.ravel(), grey.ravel())[0, 1] > 0.99
    flat = normalise_crop(np.full((48, 48, 3), 90, np.uint8), 48, 3)
    assert np.abs(flat).max() < 1e-3


def test_bad_input_is_named() -> None:
    with pytest.raises(PreprocessingError, match=r"samples: expected \[N\], got \[2, 3\]"):
        log_mel(np.zeros((2, 3), np.float32))
    with pytest.raises(PreprocessingError, match="got NaN or infinity"):
        log_mel(np.array([np.nan], np.float32))
    with pytest.raises(PreprocessingError, match=r"crop: expected uint8 \[H, W, 3\], got float64"):
        normalise_crop(np.zeros((4, 4, 3)), 48, 1)
    with pytest.raises(ValueError, match="expected rates above 0 Hz, got 0 and 16000"):
        Resampler(0, 16_000)
