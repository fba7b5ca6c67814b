"""Links that vanish, break or are slow: a dead connection is noticed, a living one left alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from clients import Subscriber
from clients.events import Event, Link
from clients.watch import Board, lines
from engine.wire.messages import Score
from tests.support.peers import publisher
from tests.support.proxy import Proxy

pytestmark = pytest.mark.slow


def until(subscriber: Subscriber, wanted: Callable[[Event], object]) -> list[Event]:
    """Everything up to an event."""
    end_s, found = time.monotonic() + 40, list[Event]()
    while time.monotonic() < end_s:
        for event in subscriber.poll(100):
            found.append(event)
            if wanted(event):
                return found
    raise AssertionError(f"it did not come; the last ones: {found[-3:]}")


def fresh(event: Event) -> bool:
    return isinstance(event, Score) and not event.envelope.repeated


def test_a_subscriber_whose_packets_vanish_comes_back_and_says_so() -> None:
    with (
        publisher("beat") as endpoint,
        Proxy(endpoint) as proxy,
        Subscriber(proxy.endpoint) as subscriber,
    ):
        until(subscriber, fresh)
        proxy.swallow()
        found = until(subscriber, lambda event: isinstance(event, Link) and event.connected)
        links = [event for event in found if isinstance(event, Link)]
        assert links == [Link(proxy.endpoint, False), Link(proxy.endpoint, True)]
        until(subscriber, fresh)
    assert list(lines(links)) == [
        f"{proxy.endpoint}  connection lost",
        f"{proxy.endpoint}  connected again",
    ]
    board = Board(proxy.endpoint)
    for link in links:
        board.take(link)


def test_a_link_that_is_300_ms_slow_is_left_alone() -> None:
    with (
        publisher("beat") as endpoint,
        Proxy(endpoint, delay_s=0.3) as proxy,
        Subscriber(proxy.endpoint) as subscriber,
    ):
        until(subscriber, fresh)
        end_s, found = time.monotonic() + 5, list[Event]()
        while time.monotonic() < end_s:
            found += subscriber.poll(100)
        assert not [event for event in found if isinstance(event, Link)]
        assert any(map(fresh, found))
