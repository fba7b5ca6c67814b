"""Starts, watches and restarts the workers.

The policy is pure and takes its clock as an argument; the shell owns processes. A worker's life is
judged by its pulse (``engine.pulse``), which comes from its own loop through a pipe: what the
network delays or repeats says nothing about a process. Time in which a silent worker was kept from
the processor (``engine.starvation``) does not count: it is slow, and not hung.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.processes import USER_MISTAKE, Exit, Sink, WorkerProcess, WorkerSpec
from engine.pulse import RUNNING
from engine.starvation import Starvation
from models.errors import UserError

logger = logging.getLogger(__name__)

FIRST_DELAY_S, LAST_DELAY_S = 0.2, 10.0
HEALTHY_S = 60.0
SILENCE_S = 3.0
START_SILENCE_S = 20.0
"""A worker that starts may hold Python's lock for this long: a large library from a cold disk."""
DOUBT_S = 0.5
"""A worker that is silent for longer is looked at: whether it gets the processor."""
LONGEST_WAIT_S = 60.0
"""So long a worker may be kept from the processor: threads next to a dead loop may want it too."""
START_S = 1800.0
"""A start that is alive may take this long: plans for many shapes are built."""
STOP_GRACE_S = 1.2
POLL_S = 0.05
LOOK_S = 0.25
"""A longer pause between two looks is the supervisor's own sleep, and no worker's silence."""


class SupervisorError(UserError):
    """A worker met a user's mistake; the message is the worker's own line."""


class RestartPolicy:
    """When a worker that ended may start again, and when a silent one counts as hung.

    All times are seconds of one clock, that of ``Attention`` for what is hung.
    """

    def __init__(self, patience_s: float | None = None) -> None:
        """``patience_s``: silence that a running worker may keep; None: ``SILENCE_S``."""
        self._patience_s = patience_s
        self._delay_s = FIRST_DELAY_S
        self._started_s = 0.0
        self._beat_s = 0.0
        self._excused_s = 0.0
        self._running = False

    @property
    def running(self) -> bool:
        """Whether the worker's loop has come round since its start."""
        return self._running

    @property
    def silence_s(self) -> float:
        """Silence that is allowed now."""
        if not self._running:
            return START_SILENCE_S
        return SILENCE_S if self._patience_s is None else self._patience_s

    def started(self, now_s: float) -> None:
        """Note that the worker was started."""
        self._started_s = self._beat_s = now_s
        self._excused_s = 0.0
        self._running = False

    def beat(self, now_s: float, running: bool) -> None:
        """Note the worker's pulse; ``running``: it came from its loop, not from its start."""
        self._beat_s = now_s
        self._excused_s = 0.0
        self._running = self._running or running

    def excuse(self, span_s: float) -> None:
        """Note that the silent worker was kept from the processor for so long."""
        self._excused_s = min(self._excused_s + span_s, LONGEST_WAIT_S)

    def is_doubtful(self, now_s: float) -> bool:
        """Whether the worker is silent for so long that its reason matters."""
        return now_s - self._beat_s > DOUBT_S

    def failed(self, now_s: float) -> float:
        """Note that the worker failed; return when to start it again."""
        if now_s - self._started_s >= HEALTHY_S:
            self._delay_s = FIRST_DELAY_S
        restart_s = now_s + self._delay_s
        self._delay_s = min(LAST_DELAY_S, self._delay_s * 2)
        return restart_s

    def hung(self, now_s: float) -> bool:
        """Say whether the worker is silent for too long, or starts for too long."""
        if now_s - self._beat_s - self._excused_s > self.silence_s:
            return True
        return not self._running and now_s - self._started_s > START_S


class Attention:
    """A clock that stands while the supervisor itself sleeps.

    A stopped terminal (Ctrl-Z), a suspended computer or a starved process silences both sides:
    nobody may be killed for what the supervisor did not listen to.
    """

    def __init__(self, now_s: float) -> None:
        self._looked_s = now_s
        self._attended_s = 0.0

    def look(self, now_s: float) -> float:
        """Return the time that was attended up to this look."""
        self._attended_s += min(max(now_s - self._looked_s, 0.0), LOOK_S)
        self._looked_s = now_s
        return self._attended_s


