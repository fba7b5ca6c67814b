"""A browser's mailbox: bounded, the newest kept, the losses told."""

import asyncio
import json

import pytest

from clients.dashboard import bridge as module
from clients.dashboard.bridge import Bridge, Mailbox
from engine.wire.clock import now_ns


def take(mailbox: Mailbox) -> dict[str, object]:
    news: dict[str, object] = json.loads(asyncio.run(asyncio.wait_for(mailbox.take(), 5)))
    return news


def test_a_slow_browser_loses_its_oldest_points_and_is_told() -> None:
    mailbox = Mailbox(limit=3)
    for number in range(10):
        mailbox.put(str(number))
    assert take(mailbox) == {"kind": "news", "lost": 7, "state": None, "scores": [7, 8, 9]}
    mailbox.put("10")
    assert take(mailbox) == {"kind": "news", "lost": 7, "state": None, "scores": [10]}


def test_state_is_replaced_and_not_queued() -> None:
    mailbox = Mailbox()
    for number in range(5):
        mailbox.replace_state(f'{{"number": {number}}}')
    assert take(mailbox) == {"kind": "news", "lost": 0, "state": {"number": 4}, "scores": []}


def test_a_browser_is_given_its_history_again_when_the_clock_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bridge = Bridge("tcp://127.0.0.1:1")
    with bridge.viewer() as (_, mailbox):
        bridge._replace_state(now_ns())
        assert not mailbox.is_outdated
        wall_ns = module.time.time_ns
        monkeypatch.setattr(module.time, "time_ns", lambda: wall_ns() + 3600 * 10**9)
        bridge._replace_state(now_ns())
        assert mailbox.is_outdated
        state = take(mailbox)["state"]
        assert isinstance(state, dict)
        assert abs(state["now_ms"] - module.time.time_ns() / 1e6) < 60_000
    with bridge.viewer() as (_, mailbox):
        bridge._replace_state(now_ns())
        assert not mailbox.is_outdated


def test_an_empty_mailbox_waits_until_something_comes() -> None:
    async def run() -> str:
        mailbox = Mailbox()
        waiting = asyncio.create_task(mailbox.take())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        mailbox.put("1")
        return await asyncio.wait_for(waiting, 5)

    assert json.loads(asyncio.run(run()))["scores"] == [1]
