"""The body of a capture process: its loop shows that it lives, and a lost device may come back."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from engine.capture import CaptureError
from engine.capture.device import DeviceLostError, Feed, Media
from engine.capture.worker import Outbox, Round, keep_open, run_capture
from engine.pulse import RUNNING, Pulse, PulseReader
from engine.settings import StreamSettings, load
from engine.wire.ingest import IngestReceiver, IngestSender
from engine.wire.messages import Status


def states(receiver: IngestReceiver, wanted: str, seconds: float = 20) -> list[Status]:
    """Status messages up to one with a state."""
    found: list[Status] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for message in receiver.receive_all():
            if isinstance(message, Status):
                found.append(message)
                if message.state == wanted:
                    return found
        time.sleep(0.05)
    raise AssertionError(f"no status {wanted!r}: {[status.state for status in found]}")


def test_an_unknown_camera_is_a_mistake_and_one_that_was_there_is_waited_for() -> None:
    stream = StreamSettings(name="s", camera="a camera of that name")
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        settings = load(ingest=receiver.endpoint)
        with pytest.raises(CaptureError, match="no camera 'a camera of that name'"):
            run_capture(stream, "camera", settings, threading.Event())
        stop = threading.Event()
        read, write = os.pipe()
        reader = PulseReader(read)
        capture = threading.Thread(
            target=run_capture, args=(stream, "camera", settings, stop, Pulse(write), True)
        )
        capture.start()
        try:
            lost = states(receiver, "reconnecting")[-1]
            assert "a camera of that name" in lost.detail
            beats = Counter(reader.read())
            end_s = time.monotonic() + 10
            while not beats[RUNNING[0]] and time.monotonic() < end_s:
                time.sleep(0.1)
                beats += Counter(reader.read())
            assert beats[RUNNING[0]]
        finally:
            stop.set()
            capture.join(20)
            reader.close()
            os.close(write)


def test_a_clip_that_cannot_be_read_is_a_mistake_that_names_it(tmp_path: Path) -> None:
    clip = tmp_path / "cut.mp4"
    clip.write_bytes(b"not a clip any more")
    stream = StreamSettings(name="s", source=str(clip))
    with (
        IngestReceiver("tcp://127.0.0.1:*") as receiver,
        pytest.raises(CaptureError, match=r"cut\.mp4"),
    ):
        run_capture(stream, "source", load(ingest=receiver.endpoint), threading.Event())


class ShakyDevice:
    """A device that is lost after each reading, three times, and then ends."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")
        if self.calls.count("open") == 2:
            raise CaptureError("no such device now")

    def read(self, timeout_s: float) -> list[Media] | None:
        self.calls.append("read")
        if self.calls.count("read") < 3:
            raise DeviceLostError("unplugged")
        return None

    def close(self) -> list[Media]:
        self.calls.append("close")
        return []


def test_the_loop_opens_a_lost_device_again_and_closes_it_each_time() -> None:
    device, pulse = ShakyDevice(), Pulse()
    with IngestReceiver("tcp://127.0.0.1:*") as receiver, IngestSender(receiver.endpoint) as sender:
        outbox = Outbox(sender, "s.camera", device.counters)
        keep_open(device, outbox, Round(threading.Event(), pulse, outbox), pulse, again=False)
        once = ["open", "read", "close"]
        assert device.calls == [*once, "open", "close", *once, *once]
        assert device.counters["lost"] == 3


def test_a_feed_that_ends_or_falls_silent_is_a_lost_device() -> None:
    feed = Feed[int]("sound from a test", stall_ms=200, size=1)
    assert feed.get(0.01) is None
    assert feed.put(1)
    assert not feed.put(2)
    assert feed.get(0.01) == 1
    assert feed.get(0.15) is None
    with pytest.raises(DeviceLostError, match=r"no sound from a test for 0\.2 s"):
        feed.get(0.15)
    feed.end()
    with pytest.raises(DeviceLostError, match="no more sound"):
        feed.get(0.01)
