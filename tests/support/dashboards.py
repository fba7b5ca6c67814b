"""Dashboards, engines and made-up engines as real processes, for tests."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class Lines:
    """What a process has printed so far, read by a thread so that it never blocks."""

    file: IO[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self.file:
            self.lines.append(line.rstrip("\n"))

    def end(self) -> list[str]:
        self._thread.join(10)
        return self.lines


@dataclass
class Dashboard:
    """A running ``python -m clients dashboard``."""

    process: subprocess.Popen[str]
    url: str
    errors: Lines

    @property
    def address(self) -> tuple[str, int]:
        match = re.match(r"http://([^:/]+):(\d+)/", self.url)
        assert match is not None
        return match[1], int(match[2])

    @property
    def origin(self) -> str:
        return "http://{}:{}".format(*self.address)


@contextmanager
def dashboard(scores: str, *options: str) -> Iterator[Dashboard]:
    command = [sys.executable, "-m", "clients", "dashboard", "--scores", scores, "--port", "0"]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stderr is not None
        try:
            first = process.stderr.readline()
            match = re.search(r"http://\S+", first)
            assert match is not None, first + process.stderr.read()
            yield Dashboard(process, match[0], Lines(process.stderr))
        finally:
            process.kill()


@dataclass
class Stage:
    """A running ``stage.py``: an engine of made-up scores."""

    process: subprocess.Popen[str]
    printed: Lines

    def scores(self) -> dict[tuple[str, int], float | None]:
        """Valence by stream and number, of everything published in the present."""
        found = {}
        for line in list(self.printed.lines):
            name, seq, value = line.split()
            found[name, int(seq)] = None if value == "None" else float(value)
        return found

    def mark(self, label: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(label + "\n")
        self.process.stdin.flush()


@contextmanager
def stage(endpoint: str, names: str, rate_hz: float = 5, past_s: float = 0) -> Iterator[Stage]:
    script = str(Path(__file__).with_name("stage.py"))
    with subprocess.Popen(
        [sys.executable, script, endpoint, names, str(rate_hz), str(past_s)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield Stage(process, Lines(process.stdout))
        finally:
            process.kill()


@contextmanager
def engine(
    scores: str, ingest: str, *options: str, control: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The real inference side, under its supervisor."""
    command = [sys.executable, "-m", "engine", *(options or ("infer",))]
    with subprocess.Popen(
        [
            *(*command, "--scores", scores, "--ingest", ingest),
            *("--control", control or free_endpoint()),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
