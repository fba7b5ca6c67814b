"""Statistics of the tables: seeds, bootstrap over clips, paired tests with Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2_000
FLIPS = 10_000
LEVELS = (0.05, 0.01, 0.001)


@dataclass(frozen=True)
class Estimate:
    """Mean and deviation over seeds, and a 95 % interval over clips."""

    mean: float
    deviation: float
    low: float
    high: float
    seeds: int


def estimate(per_seed: Sequence[float], low: float, high: float) -> Estimate:
    """Of a figure of every seed."""
    deviation = float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else 0.0
    return Estimate(float(np.mean(per_seed)), deviation, low, high, len(per_seed))


def bootstrap_interval(errors: Floats, groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of ``errors`` [n], whole groups drawn with replacement.

    Clips of one video or speaker are alike: drawn one by one they would promise too much.
    """
    codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    sums = np.bincount(codes, errors)
    counts = np.bincount(codes).astype(float)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def paired_p(differences: Floats, groups: Sequence[str], seed: int = 0) -> float:
    """Two-sided p of a mean difference [n] of 0, by flipping the signs of whole groups."""
    codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    sums = np.bincount(codes, differences)
    generator = np.random.default_rng(seed)
    seen = abs(sums.sum())
    above = 0
    for _ in range(10):
        signs = generator.integers(0, 2, (FLIPS // 10, len(sums))) * 2 - 1
        above += int((np.abs(signs @ sums) >= seen - 1e-12).sum())
    return (above + 1) / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = np.argsort(p_values)
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def significance(p: float) -> str:
    """The usual marks of a corrected p: ``*`` below .05, ``**`` below .01, ``***`` below .001."""
    return "*" * sum(p < level for level in LEVELS)


def area_under_rates(rates: Sequence[float], figures: Sequence[float]) -> float:
    """The field's AUILC: the trapezoids under a figure over the rates of what is missing."""
    return float(
        sum(
            (later - earlier) * (one + other) / 2
            for earlier, later, one, other in zip(
                rates, rates[1:], figures, figures[1:], strict=False
            )
        )
    )