@dataclass
class _Watched:
    spec: WorkerSpec
    policy: RestartPolicy
    process: WorkerProcess | None = None
    starvation: Starvation | None = None
    start_at_s: float = 0.0
    ended: bool = False
    failure: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as the supervisor sees it."""

    name: str
    pid: int | None
    """None between its end and its restart."""
    restarts: int
    ended: bool
    """It is over for good: a clip that is played once, or a failure."""
    failure: str = ""
    """The mistake that ended it: one line, empty for none."""
    running: bool = False
    """Its loop has come round: the start is over."""


class Supervisor:
    """Owns the worker processes; call ``poll`` often and ``stop`` at the end."""

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        log: Sink,
        now: Callable[[], float] = time.monotonic,
        launch: Callable[[WorkerSpec, Sink], WorkerProcess] = WorkerProcess,
        patience_s: float | None = None,
    ) -> None:
        """``patience_s``: silence that a running worker may keep; see ``RestartPolicy``."""
        self._launch = launch
        self._workers = [_Watched(spec, RestartPolicy(patience_s)) for spec in specs]
        self._log = log
        self._now = now
        self._attention = Attention(now())

    @property
    def workers(self) -> list[WorkerView]:
        """The workers in the order they were given."""
        return [
            WorkerView(
                w.spec.name,
                w.process.pid if w.process else None,
                w.restarts,
                w.ended,
                w.failure,
                w.process is not None and w.policy.running,
            )
            for w in self._workers
        ]

    @property
    def captures_ended(self) -> bool:
        """Whether every capture worker came to its clip's end, or failed."""
        captures = self._captures()
        return bool(captures) and all(worker.ended for worker in captures)

    def poll(self) -> None:
        """Start what is due, notice what ended or hangs.

        A capture worker's mistake ends that worker only, and the run once none is left.

        Raises:
            SupervisorError: a user's mistake stopped the inference worker or every capture.
        """
        now_s = self._attention.look(self._now())
        for worker in self._workers:
            if worker.ended:
                continue
            if worker.process is None:
                if now_s >= worker.start_at_s:
                    worker.process = self._launch(worker.spec, self._log)
                    worker.starvation = Starvation(worker.process.pid)
                    worker.policy.started(now_s)
                continue
            self._listen(worker, worker.process, now_s)
            end = worker.process.ended()
            if end is not None:
                self._take_end(worker, end, now_s)
            elif worker.policy.hung(now_s):
                why = f"no pulse for {worker.policy.silence_s:.0f} s"
                worker.process.kill()
                self._restart(worker, why, now_s)

    def signal(self, number: int) -> None:
        """Send a signal to every worker, such as SIGSTOP and SIGCONT around a stop of our own."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.signal(number)

    def stop(self) -> None:
        """End every worker: ask, wait a moment, then kill."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            process.stop()
        end_s = time.monotonic() + STOP_GRACE_S
        while time.monotonic() < end_s and any(p.ended() is None for p in processes):
            time.sleep(0.02)
        for process in processes:
            process.kill()

    @staticmethod
    def _listen(worker: _Watched, process: WorkerProcess, now_s: float) -> None:
        """Take a worker's pulse; of a silent one, note how long it was kept from the processor."""
        assert worker.starvation is not None
        if beats := process.beats():
            worker.policy.beat(now_s, RUNNING in beats)
            worker.starvation.reset()
        elif worker.policy.is_doubtful(now_s):
            # One long call of its start may hold Python's lock: that is work, and no silence.
            starts = not worker.policy.running
            worker.policy.excuse(worker.starvation.waited_s(now_s, work_counts=starts))

    def _captures(self) -> list[_Watched]:
        return [worker for worker in self._workers if worker.spec.stream is not None]

    def _take_end(self, worker: _Watched, end: Exit, now_s: float) -> None:
        if end.code == USER_MISTAKE and end.message:
            if worker.spec.stream is None:
                raise SupervisorError(end.message)
            self._give_up(worker, end.message)
        elif end.code == 0 and worker.spec.ends:
            worker.process, worker.ended = None, True
        else:
            self._restart(worker, f"ended with code {end.code}", now_s)

    def _give_up(self, worker: _Watched, why: str) -> None:
        worker.process, worker.ended, worker.failure = None, True, why
        logger.error("%s ended: %s", worker.spec.name, why)
        if all(capture.failure for capture in self._captures()):
            raise SupervisorError(why)

    def _restart(self, worker: _Watched, why: str, now_s: float) -> None:
        worker.process = None
        worker.restarts += 1
        worker.spec = worker.spec.model_copy(update={"again": True})
        worker.start_at_s = worker.policy.failed(now_s)
        logger.warning(
            "%s %s; starting it again in %.1f s", worker.spec.name, why, worker.start_at_s - now_s
        )
