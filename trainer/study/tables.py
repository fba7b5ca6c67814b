"""The tables: rows of figures from kept predictions, with baselines and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.baselines import constant_metrics
from trainer.evaluation.metrics import RegressionMetrics, regression_metrics
from trainer.study.predictions import Rows
from trainer.study.runner import COMPLETE, MISSING
from trainer.study.statistics import (
    Estimate,
    area_under_rates,
    bootstrap_interval,
    estimate,
    holm,
    paired_p,
    significance,
)
from trainer.study.variants import FULL, Table, Variant

FIGURES = ("mae", "corr", "acc2_has0", "acc2_non0", "acc7")
HEADINGS = {
    "mae": "MAE",
    "corr": "Corr",
    "acc2_has0": "Acc-2 has0",
    "acc2_non0": "Acc-2 non0",
    "acc7": "Acc-7",
}
PUBLISHED = {COMPLETE: ".506", MISSING: ".550"}
"""MAE on CMU-MOSEI's test split by arXiv 2410.15029: its features, its encoders."""
COMPARED = ("Delta MAE", "p (Holm)", "significant")
COMPARISON = (
    "p: two-sided, paired by clip (signs of whole speakers or videos flipped), corrected by Holm "
    "within each block; * below .05, ** below .01, *** below .001."
)
BLANK = ("",) * len(COMPARED)
RATES = {
    "frames": "frames missing",
    "frames, text missing": "text and frames missing",
    "modalities": "modalities missing",
}
TITLES: dict[Table, str] = {
    "main": "Complete, and with the text missing",
    "ablation": "What each part is worth",
    "missing": "Frames and modalities missing",
    "noise": "Noise, rooms and light",
}


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    cells: tuple[str, ...]
    """First the name, then a text per column."""


