"""Replay and its clients, in processes of their own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clients import Gap, Subscriber
from clients.reading import RecordingFile
from clients.record import open_recording
from clients.replay import Replay, schedule
from engine.wire.messages import Score, Status
from engine.wire.rows import Row, row_of
from engine.wire.scores import ScorePublisher, ScoreReceiver
from tests.support.peers import Program, client, eventually
from tests.support.scores import make_score

pytestmark = pytest.mark.slow


def record(path: Path, rows: list[Row]) -> Path:
    with open_recording(path) as recording:
        for row in rows:
            recording.write(row)
    return path


def rows_of(count: int, step_s: float) -> list[Row]:
    return [
        row_of(
            make_score(
                ("a", "b")[n % 2], n // 2, 50 + n * step_s, None if n % 7 == 3 else n / count,
                mark="half" if n == count // 2 else None,
            ),
            1e9 + n * step_s,
        )
        for n in range(count)
    ]  # fmt: skip


def endpoint_of(player: Program) -> str:
    return player.line(lambda line: " on tcp://" in line).rpartition(" on ")[2]


def collect(subscriber: Subscriber, pause_s: float = 0.0) -> list[object]:
    """Everything up to the replay's last word."""
    found: list[object] = []
    for event in subscriber.events():
        found.append(event)
        if isinstance(event, Status) and event.state == "ended":
            break
        if pause_s and len(found) % 500 == 0:
            time.sleep(pause_s)
    return found


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_scores_on_the_wire_are_those_of_the_recording(tmp_path: Path, suffix: str) -> None:
    rows = rows_of(20, 0.05)
    path = record(tmp_path / f"session{suffix}", rows)
    with client("replay", str(path), "--speed", "2", "--bind", "tcp://127.0.0.1:*") as player:
        with Subscriber(endpoint_of(player)) as subscriber:
            found = collect(subscriber)
        assert "20 scores published" in player.end()
    assert player.process.returncode == 0
    scores = [event for event in found if isinstance(event, Score)]
    recorded = [replace(row, received_unix_s=0.0) for row in rows]
    assert [row_of(score, 0.0) for score in scores] == recorded
    states = [(e.worker, e.state) for e in found if isinstance(e, Status)]
    assert states[0] == ("inference", "running")
    assert states[-1] == ("inference", "ended")


def test_without_pauses_a_slow_subscriber_still_gets_every_score(tmp_path: Path) -> None:
    path = record(tmp_path / "x.jsonl", rows_of(6_000, 0.5))  # fifty minutes, many queues full
    with client("replay", str(path), "--speed", "0", "--bind", "tcp://127.0.0.1:*") as player:
        with Subscriber(endpoint_of(player)) as subscriber:
            found = collect(subscriber, pause_s=0.05)
        player.end()
    assert not [event for event in found if isinstance(event, Gap)]
    assert sum(isinstance(event, Score) for event in found) == 6_000


def test_a_subscriber_that_reads_nothing_holds_up_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clients.replay.PATIENCE_MS", 300)
    with ScorePublisher("tcp://127.0.0.1:*") as publisher:
        player = Replay(publisher, "test")

        def scores() -> Iterator[tuple[float, Score]]:
            """As many as the queues and the system's buffers hold, whatever their size."""
            afterwards = 5_000
            for n in itertools.count():
                afterwards -= publisher.gave_up
                if not afterwards:
                    break
                yield 0.0, make_score("x" * 60, n, mark="m" * 200)

        with ScoreReceiver(publisher.endpoint) as stuck:
            player.await_subscriber()
            played = player.play(scores())
            assert played.gave_up
            assert played.scores > 5_000
            assert stuck.receive(1000) is not None


def test_watch_works_on_a_replay_and_a_replay_can_be_recorded_again(tmp_path: Path) -> None:
    rows = rows_of(12, 0.05)
    path = record(tmp_path / "x.csv", rows)
    with client("replay", str(path), "--bind", "tcp://127.0.0.1:*") as player:
        endpoint = endpoint_of(player)
        player.line(lambda line: "waiting for a subscriber" in line)
        with client("watch", "--scores", endpoint) as watcher:
            assert "+0.08" in watcher.line(lambda line: line.startswith("b  valence"))
    with client("replay", str(path), "--speed", "1", "--bind", "tcp://127.0.0.1:*") as player:
        copy = tmp_path / "copy.jsonl"
        endpoint = endpoint_of(player)
        with client("record", "--scores", endpoint, "--out", str(copy)) as again:
            player.end()
            eventually(lambda: copy.read_text().count("\n") == len(rows), "all recorded again")
            again.process.terminate()
            again.end()
    copied = [replace(row, received_unix_s=0.0) for row in RecordingFile(copy).rows()]
    assert copied == [replace(row, received_unix_s=0.0) for row in rows]


def test_the_schedule_goes_by_arrival_and_speed() -> None:
    rows = [row_of(make_score(seq=n), 1e9 + t) for n, t in enumerate((0, 1, 5, 4, 6))]
    assert [due for due, _ in schedule(rows, 1)] == [0, 1, 5, 5, 7]  # the wall clock was set back
    assert [due for due, _ in schedule(rows, 4)] == [0, 0.25, 1.25, 1.25, 1.75]
    assert [due for due, _ in schedule(rows, 0)] == [0] * 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "0 scores published"),
        ('{"seq": 1}\n', "error: {path}, line 1: row schema: expected 2, got 1 or older"),
    ],
)
def test_an_empty_and_an_older_recording(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with client("replay", str(path), "--no-wait", "--bind", "tcp://127.0.0.1:*") as player:
        lines = player.end()
    assert player.process.returncode == (2 if content else 0)
    assert lines[-1].startswith(message.format(path=path))
    assert not any("Traceback" in line for line in lines)
