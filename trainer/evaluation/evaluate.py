"""Evaluation: every subset of modalities, both flows, whole utterances and live windows.

Every figure is compared with the constant that a model without any input would say (the training
split's median; for two classes its more frequent sign), measured on the same clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.calibration import WHOLE_SCALE, widened
from trainer.data.samples import FrameShapes, Samples
from trainer.evaluation.baselines import constant_metrics
from trainer.evaluation.metrics import RegressionMetrics, regression_metrics
from trainer.evaluation.prediction import Flow, Predictions, View, predict, subsets
from trainer.model import SentimentModel

Span = Literal["utterance", "window"]
MISSING_RATES = tuple(rate / 10 for rate in range(10))


@dataclass(frozen=True)
class Result:
    """Figures of one view of a corpus's split, and the constant's on the same clips."""

    corpus: str
    flow: Flow
    pattern: str
    span: Span
    clips: int
    metrics: RegressionMetrics
    constant: RegressionMetrics
    coverage: float
    """Share of the labels inside the 90 % interval (calibrated, where a calibration is given)."""
    width: float
    """Mean width of that interval."""


@dataclass(frozen=True)
class RobustnessPoint:
    """Error at one rate of frames lost in every modality."""

    corpus: str
    flow: Flow
    missing_rate: float
    mae: float
    corr: float


@dataclass(frozen=True)
class Evaluation:
    """All figures of one seed on one split."""

    split: str
    seed: int
    results: tuple[Result, ...]
    robustness: tuple[RobustnessPoint, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @staticmethod
    def from_json(tree: dict[str, Any]) -> Evaluation:
        """From ``to_json``'s values."""
        results = [
            Result(
                **{
                    **row,
                    "metrics": RegressionMetrics(**row["metrics"]),
                    "constant": RegressionMetrics(**row["constant"]),
                }
            )
            for row in tree["results"]
        ]
        curve = [RobustnessPoint(**row) for row in tree["robustness"]]
        return Evaluation(tree["split"], tree["seed"], tuple(results), tuple(curve))


def views(
    simulates: bool,
    window_s: float,
    longest_s: float,
    text_span_s: float = 0.0,
    spoken: bool = False,
) -> list[tuple[Span, View]]:
    """All views that differ: 7 subsets complete; without text, also through the missing flow.

    Windows count where a clip is longer than one; their words may reach back further. Where words
    are ``spoken``, simulated text is that of the clips in which some were understood: the others
    are scored as voices alone, live as well as here.
    """
    found: list[tuple[Span, View]] = []
    spans: list[tuple[Span, float | None]] = [("utterance", None)]
    if longest_s > window_s:
        spans.append(("window", window_s))
    for span, length in spans:
        for modalities in subsets():
            view = View(
                "complete", modalities, exact=True, window_s=length, text_span_s=text_span_s
            )
            found.append((span, view))
            if "text" not in modalities and simulates and "audio" in modalities:
                found.append((span, replace(view, flow="missing_text", spoken=spoken)))
    return found


def evaluate(
    model: SentimentModel,
    samples: Samples,
    shapes: FrameShapes,
    train_labels: Mapping[str, NDArray[np.float64]],
    split: str,
    seed: int,
    simulates: bool,
    window_s: float,
    margins: dict[str, float] | None = None,
    robustness: bool = True,
    device: torch.device | None = None,
    text_span_s: float = 0.0,
    spoken: bool = False,
) -> Evaluation:
    """Measure a model on a split.

    Args:
        model: in any mode; evaluated in eval mode.
        samples: of the split.
        shapes: of the frames.
        train_labels: [n] labels of the training split per corpus, for the constants.
        split: its name.
        seed: of the model.
        simulates: audio becomes simulated text in the missing-text flow.
        window_s: length of a live window.
        margins: calibration margin per pattern; None leaves the intervals raw.
        robustness: measure over rates of lost frames, too.
        device: where to run.
        text_span_s: how far back the words of a window reach.
        spoken: simulated text is words that are understood in some of the clips.
    """
    device = device or next(model.parameters()).device
    results = []
    whole: dict[tuple[str, Flow, str], NDArray[np.float64]] = {}
    for span, view in views(simulates, window_s, samples.longest_s, text_span_s, spoken):
        found = predict(model, samples, shapes, view, device)
        pattern = view.pattern(simulates)
        for corpus, own in found.by_corpus().items():
            key = (corpus, view.flow, pattern)
            unchanged = span == "window" and np.array_equal(whole[key], own.valence)
            if span == "utterance":
                whole[key] = own.valence
            if len(own) > 1 and not unchanged:  # stills are the same in a window
                known = train_labels.get(corpus, np.zeros(1))
                result = _result(corpus, own, view.flow, pattern, span, known, margins)
                results.append(result)
    curve = []
    flows: tuple[Flow, ...] = ("complete", "missing_text")
    for flow in flows:
        for rate in MISSING_RATES if robustness else ():
            view = View(flow, missing_rate=rate, seed=seed)
            found = predict(model, samples, shapes, view, device)
            for corpus, own in found.by_corpus().items():
                if len(own) > 1:
                    metrics = regression_metrics(own.valence, own.labels)
                    curve.append(RobustnessPoint(corpus, flow, rate, metrics.mae, metrics.corr))
    return Evaluation(split, seed, tuple(results), tuple(curve))


def _result(
    corpus: str,
    found: Predictions,
    flow: Flow,
    pattern: str,
    span: Span,
    train_labels: NDArray[np.float64],
    margins: dict[str, float] | None,
) -> Result:
    margin = 0.0 if margins is None else margins.get(pattern, WHOLE_SCALE)
    low, high = widened(found.valence, found.low, found.high, margin)
    inside = (found.labels >= low) & (found.labels <= high)
    return Result(
        corpus,
        flow,
        pattern,
        span,
        len(found),
        regression_metrics(found.valence, found.labels),
        constant_metrics(train_labels, found.labels),
        float(inside.mean()),
        float((high - low).mean()),
    )
