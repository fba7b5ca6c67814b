"""Calibration: margins that make the network's intervals honest, per modality pattern."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA = 1
LOWEST, HIGHEST = -3.0, 3.0
WHOLE_SCALE = HIGHEST - LOWEST
"""Margin of a pattern that was never measured: its interval is the whole scale."""
COVERAGE = 0.9
"""Share of the labels that an interval is to cover; a bundle's calibration stores its own."""

Values = NDArray[np.float64]


DOUBT = 0.25
"""By how much a face that can hardly be seen widens an interval: measured, on pictures made dim,
small and blurred, as 1.05 to 1.2; the network's own quantiles do the rest."""


def widened(
    valence: Values | float,
    low: Values | float,
    high: Values | float,
    margin: float,
    stretch: float = 1.0,
) -> tuple[Values, Values]:
    """The one rule of an interval: live, in reports and in training.

    The raw interval is moved out by ``margin`` on both sides, and in for a negative one, but never
    past its middle or the valence, nor out of the scale; then its ends move to ``stretch`` times
    their distance from the valence. Numbers or arrays [N].
    """
    middle = (np.asarray(low) + high) / 2
    lower = np.minimum(np.minimum(np.subtract(low, margin), middle), valence)
    upper = np.maximum(np.maximum(np.add(high, margin), middle), valence)
    lower = valence - stretch * np.subtract(valence, lower)
    upper = valence + stretch * np.subtract(upper, valence)
    return np.maximum(lower, LOWEST), np.minimum(upper, HIGHEST)


WORDS_ALONE, WORDS_KIN = "simulated_text", ("text", "audio+simulated_text")
"""What words say by themselves, in a score's explanation, and the measured patterns next to it."""


def z_of(coverage: float) -> float:
    """Standard deviations on each side of the middle of a normal interval of this coverage."""
    return NormalDist().inv_cdf((1 + coverage) / 2)


class PatternCalibration(BaseModel):
    """Of one modality pattern, such as ``audio+simulated_text+video``."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(ge=-WHOLE_SCALE, le=WHOLE_SCALE)
    """Added on both sides of the raw interval; negative where the network is too careful."""
    clips: int = Field(ge=0)
    """Validation clips behind it."""
    stretch: float = Field(1.0, ge=1, le=WHOLE_SCALE)
    """What data unlike the training's costs: the ends are this many times as far from the valence.
    Measured by training without a corpus and asking for its labels to be covered."""


class Calibration(BaseModel):
    """``calibration.json``: split conformal margins (conformalised quantile regression)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    coverage: float = Field(COVERAGE, gt=0, lt=1)
    patterns: dict[str, PatternCalibration] = {}

    def interval(
        self, pattern: str, valence: float, low: float, high: float, doubt: float = 0.0
    ) -> tuple[float, float]:
        """Calibrated interval of a raw one, within [-3, 3]; see ``widened``.

        Args:
            pattern: present modalities; one that was never measured gets the whole scale.
            valence: of the window.
            low: raw lower end.
            high: raw upper end.
            doubt: 0 to 1, how far the window rests on a face that can hardly be seen.
        """
        known = self._known(pattern)
        stretch = known.stretch * (1 + DOUBT * doubt)
        lower, upper = widened(valence, low, high, known.margin, stretch)
        return float(lower), float(upper)

    def _known(self, pattern: str) -> PatternCalibration:
        unknown = PatternCalibration(margin=WHOLE_SCALE, clips=0)
        if pattern != WORDS_ALONE or pattern in self.patterns:
            return self.patterns.get(pattern, unknown)
        # No window holds words without the voice that they were heard in, so none was measured. A
        # transcript's margin, or that of voice and words where it is wider, stands for it.
        kin = [self.patterns[name] for name in WORDS_KIN if name in self.patterns]
        if len(kin) < len(WORDS_KIN):
            return unknown
        return PatternCalibration(
            margin=max(one.margin for one in kin),
            clips=min(one.clips for one in kin),
            stretch=max(one.stretch for one in kin),
        )

    @staticmethod
    def read(path: Path) -> Calibration:
        """Read a calibration file.

        Raises:
            ValueError: not JSON, an unknown field, another schema.
        """
        try:
            found = Calibration.model_validate(json.loads(path.read_text()))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{path.name}: {place}: {fault['msg']}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.name}: cannot be read: {error}") from None
        if found.schema_version != SCHEMA:
            raise ValueError(
                f"{path.name}: schema_version: expected {SCHEMA}, got {found.schema_version}"
            )
        return found
