"""A browser's capture without the browser: consent, limits, clocks, and what reaches the wire."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq

from engine.capture.browser.device import MAX_FAULTS, SETTLE_PACKETS, RateLimit
from engine.capture.browser.hello import CaptureRefusedError, Hello
from engine.capture.browser.packets import PICTURE, SOUND
from engine.capture.browser.session import CaptureDesk, CaptureSession
from engine.wire.clock import now_ns
from engine.wire.ingest import IngestReceiver
from engine.wire.messages import Audio, Message, Status, Video
from tests.engine.capture.browser.test_packets import jpeg, packet
from tests.support.peers import eventually

MS, S = 1_000_000, 1_000_000_000
GREETING = {"stream": "laptop", "sound": True, "pictures": True, "consent": True}
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consent": False}, "consent"),
        ({"consent": None}, "expected stream"),
        ({"consent": 1}, "expected stream"),
        ({"stream": "a/b"}, "letters"),
        ({"stream": ""}, "letters"),
        ({"stream": 5}, "expected stream"),
        ({"sound": False, "pictures": False}, "neither"),
    ],
)
def test_a_greeting_that_is_not_in_order_is_refused(
    change: dict[str, object], message: str
) -> None:
    assert Hello.read(GREETING) == Hello("laptop", True, True, True)
    with pytest.raises(CaptureRefusedError, match=message):
        Hello.read(GREETING | change)


@pytest.mark.parametrize("values", [None, [], "x", 3, {}])
def test_a_greeting_of_another_shape_is_refused(values: object) -> None:
    with pytest.raises(CaptureRefusedError):
        Hello.read(values)


def test_a_rate_limit_lets_a_burst_and_then_the_rate_through() -> None:
    limit = RateLimit(10, 5)
    assert [limit.allows(1, 0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert sum(limit.allows(1, t * 50 * MS) for t in range(1, 41)) == 20
    assert not RateLimit(10, 5).allows(6, 0)


@pytest.fixture
def engine() -> Iterator[IngestReceiver]:
    with IngestReceiver("tcp://127.0.0.1:*") as receiver:
        yield receiver


def opened(engine: IngestReceiver) -> tuple[CaptureDesk, CaptureSession]:
    desk = CaptureDesk(engine.endpoint)
    session = desk.open(GREETING, lambda: NOBODY)
    assert session._sender.raw.poll(5000, zmq.POLLOUT)
    return desk, session


def receive(engine: IngestReceiver, count: int) -> list[Message]:
    found: list[Message] = []
    end = time.monotonic() + 10
    while len(found) < count and time.monotonic() < end:
        engine.raw.poll(100)
        found += engine.receive_all()
    return found


def tone(seconds: float) -> np.ndarray:
    t = np.arange(int(16_000 * seconds)) / 16_000
    return (8000 * np.sin(2 * np.pi * 220 * t)).astype(np.int16)


def test_sound_reaches_the_wire_as_a_microphones_does(engine: IngestReceiver) -> None:
    _desk, session = opened(engine)
    session.start()
    samples, start = tone(1.5), now_ns()
    for i in range(30):
        chunk = samples[800 * i : 800 * (i + 1)].tobytes()
        session.push(packet(SOUND, chunk, 1000.0 + 50 * i), start + 50 * i * MS)
    session.close()
    messages = receive(engine, 2 + 30 - SETTLE_PACKETS)
    sound = [m for m in messages if isinstance(m, Audio)]
    assert np.concatenate([m.samples for m in sound]).tolist() == (
        samples[800 * SETTLE_PACKETS :].tolist()
    )
    assert [m.envelope.seq for m in sound] == list(range(30 - SETTLE_PACKETS))
    assert {m.envelope.stream for m in sound} == {"laptop"}
    assert sound[-1].envelope.t_end_ns == start + 29 * 50 * MS
    states = [m.state for m in messages if isinstance(m, Status)]
    assert states == ["running", "ended"]
    assert not engine.rejected


def test_pictures_reach_the_wire_without_the_picture(engine: IngestReceiver) -> None:
    _desk, session = opened(engine)

    session.start()
    session.push(packet(PICTURE, jpeg(), 5.0), now_ns())
    eventually(lambda: session.device.counters["pictures"] == 1, "a picture was read")
    session.close()
    (video,) = [m for m in receive(engine, 3) if isinstance(m, Video)]
    assert (video.faces, video.crop) == (0, None)
    assert video.envelope.t_end_ns - video.envelope.t_start_ns == 100 * MS


def test_malformed_packets_are_counted_and_at_last_refused(engine: IngestReceiver) -> None:
    _desk, session = opened(engine)
    for _ in range(MAX_FAULTS - 1):
        session.push(b"nonsense", now_ns())
    assert session.report()["refused"] == MAX_FAULTS - 1
    with pytest.raises(CaptureRefusedError, match="malformed"):
        session.push(b"nonsense", now_ns())
    session.close()


def test_a_flood_is_cut_to_the_rate(engine: IngestReceiver) -> None:
    _desk, session = opened(engine)
    now = now_ns()
    for i in range(200):
        session.push(packet(SOUND, tone(0.05).tobytes(), 1000.0 + 50 * i), now)
        session.push(packet(PICTURE, jpeg(64, 64), 1000.0 + 50 * i), now)
    assert session.device.counters["over_rate"] == (200 - 40) + (200 - 15)
    session.close()


def test_a_packet_of_a_kind_that_was_not_agreed_to_is_dropped(engine: IngestReceiver) -> None:
    desk = CaptureDesk(engine.endpoint)
    hello = GREETING | {"pictures": False}
    session = desk.open(hello, lambda: NOBODY)
    session.push(packet(PICTURE, jpeg(), 5.0), now_ns())
    assert session.device.counters["over_rate"] == 1
    assert session.device._picture is None
    session.close()


def test_names_and_sessions_are_limited(engine: IngestReceiver) -> None:
    desk = CaptureDesk(engine.endpoint, limit=2)
    first = desk.open(GREETING, lambda: NOBODY)
    with pytest.raises(CaptureRefusedError, match="running"):
        desk.open(GREETING, lambda: NOBODY)
    with pytest.raises(CaptureRefusedError, match="running"):
        desk.open(GREETING | {"stream": "cam"}, lambda: frozenset({"cam"}))
    second = desk.open(GREETING | {"stream": "two"}, lambda: NOBODY)
    with pytest.raises(CaptureRefusedError, match="2 browsers"):
        desk.open(GREETING | {"stream": "three"}, lambda: NOBODY)
    first.close()
    # The engine still scores what it had of it; the name may be taken up again.
    again = desk.open(GREETING, lambda: frozenset({"laptop"}))
    again.close()
    second.close()
