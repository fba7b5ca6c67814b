from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from engine.cluster.directory import Directory, run_directory
from engine.cluster.placement import Placement
from engine.wire.fields import WireError
from engine.wire.link import DirectoryLink, Received
from engine.wire.membership import (
    Admit,
    Admitted,
    Ask,
    Beat,
    Claim,
    Drain,
    Held,
    HostBeat,
    Inbound,
    Leave,
    Outbound,
    Place,
    Placed,
    Refused,
    Rejected,
    RelayBeat,
    Relays,
    Release,
    Report,
    Retire,
    Upgrade,
    pack,
    unpack_inbound,
)
from engine.wire.messages import SCHEMA

pytestmark = pytest.mark.slow


def beat(worker: str, **changes: object) -> Beat:
    values = {
        "worker": worker,
        "host": "a",
        "pid": 7,
        "incarnation": 1,
        "ingest": "tcp://127.0.0.1:1",
        "control": "tcp://127.0.0.1:2",
        "schema": SCHEMA,
        "model": "f" * 64,
        "generation": 1,
        "capacity": 4,
        "hop_ms": 500,
    }
    return Beat(**{**values, **changes})  # type: ignore[arg-type]


def directory(pool: str = "") -> tuple[Directory, Callable[..., list[tuple[bytes, Outbound]]]]:
    made = Directory(Placement(), 0.0, pool)

    def take(sender: bytes, message: Inbound, now_s: float = 0.0, key: str = "") -> list:  # type: ignore[type-arg]
        return made.take(Received(sender, key, message), now_s)

    return made, take


def test_a_capture_is_told_where_to_send_and_all_its_devices_are_told_of_a_move() -> None:
    made, take = directory()
    for name in ("w1", "w2"):
        take(name.encode(), beat(name))
    ((to, first),) = take(b"sound", Place("s", "microphone", "o"))
    ((_, same),) = take(b"picture", Place("s", "camera", "o"))
    assert to == b"sound"
    assert isinstance(first, Placed)
    assert first == same
    take(b"op", Ask("drain", worker=first.worker))
    answers = made.step(0.1)
    assert {to for to, _ in answers} == {b"sound", b"picture"}
    (move,) = {answer for _, answer in answers}
    assert isinstance(move, Placed)
    assert move.worker != first.worker


def test_workers_hear_of_relays_and_of_each_new_one() -> None:
    _, take = directory()
    assert take(b"w", beat("w1")) == []
    take(b"r1", RelayBeat("r1", 1, "tcp://h:1", "tcp://h:2"))
    assert take(b"w", beat("w1")) == [(b"w", Relays(("tcp://h:1",)))]
    assert take(b"w", beat("w1")) == []
    take(b"r2", RelayBeat("r2", 2, "tcp://h:3", "tcp://h:4"))
    assert take(b"w", beat("w1")) == [(b"w", Relays(("tcp://h:1", "tcp://h:3")))]


def test_status_has_the_shape_that_scripts_read() -> None:
    made, take = directory()
    take(b"w", beat("w1"))
    take(b"r", RelayBeat("r1", 11, "tcp://h:1", "tcp://h:2"))
    take(b"h", HostBeat("a", 12))
    take(b"c", Place("s", "source", "o"))
    ((_, report),) = take(b"op", Ask("status"), 1.0)
    assert isinstance(report, Report)
    assert report.values["workers"] == [
        {
            "name": "w1",
            "host": "a",
            "pid": 7,
            "state": "ready",
            "control": "tcp://127.0.0.1:2",
            "streams": ["s"],
        }
    ]
    assert report.values["relays"] == [{"endpoint": "tcp://h:2", "pid": 11}]
    assert report.values["directory"]["hosts"] == [{"name": "a", "pid": 12}]
    assert made.status(10.0)["workers"][0]["state"] == "silent"


def test_an_upgrade_goes_to_the_hosts_and_the_old_worker_is_ended_once_it_is_empty() -> None:
    made, take = directory()
    take(b"w", beat("w1"))
    take(b"c", Place("s", "source", "o"))
    assert isinstance(take(b"op", Ask("upgrade", bundle="new"))[0][1], Rejected)
    take(b"h", HostBeat("a", 12))
    answers = dict(take(b"op", Ask("upgrade", bundle="new")))
    assert answers[b"h"] == Upgrade("new", 2)
    take(b"v", beat("w1-g2", generation=2, model="0" * 64, pid=8))
    steps = made.step(0.1) + made.step(0.2) + made.step(0.3)
    assert [m.worker for _, m in steps if isinstance(m, Placed)] == ["w1-g2"]
    assert [answer for to, answer in steps if to == b"h"] == [Retire("w1")]


def test_a_host_that_comes_after_an_upgrade_is_told_of_it_once() -> None:
    _, take = directory()
    assert take(b"a", HostBeat("a", 1, "old", 1)) == []
    take(b"op", Ask("upgrade", bundle="new"))
    assert take(b"a", HostBeat("a", 1, "new", 2)) == []
    assert take(b"b", HostBeat("b", 2, "old", 1)) == [(b"b", Upgrade("new", 2))]
    assert take(b"b", HostBeat("b", 2, "old", 1)) == []
    assert take(b"c", HostBeat("c", 3)) == []  # an older version, which would start at every beat
    assert take(b"A", HostBeat("a", 4, "old", 1), 1.5) == [(b"A", Upgrade("new", 2))]
    # A directory that was started again learns of it from the hosts that had it.
    _, take = directory()
    assert take(b"a", HostBeat("a", 1, "new", 2)) == []
    assert take(b"b", HostBeat("b", 2, "old", 1)) == [(b"b", Upgrade("new", 2))]


