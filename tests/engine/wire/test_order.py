"""Scores in order and once each: from two relays, and from workers that take over."""

from __future__ import annotations

from msgspec.structs import replace

from engine.wire.messages import Clock, Score
from engine.wire.order import Order
from tests.support.scores import make_score, make_status


def score(t_s: float, epoch: int, **changes: object) -> Score:
    made = make_score(t_s=t_s)
    return replace(made, envelope=replace(made.envelope, epoch=epoch, **changes))


def test_what_two_relays_bring_is_taken_once() -> None:
    order = Order(several=True)
    news = [order.admits(m) for m in (score(1, 3), score(1, 3), score(1.5, 3), score(1, 3))]
    assert news == [True, False, True, False]
    first, second = make_status("w1"), make_status("w1")
    later = replace(second, envelope=replace(second.envelope, t_sent_ns=1))
    assert [order.admits(m) for m in (first, second, later)] == [True, False, True]
    assert order.repeated == 3


def test_a_window_that_two_workers_scored_is_taken_once_and_late_words_are_dropped() -> None:
    order = Order(several=False)
    messages = (score(1, 3), score(1, 4), score(1.5, 4), score(2, 3), score(2, 4))
    assert [order.admits(m) for m in messages] == [True, False, True, False, True]


def test_a_stream_that_goes_on_from_another_machine_has_another_clock_and_a_later_place() -> None:
    order = Order(several=True)
    other = Clock("elsewhere", "boot-2")
    assert order.admits(score(100, 3))
    assert not order.admits(score(1, 3, clock=other))
    assert order.admits(score(1, 4, clock=other))
    assert order.admits(score(1.5, 4, clock=other))


def test_of_a_single_worker_everything_is_taken() -> None:
    order = Order(several=False)
    assert all(order.admits(m) for m in (score(2, 0), score(2, 0), score(1, 0)))
