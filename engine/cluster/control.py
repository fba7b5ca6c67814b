"""The control endpoint of a cluster: a request goes to the workers whose streams it is about.

A client asks here what it asks the one worker of ``run``. ``ControlRouter`` knows the workers and
asks them through functions that it is given; ``run_control`` is its socket and loop, a process of
its own, so that a worker that does not answer delays only the client that asked.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.settings import EngineSettings
from engine.wire.clock import this_clock
from engine.wire.control import ControlClient, ControlServer, Request, parse
from engine.wire.fields import WireError
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, Report
from engine.wire.messages import SCHEMA
from engine.wire.security import ClientSecurity, ServerSecurity

log = logging.getLogger(__name__)

DIRECTORY_MS = 500
ANSWER_S = 1.0
"""What a worker has not answered by then counts as not done, and is named in the reply."""
AT_ONCE = 16
STEP_S = 0.25
POLL_MS = 100
MAX_NAMED = 1000
"""Streams and workers in a reply to ``describe``."""

Values = Mapping[str, Any]
"""A request's or reply's map."""


@dataclass(frozen=True, slots=True)
class WorkerRef:
    """A worker as the directory knows it."""

    name: str
    pid: int
    control: str
    streams: tuple[str, ...]


Replies = dict[WorkerRef, Values | WireError]
AskWorkers = Callable[[Sequence[WorkerRef], Values], Replies]


class ControlRouter:
    """Carries out requests.

    Args:
        workers: the workers that are heard now.
        ask: puts one request to some of them, and returns what each replied in time.
        facts: what ``describe`` says of the cluster itself.
    """

    def __init__(
        self,
        workers: Callable[[], Sequence[WorkerRef]],
        ask: AskWorkers,
        facts: Values | None = None,
    ) -> None:
        self._workers, self._ask, self._facts = workers, ask, facts or {}
        self._paused: set[tuple[str, int]] | None = None
        """The processes that were paused; None while the cluster runs."""

    def answer(self, values: Values) -> Values:
        """Reply to one request.

        Raises:
            WireError: the request is none, or nobody could carry it out.
        """
        request = parse(values)
        match request.command:
            case "describe":
                return self._describe()
            case "mark":
                return self._mark(request, values)
            case "pause" | "resume":
                return self._turn(request.command)
            case "ping" | "clock" if request.stream is not None:
                return self._of(request.stream, values)
            case "ping" | "clock":
                raise WireError(
                    "request.stream: expected the name of a stream, got nil: "
                    "each worker of a cluster has its host's clock"
                )
        raise WireError("release: expected from a capture, at its worker's own endpoint")

    def step(self) -> None:
        """While the cluster is paused, pause who has come since."""
        if self._paused is not None:
            new = [
                worker
                for worker in self._workers()
                if (worker.name, worker.pid) not in self._paused
            ]
            if new:
                self._pause(new)

    def _mark(self, request: Request, values: Values) -> Values:
        if request.stream is not None:
            return self._of(request.stream, values)
        replies = self._ask([worker for worker in self._workers() if worker.streams], values)
        reached = sum(int(reply.get("streams", 0)) for reply in _taken(replies).values())
        faults = _faults(replies)
        if faults and not reached:
            raise WireError("; ".join(faults))
        return {"streams": reached, "failed": faults}

    def _of(self, stream: str, values: Values) -> Values:
        """Put a request to the worker that holds the stream."""
        camera = stream.partition("/")[0]  # people before one camera live where it does
        workers = self._workers()
        holder = next((worker for worker in workers if camera in worker.streams), None)
        if holder is None:
            known = sorted(name for worker in workers for name in worker.streams)
            raise WireError(f"no stream {stream!r}; known: {', '.join(known[:8]) or 'none'}")
        reply = self._ask([holder], values)[holder]
        if isinstance(reply, WireError):
            raise reply
        return reply

    def _turn(self, command: str) -> Values:
        workers = self._workers()
        if command == "pause":
            self._paused = set()
            faults = self._pause(workers)
        else:
            self._paused = None
            faults = _faults(self._ask(workers, {"command": "resume"}))
        if len(faults) == len(workers):
            raise WireError("; ".join(faults) or "no worker is heard")
        return {"state": "paused" if command == "pause" else "running", "failed": faults}

    def _pause(self, workers: Sequence[WorkerRef]) -> list[str]:
        replies = self._ask(workers, {"command": "pause"})
        if self._paused is not None:
            self._paused |= {(worker.name, worker.pid) for worker in _taken(replies)}
        return _faults(replies)

    def _describe(self) -> Values:
        replies = _taken(self._ask(self._workers(), {"command": "describe"}))
        if not replies:
            raise WireError("no worker is heard")
        streams = sorted(name for worker in replies for name in worker.streams)
        states = {worker.name: str(reply["state"]) for worker, reply in replies.items()}
        first = next(iter(replies.values()))
        return {
            **first,
            **self._facts,
            "state": next((s for s in ("running", "ready") if s in states.values()), "paused"),
            "streams": streams[:MAX_NAMED],
            "stream_count": len(streams),
            "workers": dict(list(states.items())[:MAX_NAMED]),
        }


def _taken(replies: Replies) -> dict[WorkerRef, Values]:
    return {worker: reply for worker, reply in replies.items() if not isinstance(reply, WireError)}


def _faults(replies: Replies) -> list[str]:
    return [f"{p.name}: {fault}" for p, fault in replies.items() if isinstance(fault, WireError)]


class WorkerClients:
    """Finds the workers through the directory, and asks them at their own control endpoints.

    Args:
        link: the connection to the directory.
        security: the pool's keys, with CURVE.
    """

    def __init__(self, link: DirectoryLink, security: ClientSecurity | None) -> None:
        self._link, self._security = link, security
        self._workers: tuple[WorkerRef, ...] = ()
        self._pool = ThreadPoolExecutor(AT_ONCE, "asking")

    def workers(self) -> Sequence[WorkerRef]:
        """The workers that are heard; where the directory is away, those that it named last."""
        self._link.receive_all()  # an answer that came too late is none to this question
        with contextlib.suppress(WireError):
            answer = self._link.ask(Ask("status"), DIRECTORY_MS)
            if isinstance(answer, Report):
                self._workers = tuple(_workers_in(answer.values))
        return self._workers

    def ask(self, workers: Sequence[WorkerRef], values: Values) -> Replies:
        """Put one request to some workers at once."""
        asked = {self._pool.submit(self._ask_one, worker, values): worker for worker in workers}
        done, _ = wait(asked, ANSWER_S)
        late = WireError(f"no reply within {ANSWER_S:.0f} s")
        return {worker: work.result() if work in done else late for work, worker in asked.items()}

    def _ask_one(self, worker: WorkerRef, values: Values) -> Values | WireError:
        arguments = {key: value for key, value in values.items() if key != "command"}
        try:
            with ControlClient(worker.control, int(ANSWER_S * 1000), self._security) as client:
                return client.request(str(values["command"]), **arguments)
        except WireError as fault:
            return fault

    def close(self) -> None:
        """Let the requests that are under way end."""
        self._pool.shutdown(cancel_futures=True)


def _workers_in(status: Values) -> Iterable[WorkerRef]:
    for worker in status["workers"]:
        if worker["state"] != "silent":
            yield WorkerRef(
                worker["name"], worker["pid"], worker["control"], tuple(worker["streams"])
            )


def run_control(
    settings: EngineSettings,
    directory: str,
    stopped: Callable[[], bool],
    security: ServerSecurity | None = None,
) -> None:
    """Run the router in this process until ``stopped``.

    Raises:
        WireError: the endpoint is in use.
    """
    member = None if security is None else security.as_client()
    facts = {
        "schema": SCHEMA,
        "detail": "a cluster",
        "scores": settings.scores,
        "ingest": None,
        "directory": directory,
        "clock": msgspec.to_builtins(this_clock()),
    }
    with (
        ControlServer(settings.control, security) as server,
        DirectoryLink(directory, member) as link,
        contextlib.closing(WorkerClients(link, member)) as clients,
    ):
        router = ControlRouter(clients.workers, clients.ask, facts)

        def answer(values: Values) -> Values:
            stopped()  # each request is a turn: a busy router must not be taken for a hung one
            return router.answer(values)

        log.info("control on %s", server.endpoint)
        stepped_s = time.monotonic()
        while not stopped():
            server.raw.poll(POLL_MS)
            server.serve(answer)
            if time.monotonic() - stepped_s >= STEP_S:
                router.step()
                stepped_s = time.monotonic()
