"""How scores behave on real clips: a plot per clip, and a table of jitter, response and nil.

``python -m benchmarks.behaviour CLIP... --out FOLDER`` scores each clip through the live core and
draws valence, interval and modality weights over time. *jitter* is the mean step of the rolling
valence of that of the unsmoothed one. The plots are of people: look at them, do not publish them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.backends.select import choose
from engine.score import score_clip
from engine.settings import load
from engine.wire.messages import Score
from models import bundle as bundles

NS_PER_S = 1e9
JUMP = 1.0
"""A change of the rolling valence between two scores that a viewer would call a jump."""


@dataclass(frozen=True)
class Behaviour:
    """Figures of one clip."""

    clip: str
    scores: int
    nil_share: float
    low: float
    mean: float
    high: float
    width: float
    jitter: float
    """Mean absolute change of the rolling valence between neighbouring scores."""
    jitter_window: float
    """The same of the unsmoothed valence."""
    jumps: int
    response_s: float
    """Delay at which the rolling valence follows the unsmoothed one best."""


def measure(clip: str, scores: Sequence[Score]) -> Behaviour:
    """Figures of a clip's scores."""
    valence = column(scores, "valence")
    window = column(scores, "valence_window")
    known = valence[~np.isnan(valence)]
    width = [s.interval.high - s.interval.low for s in scores if s.interval is not None]
    steps, window_steps = (np.abs(np.diff(v)) for v in (valence, window))
    return Behaviour(
        clip,
        len(scores),
        float(np.isnan(valence).mean()) if len(valence) else 1.0,
        *((known.min(), known.mean(), known.max()) if len(known) else (np.nan,) * 3),
        float(np.mean(width)) if width else np.nan,
        float(np.nanmean(steps)) if np.isfinite(steps).any() else np.nan,
        float(np.nanmean(window_steps)) if np.isfinite(window_steps).any() else np.nan,
        int((steps > JUMP).sum()),
        response_s(scores, valence, window),
    )


def response_s(scores: Sequence[Score], valence: np.ndarray, window: np.ndarray) -> float:
    """Lag of the best correlation between the unsmoothed and the rolling valence."""
    both = ~np.isnan(valence) & ~np.isnan(window)
    if both.sum() < 8 or np.std(window[both]) < 1e-3:
        return np.nan
    times = np.array([s.envelope.t_end_ns for s in scores]) / NS_PER_S
    hop_s = float(np.median(np.diff(times)))
    v, w = valence[both] - valence[both].mean(), window[both] - window[both].mean()
    lags = range(0, min(8, len(v) // 2))
    return (
        int(np.argmax([np.dot(w[: len(w) - lag], v[lag:]) / (len(v) - lag) for lag in lags]))
        * hop_s
    )


def column(scores: Sequence[Score], name: str) -> np.ndarray:
    """A field of every score, NaN for nil."""
    values = [getattr(score, name) for score in scores]
    return np.array([np.nan if value is None else value for value in values], float)


def draw(clip: str, scores: Sequence[Score], path: Path) -> None:
    """Valence with its interval above, weights of the modalities below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    times = np.array([s.envelope.t_end_ns for s in scores]) / NS_PER_S
    low, high = (
        np.array([np.nan if s.interval is None else getattr(s.interval, end) for s in scores])
        for end in ("low", "high")
    )
    upper.fill_between(times, low, high, alpha=0.2, linewidth=0, label="90 % interval")
    upper.plot(times, column(scores, "valence"), label="valence")
    upper.plot(times, column(scores, "valence_window"), ".", markersize=3, label="unsmoothed")
    upper.axhline(0, color="grey", linewidth=0.6)
    upper.set(ylim=(-3.1, 3.1), ylabel="valence", title=clip)
    upper.legend(fontsize=7, loc="lower right", ncols=3)
    weights = np.array([[s.audio.weight, s.text.weight, s.video.weight] for s in scores]).T
    lower.stackplot(times, weights, labels=("audio", "text", "video"), alpha=0.8)
    lower.set(ylim=(0, 1), ylabel="weight", xlabel="s")
    lower.legend(fontsize=7, loc="lower right", ncols=3)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--out", type=Path, default=None, help="folder of the plots")
    arguments = parser.parse_args()
    bundle = bundles.open(arguments.bundle)
    settings = load()
    table = Table(
        title=f"{bundle.config.name} {bundle.config.version}", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("clip", no_wrap=True, min_width=16)
    for name in ("scores", "nil", "low", "mean", "high", "width", "jitter", "jumps", "lag s"):
        table.add_column(name, justify="right")
    backend = choose("onnx", bundle).backend
    for clip in arguments.clips:
        scores = list(score_clip(clip, settings, bundle, backend))
        found = measure(clip.stem, scores)
        table.add_row(
            found.clip,
            str(found.scores),
            f"{found.nil_share:.0%}",
            *(f"{v:+.2f}" for v in (found.low, found.mean, found.high)),
            f"{found.width:.2f}",
            f"{found.jitter:.2f}/{found.jitter_window:.2f}",
            str(found.jumps),
            f"{found.response_s:.1f}",
        )
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            draw(clip.stem, scores, arguments.out / f"{clip.stem}.png")
    Console().print(table)


if __name__ == "__main__":
    main()
