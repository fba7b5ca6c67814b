"""Control requests of a cluster: who is asked, and what becomes of the replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from engine.cluster.desk import Desk, Post, Replies
from engine.wire.fields import WireError

ONE = Post("w1", 11, "tcp://h:1", ("anna", "room"))
TWO = Post("w2", 12, "tcp://h:2", ("ben",))
IDLE = Post("w3", 13, "tcp://h:3", ())
SILENT = WireError("no reply within 1 s")


class Workers:
    """Workers that say what they were asked."""

    def __init__(self, *posts: Post) -> None:
        self.posts = list(posts)
        self.asked: list[tuple[str, str]] = []
        self.silent: set[str] = set()
        self.desk = Desk(lambda: self.posts, self.ask, {"directory": "tcp://h:9"})

    def ask(self, posts: Sequence[Post], values: Mapping[str, Any]) -> Replies:
        return {post: self.reply(post, values) for post in posts}

    def reply(self, post: Post, values: Mapping[str, Any]) -> Mapping[str, Any] | WireError:
        self.asked.append((post.name, values["command"]))
        if post.name in self.silent:
            return SILENT
        match values["command"]:
            case "mark":
                return {"streams": 1 if "stream" in values else len(post.streams)}
            case "describe":
                return {"state": "running", "schema": 1, "ingest": post.control, "hop_ms": 500}
        return {"state": "paused"}


def test_what_is_about_one_stream_is_asked_of_its_worker_alone() -> None:
    workers = Workers(ONE, TWO)
    assert workers.desk.answer({"command": "mark", "label": "x", "stream": "ben"})["streams"] == 1
    workers.desk.answer({"command": "mark", "label": "x", "stream": "room/2"})
    workers.desk.answer({"command": "ping", "stream": "anna"})
    assert workers.asked == [("w2", "mark"), ("w1", "mark"), ("w1", "ping")]


def test_a_mark_for_all_reaches_the_streams_of_every_worker() -> None:
    workers = Workers(ONE, TWO, IDLE)
    assert workers.desk.answer({"command": "mark", "label": "x"}) == {"streams": 3, "failed": []}
    assert [name for name, _ in workers.asked] == ["w1", "w2"]


def test_a_worker_that_does_not_reply_is_named() -> None:
    workers = Workers(ONE, TWO)
    workers.silent = {"w2"}
    reply = workers.desk.answer({"command": "mark", "label": "x"})
    assert reply == {"streams": 2, "failed": [f"w2: {SILENT}"]}
    with pytest.raises(WireError, match="no reply within"):
        workers.desk.answer({"command": "mark", "label": "x", "stream": "ben"})
    workers.silent = {"w1", "w2"}
    with pytest.raises(WireError, match=r"w1: no reply .*; w2: no reply"):
        workers.desk.answer({"command": "pause"})


def test_a_pause_holds_for_workers_that_come_later_and_ends_for_all() -> None:
    workers = Workers(ONE)
    assert workers.desk.answer({"command": "pause"})["state"] == "paused"
    workers.desk.step()
    born_again = Post(ONE.name, 99, ONE.control, ())
    workers.posts = [born_again, TWO]
    workers.desk.step()
    workers.desk.step()
    assert workers.asked == [("w1", "pause"), ("w1", "pause"), ("w2", "pause")]
    workers.asked.clear()
    assert workers.desk.answer({"command": "resume"})["state"] == "running"
    workers.posts.append(IDLE)
    workers.desk.step()
    assert workers.asked == [("w1", "resume"), ("w2", "resume")]


def test_describe_tells_of_the_cluster() -> None:
    workers = Workers(ONE, TWO)
    workers.silent = {"w2"}
    told = workers.desk.answer({"command": "describe"})
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
        workers.desk.answer(values)
    assert workers.asked == []


def test_without_a_worker_nothing_is_promised() -> None:
    workers = Workers()
    for command in ("pause", "resume", "describe"):
        with pytest.raises(WireError, match="no worker is heard"):
            workers.desk.answer({"command": command})
    assert workers.desk.answer({"command": "mark", "label": "x"})["streams"] == 0
