"""A cluster with many streams: what more workers hold together, and a full worker's end.

    python -m benchmarks.cluster_load --workers 2 --streams 32 --streams 40   # until one drops
    python -m benchmarks.cluster_load --event drain --streams 16              # all on one worker

One process feeds all streams as that many captures would: each with its own ``Route``, which asks
the directory and plays the last 4 s after a move. Every stream is the packaged clip.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.cluster import EVENTS, measure
from benchmarks.harness import SAMPLE, replay
from clients.subscriber import Subscriber
from engine.settings import load
from engine.wire.messages import Score, Status
from tests.support.clusters import Cluster, host, hub

SPAWN = multiprocessing.get_context("spawn")
SETTLE_S = 6.0
"""Until every stream has been placed and its first windows are full."""
LONGEST_S = 600.0


def feed(directory: str, streams: int, speaking: float) -> None:
    """Send the streams into the cluster until this process is ended."""
    from engine.capture.route import Route

    logging.disable(logging.WARNING)  # of every stream at the end, when the workers are ended

    routes = [Route(directory, f"load{number}", "source") for number in range(streams)]
    for number, message in replay(load(), str(SAMPLE), streams, LONGEST_S, speaking):
        routes[number].send(message)


@contextmanager
def load_of(running: Cluster, streams: int, speaking: float) -> Iterator[list[str]]:
    """Feed so many streams; gives their names."""
    feeder = SPAWN.Process(target=feed, args=(running.directory, streams, speaking))
    feeder.start()
    try:
        yield [f"load{number}" for number in range(streams)]
    finally:
        feeder.terminate()
        feeder.join()


def hold(running: Cluster, streams: int, speaking: float, seconds: float) -> tuple[str, bool]:
    """Feed so many streams for a while; what came of them, and whether nothing was dropped."""
    with load_of(running, streams, speaking), Subscriber(running.scores) as subscriber:
        heard: dict[str, int] = {}
        latency_ms: list[float] = []
        dropped: dict[str, int] = {}
        before: dict[str, int] = {}
        begin_s = time.monotonic() + SETTLE_S
        while (now_s := time.monotonic()) < begin_s + seconds:
            for event in subscriber.poll(50):
                if isinstance(event, Status) and "windows_dropped" in event.counters:
                    dropped[event.worker] = event.counters["windows_dropped"]
                    if now_s < begin_s:
                        before[event.worker] = dropped[event.worker]
                elif isinstance(event, Score) and now_s >= begin_s:
                    name = event.envelope.stream
                    heard[name] = heard.get(name, 0) + 1
                    latency_ms.append(event.latency_ms.total)
    lost = sum(dropped.values()) - sum(before.values())
    p50, p99 = np.percentile(latency_ms, (50, 99)) if latency_ms else (np.nan, np.nan)
    expected = streams * int(seconds * 2 - 1)
    fewest = min((heard.get(f"load{n}", 0) for n in range(streams)), default=0)
    line = (
        f"{streams:>3} streams  scores {sum(heard.values()):>5} of {expected:>5}  fewest of one "
        f"{fewest:>3}  dropped {lost:>4}  p50 {p50:6.1f} ms  p99 {p99:7.1f} ms"
    )
    return line, lost == 0 and fewest >= int(seconds * 2) - 1


def ladder(workers: int, counts: list[int], speaking: float, seconds: float, words: str) -> None:
    """Raise the number of streams until one is dropped."""
    with (
        tempfile.TemporaryDirectory() as directory,
        hub(Path(directory) / "log") as running,
        host(running, "a", workers, UNDERTONE_WORDS__MODE=words),
    ):
        running.ready(workers, 0)
        for count in counts:
            line, clean = hold(running, count, speaking, seconds)
            print(f"{workers} workers  {line}", flush=True)
            if not clean:
                return
            running.when(lambda values: not values["directory"]["streams"], "none is left")


def event(name: str, streams: int, speaking: float, words: str) -> None:
    """Put all streams on one worker, add another one on another host, and let it happen."""
    with (
        tempfile.TemporaryDirectory() as directory,
        hub(Path(directory) / "log") as running,
        host(running, "a", 1, UNDERTONE_WORDS__MODE=words),
    ):
        running.ready(1, 0)
        with load_of(running, streams, speaking) as names:
            running.ready(1, streams)
            with host(running, "b", 1, UNDERTONE_WORDS__MODE=words):
                print(measure(name, running, names, 2), flush=True)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--streams", type=int, action="append", required=True)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--speaking", type=float, default=1.0)
    parser.add_argument("--words", default="off")
    parser.add_argument("--event", choices=sorted(EVENTS))
    options = parser.parse_args()
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.event:
        event(options.event, options.streams[0], options.speaking, options.words)
    else:
        ladder(options.workers, options.streams, options.speaking, options.seconds, options.words)


if __name__ == "__main__":
    main()
