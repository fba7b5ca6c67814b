"""Ray's head, as a command that has left it to itself sees it: a port that answers or does not."""

from __future__ import annotations

import logging
import socket
import threading

import pytest

from engine.cluster import ray_pool
from tests.support.peers import eventually, free_endpoint


def listener(port: int = 0) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


def test_a_head_that_is_lost_and_one_that_is_back_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_pool, "HEAD_S", 0.05)
    caplog.set_level(logging.WARNING)
    head = listener()
    port = head.getsockname()[1]
    over = threading.Event()
    watch = threading.Thread(target=ray_pool.watch_head, args=(f"127.0.0.1:{port}", over))
    watch.start()

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    try:
        head.close()
        eventually(said, "the loss is told")
        head = listener(port)
        eventually(lambda: len(said()) > 1, "the return is told")
    finally:
        over.set()
        watch.join()
        head.close()
    lost, back = said()
    assert f"127.0.0.1:{port} is lost" in lost
    assert back == f"Ray's head at 127.0.0.1:{port} is back"


def test_an_address_where_nothing_answers_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "load", object)  # nothing of Ray is used
    address = free_endpoint().removeprefix("tcp://")
    with pytest.raises(ray_pool.RayError, match=f"no Ray cluster at {address}: nothing answers"):
        ray_pool.connect(address)
