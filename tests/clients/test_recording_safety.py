"""Recordings that are killed, doubled, opened in a spreadsheet, or looked for by other users."""

from __future__ import annotations

import csv
import io
import shutil
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from clients.columns import FORMULA, from_cell, to_cell
from clients.reading import RecordingFile
from clients.record import RecordError, new_recording
from engine.wire.rows import COLUMNS, Row, row_of
from tests.support.scores import make_score

SUFFIXES = (".jsonl", ".csv", ".parquet")


def rows_of(count: int) -> list[Row]:
    return [row_of(make_score(seq=n, t_s=100 + n / 2), 1e9 + n / 2) for n in range(count)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_the_user_may_read_a_recording(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    recording = new_recording(path)
    recording.write(rows_of(1)[0])
    modes = [stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()]
    recording.close()
    modes.append(stat.S_IMODE(path.stat().st_mode))
    assert set(modes) == {0o600}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_recorder_on_one_name_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    first = new_recording(path)
    with pytest.raises(RecordError, match=r"another recorder is writing it|there is a file of"):
        new_recording(path)
    for row in rows_of(3):
        first.write(row)
    first.close()
    assert list(RecordingFile(path).rows()) == rows_of(3)
    with pytest.raises(RecordError, match="there is a file of this name already"):
        new_recording(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recorder_that_is_killed_has_written_every_row(tmp_path: Path, suffix: str) -> None:
    recording = new_recording(tmp_path / "running" / f"x{suffix}")
    for row in rows_of(1_003):  # Parquet: one part, and three rows after it
        recording.write(row)
    left = shutil.copytree(tmp_path / "running", tmp_path / "killed")
    recording.close()
    assert list(RecordingFile(left / f"x{suffix}").rows()) == rows_of(1_003)
    with pytest.raises(RecordError, match="there is a file of this name already"):
        new_recording(left / f"x{suffix}")


@pytest.mark.parametrize("first", FORMULA)
def test_no_text_of_a_csv_file_is_a_formula_and_all_come_back(first: str) -> None:
    text = f'{first}HYPERLINK("http://evil")'
    score = rows_of(1)[0].score
    envelope = replace(score.envelope, stream=text)
    row = Row(replace(score, mark=text, envelope=envelope), 1.0)
    cells = [to_cell(column, column.of(row)) for column in COLUMNS]
    texts = [cell for cell, column in zip(cells, COLUMNS, strict=True) if column.kind is str]
    assert text not in texts
    assert not any(cell.startswith(FORMULA) for cell in texts)
    written = io.StringIO()
    csv.writer(written).writerow(cells)
    back = next(csv.reader([written.getvalue().rstrip("\r\n")]))
    assert [from_cell(c, cell) for c, cell in zip(COLUMNS, back, strict=True)] == [
        column.of(row) for column in COLUMNS
    ]
