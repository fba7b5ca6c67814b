"""Calibration: margins that make the network's intervals honest, per modality pattern."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA = 1
LOWEST, HIGHEST = -3.0, 3.0
WHOLE_SCALE = HIGHEST - LOWEST


class PatternCalibration(BaseModel):
    """Of one modality pattern, such as ``audio+simulated_text+video``."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(ge=-WHOLE_SCALE, le=WHOLE_SCALE)
    """Added on both sides of the raw interval; negative where the network is too careful."""
    clips: int = Field(ge=0)
    """Validation clips behind it."""


class Calibration(BaseModel):
    """``calibration.json``: split conformal margins (conformalised quantile regression)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    coverage: float = Field(0.9, gt=0, lt=1)
    patterns: dict[str, PatternCalibration] = {}

    def interval(self, pattern: str, low: float, high: float) -> tuple[float, float]:
        """Calibrated interval of a raw one, within [-3, 3].

        A pattern that was never measured gets the whole scale.
        """
        known = self.patterns.get(pattern)
        margin = WHOLE_SCALE if known is None else known.margin
        middle = (low + high) / 2
        return (
            max(LOWEST, min(low - margin, middle)),
            min(HIGHEST, max(high + margin, middle)),
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
