"""Preprocessing: sound and crops to what encoders take. The one path of training and live use.

Numpy only (and OpenCV's resize), no state but what a stream needs to continue.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.resampling import Resampler, resample

__all__ = [
    "HOP",
    "N_MELS",
    "SAMPLE_RATE_HZ",
    "WINDOW",
    "LogMel",
    "Resampler",
    "log_mel",
    "mel_of_silence",
    "normalise_crop",
    "resample",
    "to_float",
]

Floats = NDArray[np.float32]
Triple = tuple[float, float, float]

SAMPLE_RATE_HZ = 16_000
HOP = 160
WINDOW = 400
N_FFT = 512
N_MELS = 64
LOWEST_HZ, HIGHEST_HZ = 60.0, 7_600.0
FLOOR = 1e-8
MIN_CONTRAST = 0.02


class PreprocessingError(ValueError):
    """An input that cannot be preprocessed; says what was expected."""


def to_float(samples: NDArray[np.int16]) -> Floats:
    """int16 samples to float32 in [-1, 1)."""
    return samples.astype(np.float32) / 32768.0


def log_mel(samples: Floats) -> Floats:
    """Log-mel spectrogram [N // 160, 64] of samples [N] at 16 kHz, at 100 Hz.

    Causal: frame k is made of the 25 ms that end at sample (k + 1) * 160; before the first
    sample is silence.
    """
    return LogMel().push(samples)


class LogMel:
    """Log-mel of a stream: chunks of any size give the frames of the whole."""

    def __init__(self) -> None:
        self._kept: Floats = np.zeros(WINDOW - HOP, np.float32)

    def push(self, samples: Floats) -> Floats:
        """Take samples [N]; return the frames [T, 64] that are complete.

        Raises:
            PreprocessingError: not one-dimensional, or not finite.
        """
        if samples.ndim != 1:
            raise PreprocessingError(f"samples: expected [N], got {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise PreprocessingError("samples: expected finite values, got NaN or infinity")
        kept = np.concatenate((self._kept, samples.astype(np.float32, copy=False)))
        count = (len(kept) - (WINDOW - HOP)) // HOP
        self._kept = kept[count * HOP :].copy()
        if count == 0:
            return np.zeros((0, N_MELS), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(kept, WINDOW)[: count * HOP : HOP]
        spectrum = np.fft.rfft(windows * _hann(), N_FFT)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        return _compress(power @ _mel_filters())


@cache
def _silence() -> Floats:
    return _compress(np.zeros(N_MELS, np.float32))


def mel_of_silence() -> Floats:
    """[64], the log-mel frame of digital silence: what precedes a stream."""
    return _silence().copy()


def normalise_crop(
    crop: NDArray[np.uint8],
    size_px: int,
    channels: int,
    colour: tuple[Triple, Triple] | None = None,
) -> Floats:
    """A face crop [H, W, 3] (BGR) to [channels, size_px, size_px].

    One channel is luminance, three are BGR; each crop is normalised by itself to zero mean and
    unit contrast, against lighting. ``colour``, the (mean, deviation) per RGB channel that a
    pretrained vision model was trained with, gives RGB normalised by those instead.

    Raises:
        PreprocessingError: another shape or dtype.
    """
    import cv2

    if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or 0 in crop.shape:
        raise PreprocessingError(
            f"crop: expected uint8 [H, W, 3], got {crop.dtype} {list(crop.shape)}"
        )
    if channels not in (1, 3):
        raise PreprocessingError(f"channels: expected 1 or 3, got {channels}")
    picture = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None] if channels == 1 else crop
    larger = max(crop.shape[:2]) > size_px
    method = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (size_px, size_px), interpolation=method)
    values = resized.reshape(size_px, size_px, channels).astype(np.float32) / 255.0
    if colour is not None:
        mean, deviation = (np.asarray(triple, np.float32) for triple in colour)
        values = (values[..., ::-1] - mean) / deviation
    else:
        values = (values - values.mean()) / max(float(values.std()), MIN_CONTRAST)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _compress(mel: Floats) -> Floats:
    """log10, shifted and scaled to about [-1, 1.5] for speech."""
    return ((np.log10(np.maximum(mel, FLOOR)) + 4.0) / 4.0).astype(np.float32)


@cache
def _hann() -> Floats:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def _mel_filters() -> Floats:
    """Triangular filters [N_FFT / 2 + 1, 64], evenly spaced on the mel scale (HTK's formula)."""
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (LOWEST_HZ, HIGHEST_HZ))
    edges = 700 * (10 ** (np.linspace(lowest, highest, N_MELS + 2) / 2595) - 1)
    bins = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE_HZ / N_FFT
    rising = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
