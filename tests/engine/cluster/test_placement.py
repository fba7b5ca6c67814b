from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cluster.members import Policy, RejectedError
from engine.cluster.placement import Placement
from engine.wire.membership import Beat, Claim, Held, Leave, Place, Placed, Refused
from engine.wire.messages import SCHEMA

HOP_MS = 500


def beat(worker: str, host: str = "a", /, **changes: object) -> Beat:
    plain = Beat(
        worker=worker,
        host=host,
        pid=sum(map(ord, worker)),
        incarnation=1,
        ingest=f"tcp://127.0.0.1:{1000 + len(worker)}",
        control="tcp://127.0.0.1:1",
        schema=SCHEMA,
        model="f" * 64,
        generation=1,
        capacity=4,
        hop_ms=HOP_MS,
    )
    return msgspec.structs.replace(plain, **changes)


def place(
    stream: str, epoch: int = 0, lost: str = "", owner: str = "o", device: str = "d"
) -> Place:
    return Place(stream, device, owner, epoch, lost)


def placed(answer: Placed | Refused) -> Placed:
    assert isinstance(answer, Placed), answer
    return answer


def refused(answer: Placed | Refused) -> Refused:
    assert isinstance(answer, Refused), answer
    return answer


def pool(*workers: str, policy: Policy | None = None, capacity: int = 4) -> Placement:
    placement = Placement(policy or Policy())
    for worker in workers:
        placement.beat(beat(worker, worker.partition("-")[0], capacity=capacity), 0.0)
    return placement


def test_streams_spread_over_workers_and_stay_where_they_are() -> None:
    placement = pool("a-1", "a-2")
    first = {name: placed(placement.place(place(name), 0.1)).worker for name in "wxyz"}
    assert Counter(first.values()) == {"a-1": 2, "a-2": 2}
    again = {name: placed(placement.place(place(name), 0.2)).worker for name in "wxyz"}
    assert again == first


def test_a_slot_is_taken_at_once_and_a_full_pool_says_when_to_ask_again() -> None:
    placement = pool("a-1", capacity=1)
    placed(placement.place(place("one"), 0.0))
    answer = refused(placement.place(place("two"), 0.0))
    assert answer.reason == "full"
    assert answer.retry_ms > 0
    assert placement.counters["places_refused"] == 1


def test_a_lost_worker_is_a_suspect_and_another_host_comes_first() -> None:
    placement = pool("a-1", "a-2", "b-1")
    for name in ("filler1", "filler2"):  # b is the fuller one, and still preferred
        placed(placement.place(place(name), 0.0))
    at = {m.name: m for m in placement.members}
    victim = next(iter(at["a-1"].streams))
    first = placed(placement.place(place(victim), 0.0))
    second = placed(placement.place(place(victim, first.epoch, lost="a-1"), 0.5))
    assert second.worker == "b-1"
    assert second.epoch > first.epoch
    fresh = placed(placement.place(place("new"), 0.6))
    assert fresh.worker != "a-1"


def test_the_devices_of_one_stream_go_to_one_worker_also_after_a_loss() -> None:
    placement = pool("a-1", "a-2", "a-3")
    sound = placed(placement.place(place("s", device="microphone"), 0.0))
    picture = placed(placement.place(place("s", device="camera"), 0.0))
    assert sound == picture
    moved = placed(placement.place(place("s", sound.epoch, sound.worker, device="microphone"), 1.0))
    same = placed(placement.place(place("s", sound.epoch, sound.worker, device="camera"), 1.1))
    assert moved == same
    assert moved.worker != sound.worker


def test_the_answer_tells_where_the_scores_had_come_to() -> None:
    placement = pool("a-1", "a-2")
    first = placed(placement.place(place("s"), 0.0))
    held = {"s": Held(first.epoch, 7_000, 13)}
    placement.beat(beat(first.worker, streams=held), 0.2)
    moved = placed(placement.place(place("s", first.epoch, lost=first.worker), 0.3))
    assert (moved.t_end_ns, moved.seq) == (7_000, 13)


def test_a_worker_takes_over_so_many_streams_a_second_and_no_more() -> None:
    placement = pool("a-1", "a-2", policy=Policy(moves_per_s=3), capacity=100)
    names = [f"s{i}" for i in range(20)]
    slots = {name: placed(placement.place(place(name), 0.0)) for name in names}
    lost = [name for name in names if slots[name].worker == "a-1"]
    answers = [placement.place(place(n, slots[n].epoch, "a-1"), 0.1) for n in lost]
    assert sum(isinstance(answer, Placed) for answer in answers) == 3
    later = [placement.place(place(n, slots[n].epoch, "a-1"), 1.2) for n in lost]
    assert sum(isinstance(answer, Placed) for answer in later) == 6  # the three keep their place


