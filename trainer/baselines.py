"""Trivial baselines: what a result has to beat before it means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.metrics import RegressionMetrics, regression_metrics


@dataclass(frozen=True)
class Baseline:
    """A prediction that looks at no clip, and how it fares."""

    name: str
    value: float
    """Predicted for every clip."""
    metrics: RegressionMetrics


def trivial_baselines(
    labels: Sequence[float], train_labels: Sequence[float] = ()
) -> tuple[Baseline, ...]:
    """Constant predictions on ``labels`` [n], n > 0.

    Constant 0; all positive (+1); the median and the majority class (of Acc-7) of the training
    labels, or of ``labels`` where there are none.
    """
    known = np.asarray(train_labels if len(train_labels) else labels, np.float64)
    classes, counts = np.unique(np.round(np.clip(known, -3, 3)), return_counts=True)
    values = {
        "constant 0": 0.0,
        "all positive": 1.0,
        "train median": float(np.median(known)),
        "majority class": float(classes[counts.argmax()]) + 0.0,  # no -0
    }
    return tuple(
        Baseline(name, value, regression_metrics(np.full(len(labels), value), labels))
        for name, value in values.items()
    )
