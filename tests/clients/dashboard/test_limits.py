"""Connections that say nothing, read nothing, or are too many; faults of the dashboard's own."""

from __future__ import annotations

import asyncio
import http.client
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from clients.dashboard.app import survive
from clients.dashboard.bridge import MAX_VIEWERS, Bridge
from clients.dashboard.browser import Browser, LeftError
from clients.dashboard.limits import (
    CLOSE_S,
    FIRST_REQUEST_S,
    MAX_QUIET_PER_ADDRESS,
    UNREAD_S,
    Limits,
)
from tests.support.dashboards import Dashboard, dashboard, free_endpoint


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """What is started within may have so many descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def page(dash: Dashboard, seconds: float) -> int:
    """Ask for the page until it is answered."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        with suppress(OSError, http.client.HTTPException):
            asking = http.client.HTTPConnection(*dash.address, timeout=2)
            asking.request("GET", "/")
            answer = asking.getresponse().status
            asking.close()
            return answer
    raise AssertionError(f"not served within {seconds:g} s: {dash.errors.lines[-3:]}")


def test_idle_connections_do_not_keep_a_browser_out() -> None:
    with few_descriptors(256):
        started = dashboard(free_endpoint())
        dash = started.__enter__()
    with ExitStack() as stack:
        stack.push(started)
        for _ in range(500):
            idle = socket.socket()
            stack.callback(idle.close)
            idle.setblocking(False)
            with suppress(BlockingIOError):
                idle.connect(dash.address)
        assert page(dash, 10) == 200
        dash.process.terminate()
        lines = dash.errors.end()
    assert not any("Traceback" in line for line in lines)
    assert len(lines) < 40


def test_of_a_hundred_browsers_at_once_sixty_four_may_look() -> None:
    async def come(bridge: Bridge) -> list[bool]:
        async def one() -> bool:
            with bridge.place() as there_is_one:
                await asyncio.sleep(0.01)
                return there_is_one

        return await asyncio.gather(*(one() for _ in range(100)))

    bridge = Bridge("tcp://127.0.0.1:1")
    assert sum(asyncio.run(come(bridge))) == MAX_VIEWERS
    assert sum(asyncio.run(come(bridge))) == MAX_VIEWERS  # all places are free again


class FakeTransport:
    """A connection as ``Limits`` sees it."""

    def __init__(self, address: str = "1.2.3.4") -> None:
        self.address, self.waiting, self.closing, self.aborted = address, 0, False, False

    def get_extra_info(self, name: str) -> object:
        return (self.address, 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


def opened(limits: Limits, *transports: FakeTransport) -> None:
    for transport in transports:
        limits.opened(transport, 0.0)  # type: ignore[arg-type]


def test_the_oldest_that_asks_for_nothing_makes_room() -> None:
    limits = Limits(limit=1000)
    quiet = [FakeTransport() for _ in range(MAX_QUIET_PER_ADDRESS)]
    other = FakeTransport("5.6.7.8")
    opened(limits, other, *quiet)
    limits.asked(quiet[0])  # type: ignore[arg-type]
    opened(limits, FakeTransport(), FakeTransport())
    assert [transport.aborted for transport in quiet[:3]] == [False, True, False]
    assert not other.aborted
    assert limits.cut == 1


def test_what_is_silent_stuck_or_never_gone_is_closed() -> None:
    limits = Limits(limit=1000)
    silent, asking, stuck, leaving = (FakeTransport() for _ in range(4))
    opened(limits, silent, asking, stuck, leaving)
    for transport in (asking, stuck, leaving):
        limits.asked(transport)  # type: ignore[arg-type]
    stuck.waiting, leaving.closing = 1000, True
    limits.look(0.0)
    limits.look(FIRST_REQUEST_S + 0.1)
    assert [t.aborted for t in (silent, asking, stuck, leaving)] == [True, False, False, True]
    assert CLOSE_S <= FIRST_REQUEST_S
    limits.look(UNREAD_S + 0.1)
    assert [t.aborted for t in (asking, stuck)] == [False, True]


class BrokenWebSocket:
    """A websocket of a server that has a fault."""

    def __init__(self) -> None:
        self.code = 0

    async def accept(self) -> None:
        return

    async def close(self, code: int) -> None:
        self.code = code


@pytest.mark.parametrize("fault", [RuntimeError("ours"), ValueError("ours")])
def test_a_fault_of_ours_is_logged_counted_and_survived(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve_one(browser: Browser) -> None:
        await browser.accept()
        raise fault

    async def leave(browser: Browser) -> None:
        raise LeftError

    bridge, websocket = Bridge("tcp://127.0.0.1:1"), BrokenWebSocket()
    asyncio.run(survive(Browser(websocket), bridge, serve_one))  # type: ignore[arg-type]
    assert (bridge.faults, websocket.code) == (1, 1011)
    assert "ours" in caplog.text
    asyncio.run(survive(Browser(websocket), bridge, leave))  # type: ignore[arg-type]
    assert bridge.faults == 1


def test_connections_of_ended_browsers_give_their_descriptors_back() -> None:
    with dashboard(free_endpoint()) as dash:
        page(dash, 10)
        process = psutil.Process(dash.process.pid)
        before = process.num_fds()
        url = f"ws://{dash.address[0]}:{dash.address[1]}/scores"
        with ExitStack() as viewers, suppress(ConnectionClosed):
            for _ in range(20):
                viewers.enter_context(connect(url, origin=dash.origin))  # type: ignore[arg-type]
            assert process.num_fds() > before + 10
        end_s = time.monotonic() + 10
        while process.num_fds() > before + 3:
            assert time.monotonic() < end_s, process.num_fds() - before
            time.sleep(0.1)
