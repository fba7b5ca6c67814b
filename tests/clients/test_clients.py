"""Subscribers, watch and record against a publisher in another process."""

import asyncio
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clients import AsyncSubscriber, Gap, Stale, Subscriber
from engine.wire.messages import Score, Status
from tests.support.peers import ENVIRONMENT, publisher

pytestmark = pytest.mark.slow


def collect(subscriber: Subscriber, count: int, seconds: float = 20) -> list[object]:
    found: list[object] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += subscriber.poll(100)
    return found


def test_scores_gaps_status_and_noise() -> None:
    script = "subscriber,wait:200,a:0,a:1,noise,status,a:4,a:4,b:7,a:2,hold"
    with publisher(script) as endpoint, Subscriber(endpoint) as subscriber:
        found = collect(subscriber, 7)
        assert subscriber.rejected == 1
        kinds = [type(event) for event in found]
        assert kinds == [Score, Score, Status, Gap, Score, Score, Score]
        assert found[3] == Gap("a", 2)  # 2 and 3 are missing; 4 came twice; 2 is a restart
        latest = subscriber.latest("b")
        assert latest is not None
        assert latest.envelope.seq == 7
        assert subscriber.latest("nobody") is None
        time.sleep(0.05)
        assert subscriber.latest("b", max_age_ms=10) is None


def test_a_stream_filter_takes_one_name_and_not_its_prefix() -> None:
    script = "subscriber,wait:200,s1:0,s10:0,s1:1,hold"
    with publisher(script) as endpoint, Subscriber(endpoint, streams=["s1"]) as subscriber:
        found = [e for e in collect(subscriber, 2) if isinstance(e, Score)]
        assert [score.envelope.stream for score in found] == ["s1", "s1"]


def test_a_new_subscriber_gets_the_last_score_at_once() -> None:
    with publisher("a:3,subscriber,hold") as endpoint, Subscriber(endpoint) as subscriber:
        (found,) = collect(subscriber, 1)
        assert isinstance(found, Score)
        assert found.envelope.seq == 3


def test_the_age_of_the_latest_score_is_counted_from_its_publication() -> None:
    script = "a:3,wait:1500,tell,subscriber,hold"
    with publisher(script) as endpoint, Subscriber(endpoint) as subscriber:
        end = time.monotonic() + 10
        while subscriber.latest() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert subscriber.latest() is not None
        assert subscriber.latest(max_age_ms=1000) is None, "published 1.5 s before it came"
        assert subscriber.latest(max_age_ms=20_000) is not None


def test_asking_for_the_latest_alone_keeps_a_bounded_number_of_events() -> None:
    script = "subscriber," + ",".join(f"a:{n}" for n in range(1500)) + ",hold"
    with publisher(script) as endpoint, Subscriber(endpoint, stale_s=60) as subscriber:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            newest = subscriber.latest()
            if newest is not None and newest.envelope.seq == 1499:
                break
            time.sleep(0.01)
        gap, *kept = subscriber.poll()
        assert gap == Gap("a", 500)
        assert [e.envelope.seq for e in kept if isinstance(e, Score)] == list(range(500, 1500))


def test_silence_is_told_once_and_the_return_is_heard() -> None:
    script = "subscriber,wait:200,a:0,wait:1500,a:1,hold"
    with publisher(script) as endpoint, Subscriber(endpoint, stale_s=0.5) as subscriber:
        found = collect(subscriber, 3)
        assert [type(event) for event in found] == [Score, Stale, Score]
        assert isinstance(found[1], Stale)
        assert found[1].source == "a"


def test_an_engine_that_is_killed_and_comes_back_is_heard_again() -> None:
    with publisher("subscriber,wait:200,a:5,hold") as endpoint:
        subscriber = Subscriber(endpoint)
        assert len(collect(subscriber, 1)) == 1
    with subscriber, publisher("subscriber,wait:200,a:0,hold", endpoint):
        found: list[object] = []
        while not any(isinstance(event, Score) for event in found):  # the test's limit ends it
            found += subscriber.poll(100)  # the loss of the connection is told first
        (score,) = [event for event in found if isinstance(event, Score)]
        assert score.envelope.seq == 0


def test_iterating_gives_scores_and_ends_on_close() -> None:
    with publisher("subscriber,wait:200,status,a:0,a:1,hold") as endpoint:
        subscriber = Subscriber(endpoint)
        seen = []
        for score in subscriber:
            seen.append(score.envelope.seq)
            if len(seen) == 2:
                subscriber.close()
        assert seen == [0, 1]


def test_the_async_twin_has_the_same_verbs() -> None:
    async def run(endpoint: str) -> list[int]:
        seen = []
        async with AsyncSubscriber(endpoint) as subscriber:
            async for score in subscriber:
                seen.append(score.envelope.seq)
                if len(seen) == 3:
                    break
            latest = subscriber.latest()
            assert latest is not None
            assert latest.envelope.seq == 2
        return seen

    with publisher("subscriber,wait:200,a:0,wait:300,a:1,a:2,hold") as endpoint:
        assert asyncio.run(asyncio.wait_for(run(endpoint), 20)) == [0, 1, 2]


def record(endpoint: str, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clients", "record", "--scores", endpoint, "--out", str(out)]
    return subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_recording_ended_by_ctrl_c_holds_every_score(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"session.{suffix}"
    with publisher("subscriber,wait:500,a:0,a:1,b:0,hold") as endpoint:
        recorder = record(endpoint, out)
        assert recorder.stderr is not None
        assert recorder.stderr.readline().startswith("recording tcp://")
        with Subscriber(endpoint, streams=["b"]) as subscriber:
            next(iter(subscriber))  # the last score is out
        time.sleep(0.5)
        recorder.send_signal(signal.SIGINT)
        _, errors = recorder.communicate(timeout=20)
    assert recorder.returncode == 0, errors
    assert "3 scores in" in errors
    assert "Traceback" not in errors
    rows = read(out)
    assert [(row["stream"], int(row["seq"])) for row in rows] == [("a", 0), ("a", 1), ("b", 0)]
    assert float(rows[0]["low"]) == -0.5


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    parquet = pytest.importorskip("pyarrow.parquet")
    rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
    return rows


def test_a_killed_recorder_leaves_what_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "session.jsonl"
    with publisher("subscriber,wait:200,a:0,a:1,hold") as endpoint:
        recorder = record(endpoint, out)
        end = time.monotonic() + 20
        while time.monotonic() < end and not (out.exists() and out.read_text().count("\n") == 2):
            time.sleep(0.1)
        recorder.kill()
        recorder.communicate()
    assert [row["seq"] for row in read(out)] == [0, 1]


def test_a_recording_never_overwrites_and_names_the_formats(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    for name, message in (("there.csv", "there is a file"), ("a.txt", "expected a name that")):
        recorder = record("tcp://127.0.0.1:9", tmp_path / name, "--seconds", "1")
        _, errors = recorder.communicate(timeout=20)
        assert recorder.returncode == 2
        assert errors.startswith("error: ")
        assert message in errors
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_watch_in_a_pipe_prints_a_line_per_score() -> None:
    with publisher("subscriber,wait:200,a:0,a:2,hold") as endpoint:
        command = [sys.executable, "-m", "clients", "watch", "--scores", endpoint]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        ) as watcher:  # fmt: skip
            assert watcher.stdout is not None
            first, second = watcher.stdout.readline(), watcher.stdout.readline()
            watcher.send_signal(signal.SIGINT)
            _, errors = watcher.communicate(timeout=20)
        assert "+0.50" in first
        assert "1 scores lost" in second
        assert "Traceback" not in errors
