"""Under load tentative readings are thinned first, then pieces are dropped; all is counted."""

from __future__ import annotations

from collections import Counter

import numpy as np

from engine.inference.text.backlog import MAX_WAIT_NS, Backlog, Job
from engine.inference.text.pieces import Reading

MS = 1_000_000


def job(stream: str, order: int, final: bool, asked_ms: int = 0, needed_ms: int = 750) -> Job:
    what = Reading(order, order, final, 0, 0, 0, 0, np.zeros(1, np.int16))
    return Job(stream, 0, what, asked_ms * MS, needed_ms * MS)


def taken(backlog: Backlog, now_ms: int = 0) -> list[tuple[str, int]]:
    found = []
    while (item := backlog.pop(now_ms * MS)) is not None:
        found.append((item.stream, item.reading.order))
    return found


def test_pieces_come_before_tentative_readings_and_the_newest_of_a_stream_first() -> None:
    backlog = Backlog()
    for item in (
        job("a", 0, True), job("a", 1, True), job("b", 0, True), job("c", 0, False),
        job("a", 2, False),
    ):  # fmt: skip
        backlog.push(item)
    assert len(backlog) == 5
    assert taken(backlog) == [("a", 1), ("b", 0), ("a", 0), ("c", 0), ("a", 2)]
    assert not +backlog.counters


def test_a_tentative_reading_gives_way_to_a_newer_one_of_its_stream() -> None:
    backlog = Backlog()
    backlog.push(job("a", 0, False))
    backlog.push(job("a", 1, False))
    backlog.push(job("b", 0, False))
    backlog.push(job("b", 1, True))
    assert taken(backlog) == [("b", 1), ("a", 1)]
    assert backlog.counters == Counter({"words_thinned": 2})


def test_a_tentative_reading_whose_time_has_passed_is_given_up() -> None:
    backlog = Backlog()
    backlog.push(job("a", 0, False, needed_ms=750))
    backlog.push(job("b", 0, False, needed_ms=900))
    assert taken(backlog, now_ms=800) == [("b", 0)]
    assert backlog.counters["words_thinned"] == 1


def test_a_piece_that_waited_too_long_is_dropped() -> None:
    backlog = Backlog()
    backlog.push(job("a", 0, True, asked_ms=0))
    backlog.push(job("a", 1, True, asked_ms=3000))
    assert taken(backlog, now_ms=MAX_WAIT_NS // MS + 500) == [("a", 1)]
    assert backlog.counters == Counter({"words_dropped": 1})


def test_streams_that_all_speak_take_turns() -> None:
    backlog = Backlog()
    for order in range(3):
        for stream in "abc":
            backlog.push(job(stream, order, True))
    assert [stream for stream, _ in taken(backlog)] == list("abcabcabc")
