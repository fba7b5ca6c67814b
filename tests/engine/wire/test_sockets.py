"""Sockets: drops are counted, hostile messages too, a lost reply does not stick."""

import threading
import time
from typing import Any

import msgpack
import pytest
import zmq
from msgspec.structs import replace

from engine.wire.clock import now_ns, this_clock
from engine.wire.codec import encode
from engine.wire.control import ControlClient, ControlServer, parse
from engine.wire.fields import WireError
from engine.wire.ingest import INGEST_QUEUE, IngestReceiver, IngestSender
from engine.wire.messages import Clock
from engine.wire.scores import ScorePublisher, ScoreReceiver
from tests.support.publisher import score, status


def wait_for(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_without_a_worker_messages_are_dropped_and_counted() -> None:
    with IngestSender("tcp://127.0.0.1:9") as sender:
        assert not sender.send(score("a", 0))
        assert (sender.sent, sender.dropped) == (0, 1)


def test_a_slow_worker_costs_messages_and_no_time() -> None:
    with (
        IngestReceiver("tcp://127.0.0.1:*") as receiver,
        IngestSender(receiver.endpoint) as sender,
    ):
        wait_for(lambda: sender.send(score("a", 0)))
        big = 40 * INGEST_QUEUE
        for number in range(big):
            sender.send(score("a", number))
        assert sender.dropped > 0
        received = receiver.receive_all(2 * big)
        assert 0 < len(received) <= sender.sent


def test_hostile_messages_are_counted_by_kind_and_honest_ones_go_on() -> None:
    with (
        IngestReceiver("tcp://127.0.0.1:*") as receiver,
        IngestSender(receiver.endpoint) as sender,
    ):
        raw = zmq.Context.instance().socket(zmq.PUSH)
        raw.setsockopt(zmq.LINGER, 0)
        raw.connect(receiver.endpoint)
        for frames in ([b"x"], [b""] * 9, [b"audio/a/", b"\xc1"], [b"a/", bytes(100_000)]):
            raw.send_multipart(frames)
        wait_for(lambda: not receiver.receive_all() and sum(receiver.rejected.values()) == 4)
        assert set(receiver.rejected) == {"frames", "header"}
        wait_for(lambda: sender.send(score("a", 1)))
        honest: list[Any] = []
        wait_for(lambda: honest.extend(receiver.receive_all()) or honest)
        raw.close()


def test_an_oversized_frame_is_counted_and_a_huge_one_never_reaches_the_program() -> None:
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        raw = zmq.Context.instance().socket(zmq.PUSH)
        raw.setsockopt(zmq.LINGER, 0)
        raw.connect(receiver.endpoint)
        raw.send_multipart([b"video/a/", b"\x80", bytes(3_000_000)])
        wait_for(lambda: not receiver.receive_all() and receiver.rejected["buffer"] == 1)
        raw.send_multipart([b"video/a/", b"\x80", bytes(30_000_000)])
        time.sleep(0.5)
        assert receiver.receive_all() == []
        raw.close()


def test_a_strangers_names_do_not_grow_the_counters() -> None:
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        raw = zmq.Context.instance().socket(zmq.PUSH)
        raw.setsockopt(zmq.LINGER, 0)
        raw.connect(receiver.endpoint)
        for number in range(50):
            frames = encode(status())
            header = msgpack.unpackb(frames[1])
            header["counters"] = {f"made_up_{number}": -1}
            raw.send_multipart([frames[0], msgpack.packb(header)])
        wait_for(lambda: not receiver.receive_all() and sum(receiver.rejected.values()) == 50)
        assert set(receiver.rejected) == {"header.counters"}
        raw.close()


def test_an_occupied_port_is_one_clear_line() -> None:
    with ScorePublisher("tcp://127.0.0.1:*") as publisher:
        endpoint = publisher.endpoint
        with pytest.raises(WireError, match=f"cannot listen on {endpoint}: in use"):
            IngestReceiver(endpoint)


def test_a_control_request_gets_its_reply_or_the_reason() -> None:
    with ControlServer("tcp://127.0.0.1:*") as server:
        raw = zmq.Context.instance().socket(zmq.REQ)
        raw.setsockopt(zmq.LINGER, 0)
        raw.connect(server.endpoint)

        def ask(frame: bytes) -> Any:
            raw.send(frame)
            assert server.raw.poll(5000)
            server.serve(lambda values: {"command": parse(values).command})
            return msgpack.unpackb(raw.recv())

        assert ask(msgpack.packb({"command": "ping"})) == {"ok": True, "command": "ping"}
        assert ask(b"\xc1")["error"].startswith("request: not msgpack")
        raw.send_multipart([b"one", b"two"])
        assert server.raw.poll(5000)
        server.serve(lambda values: {})
        assert "expected one frame, got 2" in msgpack.unpackb(raw.recv())["error"]
        assert "expected one of describe" in ask(msgpack.packb({"command": "rm"}))["error"]
        assert "request.label" in ask(msgpack.packb({"command": "mark", "label": "\n"}))["error"]
        raw.close()


def test_the_socket_stamps_the_sending_of_our_own_clocks_messages() -> None:
    far = replace(score("b", 0).envelope, clock=Clock("far", "boot-9"), t_sent_ns=7)
    with (
        ScorePublisher("tcp://127.0.0.1:*") as publisher,
        ScoreReceiver(publisher.endpoint) as receiver,
    ):
        wait_for(lambda: publisher.greet() > 0)
        old = score("a", 0)
        publisher.publish(replace(old, envelope=replace(old.envelope, t_sent_ns=5)))
        publisher.publish(replace(old, envelope=far))
        before_ns = now_ns()
        found: list[Any] = []
        wait_for(lambda: found.extend(receiver.receive_all()) or len(found) == 2)
    ours, theirs = (message.envelope.t_sent_ns for message in found)
    assert before_ns - 10**10 < ours <= before_ns
    assert theirs == 7


def test_a_client_measures_a_workers_clock_and_publishes_the_offset() -> None:
    ahead_ns, told = 5 * 10**12, []

    def answer(values: Any) -> dict[str, Any]:
        request = parse(values)
        if request.command == "ping":
            return {"t_ns": now_ns() + ahead_ns}
        told.append((request.clock, request.offset_ns))
        return {}

    with ControlServer("tcp://127.0.0.1:*") as server, ControlClient(server.endpoint) as client:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                server.serve(answer)
                time.sleep(0.001)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            offset_ns = client.request("ping")["t_ns"] - now_ns()
            clock = this_clock()
            named = {"host": clock.host, "boot_id": clock.boot_id}
            client.request("clock", clock=named, offset_ns=offset_ns)
        finally:
            over.set()
            serving.join()
    assert told == [(this_clock(), offset_ns)]
    assert offset_ns == pytest.approx(ahead_ns, abs=10**9)


def test_a_lost_reply_does_not_stick() -> None:
    with ControlServer("tcp://127.0.0.1:*") as server:
        client = ControlClient(server.endpoint, timeout_ms=200)
        for _ in range(2):
            with pytest.raises(WireError, match=r"no reply from .* is an engine running"):
                client.request("ping")
        client.close()


def test_however_many_subscribe_at_once_the_last_score_is_repeated_once() -> None:
    with ScorePublisher("tcp://127.0.0.1:*") as publisher:
        publisher.publish(score("a", 3))
        subscribers = [zmq.Context.instance().socket(zmq.SUB) for _ in range(20)]
        for subscriber in subscribers:
            subscriber.linger = 0
            subscriber.subscribe(b"score/")
            subscriber.connect(publisher.endpoint)
        greeted: list[int] = []
        time.sleep(0.5)  # most come in one batch; how many batches there are does not matter
        wait_for(lambda: greeted.append(publisher.greet()) or sum(greeted) == 20)
        publisher.publish(score("a", 4))
        batches = sum(count > 0 for count in greeted)
        for subscriber in subscribers:
            seqs = []
            while not seqs or seqs[-1] != 4:
                assert subscriber.poll(5000)
                header = msgpack.unpackb(subscriber.recv_multipart()[1])
                assert header["repeated"] == (header["seq"] == 3)
                seqs.append(header["seq"])
            assert 2 <= len(seqs) <= batches + 1
            subscriber.close()
