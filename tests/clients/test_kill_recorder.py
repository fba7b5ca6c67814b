"""A recorder that is killed leaves a readable recording; one that cannot write says so."""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

import pytest

from clients.reading import RecordingFile
from tests.support.peers import Program, client, eventually, publisher

pytestmark = pytest.mark.slow

SCORES = 2_300
"""More than two of Parquet's parts of 1000 rows."""


def script() -> str:
    """Scores with a pause every hundred, so that no queue overflows."""
    scores = (f"a:{n}" + (",wait:5" if n % 100 == 99 else "") for n in range(SCORES))
    return f"subscriber,wait:500,{','.join(scores)},hold"


def seqs(path: Path) -> list[int]:
    return [row.score.envelope.seq for row in RecordingFile(path).rows()]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_killed_recorder_loses_no_line(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"session{suffix}"
    with (
        publisher(script()) as endpoint,
        client("record", "--scores", endpoint, "--out", str(out)) as recorder,
    ):
        eventually(
            lambda: out.exists() and out.read_bytes().count(b"\n") >= SCORES, "all scores recorded"
        )
        recorder.process.send_signal(signal.SIGKILL)
        recorder.end()
    assert seqs(out) == list(range(SCORES))


def test_a_killed_recorder_leaves_complete_parquet_parts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "session.parquet"
    with (
        publisher(script()) as endpoint,
        client("record", "--scores", endpoint, "--out", str(out)) as recorder,
    ):
        eventually(lambda: len(list(tmp_path.glob("*.part-*.parquet"))) >= 2, "two parts")
        recorder.process.send_signal(signal.SIGKILL)
        recorder.end()
    assert not out.exists()
    found = seqs(out)
    assert len(found) >= 2_000
    assert found == list(range(len(found)))

    # The commands take the name that was asked for, and say what they read.
    drawn = client("plot", str(out), "--out", str(tmp_path / "session.html"))
    with drawn:
        lines = drawn.end()
    assert drawn.process.returncode == 0
    assert any("not finished, its recorder was killed or still runs" in line for line in lines)
    assert "not finished" in (tmp_path / "session.html").read_text()
    with client("replay", str(out), "--speed", "0", "--bind", "tcp://127.0.0.1:*", "--no-wait") as (
        player
    ):
        lines = player.end()
    assert f"{len(found)} scores published" in lines
    assert any("not finished" in line for line in lines)


def test_a_recorder_that_is_told_to_end_joins_its_parts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "session.parquet"
    with (
        publisher(script()) as endpoint,
        client("record", "--scores", endpoint, "--out", str(out)) as recorder,
    ):
        eventually(lambda: len(list(tmp_path.glob("*.part-*.parquet"))) >= 2, "two parts")
        recorder.process.send_signal(signal.SIGTERM)
        lines = recorder.end()
    assert recorder.process.returncode == 0, lines
    assert [path.name for path in tmp_path.iterdir()] == ["session.parquet"]
    found = seqs(out)
    assert found == list(range(len(found)))
    assert f"{len(found)} scores in {out}" in lines


def test_a_recorder_killed_while_it_rotates_leaves_whole_files(tmp_path: Path) -> None:
    out = tmp_path / "day.csv"
    with (
        publisher(script()) as endpoint,
        client("record", "--scores", endpoint, "--out", str(out), "--rotate-mb", "0.1") as recorder,
    ):
        eventually(lambda: len(list(tmp_path.glob("day-*.csv"))) >= 4, "four files")
        recorder.process.send_signal(signal.SIGKILL)
        recorder.end()
    found = seqs(out)
    assert len(found) >= 600
    assert found == list(range(len(found)))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_ends_the_recording_with_one_line(tmp_path: Path, suffix: str) -> None:
    """A limit on a file's size stands for the disk: both are an OSError in the middle."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"session{suffix}"
    limit = 20_000

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "clients", "record", "--out", str(out)]
    with (
        publisher(script()) as endpoint,
        Program(*command, "--scores", endpoint, preexec_fn=small_files) as recorder,
    ):
        lines = recorder.end()
    assert recorder.process.returncode == 2, lines
    assert lines[-1].startswith(f"error: {out}: cannot be written: ")
    assert not any("Traceback" in line for line in lines)
    found = seqs(out) if suffix == ".csv" else []
    assert found == list(range(len(found)))
