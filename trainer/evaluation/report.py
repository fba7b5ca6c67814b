"""Report: one self-contained HTML page with every figure of a run and the plots to look at."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.calibration import COVERAGE
from trainer.checkpoint import Epoch, History
from trainer.evaluation.calibrate import PatternMargin
from trainer.evaluation.evaluate import Evaluation, Result
from trainer.evaluation.prediction import Predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = ("mae", "corr", "ccc", "acc7", "acc5", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0")
PUBLISHED = (
    ("MulT", 0.559, 0.733, "81.2 / 84.6", 52.8),
    ("MISA", 0.558, 0.752, "80.7 / 84.7", 52.1),
    ("Self-MM", 0.531, 0.765, "83.8 / 85.2", 53.9),
    ("CENET", 0.526, 0.778, "83.5 / 86.4", 54.3),
    ("Ando et al. 2022", 0.507, 0.789, "", None),
    ("arXiv 2410.15029, complete", 0.506, None, "", None),
    ("arXiv 2410.15029, text missing", 0.550, None, "", None),
)
"""CMU-MOSEI test figures as published: MAE, Corr, Acc-2 has0/non0, Acc-7."""


@dataclass(frozen=True)
class Cell:
    """Mean and deviation over seeds."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}"


@dataclass(frozen=True)
class Row:
    """One view of a corpus's split over all seeds, and the constant."""

    corpus: str
    flow: str
    pattern: str
    span: str
    clips: int
    cells: dict[str, Cell]
    constant: dict[str, float]
    coverage: Cell
    width: Cell


@dataclass(frozen=True, eq=False)
class Run:
    """What a report is made of."""

    name: str
    recipe: dict[str, Any]
    corpus: dict[str, Any]
    """Counts per split, problems, licence: what ``inspect`` shows."""
    histories: tuple[History, ...]
    evaluations: tuple[Evaluation, ...]
    margins: tuple[PatternMargin, ...]
    predictions: Predictions
    """Test predictions of the exported seed, complete flow where there is one."""


def summarise(evaluations: Sequence[Evaluation]) -> tuple[Row, ...]:
    """Mean and deviation over seeds of every view."""
    groups: dict[tuple[str, str, str, str], list[Result]] = {}
    for evaluation in evaluations:
        for result in evaluation.results:
            key = (result.corpus, result.span, result.flow, result.pattern)
            groups.setdefault(key, []).append(result)
    rows = []
    for (corpus, span, flow, pattern), results in groups.items():
        cells = {
            name: _cell([getattr(result.metrics, name) for result in results]) for name in FIGURES
        }
        constant = {name: getattr(results[0].constant, name) for name in FIGURES}
        coverage = _cell([result.coverage for result in results])
        width = _cell([result.width for result in results])
        clips = results[0].clips
        rows.append(Row(corpus, flow, pattern, span, clips, cells, constant, coverage, width))
    order = list(dict.fromkeys(row.corpus for row in rows))
    return tuple(sorted(rows, key=lambda row: order.index(row.corpus)))


