"""A host at a directory: whose name it may have, and which bundle its workers begin with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engine.cluster import host
from engine.cluster.directory import run_directory
from engine.processes import WorkerSpec
from engine.settings import load
from engine.supervisor import SupervisorError
from engine.wire.link import DirectoryLink, DirectorySocket
from engine.wire.membership import Ask, HostBeat, Report, Retire, Upgrade
from tests.support.peers import eventually, free_endpoint


@contextmanager
def directory_with(beat: HostBeat) -> Iterator[tuple[str, Callable[[], bool]]]:
    """A directory that hears of one host, and whether it is over."""
    endpoint, stop = free_endpoint(), threading.Event()
    directory = threading.Thread(target=run_directory, args=(endpoint, stop.is_set))

    def first() -> None:
        with DirectoryLink(endpoint) as link:
            while not stop.is_set():
                link.send(beat)
                time.sleep(0.1)

    def is_known() -> bool:
        with DirectoryLink(endpoint) as link:
            answer = link.ask(Ask("status"), 2_000)
        return isinstance(answer, Report) and bool(answer.values["directory"]["hosts"])

    beating = threading.Thread(target=first)
    directory.start()
    beating.start()
    try:
        eventually(is_known, "the directory knows the first host")
        yield endpoint, stop.is_set
    finally:
        stop.set()
        beating.join()
        directory.join()


def test_a_host_whose_name_is_taken_ends_before_it_starts_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr(host, "Workers", start)
    monkeypatch.setattr(host, "TAKEN_S", 0.0)
    with directory_with(HostBeat("rack", 7)) as (endpoint, over):
        settings = load(cluster={"directory": endpoint, "host": "rack"})
        with pytest.raises(SupervisorError, match="host 'rack' is process 7 already"):
            host.run_host(settings, 1, over)


class StartedError(Exception):
    """The workers would be started now."""


def test_the_workers_of_a_host_that_comes_after_an_upgrade_begin_with_the_new_bundle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[object] = []

    def start(*arguments: object) -> None:
        begun.append(arguments[-1])
        raise StartedError

    monkeypatch.setattr(host, "Workers", start)
    with directory_with(HostBeat("rack", 7, "new", 2)) as (endpoint, over):
        settings = load(cluster={"directory": endpoint, "host": "other"})
        with pytest.raises(StartedError):
            host.run_host(settings, 1, over)
    assert begun == [Upgrade("new", 2)]


class Failing:
    """A supervisor whose worker meets a user's mistake with the bundle ``bad``."""

    def __init__(self, specs: list[WorkerSpec], *_: object, **__: object) -> None:
        self.bundle = specs[0].settings.bundle

    def poll(self) -> None:
        if self.bundle == "bad":
            raise SupervisorError("no such bundle")


def test_workers_that_an_upgrade_cannot_start_leave_the_old_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "Supervisor", Failing)
    settings = load(bundle="good", cluster={"host": "rack"})
    workers = host.Workers(settings, 2, print)
    workers.start(Upgrade("bad", 2))
    assert len(workers.names) == 4
    workers.poll()
    assert workers.names == ("rack-1", "rack-2")
    assert workers.newest == Upgrade("good", 1)
    # A host that begins with such a bundle has its own to fall back to.
    late = host.Workers(settings, 2, print, Upgrade("bad", 2))
    late.poll()
    assert late.names == ("rack-1", "rack-2")
    with pytest.raises(SupervisorError):
        host.Workers(load(bundle="bad", cluster={"host": "rack"}), 1, print).poll()


def test_a_host_that_ends_many_workers_at_once_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[None] = []
    ended_at: list[int] = []

    class Few:
        newest = Upgrade("good", 1)

        def __init__(self, *_: object) -> None:
            pass

        def retire(self, name: str) -> None:
            ended_at.append(len(turns))

        def poll(self) -> None:
            pass

        stop = poll

    monkeypatch.setattr(host, "Workers", Few)
    with DirectorySocket("tcp://127.0.0.1:*") as directory:

        def stopped() -> bool:
            turns.append(None)
            for received in directory.receive_all():
                if isinstance(received.message, HostBeat) and not ended_at:
                    for name in ("rack-1", "rack-2", "rack-3"):
                        directory.send(received.sender, Retire(name))
            return len(ended_at) >= 3

        settings = load(cluster={"directory": directory.endpoint, "host": "rack"})
        host.run_host(settings, 3, stopped)
    assert len(set(ended_at)) == 3  # a turn, which is a pulse, before each of them
