"""Calibration: honest 90 % intervals by split conformal prediction, per modality pattern.

Conformalised quantile regression (arXiv 1905.03222): the margin is the quantile of how far
validation labels lie outside the network's own interval. A pattern with too few validation
clips to promise 90 % gets the whole scale as its interval: wide where the model does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.calibration import COVERAGE, WHOLE_SCALE
from trainer.data.samples import FrameShapes, Samples
from trainer.evaluation.evaluate import views
from trainer.evaluation.prediction import Predictions, predict
from trainer.model import SentimentModel

LEAST = 0.75
"""Share of each single corpus's labels that the margin covers, at least."""
ENOUGH = 40
"""Clips of a corpus from which that is known."""


@dataclass(frozen=True)
class PatternMargin:
    """How much to widen the interval of one modality pattern on each side."""

    pattern: str
    margin: float
    clips: int
    """Validation clips that it rests on."""


def conformal_margin(found: Sequence[Predictions], coverage: float = COVERAGE) -> float:
    """Margin that covers ``coverage`` of exchangeable labels; negative where the interval shrinks.

    Args:
        found: predictions of several corpora or spans, each of which counts alike, however many
            clips it has.
        coverage: share of the labels that are to lie inside.

    Returns:
        The score at which the weighted share reaches ``coverage``, one clip held back for the
        unknown one (ceil((n + 1) * coverage)-th of n); the whole scale where n is too small.
    """
    scores = [np.maximum(one.low - one.labels, one.labels - one.high) for one in found]
    weights = [np.full(len(one), 1 / (len(one) + 1)) for one in scores if len(one)]
    if not weights:
        return WHOLE_SCALE
    joined, shares = np.concatenate(scores), np.concatenate(weights) / len(weights)
    order = np.argsort(joined, kind="stable")
    reached = np.flatnonzero(np.cumsum(shares[order]) >= coverage - 1e-9)
    if not len(reached):
        return WHOLE_SCALE
    # On average is not enough: a corpus that is harder than the others is to be covered, too.
    each = [np.quantile(one, LEAST, method="higher") for one in scores if len(one) >= ENOUGH]
    return float(max([joined[order][reached[0]], *each]))


def calibrate(
    model: SentimentModel,
    valid: Samples,
    shapes: FrameShapes,
    simulates: bool,
    window_s: float,
    device: torch.device | None = None,
    text_span_s: float = 0.0,
    neutral: frozenset[str] = frozenset(),
    spoken: bool = False,
) -> tuple[PatternMargin, ...]:
    """Margins per pattern from the validation split.

    Whole utterances and live windows, and the corpora, count alike: a live window knows less
    than a whole utterance, and the interval has to hold for both. See ``views`` for ``spoken``.
    """
    device = device or next(model.parameters()).device
    found: dict[str, list[Predictions]] = {}
    for _, view in views(simulates, window_s, valid.longest_s, text_span_s, spoken):
        for corpus, own in predict(model, valid, shapes, view, device).by_corpus().items():
            # No interval of neutral words covers what an actor's voice did with them.
            if corpus in neutral and view.modalities == ("text",):
                continue
            found.setdefault(view.pattern(simulates), []).append(own)
    return tuple(
        PatternMargin(pattern, conformal_margin(parts), max(map(len, parts)))
        for pattern, parts in found.items()
    )
