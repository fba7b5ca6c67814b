"""What every text simulation does: sound in, text frames with times out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SimulatedText:
    """A text representation made from sound."""

    frames: NDArray[np.float32]
    """[T, D]; T may be 0: nothing was understood."""
    t_end_s: NDArray[np.float64]
    """[T] when each frame ends, in seconds from the segment's beginning."""


class TextSimulation(Protocol):
    """Turns speech segments into simulated text."""

    @property
    def dim(self) -> int:
        """Width D of the frames."""
        ...

    def simulate(self, segments: Sequence[NDArray[np.float32]]) -> list[SimulatedText]:
        """Simulate the text of speech segments [N] at 16 kHz, batched."""
        ...
