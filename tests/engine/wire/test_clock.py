"""Clocks: the offset of the best echo, and whose stamps need translating."""

import pytest

from engine.wire.clock import (
    ClockTable,
    Echo,
    best_offset_ns,
    measure_offset_ns,
    now_ns,
    this_clock,
)
from engine.wire.messages import Clock

MS = 1_000_000


def test_the_echo_with_the_shortest_round_trip_tells_the_offset() -> None:
    quick = Echo(sent_ns=0, answered_ns=1001 * MS, received_ns=2 * MS)
    slow = Echo(sent_ns=0, answered_ns=1080 * MS, received_ns=90 * MS)
    assert best_offset_ns([slow, quick]) == 1000 * MS
    with pytest.raises(ValueError, match="empty"):
        best_offset_ns([])


def test_measuring_against_an_offset_clock() -> None:
    measured = measure_offset_ns(lambda: now_ns() + 5_000 * MS)
    assert measured == pytest.approx(5_000 * MS, abs=5 * MS)


def test_one_boot_is_one_clock_and_another_host_is_unknown_until_learnt() -> None:
    table = ClockTable(this_clock())
    assert table.offset_ns(this_clock()) == 0
    other = Clock("elsewhere", "another boot")
    assert table.offset_ns(other) is None
    table.learn(other, -7)
    assert table.offset_ns(other) == -7