def test_a_failed_upgrade_can_be_tried_again() -> None:
    _, take = directory()
    take(b"a", HostBeat("a", 1, "old", 1))
    take(b"w", beat("w1"))
    for _ in range(2):
        answers = take(b"op", Ask("upgrade", bundle="new"))
        assert answers[0] == (b"a", Upgrade("new", 2))
        assert take(b"a", HostBeat("a", 1, "old", 1)) == []  # its workers could not start


def test_a_second_host_of_a_name_is_refused_while_the_first_is_heard() -> None:
    made, take = directory()
    assert take(b"h", HostBeat("a", 12)) == []
    ((to, answer),) = take(b"g", HostBeat("a", 13), 0.9)
    assert to == b"g"
    assert isinstance(answer, Rejected)
    assert answer.reason == "host 'a' is process 12 already; process 13 needs another name"
    assert take(b"h", HostBeat("a", 12), 0.9) == []
    assert take(b"g", HostBeat("a", 13), 1.95) == []  # the first one is gone: this is its successor
    assert made.status(2.0)["directory"]["hosts"] == [{"name": "a", "pid": 13}]


def test_a_drain_outlives_the_directory_and_the_worker_until_it_is_ended() -> None:
    made, take = directory()
    for name in ("w1", "w2"):
        take(name.encode(), beat(name))
    take(b"h", HostBeat("a", 12))
    take(b"op", Ask("drain", worker="w1"))
    assert take(b"w1", beat("w1")) == [(b"w1", Drain())]
    assert take(b"w2", beat("w2")) == take(b"w1", beat("w1", draining=True)) == []
    take(b"w1", beat("w1", incarnation=2), 2.0)
    assert made.status(2.0)["workers"][0]["state"] == "draining"
    successor, take = directory()
    take(b"w1", beat("w1", draining=True))
    take(b"h", HostBeat("a", 12))
    assert successor.status(0.0)["workers"][0]["state"] == "draining"
    assert successor.step(0.1) == [(b"h", Retire("w1"))]
    take(b"w1", beat("w1", incarnation=3, pid=9), 2.0)
    assert successor.status(2.0)["workers"][0]["state"] == "ready"


def test_a_stream_that_ended_is_released_by_its_worker() -> None:
    made, take = directory()
    take(b"w", beat("w1"))
    ((_, slot),) = take(b"c", Place("s", "source", "o"))
    assert isinstance(slot, Placed)
    take(b"c", Leave("s", "source", "o"), 1.0)
    assert made.step(4.0) == [(b"w", Release("s", slot.epoch))]


def test_with_curve_a_capture_waits_until_the_worker_lets_its_key_in() -> None:
    made, take = directory(pool="pool")
    take(b"w", beat("w1"), key="pool")
    ((to, admit),) = take(b"c", Place("s", "source", "o"), key="client")
    assert to == b"w"
    assert isinstance(admit, Admit)
    assert admit.key == "client"
    ((to, slot),) = take(b"w", Admitted("s", admit.epoch), key="pool")
    assert to == b"c"
    assert isinstance(slot, Placed)
    assert made.step(1.0) == []


def test_a_beat_from_a_stranger_is_told_and_counted() -> None:
    made, take = directory(pool="pool")
    ((_, answer),) = take(b"x", beat("w1"), key="client")
    assert isinstance(answer, Rejected)
    assert made.counters["beats_of_strangers"] == 1
    assert made.status(0.0)["workers"] == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x81\xa4kind\xa5xyzzy",
        pack(Claim("s", "d", "o", 1, "w")) + b"\x00",
        pack(beat("w" * 65)),
        pack(beat("w", ingest="udp://h:1")),
        pack(beat("w", streams={"s": Held(1, -2, 0)})),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5_000,
        b"\x00" * (512 * 1024 + 1),
    ],
)
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError, match="membership"):
        unpack_inbound(frame)


def ask(link: DirectoryLink, message: Inbound) -> Outbound:
    """Ask until there is an answer.

    What was sent to a directory that had just died is lost, and what another connection has
    brought before may be read after.
    """
    for _ in range(10):
        with suppress(WireError):
            answer = link.ask(message, 3_000)
            if not isinstance(answer, Refused):
                return answer
        time.sleep(0.1)
    raise AssertionError("no answer")


def test_a_killed_directory_comes_back_and_learns_what_it_knew(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/directory"
    spawn = multiprocessing.get_context("spawn")
    stop = tmp_path / "stop"  # a process killed while it reads an Event would leave it locked

    def start() -> multiprocessing.process.BaseProcess:
        process = spawn.Process(target=run_directory, args=(endpoint, stop.exists), daemon=True)
        process.start()
        return process

    process = start()
    with DirectoryLink(endpoint) as worker, DirectoryLink(endpoint) as capture:
        assert isinstance(ask(worker, Ask("status")), Report)
        worker.send(beat("w1"))
        placed = ask(capture, Place("s", "source", "o"))
        assert isinstance(placed, Placed)
        process.kill()
        process.join()
        process = start()
        assert isinstance(ask(worker, Ask("status")), Report)
        worker.send(beat("w1", streams={"s": Held(placed.epoch, 500, 4)}))
        again = ask(capture, Place("s", "source", "o", placed.epoch))
        assert isinstance(again, Placed)
        assert (again.worker, again.epoch) == ("w1", placed.epoch)
        assert (again.t_end_ns, again.seq) == (500, 4)
        worker.raw.send(os.urandom(64))
        report = ask(capture, Ask("status"))
        assert isinstance(report, Report)
    stop.touch()
    process.join(20)
    assert process.exitcode == 0
