"""Puts sequences of many streams into one batch: padding and lengths. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.inference.tracks.rings import Frames
from models.graphs import length_bucket


def pad_right(
    sequences: Sequence[Frames | None], dim: int, full: int
) -> tuple[Frames, NDArray[np.bool_]]:
    """Stack sequences [Ti, dim] into [B, T, dim] and a mask [B, T], True where a frame is real.

    An absent sequence (None or empty) is a row of zeros, masked throughout.
    """
    lengths = [0 if sequence is None else len(sequence) for sequence in sequences]
    length = length_bucket(max(lengths, default=0), full)
    stacked = np.zeros((len(sequences), length, dim), np.float32)
    mask = np.zeros((len(sequences), length), np.bool_)
    for row, sequence in enumerate(sequences):
        if sequence is not None and len(sequence):
            stacked[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = True
    return stacked, mask


def pad_left(sequences: Sequence[Frames]) -> Frames:
    """Stack sequences [Ni, F] into [B, N, F], padded with zeros at their beginning.

    For encoders whose last frames depend on the last inputs only: what is in the padding does
    not matter, as long as each sequence brings its own left context.
    """
    longest = max(len(sequence) for sequence in sequences)
    stacked = np.zeros((len(sequences), longest, *sequences[0].shape[1:]), np.float32)
    for row, sequence in enumerate(sequences):
        stacked[row, longest - len(sequence) :] = sequence
    return stacked
