"""Plots: what is drawn, and a page that holds all of it safely."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from clients.chart import draw
from clients.plot import plot
from clients.reading import RecordingFile
from clients.record import RecordError, open_recording
from clients.sessions import sessions
from engine.wire.messages import Interval
from engine.wire.rows import Row, row_of
from tests.support.scores import MODEL, make_score

pytest.importorskip("matplotlib")


def row(n: int, valence: float | None = 0.5, **changes: object) -> Row:
    score = make_score(seq=n, t_s=100 + n / 2, valence=valence, **changes)  # type: ignore[arg-type]
    return row_of(score, 1e9 + n / 2)


def lines(axes: object) -> dict[str, object]:
    return {line.get_label(): line for line in axes.lines}  # type: ignore[attr-defined]


def test_a_gap_is_neither_bridged_nor_left_unmarked() -> None:
    rows = [row(n, None if 4 <= n < 8 else n / 10) for n in range(12)]
    valence, weights, states = draw(sessions(rows), "x").axes
    drawn = lines(valence)["valence"].get_ydata()  # type: ignore[attr-defined]
    assert np.isnan(drawn).tolist() == [4 <= n < 8 for n in range(12)]
    grey = [patch for patch in valence.patches if patch.get_width() == pytest.approx(2.0)]
    assert [patch.get_x() for patch in grey] == [pytest.approx(1.5)]
    spans = [path.get_extents().width for path in states.collections[0].get_paths()]
    assert spans == pytest.approx([2.0, 2.0])  # spoke before the gap and after it
    assert len(weights.collections) == 3


def test_losses_marks_and_streams_are_drawn() -> None:
    rows = [row(0), row(1, mark="$smile$"), row(5, dropped=3), row(6, dropped=3)]
    rows += [row(0, stream="second $ <b>")]
    figure = draw(sessions(rows), "x")
    assert len(figure.axes) == 6
    first = figure.axes[0]
    assert {"3 lost on the way", "3 dropped by the engine"} <= set(lines(first))
    assert [text.get_text() for text in first.texts] == [r"\$smile\$"]
    assert figure.axes[3].get_title(loc="left") == r"second \$ <b>"


def test_more_scores_than_pixels_are_drawn_by_bins() -> None:
    rows = [row(n, float(np.sin(n / 50))) for n in range(5_000)]
    labels = lines(draw(sessions(rows), "x").axes[0])
    (label,) = [name for name in labels if name.startswith("valence, mean of")]
    assert len(labels[label].get_ydata()) <= 1_001  # type: ignore[attr-defined]


def test_at_most_eight_streams_are_drawn_and_it_is_said() -> None:
    rows = [row(0, stream=f"s{n}") for n in range(10)]
    figure = draw(sessions(rows), "x")
    assert len(figure.axes) == 24
    assert "the first 8 of 10 streams" in figure.get_suptitle()


def write(path: Path, rows: list[Row]) -> RecordingFile:
    with open_recording(path) as recording:
        for one in rows:
            recording.write(one)
    return RecordingFile(path)


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    out = plot(write(tmp_path / "x.csv", [row(n) for n in range(9)]), tmp_path / "x.png")
    picture = cv2.imread(str(out))
    assert picture.shape == (735, 1800, 3)
    assert 0.02 < (picture < 250).any(axis=2).mean() < 0.6


def test_the_page_needs_nothing_else_and_trusts_no_name(tmp_path: Path) -> None:
    untrained = replace(MODEL, trained=False)
    rows = [row(n, model=untrained, stream="<script>x()<b>") for n in range(3)]
    rows[1] = row(1, model=untrained, stream="<script>x()<b>", mark="<img src=x>")
    recording = write(tmp_path / "x.jsonl", rows)
    recording.path.write_text(recording.path.read_text()[:-30])
    page = plot(recording, tmp_path / "x.html").read_text()
    assert "<script" not in page
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page
    assert "http" not in page
    assert 'src="data:image/png;base64,iVBOR' in page
    assert "UNTRAINED" in page
    assert "the last line is cut off" in page


def test_two_recordings_are_laid_over_each_other(tmp_path: Path) -> None:
    monday = write(tmp_path / "monday.csv", [row(n, 1.0) for n in range(9)])
    tuesday = write(tmp_path / "tuesday.csv", [row(n, -1.0, stream="bob") for n in range(20)])
    figure = draw(
        sessions(monday.rows()), "x", "tuesday.csv", {"main": sessions(tuesday.rows())[0]}
    )
    laid = lines(figure.axes[0])["tuesday.csv"]
    assert set(laid.get_ydata()) == {-1.0}  # type: ignore[attr-defined]
    assert figure.axes[0].get_xlim()[1] == pytest.approx(9.5)
    table = tmp_path / "averages.csv"
    page = plot(monday, tmp_path / "both.html", tuesday, table).read_text()
    assert "monday.csv" in page
    assert "tuesday.csv" in page
    assert [line.split(",")[:2] for line in table.read_text().splitlines()[1:]] == [
        ["monday.csv", "main"],
        ["tuesday.csv", "bob"],
    ]


def test_the_report_tells_averages_shares_and_the_model(tmp_path: Path) -> None:
    rows = [row(n, 2.0 if n < 4 else None, mark="start" if n == 2 else None) for n in range(8)]
    page = plot(write(tmp_path / "x.csv", rows), tmp_path / "x.html").read_text()
    for words in ("By mark", "By minute", "start", MODEL.sha256, "+2.00", "averages.csv"):
        assert words in page, words


@pytest.mark.parametrize(
    ("out", "rows", "message"),
    [
        ("x.svg", [0], "expected a name that ends in .png or .html"),
        ("x.png", [], "no scores in it"),
        ("nowhere/x.png", [0], "cannot be written: No such file"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    tmp_path: Path, out: str, rows: list[int], message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        plot(write(tmp_path / "x.csv", [row(n) for n in rows]), tmp_path / out)


@pytest.mark.parametrize(("package", "out"), [("matplotlib", "x.png"), ("jinja2", "x.html")])
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, out: str
) -> None:
    recording = write(tmp_path / "x.csv", [row(0)])
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecordError, match=r'pip install -e "\.\[plot\]"'):
        plot(recording, tmp_path / out)
    assert not (tmp_path / out).exists()


def test_what_each_modality_said_is_a_panel_where_it_is_known() -> None:
    def told(n: int) -> Row:
        known = row(n)
        parts = known.score.modalities
        face = replace(parts.video, valence=2.0, interval=Interval(1.0, 3.0))
        voice = replace(parts.audio, valence=-1.0, interval=Interval(-2.0, 0.0))
        parts = replace(parts, video=face, audio=voice)
        return row_of(replace(known.score, modalities=parts, mixed=True), 1e9 + n / 2)

    figure = draw(sessions([told(n) for n in range(9)]), "x")
    assert len(figure.axes) == 4
    drawn = lines(figure.axes[1])
    assert set(drawn["video"].get_ydata()) == {2.0}  # type: ignore[attr-defined]
    assert set(drawn["audio"].get_ydata()) == {-1.0}  # type: ignore[attr-defined]
    assert [patch.get_hatch() for patch in figure.axes[1].patches] == ["////"]
