"""Runs the network on cut windows, and makes calibrated intervals of what it says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.inference.backends.protocol import Array, Backend
from engine.inference.cutting import Window
from engine.inference.encoding import MAX_ROWS
from engine.inference.scheduler import pad_right
from models.bundle import Bundle
from models.spec import MODALITIES


@dataclass(frozen=True, slots=True)
class Fused:
    """What the network says of one window."""

    valence: float
    low: float
    high: float
    weights: tuple[float, ...]


class Fuser:
    """The fusion graph of one bundle.

    Args:
        bundle: its calibration makes the intervals.
        backend: runs its graphs.
        counters: where scores that are no numbers are counted.
    """

    def __init__(self, bundle: Bundle, backend: Backend, counters: Counter[str]) -> None:
        self._projected_dim = bundle.config.network.projected_dim
        self._full_lengths = bundle.config.full_lengths
        self._calibration = bundle.calibration
        self._backend = backend
        self._counters = counters

    def fuse(self, windows: Sequence[Window]) -> list[Fused | None]:
        """Run the network on the windows that hold anything, MAX_ROWS at a time."""
        results: list[Fused | None] = [None] * len(windows)
        rows = [row for row, window in enumerate(windows) if window.pattern]
        for first in range(0, len(rows), MAX_ROWS):
            batch = rows[first : first + MAX_ROWS]
            outputs = self._backend.run("fusion", self._inputs([windows[row] for row in batch]))
            for index, row in enumerate(batch):
                valence, low, high = (
                    float(outputs[name].reshape(len(batch), -1)[index, 0])
                    for name in ("valence", "low", "high")
                )
                if not math.isfinite(valence):
                    self._counters["scores_not_finite"] += 1
                    continue
                if not (math.isfinite(low) and math.isfinite(high)):
                    low = high = valence
                low, high = self._calibration.interval(windows[row].pattern, low, high)
                weights = tuple(float(weight) for weight in outputs["weights"][index])
                results[row] = Fused(valence, min(low, valence), max(high, valence), weights)
        return results

    def _inputs(self, windows: Sequence[Window]) -> dict[str, Array]:
        inputs: dict[str, Array] = {}
        for name, full in zip(MODALITIES, self._full_lengths, strict=True):
            sequences = [window.frames[name] for window in windows]
            inputs[name], inputs[f"{name}_mask"] = pad_right(sequences, self._projected_dim, full)
        simulated = [window.text_source != "given" for window in windows]
        return {**inputs, "text_simulated": np.array(simulated, np.bool_)}