@dataclass(frozen=True)
class Rendered:
    """A table of texts, ready for HTML, CSV and LaTeX."""

    name: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    curves: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    """Points to draw, by label; empty: no figure."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """One view of one variant over all seeds."""

    per_seed: tuple[RegressionMetrics, ...]
    errors: NDArray[np.float64]
    """[n] absolute error of each clip, the mean over seeds."""
    groups: tuple[str, ...]
    labels: NDArray[np.float64]
    coverage: float

    def figure(self, name: str) -> Estimate:
        values = [metrics[name] for metrics in self.per_seed]
        low, high = (float("nan"),) * 2
        if name == "mae":
            low, high = bootstrap_interval(self.errors, self.groups)
        return estimate(values, low, high)


def build(
    table: Table,
    rows: Mapping[str, Sequence[Rows]],
    variants: Sequence[Variant],
    train_labels: NDArray[np.float64],
) -> Rendered:
    """One table.

    Args:
        table: which.
        rows: predictions per variant, one per seed.
        variants: in the order of the table.
        train_labels: [n] for the constant baseline.
    """
    if table == "main":
        return _main(rows[FULL], train_labels)
    if table == "ablation":
        return _ablation(rows, variants, train_labels)
    if table == "missing":
        return _missing(rows[FULL], train_labels)
    return _noise(rows[FULL], train_labels)


def _see(rows: Sequence[Rows], view: str) -> _Seen | None:
    parts = [one.of_view(view) for one in rows]
    if not parts or len(parts[0].id) < 2:
        return None
    errors = np.mean([np.abs(part.prediction - part.label) for part in parts], axis=0)
    inside = [(part.label >= part.low) & (part.label <= part.high) for part in parts]
    return _Seen(
        tuple(regression_metrics(part.prediction, part.label) for part in parts),
        errors,
        parts[0].group,
        parts[0].label,
        float(np.mean(inside)),
    )


def _cell(found: Estimate) -> str:
    text = f"{found.mean:.3f} ± {found.deviation:.3f}"
    return text if np.isnan(found.low) else f"{text} [{found.low:.3f}, {found.high:.3f}]"


def _cells(seen: _Seen) -> list[str]:
    return [_cell(seen.figure(name)) for name in FIGURES]


def _baselines(labels: NDArray[np.float64], train: NDArray[np.float64]) -> dict[str, list[str]]:
    """Cells of the best constant of the training labels, and of 0, by their names.

    Where labels are few values, the training median may be far worse than 0.
    """
    zero = regression_metrics(np.zeros(len(labels)), labels)
    found = {"constant": constant_metrics(train, labels), "constant 0": zero}
    return {name: [f"{metrics[f]:.3f}" for f in FIGURES] for name, metrics in found.items()}


def _head(*more: str) -> tuple[str, ...]:
    return ("", "clips", *(HEADINGS[name] for name in FIGURES), *more)


def _compared(first: _Seen, others: Sequence[_Seen]) -> list[tuple[str, ...]]:
    """Cells of ``COMPARED`` for each of the others, which are a block; of the same clips."""
    differences = [seen.errors - first.errors for seen in others]
    p_values = holm([paired_p(difference, first.groups) for difference in differences])
    return [
        (f"{difference.mean():+.4f}", f"{p:.4f}", significance(p))
        for difference, p in zip(differences, p_values, strict=True)
    ]


def _main(rows: Sequence[Rows], train: NDArray[np.float64]) -> Rendered:
    lines = []
    names = {COMPLETE: "complete", MISSING: "text missing"}
    others = [v for v in rows[0].views if "+" in v or v in ("audio", "text", "video")]
    for view, title in (*names.items(), *((v, f"{v} alone") for v in others)):
        seen = _see(rows, view)
        if seen is not None:
            published = PUBLISHED.get(view, "")
            more = (f"{seen.coverage:.3f}", published)
            lines.append(Line((title, f"{len(seen.errors):,}", *_cells(seen), *more)))
            if view in names:
                count = f"{len(seen.errors):,}"
                for name, cells in _baselines(seen.labels, train).items():
                    lines.append(Line((f"{name} on the same clips", count, *cells, "", "")))
    notes = (
        _seeds(rows),
        "Published: MAE on CMU-MOSEI's test split (arXiv 2410.15029), with its own encoders; "
        "never to be compared with another corpus.",
    )
    columns = _head("inside 90 % interval", "published MAE (MOSEI)")
    return Rendered("main", TITLES["main"], columns, tuple(lines), notes)


def _ablation(
    rows: Mapping[str, Sequence[Rows]], variants: Sequence[Variant], train: NDArray[np.float64]
) -> Rendered:
    lines: list[Line] = []
    for view in (COMPLETE, MISSING):
        full = _see(rows[FULL], view)
        if full is None:
            continue
        others = [(v, _see(rows[v.name], view)) for v in variants if v.name != FULL]
        known = [(v, seen) for v, seen in others if seen is not None]
        compared = _compared(full, [seen for _, seen in known])
        count = f"{len(full.errors):,}"
        lines.append(Line((f"{view}: full model", count, *_cells(full), *BLANK)))
        for (variant, seen), cells in zip(known, compared, strict=True):
            lines.append(Line((f"{view}: {variant.title}", count, *_cells(seen), *cells)))
        for name, constant in _baselines(full.labels, train).items():
            lines.append(Line((f"{view}: {name}", count, *constant, *BLANK)))
    notes = (
        _seeds(rows[FULL]),
        f"Delta: mean absolute error above the full model's. {COMPARISON}",
    )
    columns = _head(*COMPARED)
    return Rendered("ablation", TITLES["ablation"], columns, tuple(lines), notes)


def _missing(rows: Sequence[Rows], train: NDArray[np.float64]) -> Rendered:
    lines: list[Line] = []
    curves: dict[str, tuple[tuple[float, float], ...]] = {}
    for what, title in RATES.items():
        points = []
        for rate in (number / 10 for number in range(10)):
            seen = _see(rows, f"{what} {rate:.1f}")
            if seen is not None:
                cells = _cells(seen)
                name = f"{title}: {rate:.1f}"
                lines.append(Line((name, f"{len(seen.errors):,}", *cells)))
                points.append((rate, seen.figure("mae").mean, seen.figure("acc2_non0").mean))
        if points:
            rates = [point[0] for point in points]
            area = area_under_rates(rates, [point[1] for point in points])
            signs = area_under_rates(rates, [point[2] for point in points])
            name = f"{title}: area under the curve, 0 to {rates[-1]:.1f}"
            lines.append(Line((name, "", f"{area:.3f}", "", "", f"{signs:.3f}", "")))
            curves[title] = tuple((point[0], point[1]) for point in points)
    whole = [v for v in rows[0].views if v in ("audio", "text", "video") or v.count("+") == 1]
    for view in whole:
        seen = _see(rows, view)
        if seen is not None:
            lines.append(Line((f"only {view}", f"{len(seen.errors):,}", *_cells(seen))))
    first = _see(rows, COMPLETE)
    if first is not None:
        for name, constant in _baselines(first.labels, train).items():
            lines.append(Line((name, f"{len(first.errors):,}", *constant)))
    notes = (_seeds(rows), "Area: trapezoids under MAE, and under Acc-2 non0 (AUILC).")
    return Rendered("missing", TITLES["missing"], _head(), tuple(lines), notes, curves)


def _noise(rows: Sequence[Rows], train: NDArray[np.float64]) -> Rendered:
    lines: list[Line] = []
    for view in (COMPLETE, MISSING):
        seen = _see(rows, view)
        if seen is None:
            continue
        count = f"{len(seen.errors):,}"
        lines.append(Line((f"clean, {view}", count, *_cells(seen), *BLANK)))
        named = [n for n in rows[0].views if n.endswith(f", {view}") and not n.startswith("frames")]
        under = [(name, worse) for name in named if (worse := _see(rows, name)) is not None]
        # A clip may be lost under a condition, as a face in the dark: that is no pair.
        whole = [len(worse.errors) == len(seen.errors) for _, worse in under]
        paired = [one for (_, one), kept in zip(under, whole, strict=True) if kept]
        compared = iter(_compared(seen, paired))
        for (name, worse), kept in zip(under, whole, strict=True):
            cells = next(compared) if kept else BLANK
            lines.append(Line((name, f"{len(worse.errors):,}", *_cells(worse), *cells)))
        for baseline, constant in _baselines(seen.labels, train).items():
            lines.append(Line((f"{baseline}, {view}", count, *constant, *BLANK)))
    notes = (
        _seeds(rows),
        "Babble: four other test clips. Music: made chords. Room: RT60 .5 s.",
        f"Delta: mean absolute error above the clean clips'. {COMPARISON}",
    )
    return Rendered("noise", TITLES["noise"], _head(*COMPARED), tuple(lines), notes)


def _seeds(rows: Sequence[Rows]) -> str:
    return (
        f"{len(rows)} seeds: mean ± deviation over seeds; in brackets the 95 % interval over clips "
        "(bootstrap of whole speakers or videos)."
    )