def write(run: Run, path: Path) -> None:
    """Write the page; no script, no outside file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        run=run,
        rows=summarise(run.evaluations),
        figures=FIGURES,
        published=PUBLISHED,
        recipe=json.dumps(run.recipe, indent=2),
        plots=[(title, _embed(figure)) for title, figure in draw(run)],
    )
    path.write_text(page)


def draw(run: Run) -> list[tuple[str, Figure]]:
    """The plots: training curves, predicted against true, calibration, robustness."""
    plots = [("Training curves", _training_curves(run.histories))]
    for corpus, found in run.predictions.by_corpus().items():
        plots.append((f"Predicted against true ({corpus or 'test'})", _scatter(found)))
        plots.append((f"Calibration ({corpus or 'test'})", _calibration(found, run.margins)))
    points = [point for evaluation in run.evaluations for point in evaluation.robustness]
    for corpus in dict.fromkeys(point.corpus for point in points):
        title = f"Robustness to lost frames ({corpus or 'test'})"
        plots.append((title, _robustness(run.evaluations, corpus)))
    return plots


def epoch_line(title: str, epoch: Epoch) -> str:
    """One line of an epoch, for the log."""
    figures = " ".join(f"{name} {value:.3f}" for name, value in epoch.valid.items())
    return (
        f"{title} epoch {epoch.epoch}: loss {epoch.terms['total']:.3f} {figures} "
        f"({epoch.seconds:.0f} s)"
    )


def _cell(values: Sequence[float]) -> Cell:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Cell(float(np.mean(values)), deviation)


def _new(columns: int = 1) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 3.6), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _training_curves(histories: Sequence[History]) -> Figure:
    figure, (left, right) = _new(2)
    for seed, history in enumerate(histories):
        epochs = [epoch.epoch for epoch in history.epochs]
        left.plot(epochs, [epoch.terms["total"] for epoch in history.epochs], label=f"seed {seed}")
        for flow, style in (("complete", "-"), ("missing_text", "--")):
            values = [_mean_error(epoch, flow) for epoch in history.epochs]
            if not np.isnan(values).all():
                right.plot(epochs, values, style, color=f"C{seed}", label=f"{flow} {seed}")
        right.axvline(history.best_epoch, color=f"C{seed}", alpha=0.3, linewidth=1)
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="validation MAE (line: chosen epoch)")
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    return figure


def _mean_error(epoch: Epoch, flow: str) -> float:
    """Validation MAE of a flow, the mean over corpora; NaN where it does not exist."""
    errors = [
        value
        for name, value in epoch.valid.items()
        if name.startswith(flow) and name.endswith("/mae")
    ]
    return float(np.mean(errors)) if errors else float("nan")


def _scatter(found: Predictions) -> Figure:
    figure, (axis,) = _new()
    axis.scatter(found.labels, found.valence, s=6, alpha=0.25, edgecolors="none")
    axis.plot([-3, 3], [-3, 3], color="grey", linewidth=1)
    axis.set(xlabel="true valence", ylabel="predicted", xlim=(-3.1, 3.1), ylim=(-3.1, 3.1))
    return figure


def _calibration(found: Predictions, margins: Sequence[PatternMargin]) -> Figure:
    """Coverage against interval width scaled up and down, and error against claimed width."""
    figure, (left, right) = _new(2)
    middle, half = (found.low + found.high) / 2, (found.high - found.low) / 2
    scales = np.linspace(0, 2.5, 40)
    inside = [(np.abs(found.labels - middle) <= scale * half).mean() for scale in scales]
    left.plot(scales, inside)
    left.axhline(COVERAGE, color="grey", linewidth=1)
    left.axvline(1.0, color="grey", linewidth=1)
    left.set(xlabel="interval, times its own width", ylabel="share of labels inside", ylim=(0, 1))
    order = np.argsort(half)
    groups = [g for g in np.array_split(order, 10) if len(g)]
    error = np.abs(found.labels - found.valence)
    right.plot([half[g].mean() for g in groups], [error[g].mean() for g in groups], "o-")
    right.set(xlabel="half width that the model claims", ylabel="mean absolute error")
    return figure


def _robustness(evaluations: Sequence[Evaluation], corpus: str) -> Figure:
    figure, (axis,) = _new()
    for color, flow in enumerate(("complete", "missing_text")):
        points: dict[float, list[float]] = {}
        for evaluation in evaluations:
            for point in evaluation.robustness:
                if point.flow == flow and point.corpus == corpus:
                    points.setdefault(point.missing_rate, []).append(point.mae)
        if points:
            cells = [_cell(values) for values in points.values()]
            axis.errorbar(
                list(points),
                [cell.mean for cell in cells],
                [cell.deviation for cell in cells],
                marker="o",
                capsize=2,
                color=f"C{color}",
                label=flow,
            )
    axis.set(xlabel="share of frames lost in every modality", ylabel="MAE")
    axis.legend(fontsize=8)
    return figure


def _embed(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
