"""The chart of a recording: per stream, panels on one axis of time.

Valence with its 90 % band, what each modality says by itself, the modalities' weights, and what was
heard and seen. Where there was no valence nothing is drawn but a grey ground. A second recording
can be laid over the first, stream by stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clients.sessions import Session
from engine.wire.messages import VALENCE_RANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_STREAMS = 8
MAX_POINTS = 1_000
"""Of a curve: a recording with more than twice as many scores is drawn by bins of time."""
TICKS_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
MAX_TICKS = 10
LETTER = 0.007
"""Width of a mark's letter as a share of the axis."""
VALENCE, GROUND, MARK, LOST, DROPPED = "#1f5fa8", "#e9e9ec", "#7a3e9d", "#c62828", "#e08a00"
LAID_OVER = "#b3541e"
# Apart for the colour-blind (Okabe and Ito), and by lightness in a grey print.
WEIGHTS = (("audio", "#0072b2"), ("text", "#e8c53a"), ("video", "#009e73"))
STATES = (("speech", "#0072b2"), ("face", "#009e73"))


def draw(
    found: list[Session],
    title: str,
    other: str = "",
    over: Mapping[str, Session] = MappingProxyType({}),
) -> Figure:
    """Draw the first ``MAX_STREAMS`` streams, and over them those of the recording ``other``."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = found[:MAX_STREAMS]
    has_alone = any(_says_alone(session) for session in shown)
    kinds = [3.0, 1.2, 1.0, 0.5] if has_alone else [3.0, 1.0, 0.5]
    heights = kinds * len(shown)
    layout = ConstrainedLayoutEngine(hspace=0.02, h_pad=0.04)
    figure = Figure(figsize=(12, 0.8 + (5.2 if has_alone else 4.1) * len(shown)), layout=layout)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    drawn = [*shown, *(over[session.stream] for session in shown if session.stream in over)]
    end_s = max(float(session.t_s[-1]) for session in drawn)
    for index, session in enumerate(shown):
        panels = axes[len(kinds) * index : len(kinds) * (index + 1)]
        bin_s = end_s / MAX_POINTS if len(session.rows) > 2 * MAX_POINTS else None
        _valence(panels[0], session, bin_s, end_s)
        if session.stream in over:
            _other(panels[0], over[session.stream], other, bin_s)
        if has_alone:
            _alone(panels[1], session, bin_s)
        _weights(panels[-2], session, bin_s)
        _states(panels[-1], session)
        for panel in panels:
            _ground(panel, session)
            panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels(axes)
    axes[0].set_xlim(0, max(end_s, 1.0))
    unit = _time_axis(axes[-1], end_s)
    axes[-1].set_xlabel(f"time after the first score ({unit})")
    start = datetime.fromtimestamp(min(s.rows[0].received_unix_s for s in found), UTC)
    more = f"   (the first {MAX_STREAMS} of {len(found)} streams)" if found != shown else ""
    heading = f"{_literal(title)}   {start:%Y-%m-%d %H:%M:%S} UTC{more}"
    figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    if not all(row.score.model.trained for session in shown for row in session.rows):
        figure.text(
            0.99, 0.995, "UNTRAINED: random weights, these numbers mean nothing",
            color="white", backgroundcolor=LOST, fontsize=9, weight="bold", ha="right", va="top",
        )  # fmt: skip
    return figure


def _valence(axes: Axes, session: Session, bin_s: float | None, end_s: float) -> None:
    low, high = VALENCE_RANGE
    axes.axhline(0, color="#888", linewidth=0.8)
    (t_s, valence), (_, lower), (_, upper), (_, window) = (
        _curve(session, name, bin_s) for name in ("valence", "low", "high", "valence_window")
    )
    level = session.rows[-1].score.model.coverage_text
    axes.fill_between(t_s, lower, upper, color=VALENCE, alpha=0.2, linewidth=0, label=level)
    label = "valence"
    if bin_s is not None:
        binned = session.binned("valence", bin_s)
        axes.fill_between(
            t_s, binned.low, binned.high, color=VALENCE, alpha=0.35, linewidth=0,
            label=f"lowest to highest of {bin_s:.3g} s",
        )  # fmt: skip
        label = f"valence, mean of {bin_s:.3g} s"
    axes.plot(t_s, valence, color=VALENCE, linewidth=1.8 if bin_s is None else 1.0, label=label)
    if bin_s is None:
        axes.plot(
            t_s, window, ".", color="#111", markersize=3, alpha=0.5, label="window alone"
        )  # fmt: skip
    # A single value between two gaps makes no line: a dot shows it.
    alone = np.isfinite(valence) & ~np.isfinite(np.roll(valence, 1))
    alone &= ~np.isfinite(np.roll(valence, -1))
    axes.plot(t_s[alone], valence[alone], "o", color=VALENCE, markersize=3)
    axes.set_ylim(low - 0.1, high + 0.1)
    axes.set_yticks(range(int(low), int(high) + 1))
    axes.set_ylabel("valence")
    axes.set_title(_literal(session.stream), loc="left", fontsize=11, weight="bold", pad=10)
    _marks(axes, session, end_s)
    for kind, colour, marker in (("lost", LOST, "x"), ("dropped", DROPPED, "v")):
        losses = [loss for loss in session.losses if loss.kind == kind]
        count = sum(loss.count for loss in losses)
        where = "on the way" if kind == "lost" else "by the engine"
        if losses:
            axes.plot(
                [loss.t_s for loss in losses], [low + 0.1] * len(losses), marker, color=colour,
                markersize=5, clip_on=False, label=f"{count} {kind} {where}",
            )  # fmt: skip
    _legend(axes)


def _other(axes: Axes, session: Session, name: str, bin_s: float | None) -> None:
    """The valence of the recording that is laid over, with its band."""
    (t_s, valence), (_, lower), (_, upper) = (
        _curve(session, column, bin_s) for column in ("valence", "low", "high")
    )
    axes.fill_between(t_s, lower, upper, color=LAID_OVER, alpha=0.12, linewidth=0)
    label = _literal(name if len(name) <= 24 else name[:23] + "…")
    axes.plot(t_s, valence, color=LAID_OVER, linewidth=1.5, linestyle="--", label=label)
    _legend(axes)


def _marks(axes: Axes, session: Session, end_s: float) -> None:
    """A line per mark; a label where there is room for one, in two rows."""
    free_s = [-1.0, -1.0]
    for time_s, row in zip(session.t_s, session.rows, strict=True):
        if row.score.mark is None:
            continue
        axes.axvline(time_s, color=MARK, linewidth=1, linestyle="--")
        line = next((line for line in (0, 1) if free_s[line] <= time_s), None)
        if line is None:
            continue
        label = _printable(row.score.mark)
        label = label if len(label) <= 24 else label[:23] + "…"
        width_s = LETTER * (len(label) + 2) * end_s
        free_s[line] = time_s + width_s
        fits = free_s[line] <= end_s  # else it stands before its line
        axes.annotate(
            _literal(label), (time_s, 1), xycoords=("data", "axes fraction"),
            xytext=(3 if fits else -3, -3 - 11 * line), textcoords="offset points",
            ha="left" if fits else "right", va="top", color=MARK, fontsize=8,
        )  # fmt: skip


def _says_alone(session: Session) -> bool:
    """Whether any modality was asked by itself: older recordings know nothing of it."""
    return any(np.isfinite(session.column(f"{name}_valence")).any() for name, _ in WEIGHTS)


def _alone(axes: Axes, session: Session, bin_s: float | None) -> None:
    """What each modality says by itself; hatched where two contradict each other."""
    low, high = VALENCE_RANGE
    axes.axhline(0, color="#888", linewidth=0.6)
    for (name, colour), style in zip(WEIGHTS, ("-", (0, (5, 2)), (0, (1, 1.2))), strict=True):
        t_s, values = _curve(session, f"{name}_valence", bin_s)
        axes.plot(t_s, values, color=colour, linewidth=1.4, linestyle=style, label=name)
    mixed = np.array([bool(row.score.mixed) for row in session.rows])
    for index, (start_s, length_s) in enumerate(_spans(session, mixed)):
        label = "mixed" if index == 0 else None
        axes.axvspan(
            start_s, start_s + length_s, facecolor="none", edgecolor=MARK, alpha=0.5,
            hatch="////", linewidth=0, label=label,
        )  # fmt: skip
    axes.set_ylim(low - 0.1, high + 0.1)
    axes.set_yticks((low, 0, high), ("-3", "0", "3"))
    axes.set_ylabel("alone")
    _legend(axes)


def _weights(axes: Axes, session: Session, bin_s: float | None) -> None:
    curves = [_curve(session, f"{name}_weight", bin_s) for name, _ in WEIGHTS]
    weights = np.nan_to_num(np.stack([values for _, values in curves]))
    names, colours = zip(*WEIGHTS, strict=True)
    axes.stackplot(
        curves[0][0], weights, labels=names, colors=colours, alpha=0.75, linewidth=0, step="pre"
    )
    axes.set_ylim(0, 1)
    axes.set_yticks((0, 0.5, 1), ("0", "", "100 %"))
    axes.set_ylabel("weight")
    _legend(axes)


def _curve(
    session: Session, name: str, bin_s: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if bin_s is None:
        return session.curve(name)
    binned = session.binned(name, bin_s)
    return binned.t_s, binned.mean


def _states(axes: Axes, session: Session) -> None:
    on = (
        [row.score.speaking for row in session.rows],
        [row.score.faces > 0 for row in session.rows],
    )
    ends = (session.t_s, np.array([row.score.faces > 1 for row in session.rows]))
    for level, ((_, colour), flags) in enumerate(zip(STATES, on, strict=True)):
        spans = list(_spans(session, np.array(flags)))
        axes.broken_barh(spans, (level + 0.15, 0.7), color=colour, linewidth=0, alpha=0.85)
    several = list(_spans(session, ends[1]))
    if several:
        axes.broken_barh(several, (1.15, 0.7), color="#004d38", linewidth=0, label="several faces")
        _legend(axes)
    axes.set_ylim(0, len(STATES))
    axes.set_yticks((0.5, 1.5), [name for name, _ in STATES])
    axes.tick_params(axis="y", length=0)


def _ground(axes: Axes, session: Session) -> None:
    """Grey where the engine gave no valence: nothing to see is not a neutral face."""
    nil = np.array([row.score.valence is None for row in session.rows])
    for start_s, length_s in _spans(session, nil):
        axes.axvspan(start_s, start_s + length_s, color=GROUND, zorder=0, linewidth=0)


def _spans(session: Session, flags: NDArray[np.bool_]) -> Iterator[tuple[float, float]]:
    """(start, length) in seconds of every run of true; a score speaks for the step before it."""
    t_s, pauses = session.t_s, set(session.pauses().tolist())
    start: float | None = None
    for index, flag in enumerate(flags):
        if start is not None and (not flag or index in pauses):
            yield start, float(t_s[index - 1]) - start
            start = None
        if flag and start is None:
            start = float(t_s[index]) - session.step_s
    if start is not None:
        yield start, float(t_s[-1]) - start


def _time_axis(axes: Axes, end_s: float) -> str:
    """Label the axis in seconds, minutes or hours; return which."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    if end_s < 120:
        return "s"
    fits = (step_s for step_s in TICKS_S if end_s / step_s <= MAX_TICKS)
    axes.xaxis.set_major_locator(MultipleLocator(next(fits, end_s / MAX_TICKS)))

    def clock(seconds: float, _: Any) -> str:
        whole = round(seconds)
        hours, minutes = whole // 3600, whole // 60 % 60
        return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"

    axes.xaxis.set_major_formatter(FuncFormatter(clock))
    return "h:min:s" if end_s >= 3600 else "min:s"


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False, borderaxespad=0.3
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _literal(text: str) -> str:
    """A text in which no dollar starts matplotlib's mathematics."""
    return _printable(text).replace("$", r"\$")
