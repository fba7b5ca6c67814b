"""Trivial baselines: what a result has to beat before it means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.metrics import RegressionMetrics, regression_metrics


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


def constant_metrics(
    train_labels: NDArray[np.float64], labels: NDArray[np.float64]
) -> RegressionMetrics:
    """What the best constant of the training labels reaches on ``labels`` [n].

    Their median, which has the least error; where there are two classes, their more frequent
    sign: a median of 0 would count as neither.
    """
    median = regression_metrics(np.full(len(labels), np.median(train_labels)), labels)
    sign = 1.0 if (train_labels > 0).sum() >= (train_labels < 0).sum() else -1.0
    majority = regression_metrics(np.full(len(labels), sign), labels)
    return replace(
        median,
        acc2_has0=majority.acc2_has0,
        acc2_non0=majority.acc2_non0,
        f1_has0=majority.f1_has0,
        f1_non0=majority.f1_non0,
    )
