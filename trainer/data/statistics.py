"""Statistics of feature columns: centre and scale of the training split, robust to outliers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.umca import Standardisation
from trainer.data.clips import StoredSamples

CLIPS = 2_000
"""Clips that are looked at, spread over the split."""
VALUES = 64_000_000
"""Values held at once, at most: 256 MB."""
IQR_OF_NORMAL = 1.349
Floats = NDArray[np.float32]
Modality = Literal["audio", "text", "video"]


@dataclass(frozen=True, eq=False)
class ColumnStatistics:
    """Centre and scale [D] of one modality's columns, and how much is beyond the clip."""

    centre: Floats
    scale: Floats
    clipped: int
    values: int
    """Values looked at, of which ``clipped`` are cut off."""


def column_statistics(
    samples: StoredSamples, names: Mapping[Modality, str]
) -> dict[Modality, ColumnStatistics]:
    """Median and interquartile range per column.

    Args:
        samples: the training split.
        names: stored frames to look at, by modality.
    """
    found: dict[Modality, ColumnStatistics] = {}
    for modality, name in names.items():
        rows = _sampled(samples, name)
        if rows is not None:
            centre, scale = _robust(rows)
            beyond = _beyond(rows, centre, scale)
            found[modality] = ColumnStatistics(centre, scale, beyond, rows.size)
    return found


def _sampled(samples: StoredSamples, name: str) -> Floats | None:
    clips = [clip for clip in samples.clips if name in clip.keys]
    if not clips:
        return None
    chosen = clips[:: max(1, len(clips) // CLIPS)]
    store = samples.stores[name]
    width = int(np.prod(store.shape))
    total = sum(store.entry(clip.keys[name]).count for clip in chosen)
    step = max(1, -(-total * width // VALUES))

    def rows() -> Iterator[Floats]:
        for clip in chosen:
            yield np.asarray(store.read(clip.keys[name])[::step], np.float32)

    return np.concatenate(list(rows()))


def _robust(rows: Floats) -> tuple[Floats, Floats]:
    """Median and a standard deviation's worth of the quartiles' distance, per column.

    A column that is mostly one value (F0 of unvoiced frames) has no such distance: its standard
    deviation stands in, and 1 for a constant.
    """
    low, centre, high = np.percentile(rows, (25, 50, 75), axis=0)
    scale = (high - low) / IQR_OF_NORMAL
    deviation = rows.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-3 * deviation, scale, deviation)
    scale = np.where(scale > 1e-12, scale, 1.0)
    return centre.astype(np.float32), scale.astype(np.float32)


def _beyond(rows: Floats, centre: Floats, scale: Floats) -> int:
    return int((np.abs((rows - centre) / scale) > Standardisation.LIMIT).sum())
