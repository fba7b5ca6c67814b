"""Labelled clips scored as a live stream would be: through the engine, window by window.

What offline figures leave out is in these: speech that is not heard, windows that end within a
sentence, the rolling filter. Only the sound of a clip is played.
"""

from __future__ import annotations

import csv
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import Backend
from engine.score import score_clip
from engine.settings import EngineSettings
from models.bundle import Bundle
from models.preprocessing import SAMPLE_RATE_HZ
from trainer.corpus import Clip, CorpusError, Media
from trainer.evaluation.baselines import constant_metrics
from trainer.evaluation.metrics import RegressionMetrics, regression_metrics
from trainer.features.media import MediaReader


@dataclass(frozen=True)
class LiveScore:
    """What the engine said of a clip at its end."""

    id: str
    label: float
    valence: float | None
    """The last rolling valence; None where nothing was heard."""
    low: float
    high: float
    text: bool
    """Words were believed in some window."""
    windows: int
    windows_with_text: int
    weights: tuple[float, float]
    """Of voice and words on average, over the windows that have both."""


@dataclass(frozen=True)
class LiveFigures:
    """Figures of a set of clips, and the constant's on the same."""

    clips: int
    unheard: int
    metrics: RegressionMetrics
    constant: RegressionMetrics
    coverage: float
    width: float
    windows_with_text: float


def score_clips(
    clips: Sequence[Clip],
    settings: EngineSettings,
    bundle: Bundle,
    backend: Backend,
    gain_db: float = 0.0,
    on_clip: Callable[[], None] = lambda: None,
) -> list[LiveScore]:
    """Play the sound of each clip to the engine, ``gain_db`` louder.

    Where it ends while somebody speaks, silence follows until the last words count (``read_clip``).

    Raises:
        CorpusError: a clip's sound cannot be read.
    """
    reader = MediaReader()
    found = []
    with tempfile.TemporaryDirectory(prefix="undertone-live-") as scratch:
        path = Path(scratch) / "clip.wav"
        for clip in clips:
            if not isinstance(clip.audio, Media):
                raise CorpusError(f"{clip.id}: expected sound, it has none")
            _write(path, reader.samples(clip.audio) * 10 ** (gain_db / 20))
            found.append(_score(clip, path, settings, bundle, backend))
            on_clip()
    return found


def _score(
    clip: Clip, path: Path, settings: EngineSettings, bundle: Bundle, backend: Backend
) -> LiveScore:
    valence, low, high = None, -3.0, 3.0
    windows = with_text = 0
    weights: list[tuple[float, float]] = []
    for score in score_clip(path, settings, bundle, backend):
        if score.valence_window is not None:
            windows += 1
            with_text += score.text.present
        if score.text.present and score.audio.present:
            weights.append((score.audio.weight, score.text.weight))
        if score.valence is not None and score.interval is not None:
            valence, low, high = score.valence, score.interval.low, score.interval.high
    audio, text = np.mean(weights, axis=0) if weights else (0.0, 0.0)
    return LiveScore(
        clip.id,
        clip.valence,
        valence,
        low,
        high,
        with_text > 0,
        windows,
        with_text,
        (float(audio), float(text)),
    )


def figures(scores: Sequence[LiveScore], train_labels: NDArray[np.float64]) -> LiveFigures:
    """Compare with the labels; a clip of which nothing was heard counts as the constant."""
    labels = np.array([score.label for score in scores])
    constant = float(np.median(train_labels))
    said = np.array([constant if s.valence is None else s.valence for s in scores])
    low, high = np.array([s.low for s in scores]), np.array([s.high for s in scores])
    windows = sum(score.windows for score in scores)
    return LiveFigures(
        clips=len(scores),
        unheard=sum(score.valence is None for score in scores),
        metrics=regression_metrics(said, labels),
        constant=constant_metrics(train_labels, labels),
        coverage=float(np.mean((labels >= low) & (labels <= high))),
        width=float(np.mean(high - low)),
        windows_with_text=sum(s.windows_with_text for s in scores) / max(1, windows),
    )


def line(name: str, found: LiveFigures) -> str:
    """One line of a table: the figures, and the constant's in brackets."""
    own, trivial = found.metrics, found.constant
    return (
        f"{name}: {found.clips} clips, {found.unheard} unheard; MAE {own.mae:.3f} "
        f"({trivial.mae:.3f}), Corr {own.corr:.3f}, CCC {own.ccc:.3f}, sign "
        f"{own.acc2_non0:.1%} ({trivial.acc2_non0:.1%}), interval {found.coverage:.1%} of "
        f"{found.width:.2f} wide, words in {found.windows_with_text:.0%} of the windows"
    )


def save(scores: Sequence[LiveScore], path: Path) -> None:
    """Write a row per clip."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "valence", "low", "high", "windows", "with_text"))
        for s in scores:
            said = "" if s.valence is None else f"{s.valence:.4f}"
            row = (f"{s.low:.4f}", f"{s.high:.4f}", s.windows, s.windows_with_text)
            writer.writerow((s.id, f"{s.label:.4g}", said, *row))


def _write(path: Path, samples: NDArray[np.float32]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes())
