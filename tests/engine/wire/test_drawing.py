"""What a score looks like in a terminal: a line, and a table that fits its width."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from engine.wire.drawing import WIDE, Sparkline, score_line, score_table
from engine.wire.messages import Interval, Score
from tests.support.scores import make_score


def mixed_score() -> Score:
    score = make_score(valence=1.25)
    said = {"audio": -1.5, "video": 2.0}
    parts = {
        name: replace(
            getattr(score, name), valence=value, interval=Interval(value - 0.5, value + 0.5)
        )
        for name, value in said.items()
    }
    return replace(score, modalities=replace(score.modalities, **parts), mixed=True)


def drawn(width: int, score: Score) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)
    console.print(score_table([(score, Sparkline())], "Undertone", width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, WIDE, 160])
def test_the_table_fits_and_cuts_nothing(width: int) -> None:
    lines = drawn(width, mixed_score())
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    row = next(line for line in lines if "+1.25" in line)
    assert "-1.5 " in row
    assert "+2.0 " in row
    assert "mixed" in row


def test_a_line_tells_what_each_modality_says_and_that_they_contradict() -> None:
    line = score_line(mixed_score())
    assert "audio -1.5" in line
    assert "video +2.0" in line
    assert line.endswith("MIXED")
    plain = score_line(make_score(valence=1.25))
    assert "MIXED" not in plain
