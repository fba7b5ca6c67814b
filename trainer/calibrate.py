"""Calibration: honest 90 % intervals by split conformal prediction, per modality pattern.

Conformalised quantile regression (arXiv 1905.03222): the margin is the quantile of how far
validation labels lie outside the network's own interval. A pattern with too few validation
clips to promise 90 % gets the whole scale as its interval: wide where the model does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from trainer.evaluate import views
from trainer.model import SentimentModel
from trainer.prediction import Predictions, predict
from trainer.samples import FrameShapes, Samples

COVERAGE = 0.9
WHOLE_SCALE = 6.0


@dataclass(frozen=True)
class PatternMargin:
    """How much to widen the interval of one modality pattern on each side."""

    pattern: str
    margin: float
    clips: int
    """Validation clips that it rests on."""


def conformal_margin(found: Predictions, coverage: float = COVERAGE) -> float:
    """Margin that covers ``coverage`` of exchangeable labels; negative where the interval shrinks.

    Returns:
        The ceil((n + 1) * coverage)-th smallest score; the whole scale where n is too small.
    """
    scores = np.sort(np.maximum(found.low - found.labels, found.labels - found.high))
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else WHOLE_SCALE


def calibrate(
    model: SentimentModel,
    valid: Samples,
    shapes: FrameShapes,
    simulates: bool,
    window_s: float,
    device: torch.device | None = None,
) -> tuple[PatternMargin, ...]:
    """Margins per pattern from the validation split.

    The larger of the utterance's and the live window's margin is kept: a live window knows less
    than a whole utterance, and the interval has to hold for both.
    """
    device = device or next(model.parameters()).device
    best: dict[str, PatternMargin] = {}
    for _, view in views(simulates, window_s):
        found = predict(model, valid, shapes, view, device)
        if len(found) == 0:
            continue
        pattern = view.pattern(simulates)
        margin = PatternMargin(pattern, conformal_margin(found), len(found))
        known = best.get(pattern)
        if known is None or margin.margin > known.margin:
            best[pattern] = margin
    return tuple(best.values())
