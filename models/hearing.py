"""Levelling of what a speech encoder hears: the one rule of training and live use. Numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LEVEL = 0.05
"""Root mean square to which sound is brought: -26 dB below full scale."""
MIN_GAIN, MAX_GAIN = 0.1, 100.0


def levelled(samples: Floats) -> Floats:
    """Sound [..., N], each row brought to one level: a whisper and a shout differ in tone alone.

    The gain is bounded by -20 and +40 dB, and is that of the whole row: what is levelled
    together has to be heard together.
    """
    power = np.mean(np.square(samples, dtype=np.float32), axis=-1, keepdims=True)
    gain = np.clip(LEVEL / np.sqrt(power + np.float32(1e-12)), MIN_GAIN, MAX_GAIN)
    return np.asarray(np.clip(samples * gain, -1, 1), np.float32)
