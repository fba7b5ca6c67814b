"""Recordings written and read back: three formats, rotated, cut off, left in parts, damaged."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import record
from clients.reading import RecordingFile
from clients.record import Parquet, RecordError, new_recording, open_recording, parts_of
from clients.rotation import Limits, Rotating, files_of
from engine.wire.messages import Score
from engine.wire.rows import NAMES, Row, row_of
from tests.support.messages import scores
from tests.support.scores import make_score

SUFFIXES = (".jsonl", ".csv", ".parquet")


def rows_of(count: int) -> list[Row]:
    return [row_of(make_score(seq=n, t_s=100 + n / 2), 1e9 + n / 2) for n in range(count)]


def write(path: Path, rows: list[Row]) -> Path:
    with open_recording(path) as recording:
        for row in rows:
            recording.write(row)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=15, deadline=None)
@given(found=st.lists(scores, max_size=4))
def test_what_was_written_is_read(suffix: str, found: list[Score]) -> None:
    rows = [row_of(score) for score in found]
    with tempfile.TemporaryDirectory() as folder:
        recording = RecordingFile(write(Path(folder) / f"x{suffix}", rows))
        assert list(recording.rows()) == rows
        assert recording.notes == []


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_gives_its_whole_rows(suffix: str, data: st.DataObject) -> None:
    rows = rows_of(3)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"x{suffix}", rows)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        recording = RecordingFile(path)
        found = list(recording.rows())
        lines = whole[:cut].count(b"\n") - (suffix == ".csv")
        assert found == rows[: len(found)]
        # A line that lacks nothing but its line break is a whole one.
        assert max(lines, 0) <= len(found) <= max(lines, 0) + 1
        between_rows = whole[:cut].endswith(b"\n") or (cut == 0 and suffix == ".jsonl")
        if not between_rows and len(found) == max(lines, 0):
            assert "cut off" in recording.notes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rotation_by_size_keeps_every_row_in_order(tmp_path: Path, suffix: str) -> None:
    rows, path = rows_of(200), tmp_path / f"day.v1{suffix}"
    limit = Limits(size_mb=0.02)
    with open_recording(path, lambda p: Rotating(p, limit)) as recording:
        for index, row in enumerate(rows):
            recording.write(row)
            if suffix == ".parquet" and index % 20 == 19:  # as time does by and by
                recording._recording._write_part()  # type: ignore[attr-defined]
    files = files_of(path)
    assert len(files) >= 3
    assert files[0].name == f"day.v1-0001{suffix}"
    largest = max(file.stat().st_size for file in files)
    assert largest < 60_000
    assert list(RecordingFile(path).rows()) == rows
    second = list(RecordingFile(files[1]).rows())
    first = rows.index(second[0])
    assert first > 0
    assert second == rows[first : first + len(second)]
    assert [f.name for f in tmp_path.iterdir() if "part" in f.name] == []


def test_rotation_by_time_starts_a_file_with_the_next_row(tmp_path: Path) -> None:
    clock = {"s": 0.0}
    rotating = Rotating(tmp_path / "x.csv", Limits(minutes=1), now_s=lambda: clock["s"])
    for seconds in (0, 59, 61, 200, 201):
        clock["s"] = float(seconds)
        rotating.tick()
        rotating.write(rows_of(1)[0])
    rotating.close()
    counts = [len(list(RecordingFile(f).rows())) for f in files_of(tmp_path / "x.csv")]
    assert counts == [2, 1, 2]


def test_rotation_never_writes_into_files_of_another_run(tmp_path: Path) -> None:
    write(tmp_path / "x-0003.csv", rows_of(1))
    with pytest.raises(RecordError, match=r"x-0003\.csv: there is a file"):
        Rotating(tmp_path / "x.csv", Limits(size_mb=1))
    Rotating(tmp_path / "x-00.csv", Limits(size_mb=1)).close()  # another name altogether
    assert len(files_of(tmp_path / "x.csv")) == 1


def test_a_full_file_is_one_of_its_size_or_its_age() -> None:
    assert Limits(size_mb=1).full(1_000_000, 0)
    assert not Limits(size_mb=1).full(999_999, 1e9)
    assert Limits(minutes=2).full(0, 120)
    assert not Limits(minutes=2).full(10**12, 119)
    assert not Limits().full(10**12, 1e12)


def leave_parts(path: Path, rows: list[Row], per_part: int) -> None:
    """What a killed recorder leaves: its parts, and one it had not finished."""
    recording = Parquet(path)
    for index, row in enumerate(rows, 1):
        recording.write(row)
        if index % per_part == 0:
            recording._write_part()
    recording._tail.close()
    recording._lock.close()
    path.with_suffix(".unfinished").write_bytes(b"PAR1 and no more")


def test_parts_are_read_in_order_and_said_so(tmp_path: Path) -> None:
    rows, path = rows_of(30), tmp_path / "killed.parquet"
    leave_parts(path, rows, 2)
    recording = RecordingFile(path)
    assert list(recording.rows()) == rows
    assert "read from 15 parts" in recording.notes[0]
    assert list(recording.rows()) == rows  # again
    assert len(recording.notes) == 1
    with pytest.raises(RecordError, match="there is a file of this name"):
        new_recording(path)


def test_parts_beyond_a_finished_file_are_not_read_twice(tmp_path: Path) -> None:
    rows, path = rows_of(4), tmp_path / "x.parquet"
    leave_parts(path, rows, 2)
    write(tmp_path / "y.parquet", rows).rename(path)  # killed between joining and tidying up
    assert list(RecordingFile(path).rows()) == rows


def test_parts_are_ordered_by_number_beyond_a_million(tmp_path: Path) -> None:
    for number in (999_999, 1_000_000, 2):
        (tmp_path / f"[x]*.part-{number:06d}.parquet").touch()
    found = [part.name.split("-")[1] for part in parts_of(tmp_path / "[x]*.parquet")]
    assert found == ["000002.parquet", "999999.parquet", "1000000.parquet"]


def test_a_rotated_recording_whose_last_file_is_in_parts_is_read_whole(tmp_path: Path) -> None:
    rows = rows_of(6)
    write(tmp_path / "x-0001.parquet", rows[:4])
    leave_parts(tmp_path / "x-0002.parquet", rows[4:], 1)
    recording = RecordingFile(tmp_path / "x.parquet")
    assert list(recording.rows()) == rows
    assert len(recording.notes) == 1


def test_joining_goes_by_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "PART_ROWS", 3)
    monkeypatch.setattr(record, "GROUP_ROWS", 5)
    rows = rows_of(20)
    path = write(tmp_path / "x.parquet", rows)
    assert list(RecordingFile(path).rows()) == rows
    parquet = pytest.importorskip("pyarrow.parquet")
    with parquet.ParquetFile(path) as opened:
        assert opened.metadata.num_row_groups == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_older_recording_is_told_as_such(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"old{suffix}"
    if suffix == ".jsonl":
        path.write_text('{"received_unix_s": 1.0, "stream": "main", "seq": 0}\n')
    elif suffix == ".csv":
        path.write_text("received_unix_s,stream,seq\n1.0,main,0\n")
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"stream": ["main"], "seq": [0]}), path)
    with pytest.raises(RecordError, match=f"old{suffix}.*row schema: expected 2, got 1 or older"):
        list(RecordingFile(path).rows())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: [lines[0], b"{broken\n", lines[2]], "line 2: not a row"),
        (lambda lines: [lines[0], b"[1]\n"], "line 2: expected a JSON object, got list"),
        (lambda lines: [b"\xff\xfe\n"], "line 1: not UTF-8 text"),
        (
            lambda lines: [lines[0].replace(b'"valence": 0.5', b'"valence": 4')],
            "[-3, 3] or nil, got 4",
        ),
        (lambda lines: [lines[0].replace(b'"hop"', b'"hip"')], "expected one of hop, speech_end"),
        (lambda lines: [lines[0].replace(b'"seq": 0', b'"seq": ' + b"9" * 30)], "line 1: "),
        (lambda lines: [lines[0].replace(b'"main"', b'"\\ud800"')], "line 1: not a row"),
        (lambda lines: [lines[0].replace(b"0.5", b"NaN", 1)], "expected float or none, got nan"),
    ],
)
def test_damage_is_an_error_with_its_place(tmp_path: Path, edit: object, message: str) -> None:
    path = write(tmp_path / "x.jsonl", rows_of(3))
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))  # type: ignore[operator]
    with pytest.raises(RecordError) as error:
        list(RecordingFile(path).rows())
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_csv_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    rows = rows_of(2)
    path = write(tmp_path / "x.csv", rows)
    text = path.read_text().replace("\n", "\r\n").replace("True", "TRUE") + "\r\n"
    path.write_bytes(text.encode())
    assert list(RecordingFile(path).rows()) == rows


def test_a_csv_line_of_another_length_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", rows_of(1))
    path.write_text(path.read_text() + "1,2,3\n")
    with pytest.raises(RecordError, match=f"line 3: expected {len(NAMES)} cells, got 3"):
        list(RecordingFile(path).rows())


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", rows_of(3))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match=r"x\.parquet: damaged Parquet file"):
        list(RecordingFile(path).rows())


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.txt", "expected a name that ends in"), ("gone.csv", "no such recording")],
)
def test_what_is_no_recording_is_said(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        RecordingFile(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_rows_or_one_clear_error(suffix: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"x{suffix}", rows_of(2))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        said = str(path)
        try:
            assert len(list(RecordingFile(path).rows())) <= 4
        except RecordError as error:
            said = str(error)
        assert said.startswith(str(path))
        assert "\n" not in said
