"""Intervals by pattern: measured ones, words alone, and those that were never measured."""

from __future__ import annotations

import pytest

from models.calibration import Calibration, PatternCalibration


def calibration(**margins: float) -> Calibration:
    names = {"both": "audio+simulated_text"}
    return Calibration(
        patterns={
            names.get(name, name): PatternCalibration(margin=margin, clips=100)
            for name, margin in margins.items()
        }
    )


def test_words_alone_are_as_unsure_as_the_less_sure_of_their_kin() -> None:
    known = calibration(text=0.2, both=0.5)
    assert known.interval("simulated_text", 0.0, -1.0, 1.0) == pytest.approx((-1.5, 1.5))
    assert known.interval("text", 0.0, -1.0, 1.0) == pytest.approx((-1.2, 1.2))


@pytest.mark.parametrize("margins", [{}, {"text": 0.2}, {"both": 0.5}])
def test_words_alone_without_both_kin_span_the_scale(margins: dict[str, float]) -> None:
    found = calibration(**margins).interval("simulated_text", 0.0, -1.0, 1.0)
    assert found == pytest.approx((-3.0, 3.0))


def test_another_pattern_that_was_never_measured_spans_the_scale() -> None:
    found = calibration(text=0.2, both=0.5).interval("video", 0.0, -1.0, 1.0)
    assert found == pytest.approx((-3.0, 3.0))
