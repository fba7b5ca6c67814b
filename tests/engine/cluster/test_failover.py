"""Each event of docs/scale.md, with real processes: what moved, and what a client saw of it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clients.control import Control
from clients.subscriber import Subscriber
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, Report
from engine.wire.messages import Score
from tests.support.clusters import PATIENCE_S, Cluster, Watcher, cluster, kill_tree

STREAMS = ("one", "two", "three")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    log = tmp_path_factory.mktemp("cluster") / "log"
    with cluster(log, STREAMS, "--workers", "3", "--hosts", "3") as made:
        yield made


def marks(running: Cluster, label: str) -> dict[str, int]:
    """Scores that carry the mark, of each stream, once all streams have had it."""
    found: Counter[str] = Counter()
    end_s = time.monotonic() + PATIENCE_S
    with Subscriber(running.scores) as subscriber, Control(running.control) as control:
        subscriber.poll(500)
        assert control.mark(label) == len(STREAMS)
        while len(found) < len(STREAMS):
            assert time.monotonic() < end_s, found
            for event in subscriber.poll(50):
                if isinstance(event, Score) and event.mark == label:
                    found[event.envelope.stream] += not event.envelope.repeated
    return found


def test_marks_and_pauses_have_one_endpoint_for_all_workers(running: Cluster) -> None:
    running.ready(3, len(STREAMS))
    with Watcher(running.scores) as seen, Control(running.control) as control:
        seen.further(STREAMS, 2)
        control.pause()
        time.sleep(1.0)  # what was on its way has come
        before = {name: len(seqs) for name, seqs in seen.seqs.items()}
        time.sleep(2.0)
        assert before == {name: len(seqs) for name, seqs in seen.seqs.items()}
        control.resume()
        seen.further(STREAMS, 2)
    assert marks(running, "together") == dict.fromkeys(STREAMS, 1)


def busiest(values: dict) -> dict:  # type: ignore[type-arg]
    return max(values["workers"], key=lambda worker: len(worker["streams"]))


def test_others_take_the_streams_of_a_killed_worker(running: Cluster) -> None:
    before = running.ready(3, len(STREAMS))
    victim = busiest(before)
    with Watcher(running.scores) as seen:
        seen.further(STREAMS, 4)
        os.kill(victim["pid"], signal.SIGKILL)
        seen.further(STREAMS, 8)
    after = running.ready(2, len(STREAMS))
    homes = {s: w["name"] for w in after["workers"] for s in w["streams"]}
    assert {homes[stream] for stream in victim["streams"]} != {victim["name"]}
    untouched = [s for w in before["workers"] if w is not victim for s in w["streams"]]
    was = {s: w["name"] for w in before["workers"] for s in w["streams"]}
    assert all(homes[stream] == was[stream] for stream in untouched)
    # A score that the killed one had sent may have died with its socket.
    assert seen.lost_without_a_pause() <= len(victim["streams"])
    assert seen.is_in_order_and_once()
    assert running.ready(3, len(STREAMS))  # it is replaced


def test_a_hanging_worker_is_left_and_releases_what_it_held_when_it_is_back(
    running: Cluster,
) -> None:
    victim = busiest(running.ready(3, len(STREAMS)))
    with Watcher(running.scores) as seen:
        seen.further(STREAMS, 4)
        os.kill(victim["pid"], signal.SIGSTOP)
        try:
            seen.further(STREAMS, 8)
        finally:
            if psutil.pid_exists(victim["pid"]):
                os.kill(victim["pid"], signal.SIGCONT)
        seen.further(STREAMS, 4)
    assert seen.is_in_order_and_once()
    running.ready(3, len(STREAMS))


def test_the_streams_of_a_killed_host_go_to_another(running: Cluster) -> None:
    before = running.ready(3, len(STREAMS))
    host = busiest(before)["host"]
    pid = next(h["pid"] for h in before["directory"]["hosts"] if h["name"] == host)
    with Watcher(running.scores) as seen:
        seen.further(STREAMS, 4)
        kill_tree(psutil.Process(pid))
        seen.further(STREAMS, 8)
    assert seen.lost_without_a_pause() <= len(STREAMS)
    assert seen.is_in_order_and_once()
    after = running.ready(3, len(STREAMS))
    assert pid not in [h["pid"] for h in after["directory"]["hosts"]]


def test_a_killed_directory_is_missed_by_no_stream_and_learns_where_they_are(
    running: Cluster,
) -> None:
    before = running.ready(3, len(STREAMS))
    homes = {s: w["name"] for w in before["workers"] for s in w["streams"]}
    with Watcher(running.scores) as seen:
        seen.further(STREAMS, 4)
        os.kill(before["directory"]["pid"], signal.SIGKILL)
        seen.further(STREAMS, 4)
        after = running.ready(3, len(STREAMS))
    assert after["directory"]["pid"] != before["directory"]["pid"]
    assert {s: w["name"] for w in after["workers"] for s in w["streams"]} == homes
    assert seen.lost_without_a_pause() == 0
    assert seen.is_in_order_and_once()


def test_a_killed_relay_is_missed_by_nobody(running: Cluster) -> None:
    before = running.ready(3, len(STREAMS))
    with Watcher(running.scores) as seen:
        seen.further(STREAMS, 4)
        os.kill(before["relays"][0]["pid"], signal.SIGKILL)
        seen.further(STREAMS, 6)
        after = running.when(
            lambda values: len(values["relays"]) == 2 and values["relays"] != before["relays"],
            "the relay is back",
        )
        seen.further(STREAMS, 2)
    assert [r["endpoint"] for r in after["relays"]] == [r["endpoint"] for r in before["relays"]]
    assert seen.lost_without_a_pause() == 0
    assert seen.is_in_order_and_once()


def test_a_drained_worker_hands_its_streams_over_and_ends(running: Cluster) -> None:
    victim = busiest(running.ready(3, len(STREAMS)))
    with Watcher(running.scores) as seen:
        seen.further(STREAMS, 4)
        with DirectoryLink(running.directory) as link:
            report = link.ask(Ask("drain", worker=victim["name"]), 5_000)
        assert isinstance(report, Report)
        assert report.values["streams"] == len(victim["streams"])
        seen.further(STREAMS, 8)
    assert seen.lost_without_a_pause() == 0
    assert seen.is_in_order_and_once()
    running.when(lambda _: not psutil.pid_exists(victim["pid"]), "the drained worker has ended")


def test_the_engine_says_what_went_on(running: Cluster) -> None:
    log = Path(running.log).read_text()
    assert "lost worker" in log
    assert "Traceback" not in log