def test_a_drained_worker_loses_its_streams_at_the_limited_rate_and_is_idle_then() -> None:
    placement = pool("a-1", "a-2", policy=Policy(moves_per_s=2), capacity=100)
    for i in range(8):
        placed(placement.place(place(f"s{i}"), 0.0))
    assert placement.members.drain("a-1") == 4
    steps = []
    for tenth in range(30):
        now_s = 0.1 * tenth
        for worker in ("a-1", "a-2"):
            placement.beat(beat(worker, capacity=100), now_s)
        steps.append(placement.step(now_s))
    moves = [len(step.moves) for step in steps]
    assert moves[0] == 2
    assert sum(moves) == 4
    assert {move.worker for step in steps for move in step.moves} == {"a-2"}
    assert steps[-1].idle == ["a-1"]
    assert placed(placement.place(place("new"), 3.0)).worker == "a-2"


def test_drain_of_a_stranger_names_those_who_are_known() -> None:
    with pytest.raises(RejectedError, match=r"no worker 'x'; known: a-1"):
        pool("a-1").members.drain("x")


def test_a_worker_silent_while_others_are_heard_loses_its_streams() -> None:
    placement = pool("a-1", "a-2")
    slots = {n: placed(placement.place(place(n), 0.0)) for n in "wxyz"}
    stuck = {n for n, slot in slots.items() if slot.worker == "a-1"}
    moved: list[str] = []
    for second in range(1, 12):
        for name, slot in slots.items():
            placement.claim(Claim(name, "d", "o", slot.epoch, slot.worker), second)
        placement.beat(beat("a-2"), second)
        moved += [move.stream for move in placement.step(second).moves]
    assert set(moved) == stuck
    assert [m.name for m in placement.members] == ["a-2"]


def test_nothing_is_moved_when_all_are_silent() -> None:
    placement = pool("a-1", "a-2")
    slots = {n: placed(placement.place(place(n), 0.0)) for n in "wxyz"}
    for name, slot in slots.items():
        placement.claim(Claim(name, "d", "o", slot.epoch, slot.worker), 29.0)
    orders = placement.step(30.0)
    assert (orders.moves, orders.releases) == ([], [])
    assert len(placement.members) == 2


def test_a_directory_that_comes_back_empty_learns_from_beats_and_claims() -> None:
    former = pool("a-1", "a-2")
    slots = {n: placed(former.place(place(n), 0.0)) for n in "wxyz"}
    held = {
        worker: {n: Held(s.epoch, 9, 3) for n, s in slots.items() if s.worker == worker}
        for worker in ("a-1", "a-2")
    }
    reborn = Placement()
    for worker in held:
        assert reborn.beat(beat(worker, streams=held[worker]), 100.0) == []
    for name, slot in slots.items():
        assert reborn.claim(Claim(name, "d", "o", slot.epoch, slot.worker), 100.1) is None
        again = placed(reborn.place(place(name, slot.epoch), 100.2))
        assert (again.worker, again.epoch) == (slot.worker, slot.epoch)
        assert again.t_end_ns == 9
    fresh = placed(reborn.place(place("new"), 100.3))
    assert fresh.epoch > max(slot.epoch for slot in slots.values())


def test_a_worker_that_comes_back_from_a_hang_has_to_release_what_moved_on() -> None:
    placement = pool("a-1", "a-2")
    first = placed(placement.place(place("s"), 0.0))
    moved = placed(placement.place(place("s", first.epoch, lost=first.worker), 1.0))
    held = {"s": Held(first.epoch, 5, 1)}
    placement.claim(Claim("s", "d", "o", moved.epoch, moved.worker), 3.9)
    placement.beat(beat(moved.worker), 3.9)
    (release,) = placement.beat(beat(first.worker, streams=held), 4.0)
    assert (release.stream, release.epoch) == ("s", first.epoch)
    assert placement.counters["held_twice"] == 1
    assert placed(placement.place(place("s", moved.epoch), 4.1)).worker == moved.worker


def test_two_captures_of_one_name_are_told_apart_from_one_that_restarts() -> None:
    placement = pool("a-1")
    first = placed(placement.place(place("s", owner="mine"), 0.0))
    assert "already has a d" in refused(placement.place(place("s", owner="other"), 1.0)).reason
    assert placement.counters["captures_conflicting"] == 1
    assert placed(placement.place(place("s", owner="mine"), 1.5)) == first
    later_s = 1.5 + Policy().owner_s
    placement.beat(beat("a-1"), later_s)
    assert placed(placement.place(place("s", owner="other"), later_s)) == first


