"""What a route says of a directory that refuses its stream."""

from __future__ import annotations

import logging
import time
from itertools import chain, repeat

import pytest

from engine.capture import route
from engine.wire.link import DirectorySocket
from engine.wire.membership import Place, Refused


def refuse(directory: DirectorySocket, reasons: list[str], seconds: float) -> int:
    """Answer every request for a place with the next reason, the last one again and again."""
    refused = 0
    coming = chain(reasons, repeat(reasons[-1]))
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        directory.raw.poll(10)
        for received in directory.receive_all():
            if isinstance(received.message, Place):
                directory.send(received.sender, Refused("one", next(coming), 10))
                refused += 1
    return refused


def test_each_reason_of_a_lasting_refusal_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(route, "REFUSED_S", 0.0)
    caplog.set_level(logging.WARNING)
    with DirectorySocket("tcp://127.0.0.1:*") as directory:
        way = route.Route(directory.endpoint, "one", "source")
        reasons = ["no worker is ready"] * 5 + ["full"]
        assert refuse(directory, reasons, 2.0) > len(reasons)
        way.close()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["stream one: no worker is ready", "stream one: full"]


def test_workers_that_are_being_started_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with DirectorySocket("tcp://127.0.0.1:*") as directory:
        way = route.Route(directory.endpoint, "one", "source")
        assert refuse(directory, ["no worker is ready"], 1.0) > 1
        way.close()
    assert not caplog.records
