"""A whole cluster of real processes for a test, and what its clients see of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from clients.events import Gap
from clients.subscriber import Subscriber
from engine.wire.fields import WireError
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, Report
from engine.wire.messages import Score
from tests.support.peers import ENVIRONMENT, REPOSITORY, free_endpoint

SAMPLE = REPOSITORY / "engine" / "samples" / "sample.mp4"
PATIENCE_S = 50.0
PAUSE_S = 2.0
"""A stream that was silent for longer may owe more than the windows that are caught up with."""


@dataclass
class Cluster:
    """A running ``python -m engine cluster``."""

    directory: str
    scores: str
    control: str
    process: subprocess.Popen[str]
    log: Path
    patience_s: float = PATIENCE_S

    def status(self) -> dict[str, Any]:
        """What the directory says, now."""
        with DirectoryLink(self.directory) as link:
            report = link.ask(Ask("status"), 2_000)
        assert isinstance(report, Report)
        return report.values

    def when(self, found: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """Wait for a state of the cluster and return it."""
        end_s = time.monotonic() + self.patience_s
        values: dict[str, Any] = {}
        while time.monotonic() < end_s:
            try:
                values = self.status()
            except WireError:
                continue
            if found(values):
                return values
            time.sleep(0.1)
        tail = "\n".join(self.log.read_text().splitlines()[-30:])
        raise AssertionError(
            f"not within {self.patience_s} s: {what}\n{json.dumps(values)}\n{tail}"
        )

    def ready(self, workers: int, streams: int) -> dict[str, Any]:
        """Wait until so many workers are ready and hold all streams."""

        def found(values: dict[str, Any]) -> bool:
            ready = [w for w in values["workers"] if w["state"] == "ready"]
            held = sum(len(w["streams"]) for w in ready)
            complete = len(values["relays"]) == 2
            return complete and len(ready) >= workers and held == streams

        return self.when(found, f"{workers} workers with {streams} streams")

    def child(self, role: str) -> psutil.Process:
        """The process of the directory, a relay, or a host."""
        pids = {
            "directory": lambda values: values["directory"]["pid"],
            "relay": lambda values: values["relays"][0]["pid"],
            "host": lambda values: values["directory"]["hosts"][0]["pid"],
        }
        return psutil.Process(pids[role](self.status()))


@contextmanager
def cluster(log: Path, streams: Sequence[str], *arguments: str) -> Iterator[Cluster]:
    """Run a cluster on free ports, with the packaged clip as every stream."""
    sources = [argument for name in streams for argument in ("--stream", f"{name}={SAMPLE}")]
    with _running(log, *arguments, *sources) as running:
        yield running


@contextmanager
def hub(log: Path) -> Iterator[Cluster]:
    """Run a cluster's hub on free ports; ``host`` adds workers to it."""
    with _running(log, "hub") as running:
        yield running


@contextmanager
def host(running: Cluster, name: str, workers: int, **environment: str) -> Iterator[None]:
    """Run a host of a hub; ``environment`` is settings in their names there."""
    command = ["host", "--name", name, "--workers", str(workers)]
    command += ["--directory", running.directory, "--scores", running.scores]
    log = running.log.with_name(f"{running.log.name}-{name}")
    with _engine(log, *command, **environment):
        yield


@contextmanager
def _running(log: Path, *arguments: str) -> Iterator[Cluster]:
    directory, control = free_endpoint(), free_endpoint()
    scores = f"{free_endpoint()},{free_endpoint()}"
    places = ("--directory", directory, "--scores", scores, "--control", control)
    with _engine(log, *arguments, *places) as process:
        yield Cluster(directory, scores, control, process, log)


@contextmanager
def _engine(log: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "engine", "cluster", *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=ENVIRONMENT | environment, stdout=subprocess.DEVNULL, stderr=out, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:  # within a start that takes no signal
                kill_tree(psutil.Process(process.pid))
                process.wait(timeout=30)


class Watcher:
    """Collects what a client sees, from a thread of its own."""

    def __init__(self, scores: str) -> None:
        self.seqs: dict[str, list[int]] = defaultdict(list)
        self.ends_ns: dict[str, list[int]] = defaultdict(list)
        self.came_ns: dict[str, list[int]] = defaultdict(list)
        self.models: dict[str, list[str]] = defaultdict(list)
        self.missing: Counter[str] = Counter()
        self._over = threading.Event()
        self._scores = scores
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        with Subscriber(self._scores) as subscriber:
            while not self._over.is_set():
                for event in subscriber.poll(50):
                    if isinstance(event, Gap):
                        self.missing[event.stream] += event.missing
                    elif isinstance(event, Score):
                        name = event.envelope.stream
                        self.seqs[name].append(event.envelope.seq)
                        self.ends_ns[name].append(event.envelope.t_end_ns)
                        self.came_ns[name].append(time.monotonic_ns())
                        self.models[name].append(event.model.sha256)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def further(self, streams: Sequence[str], scores: int) -> None:
        """Wait until every stream has had so many scores more."""
        before = {name: len(self.seqs[name]) for name in streams}
        end_s = time.monotonic() + PATIENCE_S
        while any(len(self.seqs[name]) < before[name] + scores for name in streams):
            lengths = {name: len(self.seqs[name]) - before[name] for name in streams}
            assert time.monotonic() < end_s, f"no {scores} further scores: {lengths}"
            time.sleep(0.05)

    def account(self, since_ns: int) -> str:
        """The longest silence of a stream since then, the most that one lost, and the order."""
        longest_ns = max(
            after - at
            for times in self.came_ns.values()
            for at, after in pairwise(times)
            if after > since_ns
        )
        lost = max(self.missing.values(), default=0)
        order = "in order" if self.is_in_order_and_once() else "NOT IN ORDER"
        return f"silence {longest_ns / 1e9:5.2f} s  lost {lost}  {order}"

    def lost_without_a_pause(self) -> int:
        """Scores that are missing though their stream was not silent for ``PAUSE_S``.

        How long a move takes, and so what it costs, depends on the machine and is for benchmarks.
        """
        lost = 0
        for name, seqs in self.seqs.items():
            came_ns = self.came_ns[name]
            for (before, after), (left_ns, back_ns) in zip(
                pairwise(seqs), pairwise(came_ns), strict=True
            ):
                lost += max(0, after - before - 1) * (back_ns - left_ns < PAUSE_S * 1e9)
        return lost

    def is_in_order_and_once(self) -> bool:
        """Whether every stream's scores came in order, none twice."""
        return all(ends == sorted(set(ends)) for ends in self.ends_ns.values())


def kill_tree(process: psutil.Process) -> None:
    """End a process and all its children at once, as a machine that loses its power does."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