def test_a_capture_with_an_old_place_is_told_the_new_one() -> None:
    placement = pool("a-1", "a-2")
    first = placed(placement.place(place("s"), 0.0))
    moved = placed(placement.place(place("s", first.epoch, first.worker), 1.0))
    assert placement.claim(Claim("s", "d", "o", first.epoch, first.worker), 1.1) == moved
    assert placement.claim(Claim("s", "d", "o", moved.epoch, moved.worker), 1.2) is None


def test_a_stream_that_ends_keeps_its_worker_for_its_last_windows() -> None:
    placement = pool("a-1")
    slot = placed(placement.place(place("s"), 0.0))
    placement.leave(Leave("s", "d", "another"), 0.5)
    placement.leave(Leave("s", "d", "o"), 1.0)
    assert placement.step(2.0).releases == []
    (given_up,) = placement.step(3.1).releases
    assert given_up[0] == "a-1"
    assert given_up[1].stream == "s"
    assert placement.streams == 0
    # A beat that was under way does not bring it back, it asks for the release once more.
    assert len(placement.beat(beat("a-1", streams={"s": Held(slot.epoch, 1, 1)}), 3.2)) == 1
    assert placement.streams == 0


def test_a_stream_that_nobody_feeds_is_given_up() -> None:
    placement = pool("a-1")
    placed(placement.place(place("s"), 0.0))
    placement.beat(beat("a-1"), 11.0)
    assert len(placement.step(11.0).releases) == 1


def test_a_capture_that_was_only_unheard_has_its_place_back() -> None:
    placement = pool("a-1")
    slot = placed(placement.place(place("s"), 0.0))
    placement.beat(beat("a-1"), 11.0)
    assert len(placement.step(11.0).releases) == 1
    assert placement.claim(Claim("s", "d", "o", slot.epoch, "a-1"), 11.5) is None
    assert placement.streams == 1


def test_a_stream_that_flaps_has_to_wait() -> None:
    placement = pool("a-1", "a-2", policy=Policy(flaps=3, suspect_s=0.0, moves_per_s=100))
    slot = placed(placement.place(place("s"), 0.0))
    for tenth in range(3):
        slot = placed(placement.place(place("s", slot.epoch, slot.worker), 0.1 * tenth))
    answer = refused(placement.place(place("s", slot.epoch, slot.worker), 0.5))
    assert "moved 3 times" in answer.reason
    for worker in ("a-1", "a-2"):
        placement.beat(beat(worker), 11.0)
    placed(placement.place(place("s", slot.epoch, slot.worker), 11.0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": SCHEMA + 1}, "schema: expected"),
        ({"model": "0" * 64}, "bundle: expected"),
        ({"worker": "a-1", "incarnation": 2}, "needs another name"),
    ],
)
def test_a_worker_that_does_not_belong_here_is_refused(
    changes: dict[str, object], reason: str
) -> None:
    placement = pool("a-1")
    with pytest.raises(RejectedError, match=reason):
        placement.beat(beat("a-9", **{"pid": 99, **changes}), 0.1)
    assert [m.name for m in placement.members] == ["a-1"]
    assert sum(placement.counters.values()) == 1


def test_a_worker_that_is_born_again_begins_empty() -> None:
    placement = pool("a-1")
    slot = placed(placement.place(place("s"), 0.0))
    placement.beat(beat("a-1", pid=99, incarnation=2, ingest="tcp://127.0.0.1:7"), 2.0)
    moved = placed(placement.place(place("s", slot.epoch, slot.worker), 2.1))
    assert moved.ingest == "tcp://127.0.0.1:7"
    assert moved.epoch > slot.epoch


def test_a_slow_worker_takes_no_more_until_it_is_fast_again() -> None:
    placement = pool("a-1", capacity=10)
    for i in range(4):
        placed(placement.place(place(f"s{i}"), 0.0))
    placement.beat(beat("a-1", capacity=10, p99_ms=HOP_MS), 1.0)
    assert refused(placement.place(place("more"), 1.1)).reason == "full"
    for second in range(2, 5):
        placement.beat(beat("a-1", capacity=10, p99_ms=20.0), second)
    assert placed(placement.place(place("more"), 4.1)).worker == "a-1"


