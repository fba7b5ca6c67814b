from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.wire.messages import Status
from engine.wire.scores import ScoreReceiver

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def scores() -> str:
    return free_endpoint()


@pytest.fixture
def engine(scores: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "engine", "infer", "--scores", scores),
            *("--ingest", free_endpoint(), "--control", free_endpoint()),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def await_status(receiver: ScoreReceiver, states: tuple[str, ...], after_ns: int = 0) -> Status:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        message = receiver.receive(200)
        if (
            isinstance(message, Status)
            and message.state in states
            and message.envelope.t_sent_ns > after_ns
        ):
            return message
    raise AssertionError(f"no status {states} within {PATIENCE_S} s")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_hanging_worker_is_replaced(
    engine: subprocess.Popen[str], scores: str, number: signal.Signals
) -> None:
    with ScoreReceiver(scores) as receiver:
        await_status(receiver, ("ready", "running"))
        (worker,) = psutil.Process(engine.pid).children()
        hurt_ns = time.monotonic_ns()
        os.kill(worker.pid, number)
        await_status(receiver, ("ready", "running"), after_ns=hurt_ns)
        (successor,) = psutil.Process(engine.pid).children()
    assert successor.pid != worker.pid
    assert engine.poll() is None
