"""What the dashboard costs: ``python benchmarks/dashboard.py [--streams 16] [--browsers 1]``.

A made-up engine publishes 2 scores/s per stream to the dashboard; websockets read as browsers do.
Memory and CPU are the dashboard's own process, and those with one stream.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table
from websockets.sync.client import connect

REPOSITORY = Path(__file__).resolve().parents[1]
STAGE = REPOSITORY / "tests" / "integration" / "stage.py"
HISTORY_S = 3600
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@dataclass(frozen=True)
class Cost:
    """What one run gave."""

    streams: int
    browsers: int
    empty_mb: float
    full_mb: float
    cpu_share: float
    opening_kb: float
    kb_per_s: float


def measure(streams: int, browsers: int, seconds: float) -> Cost:
    """Fill an hour of history, then watch for ``seconds``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    names = ",".join(f"s{index:02}" for index in range(streams))
    command = [sys.executable, "-m", "clients", "dashboard", "--port", "0", "--scores", endpoint]
    dash = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert dash.stderr is not None
    match = re.search(r"127\.0\.0\.1:(\d+)", dash.stderr.readline())
    assert match is not None
    process = psutil.Process(dash.pid)
    time.sleep(2)
    empty_mb = process.memory_info().rss / 2**20
    stage = subprocess.Popen(
        [sys.executable, str(STAGE), endpoint, names, "2", str(HISTORY_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert stage.stdout is not None
    stage.stdout.readline()
    stage.stdout.readline()  # a score of the present: the past is through
    threading.Thread(target=stage.stdout.read, daemon=True).start()
    time.sleep(3)
    received = [0] * browsers
    opening = [0] * browsers
    over = threading.Event()

    def look(index: int) -> None:
        origin = f"http://127.0.0.1:{match[1]}"
        url = f"ws://127.0.0.1:{match[1]}/scores"
        with connect(url, origin=origin, max_size=None, compression=None) as viewer:  # type: ignore[arg-type]
            while not over.is_set():
                message = viewer.recv()
                if isinstance(message, bytes):
                    opening[index] += len(message)
                else:
                    received[index] += len(message)

    threads = [threading.Thread(target=look, args=(index,)) for index in range(browsers)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    before = sum(received)
    cpu_s, since = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - since
    cost = Cost(
        streams,
        browsers,
        empty_mb,
        process.memory_info().rss / 2**20,
        (sum(process.cpu_times()[:2]) - cpu_s) / passed,
        opening[0] / 1024 if browsers else 0.0,
        (sum(received) - before) / 1024 / passed / max(1, browsers),
    )
    over.set()
    for thread in threads:
        thread.join(5)
    stage.kill()
    dash.kill()
    stage.wait()
    dash.wait()
    return cost


def main(
    streams: Annotated[int, typer.Option(help="Streams to show.")] = 16,
    browsers: Annotated[int, typer.Option(help="Browsers that look.")] = 1,
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 20.0,
) -> None:
    """Measure one stream, then many, with an hour of history each."""
    table = Table(title="dashboard, 2 scores/s per stream, one hour of history")
    for name in ("streams", "browsers", "MB empty", "MB full", "core", "opening KB", "KB/s each"):
        table.add_column(name, justify="right")
    costs = [measure(1, browsers, seconds), measure(streams, browsers, seconds)]
    for cost in costs:
        counts = (str(cost.streams), str(cost.browsers))
        sizes = (f"{cost.empty_mb:.0f}", f"{cost.full_mb:.0f}", f"{cost.cpu_share:.1%}")
        table.add_row(*counts, *sizes, f"{cost.opening_kb:.0f}", f"{cost.kb_per_s:.1f}")
    console = Console()
    console.print(table)
    one, many = costs
    added_mb = (many.full_mb - one.full_mb) / max(1, many.streams - one.streams)
    console.print(f"{added_mb:.2f} MB per further stream")


if __name__ == "__main__":
    typer.run(main)
