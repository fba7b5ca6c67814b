"""What a cluster on Ray does when a node or Ray's head is lost: several Ray nodes on one machine.

    python -m benchmarks.cluster_ray --events node,head    # needs pip install -e ".[cluster]"

A node is lost with everything that runs on it at once, as when a machine loses its power; Ray's
head loses its GCS, the process that knows the cluster. ``capacity`` is the time until as many
workers are ready as before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from engine.cluster.ray_pool import HEALTH, load
from tests.support.clusters import Cluster, Watcher, cluster, kill_tree
from tests.support.peers import ENVIRONMENT

WORKERS, HOSTS, NODES = 4, 2, 3
"""One node is spare: Ray starts a lost node's host again there."""
BEFORE, AFTER = 6, 12
Values = dict[str, Any]


@contextmanager
def nodes() -> Iterator[Any]:
    """A Ray cluster: a head, which has room for directory and relays only, and nodes."""
    load()
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "include_dashboard": False, "_system_config": dict(HEALTH),
        },
    )  # fmt: skip
    for _ in range(NODES):
        made.add_node(num_cpus=WORKERS // HOSTS)
    try:
        yield made
    finally:
        made.shutdown()


def raylet_of(pid: int) -> psutil.Process:
    """The Ray node that a host's process runs on."""
    return next(p for p in psutil.Process(pid).parents() if p.name() == "raylet")


def lose_node(ray: Any, before: Values) -> None:
    """Kill the node of the busiest host."""
    worker = max(before["workers"], key=lambda worker: len(worker["streams"]))
    host = next(h for h in before["directory"]["hosts"] if h["name"] == worker["host"])
    kill_tree(raylet_of(host["pid"]))


def lose_head(ray: Any, before: Values) -> None:
    """Kill the process that knows the Ray cluster."""
    ray.head_node.kill_gcs_server()


EVENTS: dict[str, Callable[[Any, Values], None]] = {"node": lose_node, "head": lose_head}


def measure(name: str, ray: Any, running: Cluster, streams: list[str]) -> str:
    """Let it happen, and say what a client heard of it."""
    before = running.ready(WORKERS, len(streams))
    pids = {worker["pid"] for worker in before["workers"]}
    with Watcher(running.scores) as seen:
        seen.further(streams, BEFORE)
        begun_ns = time.monotonic_ns()
        EVENTS[name](ray, before)
        capacity = ""
        if name == "node":
            running.when(lambda values: is_whole(values, pids), "as many workers as before")
            capacity = f"  capacity {(time.monotonic_ns() - begun_ns) / 1e9:5.2f} s"
        seen.further(streams, AFTER)
    return f"{name:<6} {seen.account(begun_ns)}{capacity}"


def is_whole(values: Values, pids: set[int]) -> bool:
    """Whether as many workers are ready again, some of them new."""
    ready = {worker["pid"] for worker in values["workers"] if worker["state"] == "ready"}
    return len(ready) >= WORKERS and not ready <= pids


def outlast(running: Cluster, streams: list[str], seconds: float) -> str:
    """Whether every stream is still scored after so many seconds."""
    with Watcher(running.scores) as seen:
        time.sleep(seconds)
        end_ns = time.monotonic_ns()
    longest = max(
        max((after - at for at, after in pairwise([*seen.came_ns[name], end_ns])), default=0)
        for name in streams
    )
    last = max(end_ns - max(seen.came_ns[name], default=0) for name in streams)
    return (
        f"{seconds:.0f} s later: longest silence {longest / 1e9:.2f} s, last score of each stream "
        f"at most {last / 1e9:.2f} s ago"
    )


def main() -> None:
    """Measure each event in a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--events", default=",".join(EVENTS))
    parser.add_argument("--outlast", type=float, default=0.0, help="Seconds without a head.")
    options = parser.parse_args()
    os.environ.update(PYTHONPATH=ENVIRONMENT["PYTHONPATH"])
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    streams = [f"s{number}" for number in range(options.streams)]
    for name in options.events.split(","):
        with tempfile.TemporaryDirectory() as directory, nodes() as ray:
            log = Path(directory) / "log"
            where = ("--ray", ray.address)
            counts = ("--workers", str(WORKERS), "--hosts", str(HOSTS))
            with cluster(log, streams, *where, *counts) as running:
                running.patience_s = 120.0
                print(measure(name, ray, running, streams), flush=True)
                if options.outlast:
                    print(outlast(running, streams, options.outlast), flush=True)
            print("".join(f"    {line}\n" for line in log.read_text().splitlines()[-12:]))
            if name != "head":
                stop = [sys.executable, "-m", "engine", "cluster", "stop", *where]
                print(subprocess.run(stop, capture_output=True, text=True, check=False).stdout)


if __name__ == "__main__":
    main()
