from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from engine.cluster.relay import run_relay
from engine.wire.codec import encode
from engine.wire.link import DirectorySocket
from engine.wire.membership import RelayBeat
from engine.wire.messages import Score, Status
from engine.wire.scores import ScorePublisher, ScoreReceiver
from tests.support.scores import make_score, make_status

pytestmark = pytest.mark.slow

PATIENCE_S = 20.0


@pytest.fixture
def addresses(tmp_path: Path) -> dict[str, str]:
    return {name: f"ipc://{tmp_path}/{name}" for name in ("intake", "scores", "directory")}


@contextmanager
def relay(addresses: dict[str, str], stop: Path) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(
        target=run_relay,
        args=("r1", addresses["intake"], addresses["scores"], addresses["directory"], stop.exists),
        daemon=True,
    )
    process.start()
    try:
        yield
    finally:
        stop.touch()
        process.join(PATIENCE_S)
        assert process.exitcode == 0


def connected(publisher: ScorePublisher) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not publisher.greet():
        assert time.monotonic() < end_s
        publisher.raw.poll(50)


def next_score(receiver: ScoreReceiver) -> Score:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        message = receiver.receive(100)
        if isinstance(message, Score):
            return message
    raise AssertionError("no score came")


def test_every_workers_scores_reach_every_client_and_a_late_one_gets_the_last(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    with (
        relay(addresses, tmp_path / "stop"),
        ScorePublisher() as one,
        ScorePublisher() as two,
        DirectorySocket(addresses["directory"]) as directory,
    ):
        for publisher in (one, two):
            publisher.connect([addresses["intake"]])
            connected(publisher)
        one.publish(make_score("a", 3))
        two.publish(make_score("b", 4))
        with ScoreReceiver(addresses["scores"]) as late:
            found = {next_score(late).envelope.stream for _ in range(2)}
            assert found == {"a", "b"}
            # A stream's status and score travel on, what is neither does not.
            two.raw.send_multipart([b"score/b/", b"x", b"a third frame"])
            two.raw.send_multipart([b"other/", b"x"])
            two.publish(make_status("w2"))
            told = late.receive(int(PATIENCE_S * 1000))
            while isinstance(told, Score):  # a last score may be repeated meanwhile
                told = late.receive(int(PATIENCE_S * 1000))
            assert isinstance(told, Status)
            assert told.envelope.stream == "w2"
            assert late.rejected == 0
        directory.raw.poll(int(PATIENCE_S * 1000))
        messages = directory.receive_all()
        (beat,) = {received.message for received in messages}
        assert isinstance(beat, RelayBeat)
        assert (beat.relay, beat.scores) == ("r1", addresses["scores"])


def test_a_relay_passes_on_what_it_got_byte_by_byte(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    frames = encode(make_score("a", 7))
    with relay(addresses, tmp_path / "stop"), ScorePublisher() as worker:
        worker.connect([addresses["intake"]])
        connected(worker)
        with zmq.Context.instance().socket(zmq.SUB) as client:
            client.linger = 0
            client.subscribe(b"score/")
            client.connect(addresses["scores"])
            # A client that comes later gets a repetition, which says so: be there first.
            end_s = time.monotonic() + PATIENCE_S
            while not client.poll(100):
                assert time.monotonic() < end_s
                worker.publish(make_score("before"))
            worker.forward(frames)
            passed: list[bytes] = []
            while passed[:1] != [bytes(frames[0])]:
                assert client.poll(int(PATIENCE_S * 1000))
                passed = client.recv_multipart()
            assert passed == [bytes(frame) for frame in frames]
