"""Peers that flood, or never finish a message: cut by their bytes, while honest ones are served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psutil
import pytest

from engine.cluster.relay import ScoreIntake
from engine.wire.control import ControlClient, ControlServer
from engine.wire.ingest import IngestReceiver, IngestSender
from engine.wire.link import DirectoryLink, DirectorySocket
from engine.wire.membership import Ask, pack
from engine.wire.peers import MAX_MALFORMED
from engine.wire.scores import ScorePublisher, ScoreReceiver
from engine.wire.sockets import MAX_REQUEST
from tests.support.publisher import score
from tests.support.strangers import MORE, Stranger, frame

MB = 1024 * 1024


def wait_for(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end_s, "did not happen within 15 s"
        time.sleep(0.02)


@contextmanager
def pouring(stranger: Stranger, data: bytes, seconds: float = 20) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=stranger.pour, args=(data, seconds), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stranger.close()
        thread.join()


def memory_mb() -> float:
    return psutil.Process().memory_info().rss / MB


def test_a_message_of_endless_parts_is_cut_before_it_fills_the_memory() -> None:
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        before_mb = memory_mb()
        with (
            Stranger(receiver.endpoint, "PUSH") as stranger,
            pouring(stranger, frame(bytes(MB // 2), MORE)),
        ):
            wait_for(lambda: receiver.receive_all() or receiver.cut)
            assert stranger.is_cut()
        wait_for(lambda: memory_mb() < before_mb + 100)


@pytest.mark.slow
def test_a_flood_of_subscriptions_is_cut_and_an_honest_subscriber_is_served() -> None:
    with (
        ScorePublisher("tcp://127.0.0.1:*") as publisher,
        ScoreReceiver(publisher.endpoint) as honest,
        Stranger(publisher.endpoint, "SUB") as stranger,
    ):
        wait_for(publisher.greet)
        heap = b"".join(frame(b"\x01" + b"%d/" % number) for number in range(50_000))
        with pouring(stranger, heap):
            wait_for(lambda: publisher.greet() < 0 or publisher.cut)
            # What it sent is read to its end before it sees the cut: many steps for each look.
            wait_for(lambda: max(publisher.greet() for _ in range(40)) < 0 or stranger.is_cut(0.05))
        assert honest.rejected == 0


def test_a_flood_of_letters_to_the_directory_is_cut_and_an_honest_one_is_answered() -> None:
    received = frame(pack(Ask("status" + 900 * "x")))
    with (
        DirectorySocket("tcp://127.0.0.1:*") as directory,
        DirectoryLink(directory.endpoint) as honest,
        Stranger(directory.endpoint, "DEALER") as stranger,
        pouring(stranger, received * 1000),
    ):
        wait_for(lambda: directory.receive_all() and directory.cut)
        assert stranger.is_cut()
        wait_for(lambda: honest.send(Ask("status")))
        wait_for(lambda: Ask("status") in [one.message for one in directory.receive_all()])


def test_whoever_sends_the_directory_what_is_no_letter_is_cut() -> None:
    with (
        DirectorySocket("tcp://127.0.0.1:*") as directory,
        Stranger(directory.endpoint, "DEALER") as stranger,
        pouring(stranger, frame(b"\xc1") * 1000),
    ):
        wait_for(lambda: directory.receive_all() or directory.cut)
        assert directory.rejected["messages_malformed"] >= MAX_MALFORMED


def test_endless_parts_at_a_relays_intake_are_cut() -> None:
    with ScoreIntake("tcp://127.0.0.1:*") as intake:
        with (
            Stranger(intake.endpoint, "PUB") as stranger,
            pouring(stranger, frame(bytes(MB // 2), MORE)),
        ):
            wait_for(lambda: intake.receive_all() or intake.cut)
            assert stranger.is_cut()
        with ScorePublisher() as worker:
            worker.connect([intake.endpoint])
            wait_for(lambda: not intake.receive_all() and worker.greet())
            worker.publish(score("a", 1))
            wait_for(intake.receive_all)


def test_a_flooder_that_is_not_read_and_breaks_off_ends_nobody() -> None:
    """Subscribed and unsubscribed without end: ZeroMQ stops reading, then the link breaks."""
    with ScorePublisher("tcp://127.0.0.1:*") as publisher:
        publisher.publish(score("a", 1))
        for _ in range(3):
            with Stranger(publisher.endpoint, "SUB") as stranger:
                stranger.pour((frame(b"\x01score/") + frame(b"\x00score/")) * 1000, 0.5)
            wait_for(lambda: publisher.greet() >= 0)
        with ScoreReceiver(publisher.endpoint) as honest:
            wait_for(lambda: publisher.greet() < 0 or honest.receive_all())


@pytest.mark.parametrize("size", [MAX_REQUEST + 1, 8 * MB])
def test_too_long_a_subscription_ends_its_connection(size: int) -> None:
    with (
        ScorePublisher("tcp://127.0.0.1:*") as publisher,
        Stranger(publisher.endpoint, "SUB") as stranger,
        pouring(stranger, frame(b"\x01" + bytes(size))) as thread,
    ):
        wait_for(lambda: publisher.greet() < 0 or not thread.is_alive())


def test_a_flood_of_requests_is_answered_in_turns_with_honest_ones() -> None:
    with ControlServer("tcp://127.0.0.1:*") as server:
        answered = []
        over = threading.Event()

        def ask() -> None:
            with ControlClient(server.endpoint, timeout_ms=5000) as client:
                answered.append(client.request("ping"))
            over.set()

        request = frame(b"", MORE) + frame(b"\x81\xa7command\xa4ping")
        with (
            Stranger(server.endpoint, "REQ") as stranger,
            pouring(stranger, request * 1000),
        ):
            asking = threading.Thread(target=ask)
            asking.start()
            steps = []
            wait_for(lambda: steps.append(server.serve(lambda values: {})) or over.is_set())
            asking.join()
        assert answered == [{}]
        assert max(steps) <= 32


def test_a_sender_of_malformed_messages_is_cut_and_an_honest_one_is_not() -> None:
    with (
        IngestReceiver("tcp://127.0.0.1:*") as receiver,
        IngestSender(receiver.endpoint),
        Stranger(receiver.endpoint, "PUSH") as stranger,
    ):
        with pouring(stranger, frame(b"noise") * 1000):
            wait_for(lambda: receiver.receive_all() or receiver.cut)
            assert stranger.is_cut()
        assert receiver.cut == 1
        assert sum(receiver.rejected.values()) >= MAX_MALFORMED


def test_a_new_connection_does_not_pay_for_the_malformed_messages_of_one_that_left() -> None:
    some = MAX_MALFORMED * 3 // 4
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:

        def has_refused(number: int) -> bool:
            receiver.receive_all()
            return sum(receiver.rejected.values()) >= number

        for peers in range(1, 4):  # the system gives each one the descriptor of the one before
            with Stranger(receiver.endpoint, "PUSH") as stranger:
                stranger.socket.sendall(frame(b"noise") * some)
                wait_for(partial(has_refused, peers * some))
            time.sleep(0.3)  # the connection's end is seen within one look of the watch
        assert receiver.cut == 0
