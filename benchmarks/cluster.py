"""What a cluster costs and how fast it recovers: real processes, the packaged clip as every stream.

    python -m benchmarks.cluster                 # the directory alone, then every event
    python -m benchmarks.cluster --streams 6 --events kill,stop

``placed`` is the time until the directory knows another worker for every stream of the victim,
``silence`` the longest pause between two scores of one stream as a client hears them (a hop of
500 ms is the usual one), ``lost`` the scores that it missed, of the stream that missed most.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from engine.cluster.directory import Directory
from engine.cluster.members import Policy
from engine.cluster.placement import Placement
from engine.wire.link import DirectoryLink, Received
from engine.wire.membership import Ask, Beat, Claim, Held, Place, Placed, pack, unpack_inbound
from engine.wire.messages import SCHEMA
from tests.support.clusters import Cluster, Watcher, cluster, kill_tree

BEFORE, AFTER = 6, 12
"""Scores of every stream before the event and after it."""
Values = dict[str, Any]


def beat(number: int, streams: dict[str, Held]) -> Beat:
    return Beat(
        worker=f"w-{number}",
        host=f"h{number % 2}",
        pid=number,
        incarnation=1,
        ingest="tcp://127.0.0.1:5570",
        control="tcp://127.0.0.1:5572",
        schema=SCHEMA,
        model="0" * 64,
        generation=1,
        capacity=64,
        hop_ms=500,
        streams=streams,
    )


def directory_cost(workers: int, per_worker: int = 64, turns: int = 50) -> dict[str, float]:
    """CPU microseconds of the directory for each kind of message, decoding included."""
    directory = Directory(Placement(Policy()), 0.0)
    for number in range(workers):
        directory.take(Received(b"w%d" % number, "", beat(number, {})), 0.0)
    places = [Place(f"s{n}", "source", "o") for n in range(workers * per_worker * 9 // 10)]
    seats: dict[str, Placed] = {}

    def spent(frames: list[bytes], now_s: float) -> float:
        begun = time.process_time()
        for frame in frames:
            for _, answer in directory.take(Received(b"c", "", unpack_inbound(frame)), now_s):
                if isinstance(answer, Placed):
                    seats[answer.stream] = answer
        return (time.process_time() - begun) / len(frames) * 1e6

    found = {"place": spent([pack(place) for place in places], 0.1)}
    held: dict[str, dict[str, Held]] = {}
    for seat in seats.values():
        held.setdefault(seat.worker, {})[seat.stream] = Held(seat.epoch, 10**15, 99)
    beats = [pack(beat(n, held.get(f"w-{n}", {}))) for n in range(workers)] * turns
    found["beat"] = spent(beats, 0.2)
    claims = [pack(Claim(s.stream, "source", "o", s.epoch, s.worker)) for s in seats.values()]
    found["claim"] = spent(claims, 0.3)
    return found


def busiest(values: Values) -> Values:
    return max(values["workers"], key=lambda worker: len(worker["streams"]))


def kill(running: Cluster, before: Values) -> None:
    os.kill(busiest(before)["pid"], signal.SIGKILL)


def stop(running: Cluster, before: Values) -> None:
    os.kill(busiest(before)["pid"], signal.SIGSTOP)


def kill_host(running: Cluster, before: Values) -> None:
    host = busiest(before)["host"]
    pid = next(h["pid"] for h in before["directory"]["hosts"] if h["name"] == host)
    kill_tree(psutil.Process(pid))


def kill_directory(running: Cluster, before: Values) -> None:
    os.kill(before["directory"]["pid"], signal.SIGKILL)


def kill_relay(running: Cluster, before: Values) -> None:
    os.kill(before["relays"][0]["pid"], signal.SIGKILL)


def drain(running: Cluster, before: Values) -> None:
    with DirectoryLink(running.directory) as link:
        link.ask(Ask("drain", worker=busiest(before)["name"]), 5_000)


EVENTS: dict[str, Callable[[Cluster, Values], None]] = {
    "kill": kill,
    "stop": stop,
    "host": kill_host,
    "directory": kill_directory,
    "relay": kill_relay,
    "drain": drain,
}


def measure(name: str, running: Cluster, streams: list[str], workers: int) -> str:
    """Let an event happen, and say what a client heard of it."""
    before = running.ready(workers, len(streams))
    victim = busiest(before)
    with Watcher(running.scores) as seen:
        seen.further(streams, BEFORE)
        begun_ns = time.monotonic_ns()
        EVENTS[name](running, before)
        placed_ms = float("nan")
        if name in ("kill", "stop", "host", "drain"):
            placed_ms = when_moved(running, set(victim["streams"]), victim["name"])
        seen.further(streams, AFTER)
    if name == "stop" and psutil.pid_exists(victim["pid"]):
        os.kill(victim["pid"], signal.SIGCONT)
    return (
        f"{name:<10} {len(victim['streams']):>3} streams of the victim  placed {placed_ms:7.0f} ms"
        f"  {seen.account(begun_ns)}"
    )


def when_moved(running: Cluster, streams: set[str], victim: str) -> float:
    begun = time.monotonic()
    with DirectoryLink(running.directory) as link:
        while time.monotonic() - begun < 30:
            report = link.ask(Ask("status"), 2_000)
            workers = report.values["workers"]  # type: ignore[union-attr]
            elsewhere = {s for w in workers if w["name"] != victim for s in w["streams"]}
            if streams <= elsewhere:
                return (time.monotonic() - begun) * 1000
            time.sleep(0.002)
    return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--events", default=",".join(EVENTS))
    options = parser.parse_args()
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for workers in (4, 64, 300):
        costs = directory_cost(workers)
        told = "  ".join(f"{kind} {us:6.1f} us" for kind, us in costs.items())
        print(f"directory with {workers:>3} workers of 64 streams: {told}", flush=True)
    if not options.events:
        return
    streams = [f"s{number}" for number in range(options.streams)]
    with tempfile.TemporaryDirectory() as directory:
        arguments = ("--workers", str(options.workers), "--hosts", "2")
        with cluster(Path(directory) / "log", streams, *arguments) as running:
            running.patience_s = 120.0
            for name in options.events.split(","):
                print(measure(name, running, streams, options.workers - 1), flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
