from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.wire.scores import ScoreReceiver

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def start() -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start an engine and wait until its worker speaks."""
    scores = free_endpoint()
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
    with ScoreReceiver(scores) as receiver:
        assert receiver.receive(25_000) is not None
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_without_a_traceback(number: signal.Signals) -> None:
    process, workers = start()
    assert workers
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not any(worker.is_running() for worker in workers)


def test_no_worker_outlives_a_killed_engine() -> None:
    process, workers = start()
    assert workers
    process.kill()
    process.communicate(timeout=20)
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert len(gone) == len(workers)
    assert not alive
