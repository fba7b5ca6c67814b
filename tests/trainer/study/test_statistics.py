"""Statistics of the tables, against what is known without them."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from trainer.study.statistics import (
    area_under_rates,
    bootstrap_interval,
    estimate,
    holm,
    paired_p,
    significance,
)


def test_holms_correction_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_bootstrap_covers_the_mean_and_widens_where_clips_are_of_few_groups() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(1.0, 1.0, 400)
    low, high = bootstrap_interval(values, [str(i) for i in range(400)])
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    groups = np.repeat(np.arange(20), 20)
    alike = values + generator.normal(0, 2, 20)[groups]
    grouped = bootstrap_interval(alike, [str(group) for group in groups])
    single = bootstrap_interval(alike, [str(i) for i in range(400)])
    assert grouped[1] - grouped[0] > 2 * (single[1] - single[0])


def test_the_paired_test_agrees_with_students_where_that_holds() -> None:
    generator = np.random.default_rng(1)
    one, noise = generator.normal(size=200), generator.normal(size=200)
    names = [str(i) for i in range(200)]
    for shift in (0.0, 0.12, 0.2):
        difference = noise * 0.9 + shift
        expected = ttest_rel(one + difference, one).pvalue
        assert paired_p(difference, names) == pytest.approx(expected, abs=0.02)
    assert paired_p(np.full(200, 0.5), names) < 0.001
    assert paired_p(np.zeros(5), list("abcde")) == 1.0


def test_the_area_is_that_of_trapezoids() -> None:
    assert area_under_rates([0.0, 0.1, 0.2], [1.0, 0.8, 0.4]) == pytest.approx(0.15)


def test_an_estimate_keeps_deviation_over_seeds_and_interval_over_clips_apart() -> None:
    found = estimate([1.0, 2.0, 3.0], 0.5, 4.0)
    assert (found.mean, found.deviation, found.low, found.high) == (2.0, 1.0, 0.5, 4.0)
    assert estimate([1.0], 0, 1).deviation == 0


def test_marks_of_significance() -> None:
    found = [significance(p) for p in (0.2, 0.05, 0.0499, 0.0099, 0.0009)]
    assert found == ["", "", "*", "**", "***"]
