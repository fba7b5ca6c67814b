"""Control requests of a cluster: who is asked, and what becomes of the replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from engine.cluster.control import ControlRouter, Replies, WorkerRef
from engine.wire.fields import WireError

ONE = WorkerRef("w1", 11, "tcp://h:1", ("anna", "room"))
TWO = WorkerRef("w2", 12, "tcp://h:2", ("ben",))
IDLE = WorkerRef("w3", 13, "tcp://h:3", ())
SILENT = WireError("no reply within 1 s")


class Workers:
    """Workers that say what they were asked."""

    def __init__(self, *workers: WorkerRef) -> None:
        self.workers = list(workers)
        self.asked: list[tuple[str, str]] = []
        self.silent: set[str] = set()
        self.router = ControlRouter(lambda: self.workers, self.ask, {"directory": "tcp://h:9"})

    def ask(self, workers: Sequence[WorkerRef], values: Mapping[str, Any]) -> Replies:
        return {worker: self.reply(worker, values) for worker in workers}

    def reply(self, worker: WorkerRef, values: Mapping[str, Any]) -> Mapping[str, Any] | WireError:
        self.asked.append((worker.name, values["command"]))
        if worker.name in self.silent:
            return SILENT
        match values["command"]:
            case "mark":
                return {"streams": 1 if "stream" in values else len(worker.streams)}
            case "describe":
                return {"state": "running", "schema": 1, "ingest": worker.control, "hop_ms": 500}
        return {"state": "paused"}


def test_what_is_about_one_stream_is_asked_of_its_worker_alone() -> None:
    workers = Workers(ONE, TWO)
    assert workers.router.answer({"command": "mark", "label": "x", "stream": "ben"})["streams"] == 1
    workers.router.answer({"command": "mark", "label": "x", "stream": "room/2"})
    workers.router.answer({"command": "ping", "stream": "anna"})
    assert workers.asked == [("w2", "mark"), ("w1", "mark"), ("w1", "ping")]


def test_a_mark_for_all_reaches_the_streams_of_every_worker() -> None:
    workers = Workers(ONE, TWO, IDLE)
    assert workers.router.answer({"command": "mark", "label": "x"}) == {"streams": 3, "failed": []}
    assert [name for name, _ in workers.asked] == ["w1", "w2"]


def test_a_worker_that_does_not_reply_is_named() -> None:
    workers = Workers(ONE, TWO)
    workers.silent = {"w2"}
    reply = workers.router.answer({"command": "mark", "label": "x"})
    assert reply == {"streams": 2, "failed": [f"w2: {SILENT}"]}
    with pytest.raises(WireError, match="no reply within"):
        workers.router.answer({"command": "mark", "label": "x", "stream": "ben"})
    workers.silent = {"w1", "w2"}
    with pytest.raises(WireError, match=r"w1: no reply .*; w2: no reply"):
        workers.router.answer({"command": "pause"})


def test_a_pause_holds_for_workers_that_come_later_and_ends_for_all() -> None:
    workers = Workers(ONE)
    assert workers.router.answer({"command": "pause"})["state"] == "paused"
    workers.router.step()
    born_again = WorkerRef(ONE.name, 99, ONE.control, ())
    workers.workers = [born_again, TWO]
    workers.router.step()
    workers.router.step()
    assert workers.asked == [("w1", "pause"), ("w1", "pause"), ("w2", "pause")]
    workers.asked.clear()
    assert workers.router.answer({"command": "resume"})["state"] == "running"
    workers.workers.append(IDLE)
    workers.router.step()
    assert workers.asked == [("w1", "resume"), ("w2", "resume")]


def test_describe_tells_of_the_cluster() -> None:
    workers = Workers(ONE, TWO)
    workers.silent = {"w2"}
    told = workers.router.answer({"command": "describe"})
    assert told["streams"] == ["anna", "room"]
    assert told["workers"] == {"w1": "running"}
    assert (told["state"], told["directory"]) == ("running", "tcp://h:9")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"command": "mark", "label": "x", "stream": "eve"}, "no stream 'eve'; known: anna, ben"),
        ({"command": "ping"}, "expected the name of a stream"),
        ({"command": "release", "stream": "anna", "epoch": 1}, "at its worker's own endpoint"),
        ({"command": "dance"}, "request.command"),
        ({"command": "mark"}, "request.label"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(values: dict[str, object], fault: str) -> None:
    workers = Workers(ONE, TWO)
    with pytest.raises(WireError, match=fault):
        workers.router.answer(values)
    assert workers.asked == []


def test_without_a_worker_nothing_is_promised() -> None:
    workers = Workers()
    for command in ("pause", "resume", "describe"):
        with pytest.raises(WireError, match="no worker is heard"):
            workers.router.answer({"command": command})
    assert workers.router.answer({"command": "mark", "label": "x"})["streams"] == 0
