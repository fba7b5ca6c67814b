"""The worker as a process of its own, over real sockets."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from msgspec.structs import replace

from engine.inference.worker import run_inference
from engine.settings import EngineSettings
from engine.wire.clock import this_clock
from engine.wire.control import ControlClient
from engine.wire.fields import WireError
from engine.wire.ingest import IngestSender
from engine.wire.messages import Audio, Envelope, Score, Status, Video
from engine.wire.scores import ScoreReceiver

pytestmark = pytest.mark.slow

SPAWN = multiprocessing.get_context("spawn")
MS = 1_000_000
rng = np.random.default_rng(11)


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def settings() -> EngineSettings:
    return EngineSettings(ingest=free_endpoint(), scores=free_endpoint(), control=free_endpoint())


@pytest.fixture
def worker(settings: EngineSettings) -> Iterator[multiprocessing.process.BaseProcess]:
    stop = SPAWN.Event()
    process = SPAWN.Process(target=run_inference, args=(settings, stop))
    process.start()
    yield process
    stop.set()
    process.join(30)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive
    assert process.exitcode == 0


def wait_for(receiver: ScoreReceiver, wanted, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = receiver.receive(200)
        if message is not None and wanted(message):
            return message
    raise AssertionError("the message did not come")


def is_ready(message) -> bool:
    return isinstance(message, Status) and message.state in ("ready", "running")


class Person:
    """Sends a voice (noise, flagged as speech) and a face (noise) as they would be captured."""

    def __init__(self, endpoint: str, stream: str) -> None:
        self.sender = IngestSender(endpoint)
        self.sender.raw.poll(5_000, zmq.POLLOUT)
        self.stream = stream
        self.clock = this_clock()
        self.start_ns = time.monotonic_ns()
        self.audio = self.video = 0

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *error: object) -> None:
        self.sender.close()

    def envelope(self, seq: int, period_ms: int) -> Envelope:
        start = self.start_ns + seq * period_ms * MS
        return Envelope(
            self.stream, seq, start, start + period_ms * MS, time.monotonic_ns(), self.clock
        )

    def talk(self, seconds: float) -> None:
        end = time.monotonic_ns() + int(seconds * 1e9)
        while (now := time.monotonic_ns()) < end:
            while self.start_ns + (self.audio + 1) * 40 * MS <= now:
                samples = rng.integers(-3_000, 3_000, 640).astype(np.int16)
                chunk = Audio(self.envelope(self.audio, 40), samples, (True, True), 20, -20.0)
                self.sender.send(chunk)
                self.audio += 1
            while self.start_ns + (self.video + 1) * 100 * MS <= now:
                crop = rng.integers(0, 255, (112, 112, 3)).astype(np.uint8)
                self.sender.send(Video(self.envelope(self.video, 100), 1, crop))
                self.video += 1
            time.sleep(0.005)


def test_scores_come_and_control_is_obeyed(settings: EngineSettings, worker) -> None:
    with (
        ScoreReceiver(settings.scores) as receiver,
        ControlClient(settings.control) as control,
        Person(settings.ingest, "ann") as person,
    ):
        assert "on onnx:" in wait_for(receiver, is_ready).detail
        person.start_ns = time.monotonic_ns()
        person.talk(0.3)
        assert control.request("mark", label="begin")["streams"] == 1
        person.talk(1.0)
        first = wait_for(receiver, lambda message: isinstance(message, Score))
        assert (first.envelope.stream, first.envelope.seq) == ("ann", 0)
        assert first.mark == "begin"
        assert first.audio.present
        assert first.video.present
        assert first.text_source == "none"  # noise has no words
        assert first.interval.low <= first.valence <= first.interval.high
        assert first.envelope.t_sent_ns >= first.envelope.t_end_ns
        described = control.request("describe")
        assert described["streams"] == ["ann"]
        assert described["state"] == "running"
        assert described["model"]["sha256"] == first.model.sha256
        before = time.monotonic_ns()
        assert before <= control.request("ping")["t_ns"] <= time.monotonic_ns()
        assert control.request("pause")["state"] == "paused"
        person.talk(0.7)
        assert control.request("resume")["state"] == "ready"
        for command, arguments in (("mark", {}), ("dance", {}), ("mark", {"label": 3})):
            with pytest.raises(WireError, match=f"{command}: "):
                control.request(command, **arguments)
        with pytest.raises(WireError, match="no stream 'bob'"):
            control.request("mark", label="x", stream="bob")
        with ScoreReceiver(settings.scores, streams=["ann"]) as late:
            assert wait_for(late, lambda message: isinstance(message, Score))


def test_hostile_messages_are_counted_and_the_streams_go_on(
    settings: EngineSettings, worker
) -> None:
    with (
        ScoreReceiver(settings.scores) as receiver,
        IngestSender(settings.ingest) as stranger,
        Person(settings.ingest, "ann") as person,
    ):
        wait_for(receiver, is_ready)
        stranger.raw.poll(5_000, zmq.POLLOUT)
        for frames in ([b"x"], [b"audio/a/", b"\xc1"], [b"a"] * 7, [b"", b"\x80", b""]):
            stranger.raw.send_multipart(frames)
        person.start_ns = time.monotonic_ns()
        crazy = person.envelope(0, 40)
        samples = np.zeros(640, np.int16)
        for start, stop, sent in ((2**62, 2**63 - 1, 2**63 - 1), (0, 40 * MS, 0)):
            envelope = replace(crazy, stream="mad", t_start_ns=start, t_end_ns=stop, t_sent_ns=sent)
            stranger.send(Audio(envelope, samples, (True, True), 20, -20.0))
        person.talk(1.6)
        score = wait_for(receiver, lambda message: isinstance(message, Score))
        assert score.envelope.stream == "ann"
        status = wait_for(
            receiver, lambda m: isinstance(m, Status) and m.counters.get("scores", 0) > 0
        )
        assert status.counters["messages_malformed"] >= 4
        assert status.gauges["memory_mb"] > 0


def test_an_endpoint_in_use_is_a_clear_error(settings: EngineSettings) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as other:
        other.bind(settings.ingest)
        stop = multiprocessing.Event()
        with pytest.raises(WireError, match="in use"):
            run_inference(settings, stop)
