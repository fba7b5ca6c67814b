"""Regression metrics of multimodal sentiment, exactly as MMSA defines them, and CCC.

Source: MMSA's ``MetricsTop.__eval_mosei_regression`` as stated in the field's tables: Acc-7 and
Acc-5 compare rounded values after clipping to +-3 and +-2; ``has0`` counts 0 as non-negative,
``non0`` leaves clips of true valence 0 out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RegressionMetrics:
    """All figures of one set of predictions; readable by name, too: ``metrics["mae"]``."""

    mae: float
    """Mean absolute error, in units of valence."""
    corr: float
    """Pearson's correlation; 0 where either side is constant."""
    acc7: float
    acc5: float
    acc2_has0: float
    acc2_non0: float
    f1_has0: float
    """Weighted F1 of the two classes."""
    f1_non0: float
    ccc: float
    """Concordance correlation coefficient (Lin, 1989)."""

    def __getitem__(self, name: str) -> float:
        if name not in self.keys():
            raise KeyError(name)
        value: float = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Names of the figures."""
        return tuple(field.name for field in fields(self))


def regression_metrics(predictions: ArrayLike, labels: ArrayLike) -> RegressionMetrics:
    """Compare predictions with labels, any shape of the same size.

    Raises:
        ValueError: no values, different sizes, or values that are not finite.
    """
    found = np.asarray(predictions, np.float64).ravel()
    truth = np.asarray(labels, np.float64).ravel()
    if found.size != truth.size or found.size == 0:
        raise ValueError(
            f"expected as many predictions as labels and at least one, got {found.size} and "
            f"{truth.size}"
        )
    for name, values in (("predictions", found), ("labels", truth)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{name}: expected finite values, got {bad} that are not")
    signed = truth != 0
    return RegressionMetrics(
        mae=float(np.abs(found - truth).mean()),
        corr=_pearson(found, truth),
        acc7=_rounded_accuracy(found, truth, 3),
        acc5=_rounded_accuracy(found, truth, 2),
        acc2_has0=_accuracy(found >= 0, truth >= 0),
        acc2_non0=_accuracy(found[signed] > 0, truth[signed] > 0),
        f1_has0=_weighted_f1(found >= 0, truth >= 0),
        f1_non0=_weighted_f1(found[signed] > 0, truth[signed] > 0),
        ccc=_concordance(found, truth),
    )


def _pearson(found: Floats, truth: Floats) -> float:
    a, b = found - found.mean(), truth - truth.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-12 else 0.0


def _concordance(found: Floats, truth: Floats) -> float:
    shift = float(found.mean() - truth.mean())
    scale = float(found.var() + truth.var()) + shift * shift
    covariance = float(((found - found.mean()) * (truth - truth.mean())).mean())
    return 2 * covariance / scale if scale > 1e-12 else 0.0


def _rounded_accuracy(found: Floats, truth: Floats, limit: int) -> float:
    def classes(values: Floats) -> Floats:
        return np.asarray(np.round(np.clip(values, -limit, limit)))

    return float((classes(found) == classes(truth)).mean())


def _accuracy(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((found == truth).mean()) if truth.size else 0.0


def _weighted_f1(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """F1 per class, weighted by the class's share of the labels."""
    total = 0.0
    for positive in (True, False):
        hits = int(((found == positive) & (truth == positive)).sum())
        claimed, actual = int((found == positive).sum()), int((truth == positive).sum())
        if claimed + actual:
            total += actual * 2 * hits / (claimed + actual)
    return total / truth.size if truth.size else 0.0