def test_a_stream_that_lost_its_worker_is_taken_by_a_slow_one_if_there_is_no_other() -> None:
    placement = pool("a-1", "a-2", capacity=10)
    slots = {n: placed(placement.place(place(n), 0.0)) for n in "uvwxyz"}
    placement.beat(beat("a-2", capacity=10, p99_ms=HOP_MS), 1.0)
    placement.beat(beat("a-1", capacity=10), 1.0)
    placement.beat(beat("a-2", capacity=10, p99_ms=HOP_MS), 2.1)
    lost = next(n for n, slot in slots.items() if slot.worker == "a-1")
    moved = placed(placement.place(place(lost, slots[lost].epoch, "a-1"), 2.2))
    assert moved.worker == "a-2"
    assert refused(placement.place(place("new"), 2.3)).reason == "full"


def test_people_before_one_camera_go_where_the_camera_goes() -> None:
    placement = pool("a-1", "a-2")
    slot = placed(placement.place(place("room"), 0.0))
    held = {name: Held(slot.epoch, 5, 1) for name in ("room/1", "room/2")}
    assert placement.beat(beat(slot.worker, streams=held), 0.1) == []
    assert placement.streams == 1
    moved = placed(placement.place(place("room", slot.epoch, slot.worker), 0.2))
    assert (moved.t_end_ns, moved.seq) == (-1, -1)
    releases = placement.beat(beat(slot.worker, streams=held), 0.3)
    assert [release.stream for release in releases] == ["room/1", "room/2"]


def test_an_upgrade_sends_new_streams_to_the_new_bundle_and_drains_the_old() -> None:
    placement = pool("a-1", capacity=100)
    for i in range(4):
        placed(placement.place(place(f"s{i}"), 0.0))
    new = beat("a-1-g2", model="0" * 64, generation=2, capacity=100, pid=5)
    placement.beat(msgspec.structs.replace(new, ready=False), 0.1)
    assert placed(placement.place(place("early"), 0.2)).worker == "a-1"
    assert placement.step(0.2).moves == []
    placement.beat(new, 0.3)
    assert placed(placement.place(place("late"), 0.4)).worker == "a-1-g2"
    assert len(placement.step(0.5).moves) == 5
    assert placement.step(0.6).idle == ["a-1"]


def test_an_upgrade_spreads_the_streams_over_all_new_workers() -> None:
    placement = pool("a-1", "a-2", capacity=100)
    for i in range(8):
        placed(placement.place(place(f"s{i}"), 0.0))
    new = [beat(f"a-{i}-g2", model="0" * 64, generation=2, capacity=100, pid=i) for i in (1, 2)]
    placement.beat(new[0], 0.1)
    assert placement.step(0.2).moves == []
    placement.beat(new[1], 0.5)
    places = Counter(move.worker for move in placement.step(0.6).moves)
    assert places == {"a-1-g2": 4, "a-2-g2": 4}


def test_an_upgrade_does_not_wait_for_ever_for_a_worker_that_never_comes() -> None:
    placement = pool("a-1", "a-2", policy=Policy(gather_s=1.0), capacity=100)
    placed(placement.place(place("s"), 0.0))
    placement.beat(beat("a-1-g2", model="0" * 64, generation=2, pid=5), 0.1)
    assert placement.step(0.2).moves == []
    assert [move.worker for move in placement.step(1.3).moves] == ["a-1-g2"]


EVENTS = st.lists(
    st.tuples(st.sampled_from("plbcsdx"), st.integers(0, 5), st.integers(0, 2)), max_size=80
)


@given(EVENTS)
def test_whatever_happens_no_stream_has_two_seats_and_no_epoch_falls(
    events: list[tuple[str, int, int]],
) -> None:
    placement = Placement(replace(Policy(), moves_per_s=2))
    slots: dict[str, Placed] = {}
    for step, (kind, stream, worker) in enumerate(events):
        now_s, name, who = 0.3 * step, f"s{stream}", f"a-{worker}"
        answer: object = None
        slot = slots.get(name)
        if kind == "b":
            held = {n: Held(s.epoch, 1, 1) for n, s in slots.items() if s.worker == who}
            placement.beat(beat(who, streams=held), now_s)
        elif kind == "p":
            answer = placement.place(place(name, slot.epoch if slot else 0), now_s)
        elif kind == "l" and slot:
            answer = placement.place(place(name, slot.epoch, slot.worker), now_s)
        elif kind == "c" and slot:
            answer = placement.claim(Claim(name, "d", "o", slot.epoch, slot.worker), now_s)
        elif kind == "x":
            placement.leave(Leave(name, "d", "o"), now_s)
        elif kind == "d" and who in {m.name for m in placement.members}:
            placement.members.drain(who)
        for told in [answer, *placement.step(now_s).moves]:
            if isinstance(told, Placed):
                assert told.stream not in slots or told.epoch >= slots[told.stream].epoch
                slots[told.stream] = told
        held_by = Counter(n for member in placement.members for n in member.streams)
        assert not held_by or max(held_by.values()) == 1
