"""A network camera: MJPEG over HTTP on loopback, cut off and back again."""

import threading
from pathlib import Path

import pytest

from engine.capture.clip import SAMPLE_CLIP
from engine.capture.worker import run_capture
from engine.settings import EngineSettings, StreamSettings, load
from engine.wire.ingest import IngestReceiver
from engine.wire.messages import Message, Status, Video
from tests.support.devices import mjpeg_camera, receive_until

pytestmark = pytest.mark.slow


def crops(messages: list[Message]) -> int:
    return sum(isinstance(m, Video) and m.has_face for m in messages)


def state(messages: list[Message], wanted: str) -> bool:
    return any(isinstance(m, Status) and m.state == wanted for m in messages)


def settings(ingest: str) -> EngineSettings:
    limits = {"stall_timeout_ms": 1000, "open_timeout_ms": 2000}
    return load(ingest=ingest, capture=limits)


def test_a_camera_that_goes_and_comes_back() -> None:
    stop = threading.Event()
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        with mjpeg_camera(SAMPLE_CLIP) as port:
            stream = StreamSettings(name="main", camera=f"http://127.0.0.1:{port}/video")
            worker = threading.Thread(
                target=run_capture, args=(stream, "camera", settings(receiver.endpoint), stop)
            )
            worker.start()
            first = receive_until(receiver, lambda got: crops(got) >= 8)
        assert state(first, "running")
        pictures = [m for m in first if isinstance(m, Video)]
        ends = [m.envelope.t_end_ns for m in pictures]
        assert ends == sorted(ends)
        assert {m.track_id for m in pictures if m.has_face} == {0}
        gone = receive_until(receiver, lambda got: state(got, "reconnecting"))
        detail = next(m.detail for m in gone if isinstance(m, Status) and m.state == "reconnecting")
        assert "127.0.0.1" not in detail  # an address may hold a password
        with mjpeg_camera(SAMPLE_CLIP, port):
            back = receive_until(receiver, lambda got: state(got, "running") and crops(got) >= 3)
            numbers = [m.envelope.seq for m in back if isinstance(m, Video)]
            assert numbers[0] > pictures[-1].envelope.seq
        stop.set()
        worker.join(15)
        assert not worker.is_alive()


def test_a_file_given_as_a_camera_is_read_at_its_own_pace(tmp_path: Path) -> None:
    stop = threading.Event()
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        stream = StreamSettings(name="main", camera=str(SAMPLE_CLIP))
        worker = threading.Thread(
            target=run_capture, args=(stream, "camera", settings(receiver.endpoint), stop)
        )
        worker.start()
        found = receive_until(receiver, lambda got: crops(got) >= 20 or state(got, "reconnecting"))
        stop.set()
        worker.join(15)
    # Read as fast as it decodes, all 27 s are over after a few pictures.
    assert not state(found, "reconnecting")
    ends = [m.envelope.t_end_ns for m in found if isinstance(m, Video)]
    assert ends[-1] - ends[0] > 1e9
