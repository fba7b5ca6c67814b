"""A host: one machine's (or card's) plain workers, started, watched and replaced.

It starts them once the directory has heard of it: one whose name is taken starts none. It holds no
stream and sees no message; when it dies its workers end with it. A worker that it starts is the
same process as everywhere; its settings say where the directory is.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

import zmq

from engine.processes import Sink, WorkerSpec
from engine.settings import EngineSettings
from engine.supervisor import Supervisor, SupervisorError
from engine.wire.fields import WireError
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, HostBeat, Rejected, Retire, Upgrade
from engine.wire.security import ServerSecurity

log = logging.getLogger(__name__)

BEAT_S = 0.25
POLL_MS = 50
ANSWER_MS = 500
TAKEN_S = 2.0
"""A name is taken if it still is after this long: a host that was killed is forgotten sooner."""
PATIENCE_S = 8.0
"""Silence of a worker before it is replaced. Its streams have long moved by then; what is killed
sooner, under the load of others' replays, only makes more of them."""


class Workers:
    """The workers of this host, each with a supervisor of its own, so that one can be ended.

    Args:
        settings: of the engine; ``cluster`` says which host this is.
        count: workers of each generation.
        log: takes the workers' log lines.
        order: bundle to begin with in place of the settings' own: of an upgrade that others had.
    """

    def __init__(
        self, settings: EngineSettings, count: int, log: Sink, order: Upgrade | None = None
    ) -> None:
        self._settings, self._count, self._log = settings, count, log
        self._supervisors: dict[str, tuple[Upgrade, Supervisor]] = {}
        self._own = Upgrade(settings.bundle, settings.cluster.generation)
        self._orders: list[Upgrade] = []
        self.start(order or self._own)

    @property
    def names(self) -> tuple[str, ...]:
        """Those that run or are being started."""
        return tuple(self._supervisors)

    @property
    def newest(self) -> Upgrade:
        """The newest bundle whose workers were started and did not fail."""
        return self._orders[-1]

    def start(self, order: Upgrade) -> None:
        """Start workers with a bundle; the former ones run until they are retired."""
        if order in self._orders:
            return
        self._orders.append(order)
        for number in range(1, self._count + 1):
            spec = worker_spec(self._settings, number, order.bundle, order.generation)
            supervisor = Supervisor([spec], self._log, patience_s=PATIENCE_S)
            self._supervisors[spec.name] = order, supervisor

    def poll(self) -> None:
        """Start what is due, replace what has ended or hangs.

        Raises:
            SupervisorError: a user's mistake, such as a bundle that is none. One that came with
                an upgrade ends that upgrade only.
        """
        for name, (order, supervisor) in list(self._supervisors.items()):
            try:
                supervisor.poll()
            except SupervisorError as error:
                del self._supervisors[name]
                if order == self.newest == self._own:
                    raise
                log.error("upgrade: %s is not started: %s", name, error)
                if order in self._orders and order != self._own:
                    self._orders.remove(order)
                    if not self._orders:
                        self.start(self._own)

    def retire(self, name: str) -> None:
        """End a worker for good."""
        _, supervisor = self._supervisors.pop(name, (None, None))
        if supervisor is not None:
            log.info("worker %s is empty and ends", name)
            supervisor.stop()

    def stop(self) -> None:
        """End all of them."""
        for _, supervisor in self._supervisors.values():
            supervisor.stop()


def worker_spec(
    settings: EngineSettings, number: int, bundle: str, generation: int = 1
) -> WorkerSpec:
    """A worker of this host: with a name of its own, and ports that no former one had."""
    part = settings.cluster
    suffix = "" if generation == 1 else f"-g{generation}"
    own = part.model_copy(
        update={"name": f"{part.host}-{number}{suffix}", "generation": generation}
    )
    anywhere = f"tcp://{part.address}:*"
    update = {"cluster": own, "bundle": bundle, "ingest": anywhere, "control": anywhere}
    return WorkerSpec(settings=settings.model_copy(update=update))


def run_host(settings: EngineSettings, count: int, stopped: Callable[[], bool]) -> None:
    """Run a host in this process until ``stopped``.

    Raises:
        SupervisorError: another host has its name, or its workers cannot start, for a user's
            mistake.
        WireError: no keys.
    """
    keys = None
    if settings.security.mode == "curve":
        keys = ServerSecurity.read(settings.security.keys_dir).as_client()
    assert settings.cluster.directory is not None
    part = settings.cluster
    word = HostBeat(part.host, os.getpid(), settings.bundle, part.generation)
    beat_s = 0.0
    with DirectoryLink(settings.cluster.directory, keys) as link:
        order = _introduce(link, word, stopped)
        # The workers' lines as they are: each has its time, its level and its worker's name.
        workers = Workers(
            settings, count, lambda line: print(line, file=sys.stderr, flush=True), order
        )
        try:
            while not stopped():
                link.raw.poll(POLL_MS)
                for message in link.receive_all():
                    stopped()  # each is a turn: a host that ends many workers must not seem to hang
                    match message:
                        case Upgrade():
                            log.info("upgrade to %s", message.bundle)
                            workers.start(message)
                        case Retire():
                            workers.retire(message.worker)
                        case Rejected():
                            log.warning("the directory does not take this host: %s", message.reason)
                workers.poll()
                if (now_s := time.monotonic()) - beat_s >= BEAT_S:
                    newest = workers.newest
                    link.send(HostBeat(word.host, word.pid, newest.bundle, newest.generation))
                    beat_s = now_s
        finally:
            workers.stop()


def _introduce(link: DirectoryLink, word: HostBeat, stopped: Callable[[], bool]) -> Upgrade | None:
    """Announce this host to the directory; without a directory its workers wait for one.

    Returns:
        The upgrade that other hosts had, if any: the workers begin with it.

    Raises:
        SupervisorError: the directory does not take it.
    """
    end_s = time.monotonic() + TAKEN_S
    while not stopped():
        link.raw.poll(ANSWER_MS, zmq.POLLOUT)
        link.send(word)
        try:
            # A beat that is taken has no answer, but for an upgrade; what follows it has.
            answer = link.ask(Ask("status"), ANSWER_MS)
        except WireError:
            return None
        if not isinstance(answer, Rejected):
            return answer if isinstance(answer, Upgrade) else None
        if time.monotonic() >= end_s:
            raise SupervisorError(answer.reason)
        time.sleep(BEAT_S)
        link.receive_all()  # the answers to this try are none to the next one
    return None
