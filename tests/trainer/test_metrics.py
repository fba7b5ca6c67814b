"""Metrics against hand-computed values and the published trivial baselines."""

import csv
from pathlib import Path

import numpy as np
import pytest

from trainer.evaluation.baselines import constant_metrics
from trainer.evaluation.metrics import regression_metrics


def test_by_hand() -> None:
    labels = [-3.0, -1.0, 0.0, 0.4, 2.6]
    found = regression_metrics([-2.6, 0.2, -0.1, 0.6, 4.0], labels)
    assert found.mae == pytest.approx((0.4 + 1.2 + 0.1 + 0.2 + 1.4) / 5)
    # Rounded: -3 0 -0 1 3 against -3 -1 0 0 3; half goes to even, so np.round(0.4) = 0.
    assert found.acc7 == pytest.approx(3 / 5)
    # Clipped to +-2: -2 0 0 1 2 against -2 -1 0 0 2.
    assert found.acc5 == pytest.approx(3 / 5)
    # has0: - + - + + against - - + + +.
    assert found.acc2_has0 == pytest.approx(3 / 5)
    # non0: - + + + against - - + +.
    assert found.acc2_non0 == pytest.approx(3 / 4)
    # non0 F1: positive 2*2/(3+2) with weight 2, negative 2*1/(1+2) with weight 2.
    assert found.f1_non0 == pytest.approx((2 * 4 / 5 + 2 * 2 / 3) / 4)
    assert found["mae"] == found.mae
    assert dict(found)["ccc"] == found.ccc


def test_concordance_falls_with_a_shift_that_correlation_forgives() -> None:
    labels = np.linspace(-3, 3, 50)
    shifted = regression_metrics(labels + 1, labels)
    assert shifted.corr == pytest.approx(1)
    variance = labels.var()
    assert shifted.ccc == pytest.approx(2 * variance / (2 * variance + 1))


def test_a_constant_correlates_with_nothing() -> None:
    found = regression_metrics(np.zeros(4), [1.0, 2.0, -1.0, 0.0])
    assert (found.corr, found.ccc) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([1.0], [1.0, 2.0], "got 1 and 2"),
        ([], [], "got 0 and 0"),
        ([np.nan], [0.0], "predictions: expected finite values, got 1"),
    ],
)
def test_bad_input_is_named(predictions: list[float], labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regression_metrics(predictions, labels)


def test_trivial_baselines_on_the_real_test_split(shared_data: Path) -> None:
    """Published for 4,659 clips; the sample holds 4,653 of them."""
    with (shared_data / "mosei" / "label.csv").open(newline="") as file:
        labels = [float(row["label"]) for row in csv.DictReader(file) if row["mode"] == "test"]
    zero = regression_metrics(np.zeros(len(labels)), labels)
    positive = regression_metrics(np.ones(len(labels)), labels)
    assert zero.mae == pytest.approx(0.8384, abs=0.002)
    assert zero.acc7 == pytest.approx(0.4136, abs=0.002)
    assert positive.acc2_non0 == pytest.approx(0.6285, abs=0.002)
    assert positive.acc2_has0 == pytest.approx(0.7102, abs=0.002)


def test_the_best_constant_is_a_median_or_for_two_classes_a_sign() -> None:
    labels = np.array([0.0, 0.0, 2.0, 1.0, -1.0])
    found = constant_metrics(np.array([0.0, 0.0, 0.0, 1.0, 2.0, -1.0]), labels)
    assert found.mae == pytest.approx(0.8)
    assert found.acc2_non0 == pytest.approx(2 / 3)
    assert found.acc2_has0 == pytest.approx(4 / 5)
    assert constant_metrics(np.array([-1.0, 0.0]), labels).acc2_non0 == pytest.approx(1 / 3)
