"""The directory's sockets: what is said of a directory that is not there."""

from __future__ import annotations

import logging

import pytest

from engine.wire import link
from engine.wire.membership import HostBeat
from tests.support.peers import eventually, free_endpoint

WORD = HostBeat("rack", 7)


def test_who_sends_is_told_once_that_there_is_no_directory_and_once_that_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "AWAY_S", 0.0)
    endpoint = free_endpoint()
    caplog.set_level(logging.WARNING)
    with link.DirectoryLink(endpoint) as sender:
        for _ in range(3):
            assert not sender.send(WORD)
        assert [r.getMessage() for r in caplog.records] == [
            f"no directory heard at {endpoint} for 0 s"
        ]
        with link.DirectorySocket(endpoint):
            eventually(lambda: sender.send(WORD), "the directory takes a word")
            assert sender.send(WORD)
    assert [r.getMessage() for r in caplog.records][1:] == [f"the directory at {endpoint} is there"]


def test_a_directory_that_is_restarted_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with link.DirectoryLink(free_endpoint()) as sender:
        assert not sender.send(WORD)
    assert not caplog.records
