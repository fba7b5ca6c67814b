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

from trainer.calibrate import PatternMargin
from trainer.checkpoint import History
from trainer.evaluate import Evaluation, Result
from trainer.prediction import Predictions

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
    """One view of a split over all seeds, beside the constant."""

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
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for evaluation in evaluations:
        for result in evaluation.results:
            groups.setdefault((result.span, result.flow, result.pattern), []).append(result)
    rows = []
    for (span, flow, pattern), results in groups.items():
        cells = {
            name: _cell([getattr(result.metrics, name) for result in results]) for name in FIGURES
        }
        constant = {name: getattr(results[0].constant, name) for name in FIGURES}
        coverage = _cell([result.coverage for result in results])
        width = _cell([result.width for result in results])
        rows.append(Row(flow, pattern, span, results[0].clips, cells, constant, coverage, width))
    return tuple(rows)


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
    if len(run.predictions):
        plots.append(("Predicted against true (test)", _scatter(run.predictions)))
        plots.append(("Calibration (test)", _calibration(run.predictions, run.margins)))
    if any(evaluation.robustness for evaluation in run.evaluations):
        plots.append(("Robustness to lost frames (test)", _robustness(run.evaluations)))
    return plots


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
        for name, style in (("complete/mae", "-"), ("missing_text/mae", "--")):
            values = [epoch.valid.get(name, np.nan) for epoch in history.epochs]
            if not np.isnan(values).all():
                right.plot(epochs, values, style, color=f"C{seed}", label=f"{name} {seed}")
        right.axvline(history.best_epoch, color=f"C{seed}", alpha=0.3, linewidth=1)
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="validation MAE (line: chosen epoch)")
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    return figure


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
    left.axhline(0.9, color="grey", linewidth=1)
    left.axvline(1.0, color="grey", linewidth=1)
    left.set(xlabel="interval, times its own width", ylabel="share of labels inside", ylim=(0, 1))
    order = np.argsort(half)
    groups = [g for g in np.array_split(order, 10) if len(g)]
    error = np.abs(found.labels - found.valence)
    right.plot([half[g].mean() for g in groups], [error[g].mean() for g in groups], "o-")
    right.set(xlabel="half width that the model claims", ylabel="mean absolute error")
    return figure


def _robustness(evaluations: Sequence[Evaluation]) -> Figure:
    figure, (axis,) = _new()
    for color, flow in enumerate(("complete", "missing_text")):
        points: dict[float, list[float]] = {}
        for evaluation in evaluations:
            for point in evaluation.robustness:
                if point.flow == flow:
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
