"""The directory: who is where. It holds nothing that beats and claims would not tell it again.

``Directory`` is pure: messages and the time in, messages out. ``run_directory`` is its socket and
loop. A directory that was killed is empty when it comes back, and knows all within a second;
meanwhile the streams run on, for messages and scores never pass through it.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from engine.cluster.members import Member, RejectedError
from engine.cluster.placement import Placement
from engine.wire.link import DirectorySocket, Received
from engine.wire.membership import (
    Admit,
    Admitted,
    Ask,
    Beat,
    Claim,
    Drain,
    HostBeat,
    Leave,
    Outbound,
    Place,
    Placed,
    Refused,
    Rejected,
    RelayBeat,
    Relays,
    Report,
    Retire,
    Upgrade,
)
from engine.wire.security import ServerSecurity

log = logging.getLogger(__name__)

STEP_S = 0.05
ADMIT_S = 0.5
"""How long a capture's answer waits for the worker's word that it lets the key in."""
FORGET_S = 5.0
"""A relay or host without a beat for this long is forgotten."""
NAMESAKE_S = 1.0
"""So long after its last beat another host of its name is none that was started again."""

Answers = list[tuple[bytes, Outbound]]


class Directory:
    """Takes messages, returns answers.

    Args:
        placement: who gets what.
        now_s: the time it starts.
        pool: the pool's own key; where given, only its owners' beats count.
    """

    def __init__(self, placement: Placement, now_s: float, pool: str = "") -> None:
        self._placement = placement
        self._began_s = now_s
        self._pool = pool
        self._workers: dict[str, bytes] = {}
        self._hosts: dict[str, tuple[bytes, HostBeat, float]] = {}
        self._relays: dict[str, tuple[RelayBeat, float]] = {}
        self._relays_sent: dict[bytes, tuple[str, ...]] = {}
        self._upgrades_sent: dict[bytes, Upgrade] = {}
        self._captures: dict[str, dict[str, tuple[bytes, str]]] = {}
        self._waiting: dict[tuple[str, int], tuple[Placed, float]] = {}
        self.counters: Counter[str] = Counter()

    def take(self, received: Received, now_s: float) -> Answers:
        """Carry out one message."""
        message, sender = received.message, received.sender
        is_ours = isinstance(message, Beat | RelayBeat | HostBeat | Admitted)
        if is_ours and self._pool and received.key != self._pool:
            self.counters["beats_of_strangers"] += 1
            return [(sender, Rejected("a beat needs the pool's own key"))]
        match message:
            case Beat():
                return self._take_beat(sender, message, now_s)
            case RelayBeat():
                self._relays[message.relay] = (message, now_s)
            case HostBeat():
                return self._take_host(sender, message, now_s)
            case Place():
                return self._place(received, message, now_s)
            case Claim():
                self._remember(received, message)
                answer = self._placement.claim(message, now_s)
                return [] if answer is None else self._deliver(answer, [sender], now_s)
            case Leave():
                self._placement.leave(message, now_s)
                self._captures.get(message.stream, {}).pop(message.device, None)
            case Admitted():
                waiting = self._waiting.pop((message.stream, message.epoch), None)
                if waiting is not None:
                    return [(to, waiting[0]) for to in self._feeders(message.stream)]
            case Ask():
                return self._answer(sender, message, now_s)
        return []

    def step(self, now_s: float) -> Answers:
        """What is due by time."""
        orders = self._placement.step(now_s)
        answers: Answers = []
        for move in orders.moves:
            answers += self._deliver(move, self._feeders(move.stream), now_s)
        for worker, release in orders.releases:
            self._captures.pop(release.stream, None)
            answers += [(to, release) for to in self._worker(worker)]
        for key, (placed, until_s) in list(self._waiting.items()):
            if now_s >= until_s:
                del self._waiting[key]
                refused = Refused(placed.stream, "its worker does not answer", 100)
                answers += [(to, refused) for to in self._feeders(placed.stream)]
        for worker in orders.idle:
            answers += self._retire(worker)
        for name in [n for n, (_, at_s) in self._relays.items() if now_s - at_s > FORGET_S]:
            del self._relays[name]
        for name in [n for n, (_, _, at_s) in self._hosts.items() if now_s - at_s > FORGET_S]:
            self._upgrades_sent.pop(self._hosts.pop(name)[0], None)
        return answers

    def _take_beat(self, sender: bytes, beat: Beat, now_s: float) -> Answers:
        try:
            releases = self._placement.beat(beat, now_s)
        except RejectedError as error:
            log.warning("worker %s is not taken: %s", beat.worker, error)
            return [(sender, Rejected(str(error)))]
        if self._workers.get(beat.worker) != sender:
            self._relays_sent.pop(self._workers.get(beat.worker, b""), None)
            self._workers[beat.worker] = sender
            log.info("worker %s on %s, process %d", beat.worker, beat.host, beat.pid)
        intakes = tuple(sorted(relay.intake for relay, _ in self._relays.values()))
        answers: Answers = [(sender, release) for release in releases]
        if intakes and self._relays_sent.get(sender) != intakes:
            self._relays_sent[sender] = intakes
            answers.append((sender, Relays(intakes)))
        if not beat.draining and self._placement.members[beat.worker].draining:
            answers.append((sender, Drain()))
        return answers

    def _take_host(self, sender: bytes, beat: HostBeat, now_s: float) -> Answers:
        known = self._hosts.get(beat.host)
        if known is not None and known[1].pid != beat.pid and now_s - known[2] < NAMESAKE_S:
            self.counters["hosts_of_a_namesake"] += 1
            reason = (
                f"host {beat.host!r} is process {known[1].pid} already; "
                f"process {beat.pid} needs another name"
            )
            return [(sender, Rejected(reason))]
        # A host that was started again knows only its settings: the others know of upgrades.
        beats = [beat, *(other for _, other, _ in self._hosts.values() if other.bundle)]
        newest = max(beats, key=lambda other: other.generation)
        self._hosts[beat.host] = (sender, beat, now_s)
        order = Upgrade(newest.bundle, newest.generation)
        if not beat.bundle or beat.generation >= order.generation:
            return []
        return self._order(order, [sender])

    def _order(self, order: Upgrade, hosts: list[bytes]) -> Answers:
        """Let hosts start workers with a bundle, each only once: where they fail, they fail."""
        new = [host for host in hosts if self._upgrades_sent.get(host) != order]
        self._upgrades_sent |= dict.fromkeys(new, order)
        return [(host, order) for host in new]

    def _place(self, received: Received, place: Place, now_s: float) -> Answers:
        answer = self._placement.place(place, now_s)
        if isinstance(answer, Refused):
            log.info("%s: %s", place.stream, answer.reason)
            return [(received.sender, answer)]
        self._remember(received, place)
        return self._deliver(answer, [received.sender], now_s)

    def _deliver(self, answer: Placed | Refused, to: list[bytes], now_s: float) -> Answers:
        """Tell captures; with CURVE, only once the worker has let their keys in."""
        keys = {key for _, key in self._captures.get(answer.stream, {}).values() if key}
        if isinstance(answer, Refused) or not keys:
            return [(capture, answer) for capture in to]
        self._waiting[answer.stream, answer.epoch] = (answer, now_s + ADMIT_S)
        admits = [Admit(answer.stream, answer.epoch, key) for key in sorted(keys)]
        return [(w, admit) for w in self._worker(answer.worker) for admit in admits]

    def _remember(self, received: Received, message: Place | Claim) -> None:
        feeders = self._captures.setdefault(message.stream, {})
        feeders[message.device] = (received.sender, received.key)

    def _feeders(self, stream: str) -> list[bytes]:
        return [sender for sender, _ in self._captures.get(stream, {}).values()]

    def _worker(self, name: str) -> list[bytes]:
        return [self._workers[name]] if name in self._workers else []

    def _retire(self, worker: str) -> Answers:
        """Let its host end a worker; one that still beats comes back and is retired again."""
        host = self._placement.members[worker].beat.host
        if host not in self._hosts:
            return []
        self._placement.forget(worker)
        return [(self._hosts[host][0], Retire(worker))]

    # Operators

    def _answer(self, sender: bytes, ask: Ask, now_s: float) -> Answers:
        match ask.command:
            case "status":
                return [(sender, Report(self.status(now_s)))]
            case "drain":
                try:
                    streams = self._placement.members.drain(ask.worker)
                except RejectedError as error:
                    return [(sender, Rejected(str(error)))]
                return [(sender, Report({"worker": ask.worker, "streams": streams}))]
            case "upgrade":
                return self._upgrade(sender, ask.bundle)
        return [(sender, Rejected(f"expected status, drain or upgrade, got {ask.command!r}"))]

    def _upgrade(self, sender: bytes, bundle: str) -> Answers:
        if not self._hosts:
            return [(sender, Rejected("no host is heard that could start workers"))]
        newest = max((m.beat.generation for m in self._placement.members), default=0)
        order = Upgrade(bundle, newest + 1)
        hosts = [host for host, _, _ in self._hosts.values()]
        for host in hosts:
            self._upgrades_sent.pop(host, None)  # after a failed attempt the number is the same
        report = Report({"bundle": bundle, "generation": newest + 1, "hosts": sorted(self._hosts)})
        return [*self._order(order, hosts), (sender, report)]

    def status(self, now_s: float) -> dict[str, Any]:
        """The workers, the relays and the directory itself, as ``cluster status`` prints them."""
        members = sorted(self._placement.members, key=lambda member: member.name)
        return {
            "workers": [
                {
                    "name": member.name,
                    "host": member.beat.host,
                    "pid": member.beat.pid,
                    "state": _state_of(member, now_s),
                    "control": member.beat.control,
                    "streams": sorted(member.streams),
                }
                for member in members
            ],
            "relays": [
                {"endpoint": relay.scores, "pid": relay.pid}
                for _, (relay, _) in sorted(self._relays.items())
            ],
            "directory": {
                "pid": os.getpid(),
                "up_s": round(now_s - self._began_s, 3),
                "streams": self._placement.streams,
                "hosts": [
                    {"name": name, "pid": beat.pid}
                    for name, (_, beat, _) in sorted(self._hosts.items())
                ],
                "models": {member.name: member.beat.model for member in members},
                "free": {m.name: max(0, int(m.limit) - len(m.streams)) for m in members},
                "counters": dict(self._placement.counters + self.counters),
            },
        }


def _state_of(member: Member, now_s: float) -> str:
    if now_s - member.heard_s > 2.0:
        return "silent"
    if member.draining:
        return "draining"
    if now_s < member.suspect_until_s:
        return "suspect"
    return "ready" if member.beat.ready else "starting"


def run_directory(
    endpoint: str,
    stopped: Callable[[], bool],
    security: ServerSecurity | None = None,
) -> None:
    """Run the directory in this process until ``stopped``.

    Raises:
        WireError: the endpoint is in use.
    """
    pool = "" if security is None else security.public.decode()
    placement = Placement(epoch=time.time_ns() // 1_000_000)
    directory = Directory(placement, time.monotonic(), pool)
    with DirectorySocket(endpoint, security) as socket:
        log.info("directory on %s", socket.endpoint)
        stepped_s = time.monotonic()
        while not stopped():
            socket.raw.poll(int(STEP_S * 1000))
            answers: Answers = []
            for received in socket.receive_all():
                answers += directory.take(received, time.monotonic())
            now_s = time.monotonic()
            if now_s - stepped_s >= STEP_S:
                answers += directory.step(now_s)
                stepped_s = now_s
            for receiver, answer in answers:
                socket.send(receiver, answer)
            for name, number in socket.rejected.items():
                directory.counters[name] = number
