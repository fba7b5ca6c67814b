"""Memory that was freed goes back to the system, and only after some growth."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.inference.heap import GROWTH_MB, PERIOD_S, Heap


def test_only_growth_is_worth_the_work() -> None:
    sizes, returned, clock = [100.0], [0], [0.0]

    def give_back() -> None:
        returned[0] += 1
        sizes[0] = 110.0

    heap = Heap(lambda: sizes[0], give_back, lambda: clock[0])
    for size, expected in ((100.0, 0), (100.0 + GROWTH_MB, 0), (101.0 + GROWTH_MB, 1)):
        clock[0] += PERIOD_S
        sizes[0] = size
        heap.tidy()
        assert returned[0] == expected
    clock[0] += PERIOD_S
    sizes[0] = 110.0 + GROWTH_MB  # measured from what was left then
    heap.tidy()
    assert returned[0] == 1
    sizes[0] += 1
    heap.tidy()
    assert returned[0] == 1, "too soon to look"
    clock[0] += PERIOD_S
    heap.tidy()
    assert returned[0] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_lies_between_is_returned() -> None:
    script = (
        "import psutil, time\n"
        "from engine.inference.heap import Heap\n"
        "process = psutil.Process()\n"
        "clock = [0.0]\n"
        "heap = Heap(lambda: process.memory_info().rss / 2**20, now_s=lambda: clock[0])\n"
        "before = process.memory_info().rss\n"
        "held = [bytearray(20_000) for _ in range(10_000)]\n"
        "held = held[::100]\n"
        "grown = process.memory_info().rss - before\n"
        "clock[0] = 10.0\n"
        "heap.tidy()\n"
        "print(grown, process.memory_info().rss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    grown, left = map(int, done.stdout.split())
    assert grown > 100_000_000, "the allocator has kept what was freed"
    assert left < 30_000_000
