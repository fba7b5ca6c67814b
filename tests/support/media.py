"""Media files for captures and trainers to read."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_sound(path: Path, samples: NDArray[np.int16], rate_hz: int = 16_000) -> Path:
    """Write mono samples [N] as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path
