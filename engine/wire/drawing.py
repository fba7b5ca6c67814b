"""Scores as terminal text: pure formatting, shared by the engine's display and the clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from engine.wire.messages import VALENCE_RANGE, ModalityState, Score

BLOCKS = "▁▂▃▄▅▆▇█"
NO_VALUE = "·"
BAR_WIDTH, NARROW_BAR = 21, 15
WIDE = 150
"""Columns of a terminal from which the table has all its columns."""


class Sparkline:
    """The last valences of a stream as one line of blocks; a gap shows where there was none."""

    def __init__(self, width: int = 24) -> None:
        self._values: deque[float | None] = deque(maxlen=width)

    def push(self, valence: float | None) -> None:
        """Append a valence in [-3, 3], or None for no value."""
        self._values.append(valence)

    def __str__(self) -> str:
        low, high = VALENCE_RANGE
        top = len(BLOCKS) - 1
        return "".join(
            NO_VALUE
            if value is None
            else BLOCKS[min(top, max(0, round((value - low) / (high - low) * top)))]
            for value in self._values
        )


def valence_bar(score: Score, width: int = BAR_WIDTH) -> str:
    """Draw [-3, 3] with its middle ``|``, the interval ``─`` and the valence ``●``."""
    cells = [" "] * width
    if score.interval is not None:
        for cell in range(_cell(score.interval.low, width), _cell(score.interval.high, width) + 1):
            cells[cell] = "─"
    cells[width // 2] = "│"
    if score.valence is not None:
        cells[_cell(score.valence, width)] = "●"
    return "".join(cells)


def _cell(value: float, width: int) -> int:
    low, high = VALENCE_RANGE
    return min(width - 1, max(0, round((value - low) / (high - low) * (width - 1))))


def valence_text(score: Score) -> str:
    """Return the signed valence, or why there is none."""
    if score.valence is None:
        return (score.reason or "no value").replace("_", " ")
    return f"{score.valence:+.2f}"


def interval_text(score: Score) -> str:
    """Return the interval, or a dash."""
    if score.interval is None:
        return "-"
    return f"[{score.interval.low:+.1f}, {score.interval.high:+.1f}]"


def weight_text(state: ModalityState) -> str:
    """Return a modality's share of the fusion in percent, or a dash where it is absent."""
    return f"{state.weight:.0%}" if state.present else "-"


def modality_text(state: ModalityState) -> str:
    """Return what a modality says by itself and its share, such as ``-1.2 35%``."""
    if state.valence is None:
        return weight_text(state)
    return f"{state.valence:+.1f} {weight_text(state)}"


def face_text(score: Score) -> str:
    """Say how many faces are seen."""
    return {0: "no face", 1: "face"}.get(score.faces, f"{score.faces} faces")


def score_line(score: Score) -> str:
    """One plain line for logs and pipes."""
    text = f"text({score.text_source})"
    parts = [
        score.envelope.stream,
        f"valence {valence_text(score)} {interval_text(score)}",
        f"audio {modality_text(score.audio)} {text} {modality_text(score.text)} "
        f"video {modality_text(score.video)}",
        f"{'speaking' if score.speaking else 'silent'}, {face_text(score)}",
        f"{score.latency_ms.total:.1f} ms",
        f"dropped {score.dropped}",
    ]
    if score.mixed:
        parts.append("MIXED")
    if not score.model.trained:
        parts.append("UNTRAINED")
    return "  ".join(parts)


def score_table(
    rows: Iterable[tuple[Score, Sparkline]], title: str | None = None, width: int = WIDE
) -> Table:
    """Tabulate the newest score of each stream; an untrained model is marked in red.

    A terminal of ``width`` columns below ``WIDE`` gets the most important ones.
    """
    rows, wide = list(rows), width >= WIDE
    untrained = any(not score.model.trained for score, _ in rows)
    caption = "UNTRAINED: random weights, these numbers mean nothing" if untrained else None
    table = Table(title=title, caption=caption, caption_style="bold white on red", expand=False)
    table.add_column("stream", no_wrap=True, max_width=12 if not wide else None)
    table.add_column("valence", no_wrap=not wide)
    bar = BAR_WIDTH if wide else NARROW_BAR
    table.add_column(f"-3{'0':^{bar - 4}}+3", no_wrap=True)
    if wide:
        names = dict.fromkeys(score.model.coverage_text for score, _ in rows)
        table.add_column(" ".join(names) or "interval", no_wrap=True)
        table.add_column("recent", no_wrap=True)
    for name in ("voice", "words", "face"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("sees and hears", no_wrap=True)
        for name in ("ms", "lost"):
            table.add_column(name, justify="right", no_wrap=True)
    for score, sparkline in rows:
        table.add_row(*_cells(score, sparkline, wide))
    return table


def _cells(score: Score, sparkline: Sparkline, wide: bool) -> list[Text]:
    style = "dim"
    if score.valence is not None:
        style = "green" if score.valence > 0 else "magenta"
    if not score.model.trained:
        style = "red"
    mixed = "mixed" if score.mixed else ""
    head = [Text(score.envelope.stream)]
    modalities = [Text(modality_text(s)) for s in (score.audio, score.text, score.video)]
    if not wide:
        said = Text(f"{valence_text(score)} {mixed}".rstrip(), style=style)
        return [*head, said, Text(valence_bar(score, NARROW_BAR), style=style), *modalities]
    seen = f"{'speaking' if score.speaking else 'silent'}, {face_text(score)}"
    return [
        *head,
        Text(valence_text(score), style=style),
        Text(valence_bar(score), style=style),
        Text(interval_text(score)),
        Text(str(sparkline), style=style),
        *modalities,
        Text.assemble(seen, (f" {mixed}".rstrip(), "bold yellow")),
        Text(f"{score.latency_ms.total:.0f}"),
        Text(str(score.dropped), style="yellow" if score.dropped else ""),
    ]
