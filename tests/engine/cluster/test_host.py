"""A host at a directory: one whose name is taken starts nothing."""

from __future__ import annotations

import threading
import time

import pytest

from engine.cluster import host
from engine.cluster.directory import run_directory
from engine.settings import load
from engine.supervisor import SupervisorError
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, HostBeat, Report
from tests.support.peers import eventually, free_endpoint


def test_a_host_whose_name_is_taken_ends_before_it_starts_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr(host, "Workers", start)
    monkeypatch.setattr(host, "TAKEN_S", 0.0)
    endpoint, stop = free_endpoint(), threading.Event()
    directory = threading.Thread(target=run_directory, args=(endpoint, stop.is_set))
    directory.start()
    settings = load(cluster={"directory": endpoint, "host": "rack"})

    def first() -> None:
        with DirectoryLink(endpoint) as link:
            while not stop.is_set():
                link.send(HostBeat("rack", 7))
                time.sleep(0.1)

    beating = threading.Thread(target=first)
    beating.start()

    def is_known() -> bool:
        with DirectoryLink(endpoint) as link:
            answer = link.ask(Ask("status"), 2_000)
        return isinstance(answer, Report) and bool(answer.values["directory"]["hosts"])

    try:
        eventually(is_known, "the directory knows the first host")
        with pytest.raises(SupervisorError, match="host 'rack' is process 7 already"):
            host.run_host(settings, 1, stop.is_set)
    finally:
        stop.set()
        beating.join()
        directory.join()
