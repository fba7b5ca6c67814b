"""What the system says of a process that is silent."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.starvation import Starvation, usage_of

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="the system does not tell"
)
PATIENCE_S = 30.0


def waiting(state: str) -> bool:
    """Whether a process in this state waits, once it is in it."""
    code = {"sleeping": "import time; time.sleep(600)", "running": "while True: pass"}
    process = subprocess.Popen([sys.executable, "-c", code.get(state, code["running"])])
    try:
        watched = psutil.Process(process.pid)
        if state == "stopped":
            watched.suspend()
        end_s = time.monotonic() + PATIENCE_S
        while watched.status() != state or watched.cpu_times().user < 0.01 * (state == "running"):
            assert time.monotonic() < end_s, watched.status()
            time.sleep(0.05)
        usage = usage_of(process.pid)
        assert usage is not None
        return usage.waits
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("state", "waits"), [("running", True), ("sleeping", False), ("stopped", False)]
)
def test_only_a_process_that_would_run_waits(state: str, waits: bool) -> None:
    assert waiting(state) is waits


def test_time_on_the_processor_is_no_waiting_unless_work_counts() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        sight, start = Starvation(busy.pid), Starvation(busy.pid)
        assert sight.waited_s(0.0) == start.waited_s(0.0, work_counts=True) == 0.0
        before = usage_of(busy.pid)
        assert before is not None
        end_s = time.monotonic() + PATIENCE_S
        while (now := usage_of(busy.pid)) is not None and now.used_s < before.used_s + 0.3:
            assert time.monotonic() < end_s
        # It has had 0.3 s or a little more of a second that the caller's clock says.
        assert 0.0 <= sight.waited_s(1.0) <= 0.71
        assert start.waited_s(1.0, work_counts=True) == 1.0
        busy.kill()


def test_a_process_that_is_gone_was_not_kept_waiting() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    sight = Starvation(process.pid)
    assert sight.waited_s(0.0) == sight.waited_s(1.0) == 0.0
