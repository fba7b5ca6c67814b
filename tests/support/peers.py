"""Other processes of a test: a publisher of made-up scores, an engine, a client's command."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
PATIENCE_S = 40.0


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def publisher(script: str, endpoint: str = "tcp://127.0.0.1:*") -> Iterator[str]:
    """Run ``publisher.py`` with a script; gives its endpoint."""
    command = [sys.executable, str(Path(__file__).with_name("publisher.py")), endpoint, script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@dataclass(frozen=True)
class Engine:
    ingest: str
    scores: str
    control: str


@contextmanager
def engine(*arguments: str) -> Iterator[Engine]:
    """Run ``python -m engine`` on free ports."""
    ports = Engine(free_endpoint(), free_endpoint(), free_endpoint())
    command = [sys.executable, "-m", "engine", *arguments, "--ingest", ports.ingest]
    command += ["--scores", ports.scores, "--control", ports.control]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield ports
    finally:
        process.terminate()
        process.wait(timeout=20)


class Program:
    """A program whose lines are read as they come, standard error among them."""

    def __init__(self, *command: str, **options: object) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, **{"env": ENVIRONMENT, **options},
        )  # type: ignore[call-overload]  # fmt: skip
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def line(self, wanted: Callable[[str], object] = bool) -> str:
        """Wait for a line; fails with all lines so far."""
        end_s = time.monotonic() + PATIENCE_S
        while (left_s := end_s - time.monotonic()) > 0:
            with suppress(queue.Empty):
                line = self._queue.get(timeout=left_s)
                if line is None:
                    break
                self.lines.append(line)
                if wanted(line):
                    return line
        raise AssertionError("the line did not come:\n" + "\n".join(self.lines))

    def end(self) -> list[str]:
        """Wait for the program's end and return all its lines."""
        self.process.wait(timeout=PATIENCE_S)
        self._reader.join()
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return self.lines

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def client(*arguments: str, **options: object) -> Program:
    """Run ``python -m clients``."""
    return Program(sys.executable, "-m", "clients", *arguments, **options)


def eventually(found: Callable[[], object], what: str) -> None:
    """Wait until something is true."""
    end_s = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.05)
