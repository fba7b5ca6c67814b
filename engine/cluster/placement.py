"""Which worker holds which stream. Pure: the time, in seconds of one clock, is an argument.

A stream stays where it is (sticky) until its capture has lost the worker, the worker is drained,
or the worker has been silent for ``patience_s`` while others are heard. A slot is taken at the
moment of the answer, so that two captures never get the last one. A worker that was lost is a
suspect and gets nothing for a while; another host comes first. Moves cost their target a replay,
so each worker gets only so many a second: a failure never buries those who are left.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from engine.cluster.members import Member, Members, Policy
from engine.wire.membership import Beat, Claim, Leave, Place, Placed, Refused, Release


@dataclass(slots=True)
class _Slot:
    """A stream: where it is, and who feeds it, by device: (owner, last heard)."""

    worker: str | None
    epoch: int
    since_s: float
    t_end_ns: int = -1
    seq: int = -1
    owners: dict[str, tuple[str, float]] = field(default_factory=dict)
    moves_s: deque[float] = field(default_factory=deque)
    leaves_s: float | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """What ``step`` decides, for captures, for workers by name, and for hosts."""

    moves: list[Placed]
    releases: list[tuple[str, Release]]
    idle: list[str]
    """Drained workers that hold nothing any more."""


class Placement:
    """Seats for streams.

    Args:
        policy: the limits.
        epoch: number after which epochs begin; a directory gives its start, in milliseconds of
            the wall clock, so that one that comes back empty never gives a number twice.
    """

    def __init__(self, policy: Policy | None = None, epoch: int = 0) -> None:
        self._policy = policy = policy or Policy()
        self._epoch = epoch
        self._slots: dict[str, _Slot] = {}
        self._given_up: dict[str, tuple[int, float]] = {}
        self.counters: Counter[str] = Counter()
        self.members = Members(policy, self.counters, epoch)

    @property
    def streams(self) -> int:
        """Streams that have a slot."""
        return len(self._slots)

    # Workers

    def beat(self, beat: Beat, now_s: float) -> list[Release]:
        """Take a worker's beat; return the streams that it holds without a right to.

        A directory that has just started learns from it where the streams are.

        Raises:
            RejectedError: another schema, another bundle, or another process of that name.
        """
        former = self.members.hear(beat, now_s)
        if former is not None:
            self._unassign_all(former)
        releases: list[Release] = []
        slots, name = self._slots, beat.worker
        for stream, held in beat.streams.items():
            slot = slots.get(stream)
            if slot is None or slot.epoch != held.epoch or slot.worker != name:
                # People before one camera are streams of their own (room/1), and go where it goes.
                root = stream.partition("/")[0]
                slot = self._held(root, held.epoch, name, now_s)
                if slot is None:
                    releases.append(Release(stream, held.epoch))
                    continue
                if root != stream or slot.epoch != held.epoch:
                    continue
            if held.t_end_ns > slot.t_end_ns:
                slot.t_end_ns, slot.seq = held.t_end_ns, held.seq
        return releases

    def _held(self, stream: str, epoch: int, worker: str, now_s: float) -> _Slot | None:
        """The slot of a stream that a worker says it holds; None where it has no right to it."""
        slot = self._slots.get(stream)
        if slot is None and self._given_up.get(stream, (-1, 0.0))[0] >= epoch:
            return None
        if slot is None or slot.epoch < epoch:
            return self._adopt(stream, epoch, worker, now_s)
        if slot.worker != worker:
            self.counters["held_twice"] += 1
            return None
        return slot

    def _adopt(self, stream: str, epoch: int, worker: str, now_s: float) -> _Slot:
        slot = self._slots.setdefault(stream, _Slot(None, epoch, now_s))
        self._assign(stream, slot, worker)
        slot.epoch = epoch
        self._epoch = max(self._epoch, epoch)
        return slot

    def _assign(self, stream: str, slot: _Slot, worker: str | None) -> None:
        if slot.worker is not None and slot.worker in self.members:
            self.members[slot.worker].streams.discard(stream)
        slot.worker = worker
        if worker is not None:
            self.members[worker].streams.add(stream)

    def _unassign_all(self, member: Member) -> None:
        for stream in member.streams:
            self._slots[stream].worker = None
        member.streams.clear()

    def forget(self, worker: str) -> None:
        """Forget a worker that is ended; another of its name is a new one."""
        self._unassign_all(self.members.forget(worker))

    # Captures

    def place(self, request: Place, now_s: float) -> Placed | Refused:
        """Give a stream a slot: the one that it has, or another where that is lost."""
        slot = self._slots.get(request.stream)
        if slot is not None and self._is_foreign(slot, request, now_s):
            self.counters["captures_conflicting"] += 1
            text = f"already has a {request.device} from another process"
            return Refused(request.stream, text, self._policy.full_retry_ms)
        if slot is None:
            slot = self._slots[request.stream] = _Slot(None, request.epoch, now_s)
        slot.owners[request.device] = (request.owner, now_s)
        slot.leaves_s = None
        self._epoch = max(self._epoch, request.epoch)
        lost = request.lost if request.lost == slot.worker and request.epoch >= slot.epoch else ""
        if lost:
            self.members[lost].suspect_until_s = now_s + self._policy.suspect_s
            self.counters["workers_lost"] += 1
        elif slot.worker is not None and slot.epoch >= request.epoch:
            member = self.members[slot.worker]
            if self.members.is_fresh(member, now_s):
                return self._answer(request.stream, slot, member)
        answer = self._move(request.stream, slot, now_s, is_move=request.epoch > 0)
        self.counters["places_refused"] += isinstance(answer, Refused)
        return answer

    def claim(self, claim: Claim, now_s: float) -> Placed | Refused | None:
        """Note that a capture is there; an answer only where it is mistaken about its place."""
        slot = self._slots.get(claim.stream)
        if slot is None or slot.epoch < claim.epoch:
            if claim.worker not in self.members:
                return None  # a directory that has just started: its beat will come
            slot = self._adopt(claim.stream, claim.epoch, claim.worker, now_s)
        if self._is_foreign(slot, claim, now_s):
            return None
        slot.owners[claim.device] = (claim.owner, now_s)
        if slot.epoch > claim.epoch and slot.worker is not None:
            return self._answer(claim.stream, slot, self.members[slot.worker])
        return None

    def leave(self, leave: Leave, now_s: float) -> None:
        """Note a capture's end; with the last one of a stream its slot is free soon after."""
        slot = self._slots.get(leave.stream)
        if slot is None or slot.owners.get(leave.device, ("", 0.0))[0] != leave.owner:
            return
        del slot.owners[leave.device]
        if not slot.owners:
            slot.leaves_s = now_s + self._policy.leave_s

    def _is_foreign(self, slot: _Slot, request: Place | Claim, now_s: float) -> bool:
        owner, heard_s = slot.owners.get(request.device, (request.owner, 0.0))
        return owner != request.owner and now_s - heard_s < self._policy.owner_s

    def _move(self, stream: str, slot: _Slot, now_s: float, is_move: bool) -> Placed | Refused:
        policy = self._policy
        recent = [at for at in slot.moves_s if now_s - at < policy.flap_s]
        if is_move and len(recent) >= policy.flaps:
            text = f"moved {len(recent)} times within {policy.flap_s:.0f} s"
            return Refused(stream, text, policy.full_retry_ms)
        target, reason = self.members.choose(slot.worker, now_s, is_move)
        if target is None:
            full = reason == "full"
            return Refused(stream, reason, policy.full_retry_ms if full else policy.retry_ms)
        self._epoch = max(self._epoch, slot.epoch) + 1
        self._assign(stream, slot, target.name)
        slot.epoch, slot.since_s = self._epoch, now_s
        if is_move:
            target.moves_s.append(now_s)
            slot.moves_s = deque([*recent, now_s])
        self.counters["moves" if is_move else "places"] += 1
        return self._answer(stream, slot, target)

    @staticmethod
    def _answer(stream: str, slot: _Slot, member: Member) -> Placed:
        beat = member.beat
        return Placed(
            stream, beat.worker, beat.ingest, beat.control, slot.epoch, beat.hop_ms,
            slot.t_end_ns, slot.seq,
        )  # fmt: skip

    # Time

    def step(self, now_s: float) -> Orders:
        """Move what has to move, give up what nobody feeds, and forget who is gone."""
        releases = self._give_up(now_s)
        moves: list[Placed] = []
        newest = self.members.newest(now_s)
        for member in self.members:
            hangs = self.members.hangs(member, now_s)
            if member.beat.generation < newest:
                member.draining = True
            if (hangs or member.draining) and member.streams:
                moves += self._move_away(member, now_s)
            if hangs and not member.streams:
                self.members.forget(member.name)
                self.counters["workers_forgotten"] += 1
        # Its own beat has to say so too: captures that move away still ask it how far it came.
        idle = [m.name for m in self.members if m.draining and not m.streams and not m.beat.streams]
        return Orders(moves, releases, idle)

    def _move_away(self, member: Member, now_s: float) -> list[Placed]:
        moved: list[Placed] = []
        for stream in sorted(member.streams):
            answer = self._move(stream, self._slots[stream], now_s, is_move=True)
            if isinstance(answer, Placed):
                moved.append(answer)
        return moved

    def _give_up(self, now_s: float) -> list[tuple[str, Release]]:
        releases = []
        for stream in [s for s, (_, until_s) in self._given_up.items() if now_s >= until_s]:
            del self._given_up[stream]
        for stream, slot in list(self._slots.items()):
            heard_s = max((at for _, at in slot.owners.values()), default=slot.since_s)
            left = slot.leaves_s is not None and now_s >= slot.leaves_s
            if not left and (slot.leaves_s is not None or now_s - heard_s <= self._policy.claim_s):
                continue
            self.counters["streams_left" if left else "streams_given_up"] += 1
            if slot.worker is not None:
                releases.append((slot.worker, Release(stream, slot.epoch)))
            # A beat that is on its way still names it; it must not bring the slot back.
            self._given_up[stream] = (slot.epoch, now_s + self._policy.claim_s)
            self._assign(stream, slot, None)
            del self._slots[stream]
        return releases
