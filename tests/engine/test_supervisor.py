"""The supervisor: its policy on a clock of the test's own, and itself with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from engine import supervisor as module
from engine.processes import Sink, WorkerProcess, WorkerSpec
from engine.settings import StreamSettings, load
from engine.supervisor import (
    FIRST_DELAY_S,
    HEALTHY_S,
    LAST_DELAY_S,
    LONGEST_WAIT_S,
    LOOK_S,
    SILENCE_S,
    START_S,
    START_SILENCE_S,
    Attention,
    RestartPolicy,
    Supervisor,
    SupervisorError,
)

REPOSITORY = Path(__file__).resolve().parents[2]
ACTOR = REPOSITORY / "tests" / "support" / "actor.py"
PATIENCE_S = 30.0


def test_a_running_worker_of_a_cluster_is_given_more_time() -> None:
    policy = RestartPolicy(patience_s=8.0)
    policy.started(0.0)
    policy.beat(1.0, running=True)
    assert not policy.hung(9.0)
    assert policy.hung(9.1)


def test_delays_double_up_to_the_longest() -> None:
    policy = RestartPolicy()
    now_s, delays = 100.0, []
    for _ in range(9):
        policy.started(now_s)
        restart_s = policy.failed(now_s + 1.0)
        delays.append(round(restart_s - now_s - 1.0, 6))
        now_s = restart_s
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == LAST_DELAY_S
    assert delays == sorted(delays)


def test_a_healthy_minute_forgives() -> None:
    policy = RestartPolicy()
    for now_s in (0.0, 1.0, 2.0):
        policy.started(now_s)
        policy.failed(now_s)
    policy.started(10.0)
    end_s = 10.0 + HEALTHY_S
    assert policy.failed(end_s) == end_s + FIRST_DELAY_S


def test_a_loop_that_stops_beating_hangs() -> None:
    policy = RestartPolicy()
    policy.started(0.0)
    policy.beat(1.0, running=True)
    assert not policy.hung(1.0 + SILENCE_S)
    assert policy.hung(1.1 + SILENCE_S)


def test_time_without_the_processor_is_no_silence_but_not_for_ever() -> None:
    policy = RestartPolicy()
    policy.started(0.0)
    policy.beat(0.0, running=True)
    policy.excuse(2.0)
    assert not policy.hung(2.0 + SILENCE_S)
    assert policy.hung(2.1 + SILENCE_S)
    policy.excuse(LONGEST_WAIT_S)
    assert policy.hung(0.1 + LONGEST_WAIT_S + SILENCE_S)
    policy.beat(10.0, running=True)
    assert policy.hung(10.1 + SILENCE_S)


def test_a_start_may_take_long_as_long_as_it_beats_but_not_for_ever() -> None:
    policy = RestartPolicy()
    policy.started(5.0)
    assert not policy.hung(5.0 + START_SILENCE_S)
    assert policy.hung(5.1 + START_SILENCE_S)
    now_s = 5.0
    while now_s < 5.0 + START_S:
        policy.beat(now_s, running=False)
        assert not policy.hung(now_s)
        now_s += START_SILENCE_S
    policy.beat(5.1 + START_S, running=False)
    assert policy.hung(5.1 + START_S)


def test_a_restart_begins_afresh() -> None:
    policy = RestartPolicy()
    policy.started(0.0)
    policy.beat(1.0, running=True)
    policy.started(20.0)
    assert not policy.hung(25.0)


def test_what_the_supervisor_slept_through_counts_against_nobody() -> None:
    attention, policy = Attention(100.0), RestartPolicy()
    policy.started(attention.look(100.0))
    policy.beat(attention.look(100.1), running=True)
    assert not policy.hung(attention.look(500.0))
    assert attention.look(500.0) == pytest.approx(0.1 + LOOK_S)


@contextmanager
def watching(*parts: str, says: list[str] | None = None) -> Iterator[Supervisor]:
    """A supervisor of actors: the first is the inference worker, the others capture."""
    settings = load()
    specs = [WorkerSpec(settings=settings)]
    for number in range(1, len(parts)):
        stream = StreamSettings(name=f"s{number}", camera=0)
        specs.append(WorkerSpec(settings=settings, stream=stream, device="camera"))
    part_of = dict(zip((spec.name for spec in specs), parts, strict=True))

    def launch(spec: WorkerSpec, log: Sink) -> WorkerProcess:
        return WorkerProcess(spec, log, (sys.executable, str(ACTOR), part_of[spec.name]))

    supervisor = Supervisor(specs, (says if says is not None else []).append, launch=launch)
    try:
        yield supervisor
    finally:
        supervisor.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pulse's silence counts sooner, and the actors find the engine."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def poll_until(supervisor: Supervisor, done: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end_s, supervisor.workers
        supervisor.poll()
        time.sleep(0.02)


def poll_for(supervisor: Supervisor, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        supervisor.poll()
        time.sleep(0.02)


def test_a_slow_start_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 1.0)
    monkeypatch.setattr(module, "START_SILENCE_S", 1.5)
    with watching("warm:3") as supervisor:
        poll_for(supervisor, 4.0)
        (worker,) = supervisor.workers
    assert worker.restarts == 0
    assert worker.pid is not None


@pytest.mark.parametrize("part", ["hang", "mute", "spin"])
def test_a_worker_without_a_pulse_is_replaced(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.6)
    monkeypatch.setattr(module, "START_SILENCE_S", 1.5)
    with watching(part) as supervisor:
        poll_until(supervisor, lambda: supervisor.workers[0].restarts == 1)


@contextmanager
def starved(pid: int, rivals: int = 3) -> Iterator[None]:
    """Leave a process less than a hundredth of one processor, which busy others want too."""
    processor = min(os.sched_getaffinity(0))
    burn = f"import os; os.sched_setaffinity(0, [{processor}])\nwhile True: pass"
    os.sched_setaffinity(pid, [processor])
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):  # sessions may be groups of their own, each with an equal share
        Path(f"/proc/{pid}/autogroup").write_text("19")
    busy = [
        subprocess.Popen([sys.executable, "-c", burn], start_new_session=True)
        for _ in range(rivals)
    ]
    try:
        yield
    finally:
        for rival in busy:
            rival.kill()
            rival.wait()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell")
def test_a_worker_that_is_kept_from_the_processor_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 1.0)
    with watching("work") as supervisor:
        poll_until(supervisor, lambda: supervisor.workers[0].running)
        pid = supervisor.workers[0].pid
        assert pid is not None
        with starved(pid):
            poll_for(supervisor, 6.0)
        poll_for(supervisor, 1.0)
        assert supervisor.workers[0].pid == pid
        os.kill(pid, signal.SIGSTOP)
        poll_until(supervisor, lambda: supervisor.workers[0].restarts == 1)


def test_a_stopped_worker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.6)
    with watching("run") as supervisor:
        poll_until(supervisor, lambda: supervisor.workers[0].running)
        pid = supervisor.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        poll_until(supervisor, lambda: supervisor.workers[0].pid not in (pid, None))
        assert not psutil.pid_exists(pid)


def test_nobody_is_killed_when_both_sides_were_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.6)
    with watching("run") as supervisor:
        poll_until(supervisor, lambda: supervisor.workers[0].running)
        supervisor.signal(signal.SIGSTOP)
        time.sleep(2.0)  # the supervisor sleeps too
        supervisor.signal(signal.SIGCONT)
        poll_for(supervisor, 1.0)
        assert supervisor.workers[0].restarts == 0


def test_a_captures_mistake_ends_its_own_stream_and_the_last_one_the_run() -> None:
    with watching("run", "mistake", "run") as supervisor:
        poll_until(supervisor, lambda: supervisor.workers[1].ended)
        poll_for(supervisor, 0.3)
        infer, failed, other = supervisor.workers
        assert failed.failure == "no such thing: expected one, got none"
        assert other.pid is not None
        assert infer.pid is not None
        assert not supervisor.captures_ended
    with (
        watching("run", "mistake", "mistake") as supervisor,
        pytest.raises(SupervisorError, match="no such thing: expected one, got none"),
    ):
        poll_until(supervisor, lambda: False)


def test_lines_of_one_cause_are_limited_and_hold_no_password() -> None:
    said: list[str] = []
    with watching("talk", says=said) as supervisor:
        poll_for(supervisor, 1.5)
    assert "lost packet 17 of rtsp://***@camera/1" in said
    assert len(said) < 20


@pytest.mark.parametrize("frozen", [False, True])
def test_no_worker_outlives_a_killed_supervisor_even_a_frozen_one(frozen: bool) -> None:
    script = (
        "import time\n"
        "from tests.engine.test_supervisor import watching\n"
        "with watching('run') as supervisor:\n"
        "    while True:\n"
        "        supervisor.poll()\n"
        "        worker = supervisor.workers[0]\n"
        "        print(worker.pid if worker.running else None, flush=True)\n"
        "        time.sleep(0.05)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as parent:
        assert parent.stdout is not None
        pid = int(next(line for line in parent.stdout if line.strip() != "None"))
        worker = psutil.Process(pid)
        if frozen:
            worker.suspend()
        parent.kill()
        with suppress(psutil.NoSuchProcess):
            worker.wait(PATIENCE_S)
        assert not psutil.pid_exists(pid)
