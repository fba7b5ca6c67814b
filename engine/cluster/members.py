"""The workers of a cluster: who is heard, what each may take, and which one a stream goes to. Pure.

The time, in seconds of one clock, is an argument. Which streams are where is ``placement``'s.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.wire.membership import Beat
from engine.wire.messages import SCHEMA

DRAWN = 6
"""Workers that are looked at for a place, where there are many."""
BUSY = "every worker is busy taking over others' streams"


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits; all spans are seconds."""

    moves_per_s: int = 8
    """Streams that a worker takes over from others in any second."""
    silent_s: float = 2.0
    """A worker without a beat for this long gets no further stream."""
    patience_s: float = 8.0
    """One silent for this long, while others are heard, loses those that it has."""
    suspect_s: float = 2.0
    owner_s: float = 3.0
    """A capture unheard for this long may be replaced by another of its name."""
    claim_s: float = 10.0
    """A stream whose captures are all unheard for this long is given up."""
    leave_s: float = 2.0
    """A stream that ended keeps its worker this long: its last windows are still to be scored."""
    flaps: int = 6
    """Moves of one stream within ``flap_s``; beyond it, it has to wait."""
    flap_s: float = 10.0
    retry_ms: int = 250
    full_retry_ms: int = 2_000
    gather_s: float = 5.0
    """A new generation with fewer workers than the old ones waits this long for the rest."""


class RejectedError(Exception):
    """A beat that is not taken: the text says why."""


@dataclass(slots=True)
class Member:
    """A worker as the directory knows it."""

    beat: Beat
    heard_s: float
    streams: set[str] = field(default_factory=set)
    draining: bool = False
    suspect_until_s: float = -1.0
    limit: float = 0.0
    """Streams that it takes now: its capacity, less while it is too slow."""
    limited_s: float = 0.0
    moves_s: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """Its name."""
        return self.beat.worker


