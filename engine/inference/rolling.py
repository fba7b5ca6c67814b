"""The rolling valence: a scalar Kalman filter over window scores.

The state is a random walk. A window's observation variance comes from its calibrated
interval, so an unsure window moves the valence little; the process variance is set from the
running mean of those variances such that windows of equal certainty halve the distance to
a steady score in ``half_life_s``. Windows overlap and share the model's errors, so averaging
them does not make the model right: the reported interval is the filtered interval of the
windows, not the (much smaller) variance of the filter. While nothing is seen or heard it widens
steadily, until at ``hold_s`` it spans the scale and the valence is given up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.wire.messages import VALENCE_RANGE, Interval, NoValueReason
from models.calibration import COVERAGE, z_of

GROWTH = 2.0
"""Weight of a window for what it holds more than the one before."""
MIN_STD = 0.05
"""Floor of a window's standard deviation: an interval of no width is not believed."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One window's valence with its 90 % interval, low <= valence <= high."""

    valence: float
    low: float
    high: float
    evidence: float = 0.0
    """How much the window holds: voice, face and words, each as a share of it."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """What the filter says at one time; ``reason`` is given when there is no valence."""

    valence: float | None
    interval: Interval | None
    trend_per_s: float | None
    reason: NoValueReason | None


def clip(value: float) -> float:
    """Keep a value within the range of valence."""
    return min(max(value, VALENCE_RANGE[0]), VALENCE_RANGE[1])


class RollingValence:
    """The filter of one stream. Times are seconds on the stream's own grid."""

    def __init__(
        self, half_life_s: float, hold_s: float, warm_up_s: float, coverage: float = COVERAGE
    ) -> None:
        """``coverage``: of the intervals, those of the windows and the filter's own."""
        self._z = z_of(coverage)
        # The standard deviation whose interval is as wide as the scale: that of knowing nothing.
        self._prior_std = (VALENCE_RANGE[1] - VALENCE_RANGE[0]) / (2.0 * self._z)
        self._half_life_s = half_life_s
        self._hold_s = hold_s
        self._warm_up_s = warm_up_s
        self._first_s: float | None = None
        self._time_s = 0.0
        self._seen_s: float | None = None
        self._ever_seen = False
        self._clear()

    def _clear(self) -> None:
        self._seen_s = None
        self._valence = 0.0
        self._variance = math.inf
        self._typical = 0.0
        self._below = 0.0
        self._above = 0.0
        self._unseen_std = 0.0
        self._evidence = 0.0
        self._trend: float | None = None

    def update(self, time_s: float, seen: Observation | None) -> Rolling:
        """Advance to ``time_s`` and take in a window's score, or that there was none."""
        if self._first_s is None:
            self._first_s = self._time_s = time_s
        elapsed_s = max(time_s - self._time_s, 0.0)
        self._time_s = time_s
        if seen is not None and not math.isfinite(seen.valence + seen.low + seen.high):
            raise ValueError(f"expected a finite observation, got {seen}")
        if self._seen_s is not None and seen is None and time_s - self._seen_s >= self._hold_s:
            self._clear()
        if seen is not None:
            self._observe(seen, elapsed_s)
        elif self._seen_s is not None:
            self._drift(elapsed_s)
        return self._report()

    def _gain(self, elapsed_s: float) -> float:
        return float(1.0 - 0.5 ** (elapsed_s / self._half_life_s))

    def _process_variance(self, elapsed_s: float) -> float:
        """Variance the random walk gains, from the gain wanted of a typical window."""
        gain = self._gain(elapsed_s)
        return self._typical * gain * gain / (1.0 - gain) if gain < 1.0 else math.inf

    def _drift(self, elapsed_s: float) -> None:
        self._variance += self._process_variance(elapsed_s)
        self._unseen_std += self._prior_std * elapsed_s / self._hold_s  # no drift without a hold
        if self._trend is not None:
            self._trend *= 1.0 - self._gain(elapsed_s)

    def _observe(self, seen: Observation, elapsed_s: float) -> None:
        deviation = max((seen.high - seen.low) / (2.0 * self._z), MIN_STD)
        noise = deviation * deviation
        if self._seen_s is None:
            gain = 1.0
            self._valence, self._typical = seen.valence, noise
            self._variance = noise  # the posterior of one observation without a prior
        else:
            predicted = self._variance + self._process_variance(elapsed_s)
            # After a long time, by the half-life, nothing is left of what was believed before.
            gain = predicted / (predicted + noise) if math.isfinite(predicted) else 1.0
            # While somebody begins to speak each window holds what the one before held, and more:
            # it stands for both, where windows of a steady stream are averaged.
            grown = max(seen.evidence - self._evidence, 0.0)
            gain = max(gain, min(GROWTH * grown / seen.evidence, 1.0) if grown else 0.0)
            before = self._valence
            self._valence += gain * (seen.valence - before)
            self._variance = noise * gain  # (1 - gain) * predicted, which may be infinite
            rate = self._gain(elapsed_s)
            self._typical += rate * (noise - self._typical)
            if elapsed_s > 0:
                slope = (self._valence - before) / elapsed_s
                trend = self._trend if self._trend is not None else 0.0
                self._trend = trend + rate * (slope - trend)
        self._below += gain * (max(seen.valence - seen.low, 0.0) - self._below)
        self._above += gain * (max(seen.high - seen.valence, 0.0) - self._above)
        self._unseen_std *= 1.0 - gain
        self._evidence = seen.evidence
        self._seen_s = self._time_s
        self._ever_seen = True

    def _report(self) -> Rolling:
        if self._seen_s is None:
            started = self._time_s - (self._first_s or 0.0)
            warming_up = not self._ever_seen and started < self._warm_up_s
            return Rolling(None, None, None, "warming_up" if warming_up else "no_voice_and_no_face")
        valence = clip(self._valence)
        unseen = self._z * self._unseen_std
        interval = Interval(
            low=min(clip(valence - math.hypot(self._below, unseen)), valence),
            high=max(clip(valence + math.hypot(self._above, unseen)), valence),
        )
        return Rolling(valence, interval, self._trend, None)
