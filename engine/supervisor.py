"""Starts, watches and restarts the workers.

The policy is pure and takes its clock as an argument; the shell owns processes. Status messages
of capture workers travel through the inference worker, so their silence counts only while that
one is heard.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.processes import USER_MISTAKE, Exit, Sink, WorkerProcess, WorkerSpec
from engine.wire.messages import Status

logger = logging.getLogger(__name__)

FIRST_DELAY_S, LAST_DELAY_S = 0.2, 10.0
HEALTHY_S = 60.0
SILENCE_S = 3.0
START_S = 30.0
"""A worker that has not said a word yet is given this long: a cold disk, a first download."""
STOP_GRACE_S = 1.2
POLL_S = 0.05


class SupervisorError(Exception):
    """A worker met a user's mistake; the message is the worker's own line."""


class RestartPolicy:
    """When a worker that ended may start again, and when a silent one counts as hung.

    All times are seconds of one clock.
    """

    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S
        self._started_s = 0.0
        self._heard_s: float | None = None

    def started(self, now_s: float) -> None:
        """Note that the worker was started."""
        self._started_s, self._heard_s = now_s, None

    def heard(self, now_s: float) -> None:
        """Note a status of the worker."""
        self._heard_s = now_s

    def failed(self, now_s: float) -> float:
        """Note that the worker failed; return when to start it again."""
        if now_s - self._started_s >= HEALTHY_S:
            self._delay_s = FIRST_DELAY_S
        restart_s = now_s + self._delay_s
        self._delay_s = min(LAST_DELAY_S, self._delay_s * 2)
        return restart_s

    def hung(self, now_s: float, heard_through_since_s: float | None) -> bool:
        """Say whether the worker is silent for too long.

        Args:
            now_s: the time.
            heard_through_since_s: since when the way of its status is open; None if it is not.
        """
        if heard_through_since_s is None:
            return False
        if self._heard_s is None:
            return now_s - max(self._started_s, heard_through_since_s) > START_S
        return now_s - max(self._heard_s, heard_through_since_s) > SILENCE_S


class Link:
    """Since when the inference worker, which passes on all status, is heard without a break."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._last_s = 0.0

    def heard(self, now_s: float) -> None:
        """Note a status of the inference worker."""
        if self.since(now_s) is None:
            self._since_s = now_s
        self._last_s = now_s

    def since(self, now_s: float) -> float | None:
        """Return when the unbroken time began, or None if the link is down."""
        if self._since_s is None or now_s - self._last_s > SILENCE_S:
            return None
        return self._since_s


@dataclass
class _Watched:
    spec: WorkerSpec
    policy: RestartPolicy
    process: WorkerProcess | None = None
    start_at_s: float = 0.0
    ended: bool = False
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as the supervisor sees it."""

    name: str
    pid: int | None
    """None between its end and its restart."""
    restarts: int
    ended: bool
    """It ended by itself, as a clip that is played once does."""


class Supervisor:
    """Owns the worker processes; call ``poll`` often and ``stop`` at the end."""

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        log: Sink,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = [_Watched(spec, RestartPolicy()) for spec in specs]
        self._log = log
        self._now = now
        self._link = Link()

    @property
    def workers(self) -> list[WorkerView]:
        """The workers in the order they were given."""
        return [
            WorkerView(w.spec.name, w.process.pid if w.process else None, w.restarts, w.ended)
            for w in self._workers
        ]

    @property
    def captures_ended(self) -> bool:
        """Whether every capture worker came to its clip's end."""
        captures = [worker for worker in self._workers if worker.spec.stream is not None]
        return bool(captures) and all(worker.ended for worker in captures)

    def heard(self, status: Status) -> None:
        """Take note of a status message."""
        now_s = self._now()
        if status.worker == "inference":
            self._link.heard(now_s)
        for worker in self._workers:
            if worker.spec.name == status.envelope.stream:
                worker.policy.heard(now_s)

    def poll(self) -> None:
        """Start what is due, notice what ended or hangs.

        Raises:
            SupervisorError: a worker met a user's mistake, which no restart can mend.
        """
        now_s = self._now()
        for worker in self._workers:
            if worker.ended:
                continue
            if worker.process is None:
                if now_s >= worker.start_at_s:
                    worker.process = WorkerProcess(worker.spec, self._log)
                    worker.policy.started(now_s)
                continue
            end = worker.process.ended()
            if end is not None:
                self._take_end(worker, end, now_s)
            elif worker.policy.hung(now_s, self._way_open_since(worker, now_s)):
                worker.process.kill()
                self._restart(worker, f"no status for {SILENCE_S:.0f} s", now_s)

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

    def _way_open_since(self, worker: _Watched, now_s: float) -> float | None:
        if worker.spec.stream is None:
            return 0.0  # the inference worker speaks for itself
        return self._link.since(now_s)

    def _take_end(self, worker: _Watched, end: Exit, now_s: float) -> None:
        if end.code == USER_MISTAKE and end.message:
            raise SupervisorError(end.message)
        if end.code == 0 and worker.spec.ends:
            worker.process, worker.ended = None, True
            return
        self._restart(worker, f"ended with code {end.code}", now_s)

    def _restart(self, worker: _Watched, why: str, now_s: float) -> None:
        worker.process = None
        worker.restarts += 1
        worker.start_at_s = worker.policy.failed(now_s)
        logger.warning(
            "%s %s; starting it again in %.1f s", worker.spec.name, why, worker.start_at_s - now_s
        )