class Members:
    """The workers that are known.

    Args:
        policy: the limits.
        counters: where refusals are counted.
        seed: of the draw among many.
    """

    def __init__(self, policy: Policy, counters: Counter[str], seed: int = 0) -> None:
        self._policy, self._counters = policy, counters
        self._random = random.Random(seed)
        self._known: dict[str, Member] = {}
        self._heard_s = float("-inf")
        self._came_s: dict[int, float] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Member:
        return self._known[name]

    def hear(self, beat: Beat, now_s: float) -> Member | None:
        """Take a worker's beat; return the one that it takes the place of, if any.

        Raises:
            RejectedError: another schema, another bundle, or another process of that name.
        """
        member, former = self._known.get(beat.worker), None
        if member is None or member.beat.incarnation != beat.incarnation:
            former = member
            self._check(beat, former, now_s)
            member = Member(beat, now_s, limit=float(beat.capacity), limited_s=now_s)
            # A successor under the name of one that is drained is to be ended too.
            member.draining = former is not None and former.draining
            self._known[beat.worker] = member
        member.beat, member.heard_s, self._heard_s = beat, now_s, now_s
        member.draining = member.draining or beat.draining
        self._limit(member, now_s)
        return former

    def forget(self, name: str) -> Member:
        """Forget a worker; return what was known of it."""
        return self._known.pop(name)

    def newest(self, now_s: float) -> int:
        """Highest generation of those that take streams, once it can take over; else 0.

        The first of its workers would get every stream of the old ones, if it did not wait for
        the others.
        """
        ready = Counter(m.beat.generation for m in self._known.values() if self._is_open(m, now_s))
        newest = max(ready, default=0)
        came_s = self._came_s.setdefault(newest, now_s)
        older = sum(member.beat.generation < newest for member in self._known.values())
        whole = ready[newest] >= older or now_s - came_s >= self._policy.gather_s
        return newest if whole else 0

    def hangs(self, member: Member, now_s: float) -> bool:
        """Whether a worker has been silent for too long, while others are heard.

        All silent at once: it is the directory that did not listen.
        """
        silent_s = now_s - member.heard_s
        return silent_s > self._policy.patience_s and now_s - self._heard_s < 1.0

    def drain(self, worker: str) -> int:
        """Let a worker's streams move away at the limited rate; return how many it has.

        Raises:
            RejectedError: no such worker.
        """
        member = self._known.get(worker)
        if member is None:
            known = ", ".join(sorted(self._known)) or "none"
            raise RejectedError(f"no worker {worker!r}; known: {known}")
        member.draining = True
        return len(member.streams)

    def choose(self, lost: str | None, now_s: float, is_move: bool) -> tuple[Member | None, str]:
        """The best worker for a stream that comes from ``lost``, or why there is none.

        Of many workers a few are drawn and the best of those is taken: nearly as even, and as
        cheap with hundreds of workers as with a dozen.
        """
        members = list(self._known.values())
        if len(members) > 2 * DRAWN:
            drawn = self._random.sample(members, DRAWN)
            target, reason = self._best(drawn, lost, now_s, is_move)
            if target is not None:
                return target, reason
        return self._best(members, lost, now_s, is_move)

    def _best(
        self, members: list[Member], lost: str | None, now_s: float, is_move: bool
    ) -> tuple[Member | None, str]:
        former = self._known.get(lost) if lost is not None else None
        host = former.beat.host if former is not None else None
        best: Member | None = None
        least: tuple[Any, ...] = ()
        reason = "no worker is ready"
        for member in members:
            if member is former or not self._is_open(member, now_s):
                continue
            # A slow worker takes no new stream; one that has lost its worker is better off there
            # still.
            held, limit = len(member.streams), int(member.limit)
            if held >= (member.beat.capacity if is_move else limit):
                reason = "full" if reason != BUSY else reason
            elif is_move and not self._may_move(member, now_s):
                reason = BUSY
            else:
                beat = member.beat
                rank = (-beat.generation, held >= limit, beat.host == host, held / limit,
                        beat.worker)  # fmt: skip
                if best is None or rank < least:
                    best, least = member, rank
        return best, reason

    def _may_move(self, member: Member, now_s: float) -> bool:
        while member.moves_s and now_s - member.moves_s[0] >= 1.0:
            member.moves_s.popleft()
        return len(member.moves_s) < self._policy.moves_per_s

    def is_fresh(self, member: Member, now_s: float) -> bool:
        """Whether a worker was heard lately enough for more streams."""
        return now_s - member.heard_s <= self._policy.silent_s

    def _is_open(self, member: Member, now_s: float) -> bool:
        ready = member.beat.ready and not member.draining and self.is_fresh(member, now_s)
        return ready and now_s >= member.suspect_until_s

    def _check(self, beat: Beat, former: Member | None, now_s: float) -> None:
        if beat.schema != SCHEMA:
            self._counters["beats_of_another_schema"] += 1
            raise RejectedError(f"schema: expected {SCHEMA}, got {beat.schema}")
        if former is not None and now_s - former.heard_s < 1.0 and former.beat.pid != beat.pid:
            self._counters["beats_of_a_namesake"] += 1
            raise RejectedError(
                f"worker {beat.worker!r} is process {former.beat.pid} on {former.beat.host}; "
                f"process {beat.pid} on {beat.host} needs another name"
            )
        for other in self._known.values():
            same = other.beat.generation == beat.generation and other is not former
            if same and self.is_fresh(other, now_s) and other.beat.model != beat.model:
                self._counters["beats_of_another_bundle"] += 1
                raise RejectedError(
                    f"bundle: expected {other.beat.model[:12]} as {other.name} has, "
                    f"got {beat.model[:12]}; a new bundle comes by: cluster upgrade BUNDLE"
                )

    def _limit(self, member: Member, now_s: float) -> None:
        beat = member.beat
        if now_s - member.limited_s < 1.0:
            return
        member.limited_s = now_s
        if beat.p99_ms > beat.hop_ms / 2:
            member.limit = max(1.0, 0.9 * min(member.limit, float(max(len(member.streams), 1))))
        else:
            member.limit = min(float(beat.capacity), member.limit + 1.0)
